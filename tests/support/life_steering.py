"""The rest of the model of life_model.py: what is deleted, begins again and is changed.

Not modelled, for nobody has decided what follows: deleting what has spawned something that stays; resetting what a join that has
started waits for; resetting what was paused and has ended, whose pause may be forgotten already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from tests.support.life_model import Model, named_children
from tests.support.life_things import SETTLED, End, Group, Task, Unclear


def delete(model: Model, task: Task) -> set[Task]:
    """What is gone."""
    gone = _with_descendants(model, {task})
    _refuse_orphans(model, gone)
    _forget(model, gone)
    model.settle()
    return gone


def delete_group(model: Model, group: Group) -> set[Task]:
    gone = set(model.tasks_of(group))
    _forget(model, gone)
    del model.groups[group.name]
    model.settle()
    return gone


def reset(model: Model, tasks: Sequence[Task]) -> tuple[list[Task], set[Task]]:
    """What begins again, in the order of creation, and what is gone."""
    spawned = {t for t in model.tasks.values() if any(t.is_spawned_under(task) for task in tasks)}
    gone = _with_descendants(model, spawned)
    again = [task for task in model.tasks.values() if task in tasks and task not in gone]
    waiting = [
        task
        for task in model.tasks.values()
        if task.state not in SETTLED and task not in gone and task not in again and set(task.parents) & set(again)
    ]
    _refuse_orphans(model, gone)
    joins = [task for task in waiting if any(link.subtree for link in task.links)]
    if any(task.has_started for task in joins) or any(task.paused and task.state in SETTLED for task in again):
        raise Unclear
    _forget(model, gone)
    for task in again:
        _end_leases(model, [task], "lost")
        model.free_twins(task)
        task.state, task.attempt, task.remaining = "BLOCKED", 0, task.new.max_attempts
        task.delayed, task.ahead, task.errors, task.output, task.merged_into = task.early, False, 0, None, None
    for task in again:
        model.adopt_missed(task)
    for task in waiting:
        if task.state in ("RUNNING", "FAILED"):
            task.ahead = True
        else:
            task.state, task.merged_into = "BLOCKED", None
    model.settle()
    return again, gone


def update(model: Model, task: Task, changes: dict[str, Any]) -> None:
    """`changes`: of priority and on_parent_failure."""
    policy = changes.get("on_parent_failure", task.new.on_parent_failure)
    changed = policy != task.new.on_parent_failure
    task.new = replace(task.new, **changes)
    waits = policy != "RUN" and any(parent.state != "SUCCEEDED" for parent in task.parents)
    if changed and waits and task.state in ("READY", "SCHEDULED"):
        task.state = "BLOCKED"
    model.settle()


def _with_descendants(model: Model, tasks: Collection[Task]) -> set[Task]:
    """Along the links that someone named."""
    found = set(tasks)
    while more := named_children(model.tasks.values(), found) - found:
        found |= more
    return found


def _refuse_orphans(model: Model, gone: Collection[Task]) -> None:
    if any(task.spawned_by in gone and task not in gone for task in model.tasks.values()):
        raise Unclear


def _forget(model: Model, gone: Collection[Task]) -> None:
    _end_leases(model, gone, "cancelled")
    for task in gone:
        model.free_twins(task)
    model.tasks = {name: task for name, task in model.tasks.items() if task not in gone}
    for task in model.tasks.values():
        task.links = [link for link in task.links if link.parent not in gone]
        if task.merged_into in gone:
            task.merged_into = None


def _end_leases(model: Model, tasks: Collection[Task], end: End) -> None:
    """Those that had ended too: what became of them is forgotten."""
    for lease in model.leases:
        if lease.task in tasks:
            lease.end = end
