"""What people do to tasks: retry, reset, cancel, delete, pause, resume."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers import check, delete, reset, steer
from schema.context import Info
from schema.task import Task, tasks_in_order
from schema.task_list import TaskFilter

of = strawberry.field


@strawberry.type(description="Tasks that a call was about.")
class TasksPayload:
    tasks: list[Task] = of(description="Those that it changed; at most 1,000 of them.")
    affected: int = of(description="How many it changed.")


@strawberry.type(description="What was deleted.")
class DeletePayload:
    deleted_tasks: int = of(description="How many tasks are gone.")


_ids = strawberry.argument(description="Which tasks, by their UUIDs; at most 10,000. Either these or a filter.")
_filter = strawberry.argument(description="Or all tasks that match; it names at least one thing.")


async def _chosen(
    info: Info, ids: list[strawberry.ID] | None, filter: TaskFilter | None, states: tuple[int, ...]
) -> list[int]:
    uuids = None if ids is None else [check.uuid(i, ("ids", n), "id") for n, i in enumerate(ids)]
    return await steer.chosen(info.context.core, uuids, filter.narrowed() if filter else None, states)


async def _changed(info: Info, nos: list[int]) -> TasksPayload:
    return TasksPayload(tasks=await tasks_in_order(info, nos[:1000]), affected=len(nos))


@strawberry.type
class TaskMutation:
    @strawberry.mutation(
        description=(
            "Set the remaining attempts of failed tasks (and only those) and make them ready at once. Ids of tasks that "
            "have not failed, or do not exist, are passed over. Either `ids` or a `filter` that names at least one thing."
        )
    )
    async def retry_tasks(
        self,
        info: Info,
        ids: Annotated[list[strawberry.ID] | None, _ids] = None,
        filter: Annotated[TaskFilter | None, _filter] = None,
        attempts: Annotated[
            int | None, strawberry.argument(description="How many more attempts each gets, 1 to 1,000,000.")
        ] = 2,
    ) -> TasksPayload | None:
        nos = await _chosen(info, ids, filter, steer.FAILED)
        return await _changed(info, await steer.retry(info.context.core, nos, 2 if attempts is None else attempts))

    @strawberry.mutation(
        description=(
            "Make tasks, in whatever state, look as if they had never run: no attempts, errors or output, and a lease is LOST. "
            "What they spawned is deleted, with its descendants; children that have not started are BLOCKED again; running or "
            "ended ones stay, and wait before they are tried again. Ids of tasks that do not exist are passed over, and those that "
            "another of them had spawned are deleted."
        )
    )
    async def reset_tasks(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID], strawberry.argument(description="Which tasks, by their UUIDs; 1 to 10,000.")
        ],
    ) -> TasksPayload | None:
        nos = await _chosen(info, ids, None, ())
        return await _changed(info, await reset.reset_tasks(info.context.core, nos))

    @strawberry.mutation(
        description=(
            "Cancel tasks that are not settled (FAILED ones too); a running one's lease is told at its next beat. Ids of "
            "tasks that are settled, or do not exist, are passed over. Either `ids` or a `filter` that names at least one "
            "thing."
        )
    )
    async def cancel_tasks(
        self,
        info: Info,
        ids: Annotated[list[strawberry.ID] | None, _ids] = None,
        filter: Annotated[TaskFilter | None, _filter] = None,
        descendants: Annotated[
            bool | None,
            strawberry.argument(description="Theirs too: along the links that someone named, not along adopted ones."),
        ] = False,
    ) -> TasksPayload | None:
        nos = await _chosen(info, ids, filter, steer.UNSETTLED)
        return await _changed(info, await steer.cancel(info.context.core, nos, with_descendants=bool(descendants)))

    @strawberry.mutation(
        description=(
            "Delete a task and all its descendants along the links that someone named, whatever their states; leases on them say "
            "CANCELLED from then on. A join that had adopted one of them loses that parent and is counted afresh."
        )
    )
    async def delete_task(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The task's UUID.")]
    ) -> DeletePayload | None:
        return DeletePayload(deleted_tasks=await delete.delete_task(info.context.core, id))

    @strawberry.mutation(
        description=(
            "Hand these tasks out no more until they are resumed; what runs may finish. Those that have ended, are paused "
            "already, or do not exist are passed over."
        )
    )
    async def pause_tasks(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID], strawberry.argument(description="Which tasks, by their UUIDs; 1 to 10,000.")
        ],
    ) -> TasksPayload | None:
        nos = await _chosen(info, ids, None, ())
        return await _changed(info, await steer.pause_tasks(info.context.core, nos))

    @strawberry.mutation(
        description="Hand these tasks out again. They can be claimed when the call returns. Those not paused are passed over."
    )
    async def resume_tasks(
        self,
        info: Info,
        ids: Annotated[
            list[strawberry.ID], strawberry.argument(description="Which tasks, by their UUIDs; 1 to 10,000.")
        ],
    ) -> TasksPayload | None:
        nos = await _chosen(info, ids, None, ())
        return await _changed(info, await steer.resume_tasks(info.context.core, nos))
