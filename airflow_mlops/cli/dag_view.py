"""What of a DAG a person wants to see: its tasks in groups, what follows what, its schedule, Assets in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.cli.model_dags import make_dag
from airflow_mlops.factories.parts import predictions_asset_name, retrain_asset_name
from airflow_mlops.spec.model import ModelSpec
from airflow_mlops.spec.schedule import ScheduleSpec


@dataclass(frozen=True)
class Task:
    """One task. ``outlets`` are the names of the Assets that it may send events of."""

    id: str
    label: str
    operator: str
    doc: str
    outlets: tuple[str, ...]
    trigger_rule: str
    mapped: bool

    @property
    def sensor(self) -> bool:
        """Say whether it waits for something."""
        return self.operator.endswith("Sensor")


@dataclass(frozen=True)
class Group:
    """A task group; a mapped one runs once for every window."""

    id: str
    label: str
    mapped: bool
    children: tuple[Task | Group, ...]

    def tasks(self) -> Iterator[Task]:
        """Yield every task in the group and below."""
        for child in self.children:
            if isinstance(child, Task):
                yield child
            else:
                yield from child.tasks()


@dataclass(frozen=True)
class DagView:
    """One DAG of a model.

    :param schedule: in words.
    :param assets_in: names of the Assets whose events start a run.
    :param edges: which task comes directly before which.
    """

    dag_id: str
    kind: str
    description: str
    schedule: str
    assets_in: tuple[str, ...]
    catchup: bool
    max_active_runs: int
    tags: tuple[str, ...]
    params: tuple[str, ...]
    root: Group
    edges: tuple[tuple[str, str], ...]

    @property
    def assets_out(self) -> dict[str, list[str]]:
        """Return the Assets that may get events, each with the tasks that send them."""
        found: dict[str, list[str]] = {}
        for task in self.ordered():
            for name in task.outlets:
                found.setdefault(name, []).append(task.id)
        return found

    def upstream(self, task_id: str) -> list[str]:
        """Return what comes directly before a task, in topological order."""
        before = {first for first, then in self.edges if then == task_id}
        return [task.id for task in self.ordered() if task.id in before]

    def ordered(self) -> list[Task]:
        """Return the tasks in topological order, those of a group together as far as that allows."""
        left = list(self.root.tasks())
        before = {task.id: {first for first, then in self.edges if then == task.id} for task in left}
        done: dict[str, Task] = {}
        while left:
            # The first whose predecessors are all there; Airflow has refused circles.
            ready = next(task for task in left if before[task.id] <= done.keys())
            done[ready.id] = ready
            left.remove(ready)
        return list(done.values())


def view(spec: ModelSpec, kind: str) -> DagView:
    """Make one of a model's DAGs and look at it.

    :raises InvalidSpecError: it cannot be made from this specification.
    """
    dag: Any = make_dag(spec, kind)
    schedule = _schedule(spec, kind)
    assets = () if schedule.cron else _assets(spec, kind, schedule)
    return DagView(
        dag_id=dag.dag_id,
        kind=kind,
        description=dag.description or "",
        schedule=_words(schedule, assets),
        assets_in=assets,
        catchup=bool(dag.catchup),
        max_active_runs=int(dag.max_active_runs),
        tags=tuple(sorted(dag.tags)),
        params=tuple(dag.params.keys()),
        root=_group(dag.task_group),
        edges=tuple(
            (task.task_id, then) for task in dag.task_dict.values() for then in sorted(task.downstream_task_ids)
        ),
    )


def reduced(edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the edges without those that follow from others: where a, b and c come in turn, a needs no edge to c."""
    after: dict[str, set[str]] = {}
    for first, then in edges:
        after.setdefault(first, set()).add(then)
    reached: dict[str, set[str]] = {}

    def reach(task: str) -> set[str]:
        if task not in reached:
            reached[task] = set().union(*({then} | reach(then) for then in after.get(task, ())))
        return reached[task]

    return [
        (first, then)
        for first, then in edges
        if not any(then in reach(other) for other in after[first] if other != then)
    ]


def _schedule(spec: ModelSpec, kind: str) -> ScheduleSpec:
    if kind == "training":
        return spec.schedule
    if kind == "scoring":
        return spec.scoring.schedule if spec.scoring is not None else ScheduleSpec()
    return spec.monitoring.schedule or ScheduleSpec()


def _assets(spec: ModelSpec, kind: str, schedule: ScheduleSpec) -> tuple[str, ...]:
    """Return the names of the Assets that start a run, as the DAG factories choose them."""
    own = (retrain_asset_name(spec),) if schedule.on_retrain else ()
    found = tuple(dict.fromkeys((*own, *schedule.on_assets)))
    return found or ((predictions_asset_name(spec),) if kind == "monitoring" else ())


def _words(schedule: ScheduleSpec, assets: Sequence[str]) -> str:
    if schedule.cron:
        return f"cron {schedule.cron} ({schedule.timezone}) from {schedule.start_date}"
    if assets:
        return f"on an event of the Asset {' or '.join(assets)}"
    return "started by hand"


def _group(group: Any) -> Group:
    children: Mapping[str, Any] = group.children
    return Group(
        id=group.group_id or "",
        label=(group.group_id or "").rpartition(".")[2],
        mapped=type(group).__name__ == "MappedTaskGroup",
        children=tuple(_group(child) if hasattr(child, "children") else _task(child) for child in children.values()),
    )


def _task(task: Any) -> Task:
    return Task(
        id=task.task_id,
        label=task.task_id.rpartition(".")[2],
        operator=task.task_type,
        doc=" ".join((task.doc_md or "").split()),
        outlets=tuple(str(getattr(one, "name", None) or getattr(one, "uri", one)) for one in task.outlets),
        trigger_rule=str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        mapped=type(task).__name__ == "MappedOperator",
    )
