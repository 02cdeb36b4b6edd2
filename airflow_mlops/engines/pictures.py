"""The pictures of a monitored model that people look at first, as PNG files on its MLflow run.

Matplotlib is used through its objects, never through ``pyplot``, whose state belongs to a whole process. The same
states give the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.monitoring_records import WindowState
from airflow_mlops.core.record import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    from airflow_mlops.engines.registry import HistoryLine

FOLDER = "pictures"
#: Metrics that get a panel of their own.
MAX_METRICS = 4
#: Windows and columns of the table of drifted columns; the newest and the most drifted ones.
MAX_TABLE_WINDOWS = 24
MAX_TABLE_COLUMNS = 12
#: Up to so many windows the table's cells hold their numbers.
MAX_NUMBERED = 14
_MAX_NAME = 28
#: A share of zero is still a window that was looked at.
_LEAST_BAR = 0.008

_GREY = "#8a8f98"
_INK = "#22272e"
#: Colour and hatch of a verdict; hatches keep them apart where colours do not.
_VERDICTS = {
    "none": ("#5b9bd5", "", "no drift"),
    "drift": ("#d1495b", "", "drift"),
    "insufficient": ("#d9dce1", "//", "insufficient: too few rows"),
    "schema_broken": ("#6a4c93", "xx", "schema broken"),
}
#: One per version (Okabe and Ito's palette without yellow and black); earlier versions than the last six are grey.
_VERSIONS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def log_pictures(
    client: MlflowClient,
    run_id: str,
    folder: Path,
    states: Sequence[WindowState],
    promotions: Sequence[HistoryLine],
) -> str:
    """Draw the pictures and store them under ``pictures/`` of a run; return ``runs:/RUN/pictures``.

    ``drift_share.png``: the share of drifted columns, window by window, in the verdict's colour.
    ``performance.png``: each realised metric by version, beside what was promised, with promotions.
    ``drifted_columns.png``: which columns drifted how far in the last windows.

    :param folder: an existing scratch folder.
    :param states: windows in any order; none gives pictures that say so.
    :param promotions: the ledger; only lines that count are drawn.
    """
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    draw_pictures(target, states, promotions)
    client.log_artifacts(run_id, str(target), FOLDER)
    return f"runs:/{run_id}/{FOLDER}"


def draw_pictures(target: Path, states: Sequence[WindowState], promotions: Sequence[HistoryLine]) -> list[Path]:
    """Draw the three pictures into an existing folder and return their paths."""
    ordered = sorted(states, key=lambda one: (one.window.start, one.window.end))
    counted = [one for one in promotions if one.status == "counted" and one.to_version is not None]
    drawings: dict[str, Callable[[], Figure]] = {
        "drift_share.png": lambda: drift_share(ordered),
        "performance.png": lambda: performance(ordered, counted),
        "drifted_columns.png": lambda: drifted_columns(ordered),
    }
    return [_save(draw(), target / name) for name, draw in drawings.items()]


def drift_share(states: Sequence[WindowState]) -> Figure:
    """Draw the share of drifted columns over windows; one that could not be compared is hatched and has no number."""
    figure, (axes,) = _figure(1, height=3.6)
    axes.set_title("Share of drifted columns", loc="left", fontweight="bold", color=_INK)
    judged = [one for one in states if one.drift_verdict is not None]
    if not judged:
        return _nothing(figure, axes, "No window was judged for drift yet.")
    seen = []
    for verdict, (colour, hatch, label) in _VERDICTS.items():
        mine = [one for one in judged if one.drift_verdict == verdict]
        if not mine:
            continue
        seen.append(verdict)
        # A window that could not be compared has no share: a pale full-height bar is seen, and claims no number.
        whole = verdict in ("insufficient", "schema_broken")
        axes.bar(
            [_middle(one.window) for one in mine],
            [1.0 if whole else max(one.drift_share or 0.0, _LEAST_BAR) for one in mine],
            width=[_days(one.window) * 0.92 for one in mine],
            color=colour,
            alpha=0.45 if whole else 1.0,
            hatch=hatch or None,
            edgecolor="white" if not whole else _GREY,
            linewidth=0.3 if len(judged) > 60 else 0.8,
            label=label,
        )
    if len(judged) <= 20:
        for one in judged:
            if one.drift_share and one.drift_verdict in ("none", "drift"):
                axes.annotate(f"{one.drift_share:.0%}", (_middle(one.window), one.drift_share), ha="center",
                              va="bottom", fontsize=8, color=_INK)  # fmt: skip
    axes.set_ylim(0, 1.08)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    _time_axis(axes, judged)
    _legend(axes, columns=len(seen))
    return figure


def performance(states: Sequence[WindowState], promotions: Sequence[HistoryLine]) -> Figure:
    """Draw realised metrics over windows, one panel a metric: filled where final, hollow where provisional."""
    measured = [one for one in states if one.performance_state in ("provisional", "final")]
    metrics = _metrics(measured)
    figure, panels = _figure(max(1, len(metrics)), height=1.2 + 2.4 * max(1, len(metrics)))
    panels[0].set_title("Realised performance", loc="left", fontweight="bold", color=_INK)
    if not metrics:
        return _nothing(figure, panels[0], "No realised performance yet: labels have not come.")
    versions = list(dict.fromkeys(one.version for one in measured))
    older, newer = versions[: -len(_VERSIONS)], versions[-len(_VERSIONS) :]
    colours = {**dict.fromkeys(older, _GREY), **dict(zip(newer, _VERSIONS, strict=False))}
    for axes, metric in zip(panels, metrics, strict=True):
        _panel(axes, metric, measured, colours)
        _promotions(axes, measured, promotions)
        _time_axis(axes, measured)
        axes.tick_params(labelbottom=axes is panels[-1])
        axes.xaxis.get_offset_text().set_visible(axes is panels[-1])
    _legend(panels[-1], *panels[:-1], columns=4)
    return figure


def _panel(axes: Axes, metric: str, states: Sequence[WindowState], colours: dict[int, str]) -> None:
    shadow = [(one, one.other_performance[metric]) for one in states if one.other_performance.get(metric) is not None]
    if shadow:
        axes.plot(*_line(shadow), "--", color=_GREY, marker="D", markersize=3.5, linewidth=1.2,
                  label="beside it (shadow or split)")  # fmt: skip
    promised_label = "promised by the evaluation"
    for version, colour in colours.items():
        mine = [one for one in states if one.version == version]
        points = [(one, one.performance[metric]) for one in mine if one.performance.get(metric) is not None]
        axes.plot(*_line(points), "-", color=colour, linewidth=1.6, alpha=0.8)
        for state, fill in (("final", colour), ("provisional", "white")):
            some = [(one, value) for one, value in points if one.performance_state == state]
            if some:
                name = "earlier versions" if colour == _GREY else f"version {version}"
                label = name + ("" if state == "final" else ", provisional")
                axes.plot([_middle(one.window) for one, _ in some], [value for _, value in some], "o", color=colour,
                          markerfacecolor=fill, markersize=6 if len(states) <= 60 else 3.5, label=label)  # fmt: skip
        for one in mine:
            if (promise := one.promised.get(metric)) is not None:
                axes.hlines(promise, _day(one.window.start), _day(one.window.end), color=colour, linewidth=1.2,
                            linestyles="dotted", label=promised_label)  # fmt: skip
                promised_label = "_again"
    axes.set_ylabel(_name(metric), color=_INK)
    axes.margins(y=0.18)


def _line(points: Sequence[tuple[WindowState, float | None]]) -> tuple[list[float], list[float]]:
    """Return the points of a line that is broken where windows are missing in between."""
    across: list[float] = []
    up: list[float] = []
    before: Window | None = None
    for one, value in points:
        if before is not None and one.window.start > before.end:
            across.append(_day(before.end))
            up.append(float("nan"))
        across.append(_middle(one.window))
        up.append(float("nan") if value is None else value)
        before = one.window
    return across, up


def _promotions(axes: Axes, states: Sequence[WindowState], promotions: Sequence[HistoryLine]) -> None:
    first, last = states[0].window.start, max(one.window.end for one in states)
    placed = [(moment, one) for one in promotions if first <= (moment := _moment(one)) <= last]
    for index, (moment, one) in enumerate(placed):
        back = one.action == "rollback"
        axes.axvline(_day(moment), color=_INK, linewidth=0.9, linestyle="-." if back else "-", alpha=0.6)
        if len(placed) <= 12:
            # At the top, in two heights, so that neighbours do not cover each other.
            axes.annotate(f"{'back to ' if back else ''}v{one.to_version}", (_day(moment), 1.0),
                          xycoords=("data", "axes fraction"), xytext=(2, -9 - 10 * (index % 2)),
                          textcoords="offset points", fontsize=7.5, color=_INK)  # fmt: skip


def _moment(line: HistoryLine) -> datetime:
    """Return where in event time an entry stands: the end of the rows it was judged on, else when it was written."""
    from datetime import UTC

    return line.window.end if line.window is not None else line.time or datetime.min.replace(tzinfo=UTC)


def drifted_columns(states: Sequence[WindowState]) -> Figure:
    """Draw the columns that drifted most often over the last windows; the number is the distance."""
    judged = [one for one in states if one.drift_verdict is not None][-MAX_TABLE_WINDOWS:]
    columns = _most_drifted(judged)
    figure, (axes,) = _figure(1, height=1.7 + 0.32 * max(3, len(columns)))
    axes.set_title(f"Drifted columns, last {len(judged)} windows" if len(judged) > 1 else "Drifted columns",
                   loc="left", fontweight="bold", color=_INK)  # fmt: skip
    if not judged:
        return _nothing(figure, axes, "No window was judged for drift yet.")
    if not columns:
        return _nothing(figure, axes, "No column drifted in these windows.")
    import numpy as np

    grid = np.full((len(columns), len(judged)), np.nan)
    for place, one in enumerate(judged):
        for row, column in enumerate(columns):
            value = one.drifted_columns.get(column)
            if value is not None:
                grid[row, place] = value
    # One outlier would make all others look alike, so the scale ends at the 90th percentile.
    finite = grid[np.isfinite(grid)]
    top = float(np.quantile(finite, 0.9)) if finite.size else 1.0
    axes.grid(visible=False)
    mesh = axes.pcolormesh(np.ma.masked_invalid(grid), cmap="OrRd", vmin=0.0, vmax=top or 1.0, edgecolors="white")
    for place, one in enumerate(judged):
        for row, column in enumerate(columns):
            _cell(axes, place, row, one, column, dark=top, numbered=len(judged) <= MAX_NUMBERED)
        if one.drift_verdict in ("insufficient", "schema_broken"):
            colour, hatch, _ = _VERDICTS[one.drift_verdict]
            axes.fill_between([place, place + 1], 0, len(columns), facecolor=colour, alpha=0.25, hatch=hatch,
                              edgecolor=_GREY, linewidth=0)  # fmt: skip
    axes.set_yticks([row + 0.5 for row in range(len(columns))], [_name(column) for column in columns])
    axes.invert_yaxis()
    every = max(1, -(-len(judged) // 12))
    axes.set_xticks(
        [place + 0.5 for place in range(0, len(judged), every)],
        [_span(one.window) for one in judged[::every]],
        rotation=0 if len(judged) <= 8 else 35,
        ha="center" if len(judged) <= 8 else "right",
    )
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if finite.size:
        bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=14, extend="max" if finite.max() > top else "neither")
        bar.set_label("distance from the reference", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    return figure


def _cell(axes: Axes, place: int, row: int, one: WindowState, column: str, *, dark: float, numbered: bool) -> None:
    if column not in one.drifted_columns:
        return
    value = one.drifted_columns[column]
    if value is None:
        axes.text(place + 0.5, row + 0.5, "?", ha="center", va="center", fontsize=8, color=_INK)
    elif numbered:
        colour = "white" if value > 0.6 * dark else _INK
        text = f"{value:.2f}" if value < 100 else f"{value:.2g}"
        axes.text(place + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=colour)


def _most_drifted(states: Iterable[WindowState]) -> list[str]:
    times: dict[str, int] = {}
    far: dict[str, float] = {}
    for one in states:
        for column, value in one.drifted_columns.items():
            times[column] = times.get(column, 0) + 1
            far[column] = max(far.get(column, 0.0), value or 0.0)
    return sorted(times, key=lambda name: (-times[name], -far[name], name))[:MAX_TABLE_COLUMNS]


def _metrics(states: Iterable[WindowState]) -> list[str]:
    return list(dict.fromkeys(name for one in states for name, v in one.performance.items() if v is not None))[
        :MAX_METRICS
    ]


def _figure(panels: int, *, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(9.0, height), dpi=110, layout=layout, facecolor="white")
    axes = [figure.add_subplot(panels, 1, index + 1) for index in range(panels)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(_GREY)
        one.tick_params(colors=_INK, labelsize=8.5)
        one.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        one.set_axisbelow(True)
    return figure, axes


def _nothing(figure: Figure, axes: Axes, words: str) -> Figure:
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=_GREY, fontsize=12)
    return figure


def _time_axis(axes: Axes, states: Sequence[WindowState]) -> None:
    first, last = _day(states[0].window.start), max(_day(one.window.end) for one in states)
    room = (last - first) * 0.02
    axes.set_xlim(first - room, last + room)
    if len(states) <= 8:
        axes.set_xticks([_middle(one.window) for one in states], [_span(one.window) for one in states])
        return
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _legend(axes: Axes, *others: Axes, columns: int) -> None:
    found: dict[str, Any] = {}
    for one in (*others, axes):
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        axes.legend(list(found.values()), list(found), loc="upper center", bbox_to_anchor=(0.5, -0.14),
                    ncols=max(1, min(4, columns)), frameon=False, fontsize=8.5)  # fmt: skip


def _day(moment: datetime) -> float:
    """Return a time as matplotlib's own number, in days; numbers are what every drawing call takes alike."""
    from matplotlib.dates import date2num

    return float(date2num(moment))


def _days(window: Window) -> float:
    return _day(window.end) - _day(window.start)


def _middle(window: Window) -> float:
    return (_day(window.start) + _day(window.end)) / 2


def _span(window: Window) -> str:
    """Return a window as people say it: a calendar month by its name, else its first day."""
    start, end = window.start, window.end
    months = (end.year - start.year) * 12 + end.month - start.month
    if months == 1 and start.day == end.day == 1 and (start.hour, end.hour) == (0, 0):
        return start.strftime("%b %Y")
    return _date(start)


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d" if (moment.hour, moment.minute) == (0, 0) else "%m-%d %H:%M")


def _name(text: str) -> str:
    # Long names often differ at their end. A dollar sign begins a formula, which a column's name is not.
    half = (_MAX_NAME - 1) // 2
    short = text if len(text) <= _MAX_NAME else f"{text[:half]}…{text[-half:]}"
    return short.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with warnings.catch_warnings():
        # A name in a script that the built-in font lacks is drawn as boxes; that is no news for a task's log.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        settings: dict[str, Any] = {"metadata": {"Software": None}}
        with path.open("wb") as file:
            FigureCanvasAgg(figure).print_png(file, **settings)
    return path
