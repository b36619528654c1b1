"""Schedules: groups made from a template, by cron, in a time zone."""

from __future__ import annotations

import enum
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import strawberry

from db.group import read_groups
from db.schedule import ScheduleRow, read_schedules
from resolvers import cron as due_times
from resolvers.errors import BadInput
from resolvers.schedule import MOST, Wanted
from schema.context import Info, page_size
from schema.deleted import DeletedPayload
from schema.given import as_json
from schema.group import CreateTaskGroupInput, TaskGroup, TaskGroupPayload
from schema.inputs import NullMeansDefault
from schema.scalars import JSON

of = strawberry.field


@strawberry.enum(
    description="What to do with runs missed while nothing was up: those that are due for more than a minute."
)
class CatchUpPolicy(enum.Enum):
    SKIP = strawberry.enum_value(0, description="Leave them out.")
    ONE = strawberry.enum_value(1, description="One run for all of them.")
    ALL = strawberry.enum_value(2, description="A run for each, oldest first.")


@strawberry.enum(description="What to do when the last run's group is not finished.")
class OverlapPolicy(enum.Enum):
    ALLOW = strawberry.enum_value(0, description="Run all the same.")
    SKIP = strawberry.enum_value(1, description="Leave this run out.")


@strawberry.type(description="Creates a task group from a template, by cron, in a time zone.")
class Schedule:
    last_group_no: strawberry.Private[int | None]
    now: strawberry.Private[datetime]
    id: strawberry.ID = of(description="A UUID, made by the server.")
    name: str = of(description="What people call it.")
    cron: str = of(
        description=(
            "When it is due: minute, hour, day of the month, month, day of the week. Where clocks go forward, a fixed "
            "time that is left out comes right after the gap; where they go back, it comes once. With `*` as minute or "
            "hour it goes on in real time."
        )
    )
    time_zone: str = of(description="Whose clock the cron goes by, as in the IANA database.")
    is_paused: bool = of(description="It does not run; it can still be triggered.")
    catch_up: CatchUpPolicy = of(description="What to do with runs missed while nothing was up.")
    overlap: OverlapPolicy = of(description="What to do when the last run's group is not finished.")
    template: JSON = of(description="What each run creates, as it was given; defaults are left out.")
    last_run_at: datetime | None = of(
        description="The due time of the last run, or when it was triggered; null before the first."
    )
    next_run_at: datetime | None = of(description="When it is due next; null while it is paused.")
    last_error: str | None = of(
        description="Why its last due time made nothing, when that was refused: a code and a message."
    )

    @classmethod
    def of(cls, row: ScheduleRow) -> Schedule:
        return cls(
            last_group_no=row.last_group,
            now=row.now,
            id=strawberry.ID(str(row.id)),
            name=row.name,
            cron=row.cron,
            time_zone=row.time_zone,
            is_paused=row.is_paused,
            catch_up=CatchUpPolicy(row.catch_up),
            overlap=OverlapPolicy(row.overlap),
            template=JSON(row.template),
            last_run_at=row.last_run_at,
            next_run_at=row.next_run_at,
            last_error=row.last_error,
        )

    @strawberry.field(description="The group that its last run made; null before the first, and when it is deleted.")
    async def last_group(self, info: Info) -> TaskGroup | None:
        row = None if self.last_group_no is None else await info.context.loaders.groups.load(self.last_group_no)
        return None if row is None else TaskGroup.of(row)

    @strawberry.field(description="The next times that its cron comes to, paused or not.")
    async def next_times(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description="So many, 0 to 100.")] = 5,
    ) -> list[datetime]:
        size = page_size(first, 5, info)
        if size > 100:
            raise BadInput(f"first is {size}; it must be between 0 and 100", ("first",))
        start = self.now if self.next_run_at is None else min(self.now, self.next_run_at)
        return list(islice(due_times.times_after(self.cron, self.time_zone, start), size))


@strawberry.input(description="A schedule to be made.")
class ScheduleInput(NullMeansDefault):
    name: str = of(description="What people call it; 1 to 1,000 characters.")
    cron: str = of(description="Five fields: minute, hour, day of the month, month, day of the week.")
    group: CreateTaskGroupInput = of(
        description="What each run creates. Ids and runAfter are refused in it: they would be the same in each run."
    )
    time_zone: str | None = of(default="UTC", description="A name of the IANA database, such as Europe/Berlin.")
    is_paused: bool | None = of(default=False, description="Do not run it yet.")
    catch_up: CatchUpPolicy | None = of(
        default=CatchUpPolicy.ONE, description="What to do with runs missed while nothing was up."
    )
    overlap: OverlapPolicy | None = of(
        default=OverlapPolicy.ALLOW, description="What to do when the last run's group is not finished."
    )


@strawberry.input(
    description="A field left out stays as it is; null sets its default. What was missed while it was paused is not made up for."
)
class UpdateScheduleInput:
    id: strawberry.ID = of(description="Which schedule.")
    name: str | None = of(default=strawberry.UNSET, description="What people call it; 1 to 1,000 characters.")
    cron: str | None = of(default=strawberry.UNSET, description="Five fields. It is due next after now.")
    time_zone: str | None = of(default=strawberry.UNSET, description="A name of the IANA database.")
    is_paused: bool | None = of(default=strawberry.UNSET, description="Whether it does not run.")
    catch_up: CatchUpPolicy | None = of(default=strawberry.UNSET, description="What to do with missed runs.")
    overlap: OverlapPolicy | None = of(
        default=strawberry.UNSET, description="What to do when the last run's group is not finished."
    )
    group: CreateTaskGroupInput | None = of(
        default=strawberry.UNSET, description="What each run creates from now on. Ids and runAfter are refused in it."
    )

    def __post_init__(self) -> None:
        for name in ("time_zone", "is_paused", "catch_up", "overlap"):
            if getattr(self, name) is None:
                setattr(self, name, _DEFAULTS[name])


_DEFAULTS: dict[str, Any] = {
    "time_zone": "UTC",
    "is_paused": False,
    "catch_up": CatchUpPolicy.ONE,
    "overlap": OverlapPolicy.ALLOW,
}


@strawberry.type(description="The schedule as it is now.")
class SchedulePayload:
    schedule: Schedule = of(description="The schedule.")


def _wanted(input: ScheduleInput | UpdateScheduleInput) -> Wanted:
    for name in ("name", "cron", "group"):
        if getattr(input, name) is None:
            raise BadInput(f"{name} is null, but a schedule needs one: leave it out to keep it", ("input", name))

    def given(value: Any) -> Any:
        return None if value is strawberry.UNSET else value

    group = given(input.group)
    return Wanted(
        name=given(input.name),
        cron=given(input.cron),
        time_zone=given(input.time_zone),
        is_paused=given(input.is_paused),
        catch_up=None if (catch_up := given(input.catch_up)) is None else catch_up.value,
        overlap=None if (overlap := given(input.overlap)) is None else overlap.value,
        group=group,
        template=as_json(group),
    )


@strawberry.type
class ScheduleQuery:
    @strawberry.field(description="All schedules, in order of name; there are at most 1,000.")
    async def schedules(self, info: Info) -> list[Schedule] | None:
        core = info.context.core
        return [Schedule.of(row) for row in await read_schedules(core.pool, core.ns, None, MOST)]


@strawberry.type
class ScheduleMutation:
    @strawberry.mutation(description="Create a task group at each due time of a cron, from now on.")
    async def create_schedule(
        self, info: Info, input: Annotated[ScheduleInput, strawberry.argument(description="The schedule.")]
    ) -> SchedulePayload | None:
        row = await info.context.services.schedules.create(_wanted(input))
        return SchedulePayload(schedule=Schedule.of(row))

    @strawberry.mutation(description="Change a schedule; pause and resume it with `isPaused`.")
    async def update_schedule(
        self, info: Info, input: Annotated[UpdateScheduleInput, strawberry.argument(description="What to change.")]
    ) -> SchedulePayload | None:
        row = await info.context.services.schedules.update(input.id, _wanted(input))
        return SchedulePayload(schedule=Schedule.of(row))

    @strawberry.mutation(description="Delete a schedule; the groups that it made stay.")
    async def delete_schedule(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Which schedule.")]
    ) -> DeletedPayload | None:
        await info.context.services.schedules.delete(id)
        return DeletedPayload(id=id)

    @strawberry.mutation(
        description=(
            "Run a schedule's template now, whatever its overlap policy, and paused or not; the next due time stays. "
            "`affected` is how many tasks were made."
        )
    )
    async def trigger_schedule(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Which schedule.")]
    ) -> TaskGroupPayload | None:
        made = await info.context.services.schedules.trigger(id)
        core = info.context.core
        (group,) = await read_groups(core.pool, core.ns, ids=[made.group_id])
        return TaskGroupPayload(task_group=TaskGroup.of(group), affected=len(made.tasks))
