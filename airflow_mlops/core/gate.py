"""The gate: rules and evidence in, a verdict and its reasons out.

Read from the top, the first line that fits is the verdict:

=================================================  ==================
The champion could not be measured                 ``needs_attention``
A rule failed or is undecided                      ``hold``
The candidate is the champion itself               ``promote``
A person must approve (see below)                  ``needs_approval``
There is no champion                               ``first_model``
Every rule passed against the champion             ``promote``
=================================================  ==================

A candidate whose window is older than the champion's is judged by itself, as if there were none, and its verdict is
``promote``: it can be registered, and promotion refuses it the alias of a newer window. So a backfill judges each of
its windows the same, in whatever order they finish.

Whether a person must approve is the specification's ``gate.approval.when``: ``never``, ``first_model`` (only where
there is no champion) or ``always``. Whoever approves is asked about a candidate that every rule passed, never about one
that a rule holds. ``dry_run`` asks nobody, because nothing will move, and so does a candidate of an older window.

So nothing is decided on missing evidence: a metric without a value, a rule that breaks, a slice that nobody could
measure are all ``undecided`` and hold. Without a champion the comparisons pass and say so; a floor that fails still
holds. ``dry_run`` keeps the verdict and says that nothing will move.
"""

from __future__ import annotations

import inspect
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ValidationError

from airflow_mlops.core.evidence import Evidence
from airflow_mlops.core.records import Frozen, GateVerdict, RuleResult
from airflow_mlops.core.registry import Registry
from airflow_mlops.errors import InvalidSpecError

log = logging.getLogger(__name__)

Mode = Literal["enforce", "dry_run"]
ApprovalWhen = Literal["never", "first_model", "always"]


gate_rules = Registry(
    "gate_rules",
    {
        "at_least": "airflow_mlops.core.rules:AtLeast",
        "at_most": "airflow_mlops.core.rules:AtMost",
        "better_than_champion": "airflow_mlops.core.rules:BetterThanChampion",
        "no_worse_than_champion": "airflow_mlops.core.rules:NoWorseThanChampion",
        "slices_no_worse": "airflow_mlops.core.rules:SlicesNoWorse",
        "latency_at_most": "airflow_mlops.core.serving_rules:LatencyAtMost",
        "model_size_at_most": "airflow_mlops.core.serving_rules:ModelSizeAtMost",
    },
)


@runtime_checkable
class GateRule(Protocol):
    """What the gate asks of a rule, a team's own included (entry-point group ``airflow_mlops.gate_rules``).

    The entry point names a class (or function) that is called with the rule's settings as keywords while the DAG file
    is parsed; it raises ValueError or TypeError for wrong ones. Its module must import quickly: no pandas, no mlflow.
    """

    def check(self, evidence: Evidence) -> RuleResult | Sequence[RuleResult]:
        """Answer with one result or several. An empty answer, or an exception, counts as undecided."""


class WrittenRule(Protocol):
    """A rule as it stands in a specification: a name and settings (``RuleSpec`` is one)."""

    @property
    def rule(self) -> str:
        """Return the rule's name."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the rule's settings."""


class Decision(Frozen):
    """The verdict with every rule's result, worst first, unbounded.

    :param reasons: the sentences that made the verdict: of what failed or is undecided, else of what passed.
    """

    verdict: GateVerdict
    mode: Mode
    sentence: str
    reasons: tuple[str, ...]
    results: tuple[RuleResult, ...]


def decide(
    evidence: Evidence, rules: Sequence[GateRule], *, mode: Mode = "enforce", approval: ApprovalWhen = "never"
) -> Decision:
    """Return the verdict of ``rules`` on ``evidence``; the table at the top of this module is the whole of it.

    :param approval: when a person must approve what every rule passed.
    :raises ValueError: there are no rules.
    """
    if not rules:
        raise ValueError("A gate without rules would pass every model: give at least one rule.")
    # A model is neither better nor worse than itself: a cleared run that had promoted it must find the same verdict.
    itself = evidence.champion is not None and evidence.champion.is_candidate
    # Nor does a newer champion judge a candidate of an older window, which cannot take its alias.
    alone = itself or bool(evidence.not_compared)
    asked = evidence.model_copy(update={"champion": None}) if alone else evidence
    results = sorted(
        (result for rule in rules for result in _ask(rule, asked)),
        key=lambda result: ("fail", "undecided", "pass").index(result.status),
    )
    against = [result for result in results if result.status != "pass"]
    if evidence.champion_problem is not None:
        verdict: GateVerdict = "needs_attention"
    elif against:
        verdict = "hold"
    else:
        verdict = "first_model" if evidence.champion is None else "promote"
        if mode == "enforce" and not alone and approval in ("always", verdict):
            verdict = "needs_approval"
    return Decision(
        verdict=verdict,
        mode=mode,
        sentence=_sentence(verdict, evidence, against, len(results), mode),
        reasons=tuple(result.sentence for result in (against or results)),
        results=tuple(results),
    )


def build_rule(spec: WrittenRule) -> GateRule:
    """Return the rule that a specification names, with its settings.

    :raises UnknownNameError: no rule is called so; the nearest name is given.
    :raises InvalidSpecError: a setting is unknown, missing or of the wrong type; the message names rule and setting.
    """
    made = gate_rules.load(spec.rule)
    settings = dict(spec.settings)
    known = _settings_of(made)
    for name in settings:
        if known and name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InvalidSpecError(
                f"Gate rule {spec.rule!r} has no setting {name!r}.{hint} Its settings: {', '.join(known)}."
            )
    try:
        rule = made(**settings)
    except ValidationError as exc:
        places = "; ".join(_place(error) for error in exc.errors())
        raise InvalidSpecError(f"Gate rule {spec.rule!r}: {places}. Its settings: {', '.join(known)}.") from exc
    except (TypeError, ValueError) as exc:
        raise InvalidSpecError(f"Gate rule {spec.rule!r} does not accept its settings: {exc}.") from exc
    if not isinstance(rule, GateRule):
        raise InvalidSpecError(
            f"Gate rule {spec.rule!r} gives {type(rule).__name__}, which has no check(evidence). See GateRule in "
            f"airflow_mlops.core.gate."
        )
    return rule


def check_rules(specs: Iterable[WrittenRule]) -> tuple[GateRule, ...]:
    """Build every rule of a gate, so that a mistake shows while the DAG file is parsed.

    :raises InvalidSpecError: a rule is wrong; the message starts with its place, ``gate.rules[2]``.
    """
    rules = []
    for number, spec in enumerate(specs):
        try:
            rules.append(build_rule(spec))
        except InvalidSpecError as exc:
            raise type(exc)(f"gate.rules[{number}]: {exc}") from exc
    return tuple(rules)


def _settings_of(made: Any) -> list[str]:
    if isinstance(made, type) and issubclass(made, BaseModel):
        return list(made.model_fields)
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return []
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return []
    return [one.name for one in parameters]


def _place(error: Mapping[str, Any]) -> str:
    setting = ".".join(str(part) for part in error["loc"]) or "the settings"
    if error["type"] == "missing":
        return f"setting {setting!r} is missing"
    return f"setting {setting!r}: {error['msg']} (got {error['input']!r})"


def _ask(rule: GateRule, evidence: Evidence) -> Sequence[RuleResult]:
    name = str(getattr(rule, "rule_name", type(rule).__name__))
    try:
        answer = rule.check(evidence)
    except Exception as exc:  # a team's own rule may raise anything; the other rules' findings still count
        log.exception("The gate rule %s raised an error.", name)
        return [RuleResult.undecided(name, f"The rule {name} raised {type(exc).__name__}: {exc}.")]
    results = [answer] if isinstance(answer, RuleResult) else list(answer or ())
    if not results or not all(isinstance(result, RuleResult) for result in results):
        return [
            RuleResult.undecided(
                name, f"The rule {name} gave no result; its check(evidence) must return a RuleResult or a list of them."
            )
        ]
    return results


def _sentence(verdict: GateVerdict, evidence: Evidence, against: Sequence[RuleResult], count: int, mode: Mode) -> str:
    rows = f"{evidence.rows:,} rows" + (f" of {evidence.window}" if evidence.window else "")
    champion = "the champion" if evidence.champion is None else f"champion version {evidence.champion.version}"
    if verdict == "needs_attention":
        said = (
            f"The {champion.removeprefix('the ')} of {evidence.registered_model} could not be compared on {rows}: "
            f"{(evidence.champion_problem or '').rstrip('.')}. Nothing was decided. Mend the champion, or let "
            f"another registered version serve: {_override(evidence)} (for this candidate write --candidate and this "
            f"gate's MLflow run id in place of VERSION)."
        )
    elif verdict == "hold":
        failed = sum(result.status == "fail" for result in against)
        parts = [f"{failed} failed"] if failed else []
        if len(against) > failed:
            parts.append(f"{len(against) - failed} could not be decided")
        said = f"Of {count} checks on {rows} {' and '.join(parts)}. {against[0].sentence}"
    elif evidence.champion is not None and evidence.champion.is_candidate:
        said = (
            f"The candidate is {champion} of {evidence.registered_model} already; all {count} checks on {rows} passed."
        )
    elif evidence.not_compared:
        said = f"All {count} checks on {rows} passed. {evidence.not_compared}."
    elif evidence.champion is None:
        said = f"There is no champion of {evidence.registered_model} yet, and all {count} checks on {rows} passed."
    else:
        said = f"All {count} checks on {rows} passed against {champion}."
    if verdict == "needs_approval":
        said = f"{said} A person must approve it before it becomes {evidence.alias}."
    return f"Dry run, nothing will be promoted. {said}" if mode == "dry_run" else said


def _override(evidence: Evidence) -> str:
    alias = () if evidence.alias == "champion" else ("--alias", evidence.alias)
    words = ["airflow-mlops", "promote", evidence.registered_model, "VERSION", "--override", *alias]
    return f"{shlex.join(words)} --reason 'WHY'"
