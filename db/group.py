"""Reading groups, channels, workgroups and workers: the statements of sql/queries/group.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Connection, Pool
from db.statements import statement

_LOOK = 100
"""Tasks of each priority of a channel that are looked at for the oldest."""


@dataclass(slots=True)
class GroupRow:
    group_no: int
    id: UUID
    name: str
    metadata: str | None
    created_at: datetime
    is_paused: bool


@dataclass(slots=True)
class ChannelRow:
    number: int
    name: str
    is_paused: bool
    max_running: int | None


@dataclass(slots=True)
class WorkgroupRow:
    number: int
    name: str
    suspended_until: datetime | None
    reason: str | None
    max_running: int | None
    starts: int | None
    seconds: float | None


@dataclass(slots=True)
class StateCountRow:
    number: int
    state: int
    n: int


@dataclass(slots=True)
class WorkerRow:
    id: str
    channels: list[str]
    transport: str | None
    last_seen_at: datetime
    is_alive: bool
    running: int


async def read_groups(
    pool: Pool | Connection, ns: int, *, nos: list[int] | None = None, ids: list[UUID] | None = None
) -> list[GroupRow]:
    rows = await pool.fetch(statement("group", "read_groups"), ns, nos or [], ids or [])
    return [GroupRow(*row) for row in rows]


async def group_numbers(pool: Pool, ns: int, group_no: int, limit: int) -> list[int]:
    return [row["no"] for row in await pool.fetch(statement("group", "group_numbers"), ns, group_no, limit)]


async def read_channels(
    pool: Pool, ns: int, names: list[str] | None, after: str | None, first: int
) -> list[ChannelRow]:
    rows = await pool.fetch(statement("group", "read_channels"), ns, names, after, first)
    return [ChannelRow(*row) for row in rows]


async def oldest_ready(pool: Pool, ns: int, channels: list[int]) -> dict[int, float]:
    rows = await pool.fetch(statement("group", "oldest_ready"), ns, channels, _LOOK)
    return {row["number"]: row["seconds"] for row in rows}


async def read_workgroups(
    pool: Pool, ns: int, names: list[str] | None, after: str | None, first: int, suspended_only: bool
) -> list[WorkgroupRow]:
    rows = await pool.fetch(statement("group", "read_workgroups"), ns, names, after, first, suspended_only)
    return [WorkgroupRow(*row) for row in rows]


async def counts_by_state(pool: Pool, ns: int, numbers: list[int]) -> list[StateCountRow]:
    return [StateCountRow(*row) for row in await pool.fetch(statement("group", "counts_by_state"), ns, numbers)]


async def read_workers(
    pool: Pool, ns: int, alive_only: bool, silence: float, after: str | None, first: int
) -> list[WorkerRow]:
    rows = await pool.fetch(statement("group", "read_workers"), ns, alive_only, silence, after, first)
    return [WorkerRow(*row) for row in rows]


async def server_now(pool: Pool | Connection) -> datetime:
    rows = await pool.fetch(statement("group", "server_now"))
    now: datetime = rows[0]["now"]
    return now
