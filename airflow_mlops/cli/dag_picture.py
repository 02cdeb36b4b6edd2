"""A model's DAGs as one picture: SVG, which needs nothing installed, or PNG, which needs matplotlib.

Airflow's own picture needs the system program ``dot``, which managed images and most laptops lack, and matplotlib alone
would cost a second of imports for what is boxes and lines. So the layout is ours (:mod:`airflow_mlops.cli.dag_layout`)
and gives one list of shapes that either writer draws. Text is monospaced: its width is known without asking a font.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.cli.dag_layout import Layout, Leaf, Nest, layout
from airflow_mlops.cli.dag_view import DagView, Group, Task, reduced
from airflow_mlops.errors import InvalidSpecError, MissingEngineError

NAME, SMALL, TITLE = 13.0, 10.5, 17.0
#: Width of a monospaced character, in ems; of DejaVu Sans Mono, the widest of the usual ones.
_EM = 0.603
_LONGEST = 26
_MARGIN = 28.0
_INK, _GREY = "#1f2328", "#57606a"
#: Fill and border by what a box is.
_COLOURS = {
    "task": ("#ddeafc", "#1f4e8c"),
    "sensor": ("#fff1cc", "#8a5a00"),
    "group": ("#f6f8fa", "#6e7781"),
    "asset": ("#d8f5df", "#116329"),
    "start": ("#ffffff", "#57606a"),
}


@dataclass(frozen=True)
class Box:
    """A rectangle with lines of text: name lines in the middle, small ones below them."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    names: tuple[str, ...]
    small: tuple[str, ...] = ()
    stacked: bool = False


@dataclass(frozen=True)
class Line:
    """A line through points, curved between every second and third; with an arrow where it ends at a box."""

    points: tuple[tuple[float, float], ...]
    arrow: bool
    dashed: bool


@dataclass(frozen=True)
class Heading:
    """A DAG's name, and its schedule below it."""

    x: float
    y: float
    text: str
    small: str


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn, in the order of drawing."""

    width: float
    height: float
    shapes: tuple[Box | Line | Heading, ...]


def write_picture(dags: Sequence[DagView], path: Path) -> bytes:
    """Return the picture of the DAGs, one under another, in the format that the path's ending names.

    :raises InvalidSpecError: the ending is neither .svg nor .png.
    :raises MissingEngineError: a PNG is asked for, and matplotlib is not installed.
    """
    ending = check_ending(path)
    scene = draw(dags)
    return svg(scene).encode() if ending == ".svg" else png(scene)


def check_ending(path: Path) -> str:
    """Return how the file's name ends, as far as that is a format.

    :raises InvalidSpecError: the ending is neither .svg nor .png.
    """
    ending = path.suffix.lower()
    if ending not in (".svg", ".png"):
        raise InvalidSpecError(f"--picture {path}: a picture is an .svg or a .png file. Choose one of these endings.")
    return ending


def draw(dags: Sequence[DagView]) -> Scene:
    """Return the shapes of the DAGs' picture."""
    shapes: list[Box | Line | Heading] = []
    width, y = 0.0, _MARGIN
    for dag in dags:
        title = Heading(_MARGIN, y + TITLE, dag.dag_id, f"{dag.kind}, {dag.schedule}")
        placed = layout(_nest(dag), _edges(dag))
        top = y + TITLE + 34
        shapes += [title, *_shapes(dag, placed, _MARGIN, top)]
        words = max(_width(title.text, TITLE), _width(title.small, SMALL))
        width = max(width, placed.width, words)
        y = top + placed.height + 2 * _MARGIN
    return Scene(width + 2 * _MARGIN, y - _MARGIN, tuple(shapes))


# From a DAG to shapes


def _nest(dag: DagView) -> Nest:
    ends = [Leaf(key, *_size(_wrapped(text), small)) for key, text, small, _ in _ends(dag)]
    return Nest("", 0.0, (*(_placed(child) for child in dag.root.children), *ends))


def _placed(child: Task | Group) -> Leaf | Nest:
    if isinstance(child, Task):
        return Leaf(child.id, *_size(_wrapped(child.label), (child.operator,)))
    return Nest(child.id, _width(_group_name(child), SMALL) + 24, tuple(_placed(one) for one in child.children))


def _edges(dag: DagView) -> list[tuple[str, str]]:
    edges = reduced(dag.edges)
    waiting = {then for _, then in edges}
    roots = [task.id for task in dag.ordered() if task.id not in waiting]
    for key, text, _, kind in _ends(dag):
        if key.startswith("out "):
            edges += [(sender, key) for sender in dag.assets_out[text]]
        elif kind:
            edges += [(key, root) for root in roots]
    return edges


def _ends(dag: DagView) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield what starts the DAG and the Assets that it sends events of: key, text, small text, kind."""
    for name in dag.assets_in:
        yield f"in {name}", name, ("Asset",), "asset"
    if not dag.assets_in:
        what, _, cron = dag.schedule.partition(" (")[0].partition(" ")
        yield "start", cron if what == "cron" else "by hand", ("cron" if what == "cron" else "",), "start"
    for name in dag.assets_out:
        yield f"out {name}", name, ("Asset",), "asset"


def _shapes(dag: DagView, placed: Layout, x: float, y: float) -> Iterator[Box | Line]:
    groups = list(_groups(dag.root))
    for group in groups:
        rect = placed.boxes[group.id].moved(x, y)
        size = (rect.x, rect.y, rect.width, rect.height)
        yield Box(*size, "group", (), (_group_name(group),), group.mapped)
    ends = {key for key, *_ in _ends(dag)}
    inside = {group.id: {task.id for task in group.tasks()} for group in groups}
    edges = _edges(dag)
    for (first, then), points in placed.lines.items():
        # A piece inside a group belongs to all edges that go through its door.
        sources, targets = {first}, {then}
        if first.startswith("in:"):
            sources = {one for one, other in edges if other == then and one not in inside[first.partition("@")[2]]}
        if then.startswith("out:"):
            targets = {other for one, other in edges if one == first and other not in inside[then.partition("@")[2]]}
        dashed = sources <= ends or targets <= ends
        at = tuple((px + x, py + y) for px, py in points)
        yield Line(at, then in placed.boxes and _meets(placed, then, points), dashed)
    for task in dag.root.tasks():
        rect = placed.boxes[task.id].moved(x, y)
        kind = "sensor" if task.sensor else "task"
        yield Box(rect.x, rect.y, rect.width, rect.height, kind, _wrapped(task.label), (task.operator,), task.mapped)
    for key, text, small, kind in _ends(dag):
        rect = placed.boxes[key].moved(x, y)
        yield Box(rect.x, rect.y, rect.width, rect.height, kind, _wrapped(text), small)


def _meets(placed: Layout, name: str, points: Sequence[tuple[float, float]]) -> bool:
    """Say whether a line ends at the box, and not at the side of a group around it."""
    return abs(placed.boxes[name].x - points[-1][0]) < 0.5


def _groups(group: Group) -> Iterator[Group]:
    for child in group.children:
        if isinstance(child, Group):
            yield child
            yield from _groups(child)


def _group_name(group: Group) -> str:
    return f"{group.label}, once for every window" if group.mapped else group.label


def _wrapped(text: str) -> tuple[str, ...]:
    """Break a long name after an underscore, a dot or a hyphen, or anywhere where it has none."""
    lines = []
    while len(text) > _LONGEST:
        breaks = [match.end() for match in re.finditer(r"[_.\- ]", text[:_LONGEST])]
        at = breaks[-1] if breaks and breaks[-1] > _LONGEST // 3 else _LONGEST
        lines.append(text[:at])
        text = text[at:]
    return (*lines, text)


def _size(names: Sequence[str], small: Sequence[str]) -> tuple[float, float]:
    widths = [_width(line, NAME) for line in names] + [_width(line, SMALL) for line in small]
    rows = len(names) * NAME * 1.3 + sum(bool(line) for line in small) * SMALL * 1.4
    return max(max(widths) + 22, 84.0), rows + 16


def _width(text: str, size: float) -> float:
    return len(text) * size * _EM


def _texts(box: Box) -> Iterator[tuple[float, float, float, str, str]]:
    """Yield the lines of a box's text: x, baseline, size, colour, text; those of a group stand at its top left."""
    if box.kind == "group":
        yield box.x + 12, box.y + 17, SMALL, _INK, box.small[0]
        return
    baseline = box.y + 8 + NAME * 0.95
    for line in box.names:
        yield box.x + (box.width - _width(line, NAME)) / 2, baseline, NAME, _INK, line
        baseline += NAME * 1.3
    baseline -= (NAME - SMALL) * 0.6
    for line in filter(None, box.small):
        yield box.x + (box.width - _width(line, SMALL)) / 2, baseline, SMALL, _GREY, line
        baseline += SMALL * 1.4


def _steps(line: Line) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield the path of a line: straight within columns, curved between them; it stops short of an arrow's tip."""
    points = list(line.points)
    if line.arrow:
        points[-1] = (points[-1][0] - 6, points[-1][1])
    yield "M", points[0]
    for number, (x, y) in enumerate(points[1:], start=1):
        before_x, before_y = points[number - 1]
        if number % 2 == 0 and abs(y - before_y) > 0.1:
            middle = (before_x + x) / 2
            yield "C", (middle, before_y, middle, y, x, y)
        else:
            yield "L", (x, y)


def _tip(line: Line) -> list[tuple[float, float]]:
    x, y = line.points[-1]
    return [(x, y), (x - 9, y - 4.5), (x - 9, y + 4.5)]


def _rounding(box: Box) -> float:
    return {"asset": min(box.height / 2, 20.0), "start": min(box.height / 2, 20.0), "group": 8.0}.get(box.kind, 5.0)


# SVG


def svg(scene: Scene) -> str:
    """Return the picture as SVG, one file that loads nothing."""
    size = f'width="{scene.width:.0f}" height="{scene.height:.0f}" viewBox="0 0 {scene.width:.0f} {scene.height:.0f}"'
    fonts = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{fonts}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for shape in scene.shapes:
        lines += _svg_of(shape)
    return "\n".join([*lines, "</svg>\n"])


def _svg_of(shape: Box | Line | Heading) -> Iterator[str]:
    if isinstance(shape, Heading):
        yield _svg_text(shape.x, shape.y, TITLE, _INK, shape.text, bold=True)
        yield _svg_text(shape.x, shape.y + 18, SMALL + 1, _GREY, shape.small)
    elif isinstance(shape, Line):
        path = " ".join(f"{step} {' '.join(f'{value:.1f}' for value in values)}" for step, values in _steps(shape))
        dashes = ' stroke-dasharray="5 4"' if shape.dashed else ""
        colour = _line_colour(shape)
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>'
        if shape.arrow:
            corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in _tip(shape))
            yield f'<polygon points="{corners}" fill="{colour}"/>'
    else:
        fill, border = _COLOURS[shape.kind]
        for shift in (6, 3, 0) if shape.stacked else (0,):
            yield (
                f'<rect x="{shape.x + shift:.1f}" y="{shape.y + shift:.1f}" width="{shape.width:.1f}" '
                f'height="{shape.height:.1f}" rx="{_rounding(shape):.1f}" fill="{fill}" stroke="{border}" '
                f'stroke-width="1.3"/>'
            )
        for x, y, size, colour, text in _texts(shape):
            yield _svg_text(x, y, size, colour, text)


def _svg_text(x: float, y: float, size: float, colour: str, text: str, *, bold: bool = False) -> str:
    # The length is given, so that a font of another width shrinks or stretches into its box.
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{weight} fill="{colour}" '
        f'textLength="{_width(text, size):.1f}" lengthAdjust="spacingAndGlyphs" xml:space="preserve">'
        f"{html.escape(text)}</text>"
    )


def _line_colour(line: Line) -> str:
    return _COLOURS["asset"][1] if line.dashed else _INK


# PNG


def png(scene: Scene) -> bytes:
    """Return the picture as PNG, at twice its size in pixels.

    :raises MissingEngineError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingEngineError(
            "A PNG needs matplotlib, which is not installed here. Write an .svg file instead, or run: pip install "
            "'airflow-mlops[steps]'."
        ) from exc
    import io

    from airflow_mlops.cli.dag_paint import paint

    figure = Figure(figsize=(scene.width / 100, scene.height / 100), dpi=200, facecolor="#ffffff")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.axis("off")
    for shape in scene.shapes:
        paint(axes, shape)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()
