"""The shapes of a DAG's picture on matplotlib's axes, whose unit is a pixel of the SVG."""

from __future__ import annotations

from typing import Any

from airflow_mlops.cli import dag_picture as picture

#: Points of a pixel: the figure has 100 of them an inch.
_POINT = 72 / 100


def paint(axes: Any, shape: picture.Box | picture.Line | picture.Heading) -> None:
    """Draw one shape."""
    if isinstance(shape, picture.Heading):
        _write(axes, shape.x, shape.y, picture.TITLE, picture._INK, shape.text, weight="bold")
        _write(axes, shape.x, shape.y + 18, picture.SMALL + 1, picture._GREY, shape.small)
    elif isinstance(shape, picture.Line):
        _line(axes, shape)
    else:
        _box(axes, shape)


def _box(axes: Any, box: picture.Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, border = picture._COLOURS[box.kind]
    for shift in (6, 3, 0) if box.stacked else (0,):
        axes.add_patch(
            FancyBboxPatch(
                (box.x + shift, box.y + shift),
                box.width,
                box.height,
                boxstyle=f"round,pad=0,rounding_size={picture._rounding(box)}",
                facecolor=fill,
                edgecolor=border,
                linewidth=1.3 * _POINT,
            )
        )
    for x, y, size, colour, text in picture._texts(box):
        _write(axes, x, y, size, colour, text)


def _line(axes: Any, line: picture.Line) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    codes, corners = [], []
    for step, values in picture._steps(line):
        points = list(zip(values[::2], values[1::2], strict=True))
        codes += {"M": [Curve.MOVETO], "L": [Curve.LINETO], "C": [Curve.CURVE4] * 3}[step]
        corners += points
    colour = picture._line_colour(line)
    style = (0, (5, 4)) if line.dashed else "solid"
    axes.add_patch(
        PathPatch(Curve(corners, codes), fill=False, edgecolor=colour, linewidth=1.6 * _POINT, linestyle=style)
    )
    if line.arrow:
        axes.add_patch(Polygon(picture._tip(line), closed=True, facecolor=colour, edgecolor="none"))


def _write(axes: Any, x: float, y: float, size: float, colour: str, text: str, **more: Any) -> None:
    # Dollar signs would begin a formula.
    plain = text.replace("$", r"\$")
    axes.text(x, y, plain, fontsize=size * _POINT, color=colour, family="DejaVu Sans Mono", va="baseline", **more)
