"""What people change of tasks and groups. A field left out stays as it is, null clears it."""

from __future__ import annotations

import dataclasses
import enum
from datetime import datetime
from typing import Annotated, Any

import strawberry

from db.group import read_groups
from db.task import read_tasks
from resolvers import update
from resolvers.errors import NotFound
from schema.context import Info
from schema.group import TaskGroup, TaskGroupPayload
from schema.scalars import JSON
from schema.task import ParentFailurePolicy, Task

of = strawberry.field
KEEP: Any = strawberry.UNSET


@strawberry.input(
    description="What to change of how often and when a task is tried again; null is what a new task has."
)
class RetryPatch:
    max_attempts: int | None = of(
        default=KEEP,
        description=(
            "How many attempts there are in all, 1 to 1,000,000; null is 5. A task that has not ended may start so many more or "
            "fewer, but one that waits at least one."
        ),
    )
    delay_seconds: float | None = of(
        default=KEEP, description="Seconds before the second attempt, 0 to a year; null is 30."
    )
    backoff: float | None = of(
        default=KEEP, description="1 keeps the delay fixed; 2 doubles it each time. 1 to 100; null is 1."
    )
    max_delay_seconds: float | None = of(
        default=KEEP, description="The longest delay in seconds, 0 to a year; null is 3600."
    )


@strawberry.input(
    description=(
        "What to change of a task. While it is RUNNING or MERGED its channel, workgroup, key and runAfter cannot be changed "
        "(CONFLICT); of one that has ended, what concerns its runs counts from its next retry or reset."
    )
)
class UpdateTaskInput:
    id: strawberry.ID = of(description="The task's UUID.")
    name: str | None = of(default=KEEP, description="What people call it; 1 to 1,000 characters. It cannot be cleared.")
    channel: str | None = of(
        default=KEEP, description="Which kind of work this is; 1 to 255 characters. It cannot be cleared."
    )
    workgroup: str | None = of(
        default=KEEP, description="The rate limit it shares; 1 to 255 characters, or null for none."
    )
    key: str | None = of(
        default=KEEP,
        description=(
            "Tasks of one channel with the same key are the same work; 1 to 1,000 characters, or null for none. A task made with "
            "REJECT is refused (DUPLICATE_KEY) the key of one that has not ended."
        ),
    )
    input: JSON | None = of(
        default=KEEP,
        description="What its worker needs; up to 1 MiB. A worker that has it already goes on with the old one.",
    )
    priority: int | None = of(default=KEEP, description="Higher goes first; null is 0.")
    run_after: datetime | None = of(
        default=KEEP,
        description="Not before this instant; null is at once. A back-off or childrenDelaySeconds holds all the same.",
    )
    retry: RetryPatch | None = of(
        default=KEEP, description="How often and when it is tried again; null is as for a new task."
    )
    timeout_seconds: float | None = of(
        default=KEEP,
        description=(
            "The longest one attempt may take from the next one on, 0.001 seconds to a year; null for as long as its lease lasts."
        ),
    )
    progress_weight: int | None = of(
        default=KEEP, description="How much it counts in the progress of its group, 0 to 1,000,000; null is 1."
    )
    is_seed: bool | None = of(default=KEEP, description="Survives a reset of its group; null is false.")
    on_parent_failure: ParentFailurePolicy | None = of(
        default=KEEP,
        description=(
            "What it does when a parent fails or is cancelled; null is BLOCK. One that has not started goes by it at once, for "
            "parents that have failed already too."
        ),
    )
    metadata: JSON | None = of(default=KEEP, description="Free labels; up to 1 MiB.")


@strawberry.input(description="What to change of a group.")
class UpdateTaskGroupInput:
    id: strawberry.ID = of(description="The group's UUID.")
    name: str | None = of(default=KEEP, description="What people call it; 1 to 1,000 characters. It cannot be cleared.")
    metadata: JSON | None = of(default=KEEP, description="Free labels; up to 1 MiB.")


@strawberry.type(description="A task that a call was about.")
class TaskPayload:
    task: Task = of(description="The task as it is now.")


def given(changes: Any) -> dict[str, Any]:
    """The fields that were sent, in whatever depth."""
    fields = {field.name: getattr(changes, field.name) for field in dataclasses.fields(changes) if field.name != "id"}
    return {name: _plain(value) for name, value in fields.items() if value is not KEEP}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    return given(value) if isinstance(value, RetryPatch) else value


@strawberry.type
class UpdateMutation:
    @strawberry.mutation(
        description=(
            "Change a task. Fields left out stay as they are, null clears them. One that waits moves to where it belongs: by its "
            "priority, its channel, its time; it can be claimed there when the call returns."
        )
    )
    async def update_task(
        self, info: Info, input: Annotated[UpdateTaskInput, strawberry.argument(description="What to change.")]
    ) -> TaskPayload | None:
        core = info.context.core
        no = await update.update_task(core, input.id, given(input))
        found = await read_tasks(core.pool, core.ns, nos=[no])
        if not found:
            raise NotFound(f"task {input.id} was deleted meanwhile", ("input", "id"))
        return TaskPayload(task=Task.of(found[0]))

    @strawberry.mutation(description="Change a group. Fields left out stay as they are, null clears them.")
    async def update_task_group(
        self, info: Info, input: Annotated[UpdateTaskGroupInput, strawberry.argument(description="What to change.")]
    ) -> TaskGroupPayload | None:
        core = info.context.core
        uuid = await update.update_group(core, input.id, given(input))
        found = await read_groups(core.pool, core.ns, ids=[uuid])
        if not found:
            raise NotFound(f"no task group {uuid}: it never was, or is deleted", ("input", "id"))
        return TaskGroupPayload(task_group=TaskGroup.of(found[0]), affected=0)
