"""What people do to whole groups, and what answers with one: retry, reset, cancel, delete, pluck."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from db.group import read_groups
from resolvers import delete, pluck, reset, retention, steer
from resolvers.errors import NotFound
from schema.context import Info
from schema.group import TaskGroup, TaskGroupPayload
from schema.steering import DeletePayload

_id = strawberry.argument(description="The group's UUID.")


async def _payload(info: Info, id: UUID, affected: int) -> TaskGroupPayload:
    core = info.context.core
    found = await read_groups(core.pool, core.ns, ids=[id])
    if not found:
        raise NotFound(f"task group {id} was deleted meanwhile", ("id",))
    return TaskGroupPayload(task_group=TaskGroup.of(found[0]), affected=affected)


@strawberry.type
class GroupSteering:
    @strawberry.mutation(
        description=(
            "Start over: seeds (or, with no seeds, every task that was not spawned) as if never run, all others deleted. Leases on "
            "seeds are LOST, those on the others say CANCELLED."
        )
    )
    async def reset_task_group(self, info: Info, id: Annotated[strawberry.ID, _id]) -> TaskGroupPayload | None:
        return await _payload(info, *await reset.reset_group(info.context.core, id))

    @strawberry.mutation(
        description=(
            "Set the remaining attempts of every failed task of the group, and make them ready at once. `affected` is how many."
        )
    )
    async def retry_task_group(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _id],
        attempts: Annotated[
            int | None, strawberry.argument(description="How many more attempts each gets, 1 to 1,000,000.")
        ] = 2,
    ) -> TaskGroupPayload | None:
        core = info.context.core
        return await _payload(info, *await steer.retry_group(core, id, 2 if attempts is None else attempts))

    @strawberry.mutation(
        description=(
            "Cancel every task of the group that is not settled (FAILED ones too); leases of running ones are told at their next "
            "beat. `affected` is how many."
        )
    )
    async def cancel_task_group(self, info: Info, id: Annotated[strawberry.ID, _id]) -> TaskGroupPayload | None:
        return await _payload(info, *await steer.cancel_group(info.context.core, id))

    @strawberry.mutation(
        description=(
            "Delete a group with all its tasks (one GROUP_DELETED event); leases on them say CANCELLED from then on."
        )
    )
    async def delete_task_group(self, info: Info, id: Annotated[strawberry.ID, _id]) -> DeletePayload | None:
        return DeletePayload(deleted_tasks=await delete.delete_group(info.context.core, id))

    @strawberry.mutation(
        description=(
            "Copy one task alone into a paused group of its own, with its parents' results as they are now, to run it again and "
            "again while debugging: resume the group, and reset it for the next run. The copy is a seed, never merges, and has no "
            "runAfter."
        )
    )
    async def pluck_task(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The task's UUID.")]
    ) -> TaskGroupPayload | None:
        return await _payload(info, await pluck.pluck(info.context.services.creator, id), 1)

    @strawberry.mutation(
        description=(
            "Delete groups finished more than so many days ago; with `unfinished` also those created so long ago that are not "
            "finished and have nothing running. It goes batch by batch: a call that is cut short can be repeated. The server does "
            "the first by itself where retention is switched on."
        )
    )
    async def delete_expired_task_groups(
        self,
        info: Info,
        older_than_days: Annotated[float, strawberry.argument(description="How many days ago, 0 to 36,600.")],
        unfinished: Annotated[
            bool | None, strawberry.argument(description="Also those that are not finished and have nothing running.")
        ] = False,
    ) -> DeletePayload | None:
        core = info.context.core
        deleted = await retention.delete_expired_groups(core, older_than_days, unfinished=bool(unfinished))
        return DeletePayload(deleted_tasks=deleted)
