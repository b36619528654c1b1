"""What people do to whole groups: delete."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers import delete
from schema.context import Info
from schema.steering import DeletePayload

_id = strawberry.argument(description="The group's UUID.")


@strawberry.type
class GroupSteering:
    @strawberry.mutation(
        description=(
            "Delete a group with all its tasks (one GROUP_DELETED event); leases on them say CANCELLED from then on."
        )
    )
    async def delete_task_group(self, info: Info, id: Annotated[strawberry.ID, _id]) -> DeletePayload | None:
        return DeletePayload(deleted_tasks=await delete.delete_group(info.context.core, id))
