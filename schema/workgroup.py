"""Workgroups: tasks that share a rate limit, suspended and resumed together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from db.cap import Asked
from db.group import WorkgroupRow, read_workgroups
from resolvers import cap
from resolvers import workgroup as deciding
from schema.context import Info, page_size
from schema.task import STATES, StateCount

of = strawberry.field


@strawberry.type(description="How many tasks may start in a time.")
class RateLimit:
    limit: int = of(description="How many may start at most.")
    per_seconds: float = of(description="In any window of so many seconds.")


@strawberry.type(description="Tasks that share a rate limit.")
class Workgroup:
    number: strawberry.Private[int]
    name: str = of(description="As its tasks name it.")
    suspended_until: datetime | None = of(
        description="No task of this workgroup is handed out before this instant; null when it is not suspended."
    )
    reason: str | None = of(description="Why, as the worker or person who suspended it said.")
    max_running: int | None = of(description="At most this many run at once; null for no limit.")
    rate_limit: RateLimit | None = of(
        description="At most `limit` starts in any window of `perSeconds`, over all servers; null for no limit."
    )

    @classmethod
    def of(cls, row: WorkgroupRow) -> Workgroup:
        rate = None
        if row.starts is not None and row.seconds is not None:
            rate = RateLimit(limit=row.starts, per_seconds=row.seconds)
        return cls(
            number=row.number,
            name=row.name,
            suspended_until=row.suspended_until,
            reason=row.reason,
            max_running=row.max_running,
            rate_limit=rate,
        )

    @strawberry.field(description="How many of its tasks stand in each state; states with none are left out.")
    async def counts(self, info: Info) -> list[StateCount]:
        rows = await info.context.loaders.counts.load(self.number)
        return [StateCount(state=STATES[row.state], count=row.n) for row in rows]


@strawberry.input(description="How many tasks may start in a time.")
class RateLimitInput:
    limit: int = of(description="How many may start at most, 1 to 1,000,000.")
    per_seconds: float = of(description="In any window of so many seconds, 0.001 to 2,592,000 (30 days).")


@strawberry.input(
    description="What is to change of a workgroup. A field left out stays as it is; null lifts the limit."
)
class WorkgroupInput:
    name: str = of(description="Its name; 1 to 255 characters.")
    max_running: int | None = of(default=strawberry.UNSET, description="At most this many run at once, 0 to 1,000,000.")
    rate_limit: RateLimitInput | None = of(
        default=strawberry.UNSET, description="At most so many starts in a time; one that is given back counts, too."
    )


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

    @strawberry.mutation(
        description=(
            "End a suspension now. Its tasks can be claimed when the call returns: of many the first 1,000, and the others soon "
            "after, in their order."
        )
    )
    async def resume_workgroup(
        self, info: Info, name: Annotated[str, strawberry.argument(description="Its name.")]
    ) -> WorkgroupPayload | None:
        await deciding.resume(info.context.core, name)
        return await _payload(info, name)

    @strawberry.mutation(
        description=(
            "Limit how many tasks of a workgroup run at once, and how many start in a time, exactly and over all servers. Running "
            "tasks go on, also where they are more. Makes the workgroup when no task has named it yet."
        )
    )
    async def configure_workgroup(
        self, info: Info, input: Annotated[WorkgroupInput, strawberry.argument(description="What is to change.")]
    ) -> WorkgroupPayload | None:
        asked = Asked()
        if input.max_running is not strawberry.UNSET:
            asked.max_running_given = True
            asked.max_running = cap.checked_most(input.max_running, ("input", "maxRunning"))
        if input.rate_limit is not strawberry.UNSET:
            asked.rate_given = True
            rate = input.rate_limit
            asked.rate = cap.checked_rate(rate.limit, rate.per_seconds, ("input", "rateLimit")) if rate else None
        await cap.configure_workgroup(info.context.core, input.name, asked)
        return await _payload(info, input.name)
