"""Workgroups: tasks that share a rate limit, suspended and resumed together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from db.group import WorkgroupRow, read_workgroups
from resolvers import workgroup as deciding
from schema.context import Info, page_size
from schema.task import STATES, StateCount

of = strawberry.field


@strawberry.type(description="Tasks that share a rate limit.")
class Workgroup:
    number: strawberry.Private[int]
    name: str = of(description="As its tasks name it.")
    suspended_until: datetime | None = of(
        description="No task of this workgroup is handed out before this instant; null when it is not suspended."
    )
    reason: str | None = of(description="Why, as the worker or person who suspended it said.")

    @classmethod
    def of(cls, row: WorkgroupRow) -> Workgroup:
        return cls(number=row.number, name=row.name, suspended_until=row.suspended_until, reason=row.reason)

    @strawberry.field(description="How many of its tasks stand in each state; states with none are left out.")
    async def counts(self, info: Info) -> list[StateCount]:
        rows = await info.context.loaders.counts.load(self.number)
        return [StateCount(state=STATES[row.state], count=row.n) for row in rows]


@strawberry.type(description="The workgroup as it is now.")
class WorkgroupPayload:
    workgroup: Workgroup = of(description="The workgroup.")


async def _read(info: Info, name: str) -> Workgroup | None:
    core = info.context.core
    found = await read_workgroups(core.pool, core.ns, [name], None, 1, False)
    return Workgroup.of(found[0]) if found else None


async def _payload(info: Info, name: str) -> WorkgroupPayload:
    found = await _read(info, name)
    if found is None:
        raise LookupError(f"workgroup {name} has vanished")
    return WorkgroupPayload(workgroup=found)


@strawberry.type
class WorkgroupQuery:
    @strawberry.field(description="A workgroup by its name; null when no task ever named it.")
    async def workgroup(
        self, info: Info, name: Annotated[str, strawberry.argument(description="Its name.")]
    ) -> Workgroup | None:
        return await _read(info, deciding.checked_name(name))

    @strawberry.field(description="In order of name; `after` is the last name seen.")
    async def workgroups(
        self,
        info: Info,
        suspended_only: Annotated[
            bool | None, strawberry.argument(description="Only those that are suspended now.")
        ] = False,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 100,
        after: Annotated[str | None, strawberry.argument(description="After this name.")] = None,
    ) -> list[Workgroup] | None:
        core, size = info.context.core, page_size(first, 100, info)
        place = deciding.checked_place(after)
        rows = await read_workgroups(core.pool, core.ns, None, place, size, bool(suspended_only))
        return [Workgroup.of(row) for row in rows]


@strawberry.type
class WorkgroupMutation:
    @strawberry.mutation(
        description=(
            "Hand out no task of this workgroup for so long, however many it has and whenever they are created. A shorter "
            "suspension never shortens a longer one. Running tasks go on."
        )
    )
    async def suspend_workgroup(
        self,
        info: Info,
        name: Annotated[str, strawberry.argument(description="Its name; 1 to 255 characters.")],
        seconds: Annotated[float, strawberry.argument(description="For how long from now, 0 to ten years.")],
        reason: Annotated[str | None, strawberry.argument(description="Why; up to 1,000 characters.")] = None,
    ) -> WorkgroupPayload | None:
        await deciding.suspend(info.context.core, name, seconds, reason)
        return await _payload(info, name)

    @strawberry.mutation(description="End a suspension now. Its tasks can be claimed when the call returns.")
    async def resume_workgroup(
        self, info: Info, name: Annotated[str, strawberry.argument(description="Its name.")]
    ) -> WorkgroupPayload | None:
        await deciding.resume(info.context.core, name)
        return await _payload(info, name)
