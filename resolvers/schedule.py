"""Schedules: what people change in them, and what is run when they are due.

A run and the step to the next due time are one transaction on the locked row, so there is one run for each due time however many
servers there are, and however they die.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import structlog

from db import schedule as rows
from db.group import read_groups, server_now
from db.pool import Connection
from db.progress import group_progress
from db.schedule import Ran, ScheduleRow
from resolvers import check, cron
from resolvers.call import Call, Made
from resolvers.core import Core
from resolvers.create import Creator
from resolvers.draft import new_id
from resolvers.errors import BadInput, CrewError, NotFound, Path, TooLarge
from resolvers.follow import After
from resolvers.many import TASKS, make_each

log = structlog.get_logger("crew")
ALLOW, SKIP = range(2)
"""overlap, as rows have it."""
MOST = 1000
"""Schedules of one namespace."""
_AT_ONCE = 100
"""Schedules, and runs of one of them, in one transaction."""
Template = Callable[[object], Any]
"""JSON → the input of createTaskGroup. Raises BadInput."""


@dataclass(slots=True)
class Wanted:
    """The fields of a schedule, new or changed: None stays as it is."""

    name: str | None = None
    cron: str | None = None
    time_zone: str | None = None
    is_paused: bool | None = None
    catch_up: int | None = None
    overlap: int | None = None
    group: Any = None
    template: Any = None
    """`group` as JSON."""


@dataclass
class Schedules:
    core: Core
    creator: Creator
    template: Template

    async def create(self, wanted: Wanted) -> ScheduleRow:
        async def work(connection: Connection) -> ScheduleRow:
            n = await rows.count_schedules(connection, self.core.ns)
            if n >= MOST:
                raise TooLarge(f"there are {n} schedules, as many as there may be: delete one first", ("input",))
            row = self._changed(replace(blank, now=await server_now(connection)), wanted)
            await rows.create_schedule(connection, self.core.ns, row)
            return row

        blank = ScheduleRow(
            new_id(), "", "", "UTC", False, cron.ONE, ALLOW, "", 0, None, None, None, None, now=datetime.min
        )
        return self._told(await self.core.pool.run(work, transaction=True))

    async def update(self, id: object, wanted: Wanted) -> ScheduleRow:
        uuid = check.uuid(id, ("input", "id"), "id")

        async def work(connection: Connection) -> ScheduleRow:
            row = self._changed(await self._locked(connection, uuid, ("input", "id")), wanted)
            await rows.update_schedule(connection, self.core.ns, row)
            return row

        return self._told(await self.core.pool.run(work, transaction=True))

    async def delete(self, id: object) -> UUID:
        uuid = check.uuid(id, ("id",), "id")
        if not await rows.read_schedules(self.core.pool, self.core.ns, [uuid], 1):
            raise _not_found(uuid, ("id",))
        # Gone by now is as good: a commit that was not acknowledged has happened all the same.
        await rows.delete_schedule(self.core.pool, self.core.ns, uuid)
        return uuid

    async def trigger(self, id: object) -> Made:
        """Run it now, whatever its overlap policy, and paused or not; the next due time stays."""
        uuid = check.uuid(id, ("id",), "id")
        found = await rows.read_schedules(self.core.pool, self.core.ns, [uuid], 1)
        if not found:
            raise _not_found(uuid, ("id",))
        call = self._call(found[0])
        if isinstance(call, CrewError):
            raise call

        async def work(connection: Connection, after: After) -> Made:
            row = await self._locked(connection, uuid, ("id",))
            (made,) = await self.creator.look_and_make(connection, [call], after)
            (group,) = await read_groups(connection, self.core.ns, ids=[made.group_id])
            ran = Ran(row.id, row.next_run_at, last_run_at=row.now, last_group=group.group_no)
            await rows.move_schedules(connection, self.core.ns, [ran])
            return made

        made = await self.creator.transact(work)
        self.core.stir()
        return made

    async def run_due(self) -> int:
        """One transaction of what is due; answers how many schedules moved on."""

        async def work(connection: Connection, after: After) -> int:
            due = await rows.due_schedules(connection, self.core.ns, _AT_ONCE, TASKS)
            if due:
                await rows.move_schedules(connection, self.core.ns, await self._ran(connection, due, after))
            return len(due)

        moved = await self.creator.transact(work)
        if moved:
            self.core.stir()
        return moved

    async def _ran(self, connection: Connection, due: list[ScheduleRow], after: After) -> list[Ran]:
        plans: list[tuple[ScheduleRow, list[datetime], datetime | None]] = []
        left, lost = TASKS, dict[UUID, CrewError]()
        for row in due:
            try:
                times, following = self._due_runs(row, left)
            except CrewError as error:
                # Its zone is gone: it would be due for ever, and keep the others from running.
                times, following, lost[row.id] = [], None, error
            plans.append((row, times, following))
            left -= len(times) * max(row.size, 1)
        busy = await self._busy(connection, [row for row, times, _ in plans if times and row.overlap == SKIP])
        runs: list[tuple[int, datetime, Call | CrewError]] = []
        for n, (row, times, _) in enumerate(plans):
            if row.overlap == SKIP:
                # One run now keeps the rest from running, unless it makes nothing that could.
                times = [] if row.id in busy else times[: 1 if row.size else None]
            runs += [(n, at, self._call(row)) for at in times]
        made = await make_each(self.creator, connection, [call for _, _, call in runs], after)
        groups = await self._numbers(connection, made)
        ran = [Ran(row.id, following, last_error=_said(lost.get(row.id))) for row, _, following in plans]
        for (n, at, _), answer in zip(runs, made, strict=True):
            if isinstance(answer, Made):
                ran[n].last_run_at, ran[n].last_group, ran[n].last_error = at, groups[answer.group_id], None
            else:
                log.warning(
                    "a run of a schedule was refused", schedule=str(due[n].id), at=str(at), error=answer.message
                )
                ran[n].last_error = _said(answer)
        return ran

    def _due_runs(self, row: ScheduleRow, left: int) -> tuple[list[datetime], datetime | None]:
        """One at least; more as long as so many tasks are left to be made in this transaction."""
        assert row.next_run_at is not None
        most = max(1, min(_AT_ONCE, left // max(row.size, 1)))
        return cron.due_runs(row.cron, row.time_zone, row.catch_up, row.next_run_at, row.now, most)

    async def _busy(self, connection: Connection, asking: list[ScheduleRow]) -> set[UUID]:
        """Those whose last group has a task that is not settled."""
        groups = {row.last_group: row.id for row in asking if row.last_group is not None}
        there = await read_groups(connection, self.core.ns, nos=list(groups)) if groups else []
        found = await group_progress(connection, self.core.ns, [g.group_no for g in there]) if there else []
        return {groups[p.group_no] for p in found if sum(p.counts) and p.finished_at is None}

    async def _numbers(self, connection: Connection, made: list[Made | CrewError]) -> dict[UUID, int]:
        ids = [m.group_id for m in made if isinstance(m, Made)]
        found = await read_groups(connection, self.core.ns, ids=ids) if ids else []
        return {group.id: group.group_no for group in found}

    def _call(self, row: ScheduleRow) -> Call | CrewError:
        try:
            return self.creator.into_new(self.template(orjson.loads(row.template)), ())
        except CrewError as error:
            return error

    async def _locked(self, connection: Connection, id: UUID, path: Path) -> ScheduleRow:
        row = await rows.lock_schedule(connection, self.core.ns, id)
        if row is None:
            raise _not_found(id, path)
        return row

    def _changed(self, row: ScheduleRow, wanted: Wanted) -> ScheduleRow:
        """The row with what is wanted, checked. A due time that was missed while it was paused is not made up for."""
        path = ("input",)
        new = replace(
            row,
            name=row.name
            if wanted.name is None
            else check.text(wanted.name, (*path, "name"), "name", check.NAME_CHARACTERS),
            is_paused=row.is_paused if wanted.is_paused is None else wanted.is_paused,
            catch_up=row.catch_up if wanted.catch_up is None else wanted.catch_up,
            overlap=row.overlap if wanted.overlap is None else wanted.overlap,
        )
        if wanted.time_zone is not None:
            new.time_zone = cron.checked_zone(wanted.time_zone, (*path, "timeZone"))
        if wanted.cron is not None:
            new.cron = cron.checked_cron(wanted.cron, new.time_zone, row.now, (*path, "cron"))
        if wanted.group is not None:
            self._check_template(wanted.group, (*path, "group"))
            new.template = check.json_text(
                wanted.template, (*path, "group"), "group", 8 * self.core.limits.max_input_bytes
            )
            new.size = len(wanted.group.tasks or ())
        if new.is_paused:
            new.next_run_at = None
        elif row.is_paused or (new.cron, new.time_zone) != (row.cron, row.time_zone):
            new.next_run_at = cron.first_after(new.cron, new.time_zone, row.now)
        return new

    def _check_template(self, group: Any, path: Path) -> None:
        """As createTaskGroup would; and nothing in it may name what only one run can have."""
        _refuse_own(group.id, (*path, "id"), "an id")
        for n, task in enumerate(group.tasks or ()):
            here = (*path, "tasks", n)
            _refuse_own(task.id, (*here, "id"), "an id")
            _refuse_own(task.run_after, (*here, "runAfter"), "runAfter", "; use delaySeconds, counted from each run")
            for nth, parent in enumerate(task.parents or ()):
                _refuse_own(
                    parent.id, (*here, "parents", nth, "id"), "a parent's id", "; name a task of the template by ref"
                )
        self.creator.into_new(group, path)

    def _told(self, row: ScheduleRow) -> ScheduleRow:
        if row.next_run_at is not None:
            self.core.scheduled((row.next_run_at - row.now).total_seconds())
        return row


def _refuse_own(value: object, path: Path, what: str, instead: str = "") -> None:
    if value is not None:
        raise BadInput(f"{what} in a template would be the same in each run: leave it out{instead}", path)


def _said(error: CrewError | None) -> str | None:
    return None if error is None else f"{error.code}: {error.message}"


def _not_found(id: UUID, path: Path) -> NotFound:
    return NotFound(f"no schedule {id}", path)
