"""The pictures that people look at first: what they show, that odd histories break none, and that bytes repeat."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.monitoring_records import WindowState
from airflow_mlops.core.record import Window
from airflow_mlops.engines import pictures
from airflow_mlops.engines.registry import HistoryLine

NAMES = ["drift_share.png", "drifted_columns.png", "performance.png"]


def day(index: int) -> Window:
    start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=index)
    return Window(start=start, end=start + timedelta(days=1))


def state(index: int, **more: Any) -> WindowState:
    known: dict[str, Any] = {
        "window": day(index),
        "version": 1,
        "rows": 1000,
        "drift_verdict": "none",
        "drift_share": 0.2,
        "performance": {"roc_auc": 0.7 - index / 100},
        "promised": {"roc_auc": 0.72},
        "performance_state": "final",
    }
    return WindowState(**{**known, **more})


def line(number: int, window: Window | None, *, action: str = "promote", **more: Any) -> HistoryLine:
    return HistoryLine(
        entry=number, status=more.pop("status", "counted"), sentence="", applied=True, time=more.pop("time", None),
        action=action, to_version=number, window=window,
    )  # fmt: skip


DRIFTED = {"drift_verdict": "drift", "drift_share": 0.5, "drifted_columns": {"temp": 0.4, "wind": 0.3}}


def bars(figure: Any) -> list[tuple[float, str, str | None]]:
    """Height, colour and hatch of each bar, from left to right."""
    found = sorted(figure.axes[0].patches, key=lambda patch: patch.get_x())
    return [(round(patch.get_height(), 3), _hex(patch.get_facecolor()), patch.get_hatch()) for patch in found]


def _hex(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(colour))


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_window_has_the_colour_of_its_verdict() -> None:
    states = [
        state(0),
        state(1, **DRIFTED),
        state(2, drift_verdict="insufficient", drift_share=None),
        state(3, drift_verdict="schema_broken", drift_share=None),
        state(4, drift_verdict=None, drift_share=None),
    ]

    figure = pictures.drift_share(states)

    blue, red, pale, violet = bars(figure)
    assert (blue[0], red[0]) == (0.2, 0.5)
    assert len({one[1] for one in (blue, red, pale, violet)}) == 4
    assert blue[2] is red[2] is None
    assert pale[2] != violet[2]
    assert legend(figure.axes[0]) == ["no drift", "drift", "insufficient: too few rows", "schema broken"]
    # What could not be compared claims no number.
    assert [text.get_text() for text in figure.axes[0].texts] == ["20%", "50%"]


def test_a_share_of_zero_can_be_seen() -> None:
    ((height, _, _),) = bars(pictures.drift_share([state(0, drift_share=0.0)]))

    assert 0 < height < 0.02


def test_performance_shows_versions_promises_and_promotions() -> None:
    states = [
        state(0),
        state(1),
        state(3, version=2, performance_state="provisional", other_performance={"roc_auc": 0.6}),
    ]
    ledger = [
        line(1, day(0)),
        line(2, day(2), action="rollback"),
        line(3, day(2), status="superseded"),
        line(4, Window(start=day(90).start, end=day(91).end)),
    ]

    figure = pictures.performance(states, [one for one in ledger if one.status == "counted"])

    (axes,) = figure.axes
    assert legend(axes) == [
        "beside it (shadow or split)", "version 1", "promised by the evaluation", "version 2, provisional",
    ]  # fmt: skip
    hollow = [one for one in axes.lines if one.get_label() == "version 2, provisional"]
    assert [one.get_markerfacecolor() for one in hollow] == ["white"]
    # A promotion stands where its rows end; one beyond the windows is not drawn.
    assert [text.get_text() for text in axes.texts] == ["v1", "back to v2"]
    assert [one.get_linestyle() for one in axes.lines if len(one.get_xdata()) == 2][-2:] == ["-", "-."]


def test_a_superseded_wish_is_no_promotion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = pictures.performance
    monkeypatch.setattr(pictures, "performance", lambda states, lines: seen.append(lines) or real(states, lines))

    pictures.draw_pictures(tmp_path, [state(0)], [line(1, day(0)), line(2, day(0), status="superseded")])

    assert [one.entry for one in seen[0]] == [1]


def test_a_line_breaks_where_windows_are_missing() -> None:
    figure = pictures.performance([state(0), state(1), state(5)], [])

    import numpy as np

    drawn = max((one.get_ydata() for one in figure.axes[0].lines), key=len)
    assert np.isnan(np.asarray(drawn, dtype=float)).tolist() == [False, False, True, False]


def test_six_versions_have_colours_and_earlier_ones_are_grey() -> None:
    figure = pictures.performance([state(index, version=index + 1) for index in range(9)], [])

    assert legend(figure.axes[0]) == [
        "earlier versions", "promised by the evaluation", *(f"version {number}" for number in range(4, 10)),
    ]  # fmt: skip


def test_the_columns_that_drift_most_often_come_first() -> None:
    states = [
        state(0, **{**DRIFTED, "drifted_columns": {"once_but_far": 9.0}}),
        state(1, **{**DRIFTED, "drifted_columns": {"often": 0.3, "undefined": None}}),
        state(2, **{**DRIFTED, "drifted_columns": {"often": 0.4}}),
    ]

    axes = pictures.drifted_columns(states).axes[0]

    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["often", "once_but_far", "undefined"]
    assert [text.get_text() for text in axes.texts] == ["9.00", "0.30", "?", "0.40"]


@pytest.mark.parametrize(
    ("draw", "states", "words"),
    [
        pytest.param(pictures.drift_share, [], "No window was judged", id="no window"),
        pytest.param(
            pictures.drift_share, [state(0, drift_verdict=None)], "No window was judged", id="only performance"
        ),
        pytest.param(lambda states: pictures.performance(states, []), [], "labels have not come", id="no label"),
        pytest.param(
            lambda states: pictures.performance(states, []),
            [state(0, performance={}, performance_state="waiting")],
            "labels have not come",
            id="too few labels",
        ),
        pytest.param(
            lambda states: pictures.performance(states, []),
            [state(0, performance={"roc_auc": None})],
            "labels have not come",
            id="an undefined metric",
        ),
        pytest.param(pictures.drifted_columns, [], "No window was judged", id="no table"),
        pytest.param(pictures.drifted_columns, [state(0)], "No column drifted", id="nothing drifted"),
    ],
)
def test_nothing_to_show_is_said(draw: Callable[[Any], Any], states: list[WindowState], words: str) -> None:
    assert words in draw(states).axes[0].texts[0].get_text()


def many(count: int) -> list[WindowState]:
    verdicts = ["none", "drift", "none", "insufficient", "schema_broken"]
    return [
        state(
            index,
            drift_verdict=verdicts[index % 5],
            drift_share=None if index % 5 > 2 else 0.3,
            drifted_columns={f"column_{n}": 0.3 + n / 10 for n in range(index % 20)},
            version=1 + index // 10,
            performance={f"metric_{n}": 0.5 for n in range(7)} if index % 7 else {},
        )
        for index in range(count)
    ]


ODD = {
    "nothing": [],
    "one window": [state(0)],
    "200 windows": many(200),
    "names of all kinds": [
        state(0, **{**DRIFTED, "drifted_columns": {"$a$": 1.0, "温度": 1e9, "n" * 300: 0.3, r"\frac{": 0.1, "": 0.2}}),
        state(1, performance={"$x^$": 0.5, "%s {": -3.0}),
    ],
    "windows of one hour beside a year": [
        state(0, window=Window(start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2025, 1, 1, tzinfo=UTC))),
        state(0, window=Window(start=datetime(2024, 6, 1, tzinfo=UTC), end=datetime(2024, 6, 1, 1, tzinfo=UTC))),
    ],
    "the same window twice": [state(0), state(0, version=2)],
}


@pytest.mark.parametrize("states", ODD.values(), ids=ODD)
def test_every_history_gives_three_pictures_and_the_same_bytes_again(tmp_path: Path, states: list[Any]) -> None:
    ledger = [line(1, None, time=datetime(2024, 1, 1, 12, tzinfo=UTC)), line(2, None), line(3, day(0))]
    for folder, order in (("a", states), ("b", states[::-1] if len({str(s.window) for s in states}) > 1 else states)):
        (tmp_path / folder).mkdir()
        pictures.draw_pictures(tmp_path / folder, order, ledger)

    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == NAMES
    for name in NAMES:
        drawn = (tmp_path / "a" / name).read_bytes()
        assert drawn.startswith(b"\x89PNG")
        assert drawn == (tmp_path / "b" / name).read_bytes()
        assert b"tIME" not in drawn
        assert b"Software" not in drawn


def test_nothing_of_pyplot_is_touched(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from airflow_mlops.engines.pictures import draw_pictures;"
        f"draw_pictures(Path({str(tmp_path)!r}), [], []); print('matplotlib.pyplot' in sys.modules)"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "False"
    assert out.stderr == ""
