"""What is allowed and yet rarely meant: a few warnings, each about something that would go unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt

from airflow_mlops.cli.lint_findings import Finding
from airflow_mlops.cli.lint_model import Model
from airflow_mlops.core.drift import drift_methods
from airflow_mlops.core.drift_methods import BINS
from airflow_mlops.core.gate import gate_rules
from airflow_mlops.spec.monitoring import DriftMethodSpec

_COMPARING = {"better_than_champion", "no_worse_than_champion", "slices_no_worse"}


def advise(model: Model) -> Iterator[Finding]:
    """Yield what is questionable in a specification."""
    for found in (*_gate(model), *_service(model), *_drift(model)):
        yield replace(found, profiles=(model.profile,) if model.profile else ())


def _gate(model: Model) -> Iterator[Finding]:
    rules = model.spec.gate.rules
    if any(rule.rule not in gate_rules.builtins for rule in rules) or model.spec.gate.approval.when == "always":
        return  # a plug-in's rule may compare, and a person does
    comparing = [rule for rule in rules if rule.rule in _COMPARING]
    if not comparing:
        yield model.finding(
            "MLOPS901",
            "gate.rules",
            "no gate rule compares the candidate with the champion, so a worse model above the floor replaces a better "
            "one",
            "Add {rule: better_than_champion, metric: …} or {rule: no_worse_than_champion, metric: …, margin: …, "
            "evidence: safety}.",
        )
    elif all(rule.settings.get("evidence", "point") == "point" for rule in comparing):
        yield model.finding(
            "MLOPS902",
            "gate.rules",
            "no gate rule asks the bootstrap for proof, so a difference by chance may decide",
            "Set evidence: safety (promote only what is proven) or harm (hold only what is proven) on one of them.",
        )


def _service(model: Model) -> Iterator[Finding]:
    spec = model.spec
    if spec.scoring is None:
        return
    if spec.monitoring.performance is None:
        yield model.finding(
            "MLOPS903",
            "scoring",
            "batches are scored, and how well is never judged",
            "Say where labels arrive (labels) and what follows from a loss (monitoring.performance).",
        )
    rules = [spec.monitoring.drift, *([spec.monitoring.performance] if spec.monitoring.performance else [])]
    if not any("drift" in one.events for one in spec.notifications) and all(rule.action == "notify" for rule in rules):
        yield model.finding(
            "MLOPS904",
            "monitoring",
            "every breach only notifies, and notifications has nobody for the event drift",
            "Add an entry under notifications, or choose the action retrain or rollback.",
        )
    asks = [rule for rule in rules if rule.action == "retrain"]
    if asks and not spec.schedule.on_retrain and not spec.schedule.on_assets:
        yield model.finding(
            "MLOPS905",
            "schedule",
            "monitoring asks for a retrain by an Asset event, and the training's schedule does not listen",
            "Set schedule.on_retrain: true, or let another DAG listen to that Asset.",
        )


def _drift(model: Model) -> Iterator[Finding]:
    drift = model.spec.drift
    if drift.engine != "statistics" or not {"drift", "monitoring", "scoring"} & model.spec.model_fields_set:
        return
    by_chance = _psi_by_chance(drift.min_rows)
    written = {"numeric": drift.numeric, "categorical": drift.categorical, **drift.overrides}
    for key, method in written.items():
        threshold = _psi_threshold(method)
        if threshold is not None and threshold <= by_chance:
            place = f"drift.overrides.{key}" if key in drift.overrides else f"drift.{key}"
            yield model.finding(
                "MLOPS906",
                place,
                f"in a window of drift.min_rows ({drift.min_rows}) rows chance alone reaches a PSI of "
                f"{by_chance:.2f}, and the threshold is {threshold:g}",
                f"Raise drift.min_rows to {_rows_for(threshold):,} or more, or the threshold.",
            )


def _psi_threshold(method: DriftMethodSpec) -> float | None:
    if method.method != "psi":
        return None
    return method.threshold or float(drift_methods.load("psi").threshold)


def _psi_by_chance(rows: int) -> float:
    """Return the PSI that a window without drift stays below in about 999 of 1,000 cases.

    Over ``BINS`` bins the index times the rows is about chi-square with one degree of freedom less, against a reference
    that is much larger; its mean and three standard deviations stand for the tail.
    """
    return _TAIL / rows


_TAIL = (BINS - 1) + 3 * sqrt(2 * (BINS - 1))


def _rows_for(threshold: float) -> int:
    return int(_TAIL / threshold) + 1
