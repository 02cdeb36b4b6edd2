"""What a person is told of an outcome: short enough for a telephone at night, and enough to act on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Literal

from airflow_mlops.core.monitoring_records import ColumnDrift, DriftReport, PolicyDecision, ServedModel
from airflow_mlops.core.record import Frozen, Record, Window
from airflow_mlops.core.records import GateDecision, Promotion, ValidationReport
from airflow_mlops.core.rules import number

Event = Literal["drift", "hold", "promoted", "rolled_back", "contract_failed"]

#: Longest title, which is a mail's subject.
MAX_TITLE = 200
#: Longest single part of a message; the linked pages have the whole.
MAX_PART = 600
#: Columns, reasons or findings that a message lists.
MAX_ITEMS = 5
#: How the policy says since when a rule is breached without a break.
_SINCE = re.compile(r"every one since (\[[^)]*\))")
#: The parts of a message, in order: key in ``Notice.facts`` and what stands before it.
_PARTS = {
    "what": "What",
    "how_far": "How far",
    "since": "Since",
    "follows": "What follows",
    "to_do": "What to do",
    "model": "Model",
    "window": "Window",
    "dag_run": "DAG run",
    "task_url": "Task",
    "report_url": "Report",
    "version_url": "Model version",
    "mlflow_url": "MLflow",
}


class Place(Frozen):
    """Where a record was made. Every address is empty where it is not known.

    :param model: the name by which people know the model.
    :param step: the step's name, such as ``rollback``.
    :param backfill: whether the DAG run belongs to a backfill.
    """

    model: str
    step: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    backfill: bool = False
    dag_run_url: str = ""
    task_url: str = ""
    mlflow_url: str = ""
    report_url: str = ""
    version_url: str = ""


class Notice(Frozen):
    """One message. A notifier's settings take it apart: ``{{ mlops.title }}``, ``{{ mlops.facts.model }}``.

    :param events: what happened; two where one act is both, such as a breach that rolled the champion back.
    :param title: one line of plain text, at most 200 characters.
    :param message: plain text of several lines: what, how far, since when, what follows, what to do, and addresses.
    :param facts: the same by key, always with all of ``what``, ``how_far``, ``since``, ``follows``, ``to_do``,
        ``model``, ``version``, ``window``, ``dag_id``, ``run_id``, ``task_id``, ``dag_run``, ``dag_run_url``,
        ``task_url``, ``mlflow_url``, ``report_url``, ``version_url``, ``verdict``, ``share``, ``rows``; empty, or None
        for the numbers ``share`` and ``rows``, where there is nothing to say.
    """

    events: tuple[Event, ...]
    title: str
    message: str
    facts: Mapping[str, str | float | int | None]

    @property
    def event(self) -> Event:
        """Return the event that says most."""
        return self.events[-1]

    @property
    def html(self) -> str:
        """Return the message for notifiers that send HTML, such as mail."""
        return (
            f"<p><strong>{escape(self.title)}</strong></p>"
            f'<pre style="white-space: pre-wrap; font-family: inherit">{escape(self.message)}</pre>'
        )


def notice_of(record: Record, place: Place) -> Notice | None:
    """Return what to tell of a record; None for an outcome nobody has to be told of.

    Told are: a drift report of ``drift`` or ``schema_broken``, a policy's breach, a gate's ``hold``, a promotion or
    rollback that moved the alias, and a failed contract. Silent are a policy that repeats a decision,
    and everything in a backfill but what the policy was told to act on there.
    """
    if isinstance(record, PolicyDecision):
        return _of_policy(record, place)
    if place.backfill:
        return None
    if isinstance(record, DriftReport):
        return _of_drift(record, place)
    if isinstance(record, GateDecision):
        return _of_gate(record, place)
    if isinstance(record, Promotion):
        return _of_promotion(record, place)
    if isinstance(record, ValidationReport):
        return _of_validation(record, place)
    return None


def _of_drift(record: DriftReport, place: Place) -> Notice | None:
    if record.verdict == "drift":
        title = f"Drift in {place.model}{_in(record.window)}"
        far = [_column(one) for one in record.columns if one.drifted]
        if record.prediction is not None and record.prediction.drifted:
            far.insert(0, f"the prediction: {_column(record.prediction)}")
        to_do = "Open the report; where the world has changed for good, start the training DAG."
    elif record.verdict == "schema_broken":
        title = f"Broken data for {place.model}{_in(record.window)}"
        far = [one.sentence for one in record.findings]
        # This task alone would look at the same snapshot again.
        to_do = (
            "Mend the feed, then clear the snapshot task of this window with what follows it. Predictions of this "
            "window are not to be relied on: score it again."
        )
    else:
        return None
    return _notice(
        ("drift",),
        title,
        place,
        what=record.sentence,
        how_far=_listed(far, record.drifted_count if record.verdict == "drift" else len(far)),
        since=f"This window, against {record.reference}; earlier windows are not this task's matter.",
        follows="Nothing was started by this task.",
        to_do=to_do,
        served=record.model,
        window=record.window,
        verdict=record.verdict,
        share=record.share,
        rows=record.row_count,
    )


def _of_policy(record: PolicyDecision, place: Place) -> Notice | None:
    if not record.breaches or record.suppressed in ("already_acted", "backfill"):
        return None
    short = {
        "retrain": "a retrain was asked for",
        "rollback": "the champion was rolled back",
        "notify": "past its limit",
        "none": "past its limit, and nothing follows",
    }[record.action]
    to_do = {
        "retrain": "Look at the pictures; nothing has to be done unless the training DAG holds its candidate.",
        "rollback": "Find out what the rolled-back version did worse before the next promotion.",
    }.get(record.action, "Look at the pictures and decide: retrain, roll back, or mend the feed.")
    serves = "" if record.champion_version is None else f"{place.model}{_version(record.champion_version)}"
    if serves and record.champion_age_days is not None:
        serves += f", champion for {record.champion_age_days:.0f} days"
    # The policy's sentence is: the model, the breach, what follows.
    breach = record.reason or record.breaches[0]
    since = _SINCE.search(breach)
    request = f" Request {record.request}." if record.request else ""
    return _notice(
        ("drift", "rolled_back") if record.action == "rollback" else ("drift",),
        f"{place.model}: {short}{_in(record.window)}",
        place,
        what=breach,
        how_far=_listed(record.breaches[1:], len(record.breaches) - 1),
        since=f"Every window that counts since {since[1]}." if since else "",
        follows=(record.sentence.partition(breach)[2].strip() or record.sentence) + request,
        to_do=to_do,
        version="" if record.champion_version is None else str(record.champion_version),
        model=serves,
        window=record.window,
        verdict=record.action,
    )


def _of_gate(record: GateDecision, place: Place) -> Notice | None:
    if record.verdict != "hold":
        return None
    champion = record.champion
    serves = "no champion yet" if champion is None else f"version {champion.version} goes on serving"
    since = "There is no champion to compare with."
    if champion is not None:
        trained = f", trained on {champion.train_window}" if champion.train_window else ""
        since = f"Version {champion.version} is champion since entry {champion.entry} of the ledger{trained}."
    return _notice(
        ("hold",),
        f"Held: a candidate for {place.model}{_in(record.window)}",
        place,
        what=record.sentence,
        how_far=_listed(record.reasons, len(record.reasons)),
        since=since,
        follows=f"The candidate is not registered; {serves}.",
        to_do="Open the decision. Mend data, features or parameters and train again; where a rule is wrong, change it "
        "in the specification and clear the task.",
        version="" if champion is None else str(champion.version),
        window=record.window,
        verdict=f"{record.verdict} ({record.mode})" if record.mode == "dry_run" else record.verdict,
    )


def _of_promotion(record: Promotion, place: Place) -> Notice | None:
    if record.outcome != "promoted":
        return None
    back = place.step == "rollback"
    before = "nothing served before" if record.from_version is None else f"version {record.from_version} served before"
    why = f" Why: {record.reason}" if record.reason and record.reason not in record.sentence else ""
    served = f"version {record.to_version} of {record.name} is {record.alias}"
    return _notice(
        ("rolled_back",) if back else ("promoted",),
        f"{'Rolled back' if back else 'Promoted'}: {served}",
        place,
        what=record.sentence + why,
        how_far=f"From {'nothing' if record.from_version is None else f'version {record.from_version}'} to version "
        f"{record.to_version}.",
        since=f"Entry {record.entry} of the promotion ledger; {before}.",
        follows="The next batch is scored with it." if not back else f"Version {record.to_version} scores from now on.",
        to_do=f"Nothing, if you expected it. To undo: {_rollback_command(record.name, record.alias)}",
        model=f"{record.name}{_version(record.to_version)}",
        version="" if record.to_version is None else str(record.to_version),
        window=record.window,
        verdict=record.outcome,
    )


def _rollback_command(name: str, alias: str = "champion") -> str:
    return f"airflow-mlops rollback {name} --reason WHY" + ("" if alias == "champion" else f" --alias {alias}")


def is_another_s(promotion: Promotion, place: Place) -> bool:
    """Say whether another DAG run wrote the entry, and told of it: a run whose model was reused finds it champion.

    An entry of a person on the command line names no task; nobody has told of it.

    :param promotion: with the entry's own author.
    """
    mine = f"airflow:{place.dag_id}/{place.run_id}/"
    return promotion.outcome == "promoted" and "airflow:" in promotion.author and mine not in promotion.author


def _of_validation(record: ValidationReport, place: Place) -> Notice | None:
    if record.verdict != "fail":
        return None
    broken = [one.sentence for one in record.findings if one.on_failure == "fail"]
    return _notice(
        ("contract_failed",),
        f"Contract failed for {place.model}{_in(record.dataset.window)}",
        place,
        what=f"{record.sentence} Data: {record.dataset.uri}",
        how_far=_listed(broken, len(broken)),
        since="This window's rows; an earlier window that failed had a message of its own.",
        follows="The run stopped here: nothing after this task uses these rows.",
        to_do="Open the report, mend the data (or the contract, where it is wrong), and clear the snapshot task.",
        window=record.dataset.window,
        verdict=record.verdict,
        rows=record.row_count,
    )


def _notice(
    events: tuple[Event, ...],
    title: str,
    place: Place,
    *,
    what: str,
    how_far: str,
    since: str,
    follows: str,
    to_do: str,
    window: Window | None,
    verdict: str,
    served: ServedModel | None = None,
    model: str = "",
    version: str = "",
    share: float | None = None,
    rows: int | None = None,
) -> Notice:
    mapped = f"[{place.map_index}]" if place.map_index >= 0 else ""
    facts: dict[str, str | float | int | None] = {
        "what": _cut(what),
        "how_far": how_far,
        "since": _cut(since),
        "follows": _cut(follows),
        "to_do": _cut(to_do),
        "model": model or (str(served) if served is not None else place.model),
        "version": version or ("" if served is None else str(served.version)),
        "window": "" if window is None else str(window),
        "dag_id": place.dag_id,
        "run_id": place.run_id,
        "task_id": place.task_id,
        "dag_run": " ".join(
            filter(None, [f"{place.dag_id} {place.run_id}, task {place.task_id}{mapped}", place.dag_run_url])
        ),
        "dag_run_url": place.dag_run_url,
        "task_url": place.task_url,
        "mlflow_url": place.mlflow_url,
        "report_url": place.report_url,
        "version_url": place.version_url,
        "verdict": verdict,
        "share": share,
        "rows": rows,
    }
    title = _cut(" ".join(title.split()), MAX_TITLE)
    lines = [f"{name}: {facts[key]}" for key, name in _PARTS.items() if facts[key]]
    return Notice(events=events, title=title, message="\n".join([title, "", *lines]), facts=facts)


def _column(one: ColumnDrift) -> str:
    if one.value is None:
        return one.sentence or f"{one.column} could not be compared"
    limit = "" if one.threshold is None else f" (limit {number(one.threshold)})"
    return f"{one.column} {one.method} {number(one.value)}{limit}"


def _listed(items: Iterable[str], total: int) -> str:
    shown = [_cut(one).rstrip(".") for one in items][:MAX_ITEMS]
    more = f"; and {total - len(shown)} more" if total > len(shown) else ""
    return "; ".join(shown) + more if shown else ""


def _in(window: Window | None) -> str:
    return "" if window is None else f", window {window}"


def _version(version: int | None) -> str:
    return "" if version is None else f", version {version}"


def _cut(text: str, most: int = MAX_PART) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
