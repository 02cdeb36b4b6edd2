"""Drift: two profiles and a specification in, a verdict and its reasons out.

The guards (:mod:`airflow_mlops.core.drift_guards`) speak first; the first line that fits is the verdict:

============================================================================  =================
The window has no row                                                         ``insufficient``
A column vanished, changed its type, or is there and was not (if that counts) ``schema_broken``
The window has fewer rows than ``min_rows``, or too few a day                 ``insufficient``
A column is all or mostly missing where the reference's was not               ``schema_broken``
No column could be compared                                                   ``insufficient``
At least ``min_columns`` drifted, and ``min_share`` of those compared         ``drift``
Everything else                                                               ``none``
============================================================================  =================

A column drifted when its distance reaches the method's threshold: an effect size, never a p-value. A column that could
not be compared (excluded from the profile, of a kind that has no profile, without a value in the reference) is listed
with the reason and counts neither way. The columns are measured under every verdict for which there is a row, so a
broken schema does not hide what drifted beside it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pydantic import Field

from airflow_mlops.core.drift_counts import CountPair, Kind, NotComparableError, check_profile, pair_of
from airflow_mlops.core.drift_guards import Guards, GuardSettings
from airflow_mlops.core.monitoring_records import ColumnDrift, DriftVerdict, SchemaFinding
from airflow_mlops.core.record import Frozen, Window
from airflow_mlops.core.registry import Registry
from airflow_mlops.errors import InvalidSpecError

log = logging.getLogger(__name__)

drift_methods = Registry(
    "drift_methods",
    {
        "psi": "airflow_mlops.core.drift_methods:PopulationStability",
        "jensen_shannon": "airflow_mlops.core.drift_methods:JensenShannon",
        "hellinger": "airflow_mlops.core.drift_methods:Hellinger",
        "wasserstein": "airflow_mlops.core.drift_methods:Wasserstein",
        "kolmogorov_smirnov": "airflow_mlops.core.drift_methods:KolmogorovSmirnov",
        "chi_square": "airflow_mlops.core.drift_methods:ChiSquare",
        "total_variation": "airflow_mlops.core.drift_methods:TotalVariation",
        "l_infinity": "airflow_mlops.core.drift_methods:LInfinity",
        "missing_share": "airflow_mlops.core.drift_methods:MissingShare",
        "unseen_share": "airflow_mlops.core.drift_methods:UnseenShare",
    },
)


class MeasuredDistance(Protocol):
    """What a method answers; :class:`~airflow_mlops.core.drift_methods.Distance` is one."""

    @property
    def value(self) -> float:
        """Return the distance, 0 for equal shares."""

    @property
    def error(self) -> float | None:
        """Return the largest amount by which the raw values' distance may differ; None where unknown."""

    @property
    def p_value(self) -> float | None:
        """Return the p-value of a method that is a test."""

    @property
    def note(self) -> str:
        """Return a clause for the reader, or nothing."""


@runtime_checkable
class DriftMethod(Protocol):
    """What is asked of a drift method, a team's own included (entry-point group ``airflow_mlops.drift_methods``).

    The entry point names a class (or function) that is called without arguments, also while a DAG file is parsed: its
    module must import quickly.
    """

    @property
    def kinds(self) -> Sequence[Kind]:
        """Return the kinds of column it measures: numeric, categorical."""

    @property
    def threshold(self) -> float:
        """Return the distance from which a column counts as drifted, where the specification names none."""

    def measure(self, pair: CountPair) -> MeasuredDistance:
        """Return the distance; raise ``NotComparableError`` with a clause where it has none."""


class WrittenMethod(Protocol):
    """A method as it stands in a specification (``DriftMethodSpec`` is one)."""

    @property
    def method(self) -> str:
        """Return the method's name."""

    @property
    def threshold(self) -> float | None:
        """Return the threshold; None: the method's own."""


class DriftSettings(GuardSettings, Protocol):
    """What of a specification the verdict depends on (``DriftSpec`` is one)."""

    @property
    def columns(self) -> Sequence[str] | None:
        """Return the columns to compare."""

    @property
    def numeric(self) -> WrittenMethod:
        """Return the method of numbers."""

    @property
    def categorical(self) -> WrittenMethod:
        """Return the method of categories."""

    @property
    def overrides(self) -> Mapping[str, WrittenMethod]:
        """Return other methods, by column."""

    @property
    def min_columns(self) -> int:
        """Return how many drifted columns are a drift."""

    @property
    def min_share(self) -> float | None:
        """Return the share of compared columns that must have drifted as well; None: any."""


class DriftJudgement(Frozen):
    """A window's verdict against a reference, with every column, unbounded.

    :param columns: drifted ones first, the farthest (in thresholds) first; then the others, those without a value last.
    :param findings: what the guards saw, the ones that made the verdict first.
    :param share: ``drifted_count / compared_count``; None where nothing was compared.
    """

    verdict: DriftVerdict
    sentence: str
    row_count: int
    columns: tuple[ColumnDrift, ...] = ()
    findings: tuple[SchemaFinding, ...] = ()
    compared_count: int = Field(default=0, ge=0)
    drifted_count: int = Field(default=0, ge=0)
    share: float | None = None
    notes: tuple[str, ...] = ()


def judge_drift(
    reference: Mapping[str, Any],
    current: Mapping[str, Any],
    spec: DriftSettings,
    *,
    columns: Sequence[str] | None = None,
    known: Collection[str] = (),
    reference_window: Window | None = None,
    current_window: Window | None = None,
) -> DriftJudgement:
    """Return the verdict of one window; the table at the top of this module is the whole of it.

    :param reference: the profile that was logged with the model, or ``reference_profile`` of any window.
    :param current: the window's, from ``window_profile`` with the same reference.
    :param columns: what to compare; default ``spec.columns``, else all of the reference's columns.
    :param known: columns that are no surprise in the window: ids, event time, what scoring adds.
    :param reference_window: what the reference covers; ``min_volume_ratio`` needs both, and takes the profiles' own
        windows where they are not given.
    :raises InvalidSpecError: a profile cannot be read, a method is unknown or does not fit a column's kind.
    """
    check_profile(reference, "the reference")
    check_profile(current, "the window")
    wanted = list(dict.fromkeys(columns if columns is not None else (spec.columns or reference["columns"])))
    rows = int(current["row_count"])
    guards = Guards(reference, current, spec, wanted, known, reference_window, current_window)
    findings, verdict = guards.findings()
    measured = [_measure(name, reference, current, spec, guards.unusable(name)) for name in wanted] if rows else []
    measured.sort(key=_farthest_first)
    compared = [one for one in measured if one.value is not None]
    drifted = [one for one in compared if one.drifted]
    share = len(drifted) / len(compared) if compared else None
    if verdict is None:
        if share is None:
            verdict = "insufficient"
        elif len(drifted) >= spec.min_columns and share >= (spec.min_share or 0.0):
            verdict = "drift"
        else:
            verdict = "none"
    return DriftJudgement(
        verdict=verdict,
        sentence=_sentence(verdict, findings, measured, compared, drifted, rows, spec),
        row_count=rows,
        columns=tuple(measured),
        findings=tuple(findings),
        compared_count=len(compared),
        drifted_count=len(drifted),
        share=share,
        notes=tuple(guards.notes),
    )


def measure_column(
    name: str, reference: Mapping[str, Any], current: Mapping[str, Any], written: WrittenMethod
) -> ColumnDrift:
    """Measure one column of two profiles by one method, without any guard: predictions, for example.

    :param reference: a profile; ``current`` was counted against it.
    :raises InvalidSpecError: the method is unknown or does not fit the column's kind.
    """
    ours, theirs = reference["columns"].get(name), current["columns"].get(name)
    if ours is None or theirs is None:
        side = "the reference" if ours is None else "the window"
        return _without_value(name, ours or theirs, written, f"{side} has no profile of {name!r}")
    method = build_method(written)
    threshold = written.threshold if written.threshold is not None else method.threshold
    kind: Kind = "categorical" if ours["kind"] == "categorical" else "numeric"
    if ours["kind"] == "unsupported" or theirs["kind"] != ours["kind"]:
        reason = (
            "values of this kind (lists, structs, bytes) have no profile"
            if ours["kind"] == "unsupported"
            else f"the reference holds {_said(ours)} and the window {_said(theirs)}"
        )
        return _without_value(name, ours, written, f"{name!r} cannot be compared: {reason}")
    if kind not in method.kinds:
        raise InvalidSpecError(
            f"The drift method {written.method!r} does not measure {kind} columns such as {name!r}; it measures "
            f"{' and '.join(method.kinds)} ones. Choose another under drift.{kind} or drift.overrides.{name}."
        )
    try:
        found = method.measure(pair_of(ours, theirs))
    except NotComparableError as exc:
        return _without_value(name, ours, written, f"{name!r} cannot be compared: {exc}")
    except InvalidSpecError:
        raise
    except Exception as exc:  # a team's own method may raise anything; the other columns still count
        log.exception("The drift method %s raised an error on column %s.", written.method, name)
        return _without_value(
            name, ours, written, f"{name!r}: the method {written.method} raised {type(exc).__name__}: {exc}"
        )
    if not math.isfinite(found.value):
        return _without_value(name, ours, written, f"{name!r}: the method {written.method} gave {found.value}")
    drifted = found.value >= threshold
    return ColumnDrift(
        column=name,
        kind=ours["kind"],
        method=written.method,
        value=float(found.value),
        threshold=threshold,
        drifted=drifted,
        error=found.error,
        p_value=found.p_value,
        sentence=(
            f"{written.method} of {name!r} is {found.value:.4g}{_bound(found.error)}; it "
            f"{'drifted' if drifted else 'would drift'} from {threshold:g}{f'; {found.note}' if found.note else ''}."
        ),
    )


def build_method(written: WrittenMethod) -> DriftMethod:
    """Return the method that a specification names.

    :raises UnknownNameError: no method is called so; the nearest name is given.
    :raises InvalidSpecError: a plug-in gives something else.
    """
    made = drift_methods.load(written.method)
    method = made() if callable(made) else made
    if not isinstance(method, DriftMethod):
        raise InvalidSpecError(
            f"Drift method {written.method!r} gives {type(method).__name__}, which lacks kinds, threshold or "
            f"measure(pair). See DriftMethod in airflow_mlops.core.drift."
        )
    return method


def check_methods(spec: DriftSettings) -> None:
    """Refuse a specification's methods that are unknown or do not fit, while the DAG file is parsed.

    :raises InvalidSpecError: the message starts with the place, ``drift.numeric``.
    """
    kinds: tuple[tuple[str, WrittenMethod, Kind | None], ...] = (
        ("drift.numeric", spec.numeric, "numeric"),
        ("drift.categorical", spec.categorical, "categorical"),
        *((f"drift.overrides.{column}", written, None) for column, written in spec.overrides.items()),
    )
    for place, written, kind in kinds:
        try:
            method = build_method(written)
        except InvalidSpecError as exc:
            raise type(exc)(f"{place}: {exc}") from exc
        if kind is not None and kind not in method.kinds:
            raise InvalidSpecError(
                f"{place}: the drift method {written.method!r} measures {' and '.join(method.kinds)} columns only."
            )


def _measure(
    name: str,
    reference: Mapping[str, Any],
    current: Mapping[str, Any],
    spec: DriftSettings,
    unusable: str | None,
) -> ColumnDrift:
    column = reference["columns"].get(name)
    kind = column["kind"] if column else "unsupported"
    written = spec.overrides.get(name, spec.categorical if kind == "categorical" else spec.numeric)
    if unusable is not None:
        return _without_value(name, column, written, unusable)
    if kind == "time" and name not in spec.overrides:
        return _without_value(
            name,
            column,
            written,
            f"{name!r} is a time, which moves on by itself; name it in drift.overrides to compare it all the same",
        )
    return measure_column(name, reference, current, written)


def _without_value(name: str, column: Mapping[str, Any] | None, written: WrittenMethod, reason: str) -> ColumnDrift:
    return ColumnDrift(
        column=name,
        kind=column["kind"] if column is not None else "unsupported",
        method=written.method,
        threshold=written.threshold,
        sentence=f"{reason.rstrip('.')}.",
    )


def _farthest_first(one: ColumnDrift) -> tuple[bool, bool, float]:
    far = one.value / one.threshold if one.value is not None and one.threshold else 0.0
    return not one.drifted, one.value is None, -far


def _bound(error: float | None) -> str:
    return f" (off by at most {error:.2g})" if error else ""


def _said(column: Mapping[str, Any]) -> str:
    return str(column.get("type") or column["kind"])


def _sentence(
    verdict: DriftVerdict,
    findings: Sequence[SchemaFinding],
    measured: Sequence[ColumnDrift],
    compared: Sequence[ColumnDrift],
    drifted: Sequence[ColumnDrift],
    rows: int,
    spec: DriftSettings,
) -> str:
    if verdict == "schema_broken" or (verdict == "insufficient" and findings):
        more = f" {len(findings) - 1} more findings." if len(findings) > 1 else ""
        return f"{findings[0].sentence}{more}"
    if verdict == "insufficient":
        why = measured[0].sentence if measured else "There is no column to compare."
        return f"None of {len(measured)} columns of {rows:,} rows could be compared. {why}"
    needed = f"{spec.min_columns} {'is' if spec.min_columns == 1 else 'are'} a drift"
    if spec.min_share is not None:
        needed += f", if they are {spec.min_share:.0%} of the columns"
    said = f"{len(drifted)} of {len(compared)} columns of {rows:,} rows drifted; {needed}"
    named = ", ".join(f"{one.column} ({one.method} {one.value:.3g})" for one in drifted[:5])
    left = f" and {len(drifted) - 5} more" if len(drifted) > 5 else ""
    without = [one.column for one in measured if one.value is None]
    missing = f" Not compared: {', '.join(without[:5])}{' ...' if len(without) > 5 else ''}." if without else ""
    return f"{said}{f': {named}{left}' if drifted else ''}.{missing}"
