"""A DAG as text and as JSON: the tasks in topological order, what each waits for, schedule and Assets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mlops.cli.dag_view import DagView, Group, Task


def text_of(dag: DagView) -> str:
    """Return the DAG as lines of text."""
    return "\n".join(_lines(dag))


def json_of(dag: DagView) -> dict[str, Any]:
    """Return the DAG as plain JSON."""
    groups = _groups(dag.root)
    within = {task.id: group.id for group in groups for task in group.children if isinstance(task, Task)}
    return {
        "dag_id": dag.dag_id,
        "kind": dag.kind,
        "description": dag.description,
        "schedule": dag.schedule,
        "assets_in": list(dag.assets_in),
        "assets_out": dag.assets_out,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "tags": list(dag.tags),
        "params": list(dag.params),
        "groups": [{"id": group.id, "mapped": group.mapped} for group in groups],
        "tasks": [
            {
                "id": task.id,
                "operator": task.operator,
                "group": within.get(task.id),
                "mapped": task.mapped,
                "trigger_rule": task.trigger_rule,
                "after": dag.upstream(task.id),
                "assets_out": list(task.outlets),
                "doc": task.doc,
            }
            for task in dag.ordered()
        ],
    }


def _lines(dag: DagView) -> Iterator[str]:
    yield f"{dag.dag_id}: {' '.join(dag.description.split())}"
    catchup = "missed intervals are run" if dag.catchup else "no catch-up"
    yield f"  schedule    {dag.schedule}; {catchup}; runs at a time: {dag.max_active_runs}"
    yield f"  parameters  {', '.join(dag.params)}"
    yield f"  Assets in   {', '.join(dag.assets_in) or 'none'}"
    out = [f"{name} ({', '.join(tasks)})" for name, tasks in dag.assets_out.items()]
    yield f"  Assets out  {', '.join(out) or 'none'}"
    for group in _groups(dag.root):
        tasks = ", ".join(task.label for task in group.tasks())
        yield f"  group       {group.id}{', once for every window' if group.mapped else ''}: {tasks}"
    yield "  tasks"
    tasks_in_order = dag.ordered()
    names = max(len(task.id) for task in tasks_in_order)
    kinds = max(len(task.operator) for task in tasks_in_order)
    for task in tasks_in_order:
        before = dag.upstream(task.id)
        after = f"after {', '.join(before)}" if before else "first"
        rule = "" if task.trigger_rule == "all_success" else f" ({task.trigger_rule})"
        yield f"    {task.id:<{names}}  {task.operator:<{kinds}}  {after}{rule}"


def _groups(group: Group) -> list[Group]:
    found = []
    for child in group.children:
        if isinstance(child, Group):
            found += [child, *_groups(child)]
    return found
