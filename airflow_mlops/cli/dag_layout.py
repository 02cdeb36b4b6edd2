"""Where the boxes and lines of a DAG's picture go: in layers, from left to right, with lines around boxes.

The way of Sugiyama: tasks stand in columns, each right of all that it waits for; a line that passes a column gets a
lane of its own there, so it crosses no box; columns are ordered so that few lines cross; heights follow the neighbours.
A task group is laid out by itself and stands in its parent as one box, with doors in its sides where lines go through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

COLUMN_GAP = 52.0
DOOR_GAP = 26.0
ROW_GAP = 18.0
LANE = 6.0
PAD = 14.0
HEAD = 26.0
_SWEEPS = 12


@dataclass(frozen=True)
class Leaf:
    """Something to be placed: its id and size."""

    id: str
    width: float
    height: float


@dataclass(frozen=True)
class Nest:
    """A group of them; ``width`` is the least it may have, for its name."""

    id: str
    width: float
    children: tuple[Leaf | Nest, ...]


@dataclass(frozen=True)
class Rect:
    """A placed box."""

    x: float
    y: float
    width: float
    height: float

    def moved(self, x: float, y: float) -> Rect:
        """Return the box somewhere else."""
        return Rect(self.x + x, self.y + y, self.width, self.height)


@dataclass
class Layout:
    """What was placed: boxes by id, and for each edge the points its line goes through, in pairs of flat pieces."""

    width: float
    height: float
    boxes: dict[str, Rect] = field(default_factory=dict)
    lines: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    #: Heights at which a task is reached from the left, and left to the right.
    doors_in: dict[str, float] = field(default_factory=dict)
    doors_out: dict[str, float] = field(default_factory=dict)


@dataclass
class _Item:
    """One entry of a column: a child, a lane of a line that passes, or a door."""

    name: Any
    rank: int
    width: float
    height: float
    y: float = 0.0


def layout(nest: Nest, edges: Sequence[tuple[str, str]], *, outermost: bool = True) -> Layout:
    """Place what is in a group.

    :param edges: all edges of the DAG; those that leave the group end at its doors.
    """
    inner = {child.id: _inside(child, edges) for child in nest.children}
    home = {leaf: child.id for child in nest.children for leaf in _leaves(child)}
    ranks = _ranks([child.id for child in nest.children], edges, home)
    last = max(ranks.values(), default=0)
    items = {name: _Item(name, ranks[name], one.width, one.height) for name, one in inner.items()}
    chains = _chains(edges, home, ranks, last, items)
    columns = _columns(items)
    links = [(a, b, *_heights(a, b, edge, inner)) for edge, chain in chains.items() for a, b in _pairs(chain)]
    _order(columns, links)
    _settle(columns, items, links)
    return _drawn(nest, columns, items, chains, inner, home, outermost=outermost)


def _inside(child: Leaf | Nest, edges: Sequence[tuple[str, str]]) -> Layout:
    if isinstance(child, Nest):
        return layout(child, edges, outermost=False)
    middle = {child.id: child.height / 2}
    own = {child.id: Rect(0, 0, child.width, child.height)}
    return Layout(child.width, child.height, own, {}, middle, dict(middle))


def _leaves(child: Leaf | Nest) -> list[str]:
    return [child.id] if isinstance(child, Leaf) else [leaf for one in child.children for leaf in _leaves(one)]


def _ranks(names: Sequence[str], edges: Iterable[tuple[str, str]], home: Mapping[str, str]) -> dict[str, int]:
    before: dict[str, set[str]] = {name: set() for name in names}
    for first, then in edges:
        if first in home and then in home and home[first] != home[then]:
            before[home[then]].add(home[first])
    ranks: dict[str, int] = {}

    def rank(name: str) -> int:
        if name not in ranks:
            ranks[name] = 0  # two groups that wait for parts of each other: the line goes back
            ranks[name] = max((rank(one) + 1 for one in before[name]), default=0)
        return ranks[name]

    for name in names:
        rank(name)
    return ranks


def _chains(
    edges: Sequence[tuple[str, str]],
    home: Mapping[str, str],
    ranks: Mapping[str, int],
    last: int,
    items: dict[Any, _Item],
) -> dict[tuple[str, str], list[Any]]:
    """Return for every edge the items its line goes through, and add lanes and doors to the items."""
    chains: dict[tuple[str, str], list[Any]] = {}

    def lanes(edge: tuple[Any, Any], begin: int, end: int) -> list[Any]:
        made = [("lane", *edge, rank) for rank in range(begin + 1, end)]
        for name in made:
            items[name] = _Item(name, name[-1], 0.0, LANE)
        return made

    for first, then in edges:
        if first in home and then in home and home[first] != home[then]:
            a, b = home[first], home[then]
            chains[first, then] = [a, *lanes((first, then), ranks[a], ranks[b]), b]
        elif then in home and first not in home and (door := ("in", then)) not in items:
            items[door] = _Item(door, -1, 0.0, LANE)
            chains["", then] = [door, *lanes(door, -1, ranks[home[then]]), home[then]]
        elif first in home and then not in home and (door := ("out", first)) not in items:
            items[door] = _Item(door, last + 1, 0.0, LANE)
            chains[first, ""] = [home[first], *lanes(door, ranks[home[first]], last + 1), door]
    return chains


def _columns(items: Mapping[Any, _Item]) -> dict[int, list[_Item]]:
    columns: dict[int, list[_Item]] = {}
    for item in items.values():
        columns.setdefault(item.rank, []).append(item)
    return dict(sorted(columns.items()))


def _pairs(chain: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return pairwise(chain)


def _heights(a: Any, b: Any, edge: tuple[str, str], inner: Mapping[str, Layout]) -> tuple[float, float]:
    """Return how far below the top of each of two items the line between them is."""
    first, then = edge
    leaving = inner[a].doors_out[first] if a in inner else LANE / 2
    reaching = inner[b].doors_in[then] if b in inner else LANE / 2
    return leaving, reaching


def _order(columns: Mapping[int, list[_Item]], links: Sequence[tuple[Any, Any, float, float]]) -> None:
    """Order each column so that few lines cross."""

    def place() -> dict[Any, float]:
        return {item.name: number for column in columns.values() for number, item in enumerate(column)}

    def crossings() -> int:
        at = place()
        rank = {item.name: item.rank for column in columns.values() for item in column}
        drawn = [(rank[a], at[a] + out / 1e4, at[b] + into / 1e4) for a, b, out, into in links]
        return sum(
            (one[1] - two[1]) * (one[2] - two[2]) < 0
            for number, one in enumerate(drawn)
            for two in drawn[number + 1 :]
            if one[0] == two[0]
        )

    best, fewest = {rank: list(column) for rank, column in columns.items()}, crossings()
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for rank in sorted(columns, reverse=not forward):
            at = place()
            near: dict[Any, list[float]] = {}
            for a, b, out, into in links:
                if forward:
                    near.setdefault(b, []).append(at[a] + out / 1e4)
                else:
                    near.setdefault(a, []).append(at[b] + into / 1e4)
            middles = {name: sum(values) / len(values) for name, values in near.items()}
            columns[rank].sort(key=lambda item: middles.get(item.name, at[item.name]))
        if (found := crossings()) < fewest:
            best, fewest = {rank: list(column) for rank, column in columns.items()}, found
    for rank, column in best.items():
        columns[rank][:] = column


def _settle(
    columns: Mapping[int, list[_Item]], items: Mapping[Any, _Item], links: Sequence[tuple[Any, Any, float, float]]
) -> None:
    """Give each item a height near that of its neighbours, in its column's order and without overlap."""
    for column in columns.values():
        _stack(column, [0.0] * len(column))
    for sweep in range(_SWEEPS):
        for rank in sorted(columns, reverse=bool(sweep % 2)):
            wanted: dict[Any, list[float]] = {}
            for a, b, out, into in links:
                if items[b].rank == rank:
                    wanted.setdefault(b, []).append(items[a].y + out - into)
                if items[a].rank == rank and sweep > 1:
                    wanted.setdefault(a, []).append(items[b].y + into - out)
            column = columns[rank]
            _stack(column, [_mean(wanted.get(item.name)) if item.name in wanted else item.y for item in column])


def _mean(values: Sequence[float] | None) -> float:
    return sum(values) / len(values) if values else 0.0


def _stack(column: Sequence[_Item], wanted: Sequence[float]) -> None:
    """Place a column's items as near to the wanted heights as their order and gaps allow (least squares)."""
    offsets, total = [], 0.0
    for item in column:
        offsets.append(total)
        total += item.height + ROW_GAP
    blocks: list[tuple[float, int]] = []
    for height, offset in zip(wanted, offsets, strict=True):
        blocks.append((height - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (right, many), (left, few) = blocks.pop(), blocks.pop()
            blocks.append(((right * many + left * few) / (many + few), many + few))
    placed = [height for height, count in blocks for _ in range(count)]
    for item, height, offset in zip(column, placed, offsets, strict=True):
        item.y = height + offset


def _drawn(
    nest: Nest,
    columns: Mapping[int, list[_Item]],
    items: Mapping[Any, _Item],
    chains: Mapping[tuple[str, str], list[Any]],
    inner: Mapping[str, Layout],
    home: Mapping[str, str],
    *,
    outermost: bool,
) -> Layout:
    """Turn columns into coordinates: boxes, lines, and the doors of the whole."""
    pad, head = (0.0, 0.0) if outermost else (PAD, HEAD)
    top = min((item.y for item in items.values()), default=0.0)
    for item in items.values():
        item.y += head - top
    left: dict[int, float] = {}
    right: dict[int, float] = {}
    x = 0.0 if -1 in columns else pad
    for rank, column in columns.items():
        width = max(item.width for item in column)
        left[rank], right[rank] = x, x + width
        x += width + (DOOR_GAP if width == 0 or (rank + 1 in columns and _narrow(columns[rank + 1])) else COLUMN_GAP)
    end = max(right.values(), default=0.0)
    doors = any(item.name[0] == "out" for column in columns.values() for item in column if isinstance(item.name, tuple))
    whole = Layout(
        width=max(end + (0.0 if doors else pad), nest.width),
        height=max((item.y + item.height for item in items.values()), default=0.0) + pad,
    )
    for name, one in inner.items():
        item = items[name]
        at = left[item.rank] + (right[item.rank] - left[item.rank] - item.width) / 2
        whole.boxes |= {key: rect.moved(at, item.y) for key, rect in one.boxes.items()}
        whole.lines |= {key: [(px + at, py + item.y) for px, py in points] for key, points in one.lines.items()}
    if not outermost:
        whole.boxes[nest.id] = Rect(0, 0, whole.width, whole.height)
    for (first, then), chain in chains.items():
        points: list[tuple[float, float]] = []
        for name in chain:
            item = items[name]
            if name in inner:
                starts = name == chain[0] and first in home and home[first] == name
                middle = item.y + (inner[name].doors_out[first] if starts else inner[name].doors_in[then])
                edge_of = whole.boxes[name]
                begin, stop = (edge_of.x + edge_of.width, right[item.rank]) if starts else (left[item.rank], edge_of.x)
            else:
                middle = item.y + LANE / 2
                begin, stop = left[item.rank], right[item.rank]
                if name[0] == "out":
                    begin = stop = whole.width
            points += [(begin, middle), (stop, middle)]
        key = (first or f"in:{then}", then or f"out:{first}")
        whole.lines[_within(nest.id, key)] = points
        if not first:
            whole.doors_in[then] = points[0][1]
        if not then:
            whole.doors_out[first] = points[-1][1]
    return whole


def _within(nest: str, key: tuple[str, str]) -> tuple[str, str]:
    """Keep the pieces of one line apart: those that end at a door of this group carry its name."""
    first, then = key
    return (
        f"{first}@{nest}" if first.startswith("in:") else first,
        f"{then}@{nest}" if then.startswith("out:") else then,
    )


def _narrow(column: Sequence[_Item]) -> bool:
    return all(item.width == 0 for item in column)
