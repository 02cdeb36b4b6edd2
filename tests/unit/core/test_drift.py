"""The verdict of a window: every line of the table, every guard, and methods of a team's own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pyarrow as pa
import pytest

from airflow_mlops.core import registry
from airflow_mlops.core.drift import (
    DriftJudgement,
    build_method,
    check_methods,
    drift_methods,
    judge_drift,
    measure_column,
)
from airflow_mlops.core.drift_guards import family
from airflow_mlops.core.drift_methods import Distance
from airflow_mlops.core.record import Window
from airflow_mlops.engines.profile import build_profile, profile_of
from airflow_mlops.engines.window_profile_counters import Counter, counter_for
from airflow_mlops.errors import InvalidSpecError, UnknownNameError
from airflow_mlops.spec.monitoring import DriftMethodSpec, DriftSpec

ROWS = 2_000
REFERENCE = {
    "number": [float(n % 400) / 7 for n in range(ROWS)],
    "whole": [n % 50 for n in range(ROWS)],
    "code": [str(n % 4) for n in range(ROWS)],
    "flag": [n % 3 == 0 for n in range(ROWS)],
}
MARCH = Window.model_validate({"start": "2013-03-01", "end": "2013-04-01"})


def profiles(
    changed: dict[str, Any] | None = None,
    *,
    drop: tuple[str, ...] = (),
    reference: dict[str, Any] | None = None,
    rows: int = ROWS,
    exclude: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the reference's profile and that of a window that differs from it in some columns."""
    before = pa.table({**REFERENCE, **(reference or {})})
    types = {field.name: str(field.type) for field in before.schema}
    ours = build_profile(before, exclude, available=types)
    now = pa.table({**{name: before[name] for name in before.column_names if name not in drop}, **(changed or {})})
    return ours, window_of(now.slice(0, rows), ours)


def window_of(rows: pa.Table, reference: dict[str, Any]) -> dict[str, Any]:
    """Count a table as a window: what ``window_profile`` does with files."""
    counters: dict[str, Counter] = {
        name: counter_for(str(rows[name].type), reference["columns"].get(name))
        for name in rows.column_names
        if name in reference["columns"]
    }
    for name, counter in counters.items():
        for chunk in rows[name].chunks:
            counter.add(chunk)
    made = profile_of(rows.num_rows, counters, excluded=[])
    return {**made, "available": {field.name: str(field.type) for field in rows.schema}}


def judged(changed: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **other: Any) -> DriftJudgement:
    return judge_drift(*profiles(changed, **other), DriftSpec.model_validate(spec or {}))


def test_equal_rows_are_no_drift() -> None:
    found = judged()

    assert (found.verdict, found.share, found.findings) == ("none", 0, ())
    assert found.sentence == "0 of 4 columns of 2,000 rows drifted; 1 is a drift."
    assert {one.column: one.value for one in found.columns} == dict.fromkeys(REFERENCE, 0.0)


def test_a_moved_column_is_drift_and_is_named_with_how_far() -> None:
    found = judged({"number": [value + 30 for value in REFERENCE["number"]]})
    first = found.columns[0]

    assert (found.verdict, found.drifted_count, found.compared_count, found.share) == ("drift", 1, 4, 0.25)
    assert found.sentence.startswith("1 of 4 columns of 2,000 rows drifted; 1 is a drift: number (psi ")
    assert (first.column, first.kind, first.method, first.threshold, first.drifted) == (
        "number",
        "numeric",
        "psi",
        0.25,
        True,
    )
    assert first.sentence.startswith(f"psi of 'number' is {first.value:.4g}; it drifted from 0.25")


@pytest.mark.parametrize(
    ("spec", "verdict"),
    [
        ({"min_columns": 2}, "none"),
        ({"min_share": 0.25}, "drift"),
        ({"min_share": 0.26}, "none"),
        ({"columns": ["whole", "code"]}, "none"),
        ({"numeric": {"method": "kolmogorov_smirnov", "threshold": 0.9}}, "none"),
        ({"overrides": {"number": {"method": "wasserstein"}}}, "drift"),
        ({"overrides": {"number": {"method": "missing_share"}}}, "none"),
    ],
)
def test_what_counts_as_drift_is_the_specifications(spec: dict[str, Any], verdict: str) -> None:
    assert judged({"number": [value + 30 for value in REFERENCE["number"]]}, spec).verdict == verdict


def test_every_method_measures_what_it_says_it_measures() -> None:
    for name in drift_methods.names():
        method = build_method(DriftMethodSpec(method=name))
        for kind in method.kinds:
            spec = {kind: {"method": name}, "min_columns": 9}
            columns = judged(spec=spec).columns
            ours = [one for one in columns if one.kind == kind]
            assert {one.value for one in ours} == {0.0}, name
            assert {one.threshold for one in ours} == {method.threshold}
            assert {one.method for one in ours} == {name}


@pytest.mark.parametrize(
    ("changed", "verdict", "kind", "column", "words"),
    [
        pytest.param(
            {"code": [7] * ROWS}, "schema_broken", "type_changed", "code", "was string and is int64", id="text"
        ),
        pytest.param(
            {"code": [float(value) for value in REFERENCE["code"]]},
            "schema_broken",
            "type_changed",
            "code",
            "was string and is double",
            id="text that became a number",
        ),
        pytest.param(
            {"code": [f"{value}.0" for value in REFERENCE["code"]]},
            "schema_broken",
            "type_changed",
            "code",
            "write '3.0' or alike where the reference has '3'",
            id="1 written as 1.0",
        ),
        pytest.param(
            {"whole": [value + 0.5 for value in REFERENCE["whole"]]},
            "schema_broken",
            "type_changed",
            "whole",
            "was int64, and is double with fractions",
            id="fractions among whole numbers",
        ),
        pytest.param(
            {"flag": [int(value) for value in REFERENCE["flag"]]},
            "schema_broken",
            "type_changed",
            "flag",
            "was bool and is int64",
            id="0 and 1 for false and true",
        ),
        pytest.param(
            {"number": pa.nulls(ROWS, pa.float64())},
            "schema_broken",
            "all_null",
            "number",
            "no value in any",
            id="null",
        ),
        pytest.param(
            {"code": pa.nulls(ROWS)}, "schema_broken", "all_null", "code", "no value in any", id="no type left"
        ),
        pytest.param(
            {"number": [float("nan")] * ROWS}, "schema_broken", "all_null", "number", "no value in any", id="all NaN"
        ),
        pytest.param(
            {"code": [None] * 1_900 + ["1"] * 100},
            "schema_broken",
            "mostly_null",
            "code",
            "missing in 95.0%",
            id="95 %",
        ),
        pytest.param(
            {"new": [1] * ROWS}, "schema_broken", "extra_column", "new", "does not have", id="an extra column"
        ),
    ],
)
def test_a_broken_schema_is_never_no_drift(
    changed: dict[str, Any], verdict: str, kind: str, column: str, words: str
) -> None:
    found = judged(changed)

    assert found.verdict == verdict
    assert (found.findings[0].kind, found.findings[0].column) == (kind, column)
    assert words in found.findings[0].sentence
    assert column in found.sentence
    assert found.compared_count >= 3, "the other columns are measured all the same"


def test_a_vanished_column() -> None:
    found = judged(drop=("whole",))
    gone = next(one for one in found.columns if one.column == "whole")

    assert (found.verdict, found.findings[0].kind) == ("schema_broken", "missing_column")
    assert (gone.value, gone.sentence) == (None, "The column 'whole' is not in the window.")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param(
            pa.array([1, 2] * 1_000), pa.array([1.0, None] * 1_000), id="whole numbers with nulls become floats"
        ),
        pytest.param(pa.array([1, 2] * 1_000), pa.array([1, 2] * 1_000, pa.int8()), id="narrower"),
        pytest.param(pa.array([1.5, 2] * 1_000), pa.array([1.5, 2] * 1_000, pa.float32()), id="float32"),
        pytest.param(pa.array([1.5, 2] * 1_000), pa.array([2, 2] * 1_000), id="a CSV window without a fraction"),
        pytest.param(pa.array(["a", "b"] * 1_000), pa.array(["a", "b"] * 1_000).dictionary_encode(), id="coded text"),
        pytest.param(pa.array(["1", "2"] * 1_000), pa.array(["1", "3"] * 1_000), id="a new number in text"),
    ],
)
def test_what_only_storage_changed_is_no_changed_type(before: pa.Array, now: pa.Array) -> None:
    found = judged({"x": now}, {"max_missing_increase": 0.6}, reference={"x": before})

    assert found.findings == ()
    assert next(one for one in found.columns if one.column == "x").value is not None


def test_extra_columns_that_are_known_or_not_looked_for() -> None:
    ours, now = profiles({"row_id": list(range(ROWS))})

    assert judge_drift(ours, now, DriftSpec(), known={"row_id"}).verdict == "none"
    assert judge_drift(ours, now, DriftSpec(extra_columns="ignore")).verdict == "none"
    unsaid = judge_drift({**ours, "available": None}, now, DriftSpec())
    assert unsaid.verdict == "none"
    assert "extra columns were not looked for" in unsaid.notes[0]


@pytest.mark.parametrize(("rows", "kind"), [(0, "empty"), (5, "too_few_rows"), (499, "too_few_rows")])
def test_few_rows_are_insufficient(rows: int, kind: str) -> None:
    found = judged(rows=rows)

    assert (found.verdict, found.findings[0].kind) == ("insufficient", kind)
    assert str(rows or "no row") in found.sentence


def test_five_rows_with_nulls_are_insufficient_and_five_without_a_column_are_broken() -> None:
    assert judged({"number": pa.nulls(ROWS, pa.float64())}, rows=5).verdict == "insufficient"
    assert judged(drop=("number",), rows=5).verdict == "schema_broken"


@pytest.mark.parametrize(
    ("ratio", "reference_window", "verdict", "words"),
    [
        (0.5, {"start": "2013-01-01", "end": "2013-02-01"}, "none", None),
        (
            0.5,
            {"start": "2013-01-01", "end": "2013-01-11"},
            "insufficient",
            "64.5 rows a day where the reference has 200.0",
        ),
        (0.5, None, "insufficient", "the reference's span of time is not known"),
        (None, None, "none", None),
    ],
)
def test_volume(ratio: float | None, reference_window: dict[str, str] | None, verdict: str, words: str | None) -> None:
    ours, now = profiles()
    found = judge_drift(
        ours,
        now,
        DriftSpec(min_volume_ratio=ratio),
        reference_window=Window.model_validate(reference_window) if reference_window else None,
        current_window=MARCH,
    )

    assert found.verdict == verdict
    assert (words or "") in found.sentence


def test_columns_that_cannot_be_compared_are_named_and_count_neither_way() -> None:
    reference = {
        "list": [[n] for n in range(ROWS)],
        "id": [f"row {n}" for n in range(ROWS)],
        "when": pa.array(range(ROWS), pa.timestamp("s")),
        "empty": pa.nulls(ROWS, pa.float64()),
    }
    ours, now = profiles({"empty": [1.0] * ROWS}, reference=reference, exclude=("flag",))
    found = judge_drift(ours, now, DriftSpec(), columns=[*REFERENCE, *reference, "nowhere"])
    reasons = {one.column: one.sentence for one in found.columns if one.value is None}

    assert found.compared_count == 3
    assert "left out of the reference profile" in reasons["flag"]
    assert "lists, structs, bytes" in reasons["list"]
    assert "a value of its own" in reasons["id"]
    assert "moves on by itself" in reasons["when"]
    assert "the reference has no finite value" in reasons["empty"]
    assert [finding.column for finding in found.findings] == ["nowhere"]
    assert judge_drift(ours, now, DriftSpec(), columns=["flag", "list"]).verdict == "insufficient"


def test_a_time_is_compared_where_it_is_named() -> None:
    before, later = pa.array(range(ROWS), pa.timestamp("s")), pa.array(range(5_000, 5_000 + ROWS), pa.timestamp("s"))
    found = judged({"when": later}, {"overrides": {"when": {"method": "psi"}}}, reference={"when": before})

    assert (found.verdict, found.columns[0].column, found.columns[0].kind) == ("drift", "when", "time")


def test_infinities_and_constants_have_a_verdict() -> None:
    found = judged(
        {"x": [1.0, float("inf")] * 1_000, "constant": [7.31] * ROWS},
        {"columns": ["x", "constant"]},
        reference={"x": [1.0, 2.0] * 1_000, "constant": [7.3] * ROWS},
    )

    assert {one.column for one in found.columns if one.drifted} == {"x", "constant"}


def test_unseen_categories_by_name_and_share() -> None:
    found = judged(
        {"code": ["0"] * 1_900 + ["east"] * 100},
        {"overrides": {"code": {"method": "unseen_share"}}, "columns": ["code"]},
    )

    assert (found.verdict, found.columns[0].value) == ("drift", 0.05)
    assert "new are 'east'" in found.columns[0].sentence


def test_a_profile_of_the_first_schema_is_still_a_reference() -> None:
    ours, _ = profiles()
    old: dict[str, Any] = {
        "schema": "profile/1",
        "row_count": ROWS,
        "excluded": [],
        "columns": {
            name: {
                key: value
                for key, value in column.items()
                if key not in ("type", "edges", "whole", "deviation", "quantiles")
            }
            for name, column in ours["columns"].items()
            if "edges" not in column
        },
    }
    moved = pa.table({**REFERENCE, "whole": [n % 50 + 20 for n in range(ROWS)]})
    now = window_of(moved, old)
    found = judge_drift(old, now, DriftSpec(numeric=DriftMethodSpec(method="wasserstein")))

    assert found.verdict == "drift"
    assert found.columns[0].column == "whole"
    text = window_of(pa.table({**REFERENCE, "whole": ["a"] * ROWS}), old)
    broken = judge_drift(old, text, DriftSpec())
    assert broken.findings[0].sentence == "The column 'whole' changed its type: it was numeric and is categorical."


@pytest.mark.parametrize("profile", [{}, {"schema": "profile/9", "columns": {}}, {"schema": "profile/2"}])
def test_what_is_no_profile_is_refused(profile: dict[str, Any]) -> None:
    ours, now = profiles()
    with pytest.raises(InvalidSpecError, match=r"profile of the reference has schema .* can be read"):
        judge_drift(profile, now, DriftSpec())
    with pytest.raises(InvalidSpecError, match="profile of the window"):
        judge_drift(ours, profile, DriftSpec())


def test_profiles_of_different_grids_are_not_compared() -> None:
    ours, _ = profiles()
    other = build_profile(pa.table({"number": [float(n) / 9 for n in range(ROWS)]}), available={})
    found = measure_column("number", ours, other, DriftMethodSpec(method="psi"))

    assert (found.value, "different grids" in found.sentence) == (None, True)


def test_one_column_can_be_measured_by_itself() -> None:
    ours, now = profiles({"whole": [n % 50 + 1 for n in range(ROWS)]})

    assert measure_column("whole", ours, now, DriftMethodSpec(method="kolmogorov_smirnov")).value == pytest.approx(0.02)
    assert (
        "the window has no profile of 'x'"
        in measure_column("x", {"columns": {"x": {"kind": "numeric"}}}, now, DriftMethodSpec(method="psi")).sentence
    )


class Halved:
    """A team's own method."""

    kinds = ("numeric",)
    threshold = 0.5

    def measure(self, pair: Any) -> Distance:
        return Distance(abs(pair.reference[1] - pair.current[1]) / 2, error=None)


class Broken(Halved):
    def measure(self, pair: Any) -> Distance:
        raise ZeroDivisionError("no")


def test_a_teams_own_method(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [
        EntryPoint(name, f"{__name__}:{made}", drift_methods.group)
        for name, made in (("halved", "Halved"), ("broken", "Broken"), ("wrong", "ROWS"))
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: [one for one in own if one.group == group])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])

    found = judged({"whole": [0] * ROWS}, {"numeric": {"method": "halved"}, "columns": ["whole"]})
    assert (found.columns[0].value, found.columns[0].threshold) == (980.0, 0.5)
    broken = judged(spec={"numeric": {"method": "broken"}, "columns": ["whole"]})
    assert broken.verdict == "insufficient"
    assert "the method broken raised ZeroDivisionError: no" in broken.sentence
    with pytest.raises(InvalidSpecError, match="lacks kinds, threshold or measure"):
        judged(spec={"numeric": {"method": "wrong"}})


def test_methods_are_checked_while_the_file_is_parsed() -> None:
    check_methods(DriftSpec())
    with pytest.raises(UnknownNameError, match=r"drift.numeric: No drift method is called 'psii'. Did you mean 'psi'"):
        check_methods(DriftSpec(numeric=DriftMethodSpec(method="psii")))
    with pytest.raises(InvalidSpecError, match=r"drift.categorical: the drift method 'wasserstein' measures numeric"):
        check_methods(DriftSpec(categorical=DriftMethodSpec(method="wasserstein")))
    with pytest.raises(InvalidSpecError, match=r"does not measure categorical columns such as 'code'"):
        judged(spec={"overrides": {"code": {"method": "wasserstein"}}})


def test_checking_methods_loads_nothing_heavy() -> None:
    code = (
        "import sys; from airflow_mlops.core.drift import check_methods; "
        "from airflow_mlops.spec.monitoring import DriftSpec; check_methods(DriftSpec()); "
        "print([name for name in ('numpy', 'scipy', 'pyarrow', 'duckdb', 'airflow') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_a_judgement_is_strict_json() -> None:
    found = judged({"x": [float("inf")] * ROWS}, reference={"x": [1.0, 2.0] * 1_000})

    json.dumps(found.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("int64", "number"),
        ("decimal128(10, 2)", "number"),
        ("dictionary<values=string, indices=int32, ordered=0>", "text"),
        ("large_string", "text"),
        ("string_view", "text"),
        ("timestamp[us, tz=UTC]", "time"),
        ("date32[day]", "time"),
        ("duration[s]", "other"),
        ("list<item: int64>", "other"),
        ("bool", "bool"),
        ("null", "null"),
    ],
)
def test_families_of_types(name: str, expected: str) -> None:
    assert family(name) == expected
