"""Schedules: one function per statement of sql/queries/schedule.sql."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Connection, Pool
from db.statements import statement


@dataclass(slots=True)
class ScheduleRow:
    id: UUID
    name: str
    cron: str
    time_zone: str
    is_paused: bool
    catch_up: int
    overlap: int
    template: str
    size: int
    """How many tasks the template has."""
    last_run_at: datetime | None
    next_run_at: datetime | None
    last_group: int | None
    last_error: str | None
    now: datetime
    """The database's clock when it was read."""


@dataclass(slots=True)
class Ran:
    """What came of the due times of one schedule. Without `last_run_at` there was no run."""

    id: UUID
    next_run_at: datetime | None
    last_run_at: datetime | None = None
    last_group: int | None = None
    last_error: str | None = None


async def read_schedules(pool: Pool, ns: int, ids: Sequence[UUID] | None, limit: int) -> list[ScheduleRow]:
    return [ScheduleRow(*row) for row in await pool.fetch(statement("schedule", "read_schedules"), ns, ids, limit)]


async def lock_schedule(connection: Connection, ns: int, id: UUID) -> ScheduleRow | None:
    rows = await connection.fetch(statement("schedule", "lock_schedule"), ns, id)
    return next((ScheduleRow(*row) for row in rows), None)


async def due_schedules(connection: Connection, ns: int, limit: int, tasks: int) -> list[ScheduleRow]:
    rows = await connection.fetch(statement("schedule", "due_schedules"), ns, limit, tasks)
    return [ScheduleRow(*row) for row in rows]


async def next_due_schedule(pool: Pool, ns: int) -> float | None:
    """Seconds until the next one is due; negative when one is overdue."""
    value: float | None = (await pool.fetch(statement("schedule", "next_due_schedule"), ns))[0]["due_in"]
    return value


async def count_schedules(connection: Connection, ns: int) -> int:
    n: int = (await connection.fetch(statement("schedule", "count_schedules"), ns))[0]["n"]
    return n


async def create_schedule(connection: Connection, ns: int, row: ScheduleRow) -> None:
    await connection.fetch(statement("schedule", "create_schedule"), ns, *_fields(row))


async def update_schedule(connection: Connection, ns: int, row: ScheduleRow) -> None:
    await connection.fetch(statement("schedule", "update_schedule"), ns, *_fields(row))


def _fields(row: ScheduleRow) -> tuple[object, ...]:
    return (
        row.id,
        row.name,
        row.cron,
        row.time_zone,
        row.is_paused,
        row.catch_up,
        row.overlap,
        row.template,
        row.size,
        row.next_run_at,
    )


async def move_schedules(connection: Connection, ns: int, ran: Sequence[Ran]) -> None:
    await connection.fetch(
        statement("schedule", "move_schedules"),
        ns,
        [r.id for r in ran],
        [r.next_run_at for r in ran],
        [r.last_run_at for r in ran],
        [r.last_group for r in ran],
        [r.last_error for r in ran],
    )


async def delete_schedule(pool: Pool, ns: int, id: UUID) -> bool:
    return bool(await pool.fetch(statement("schedule", "delete_schedule"), ns, id))
