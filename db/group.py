"""Reading groups, channels, workgroups and workers: the statements of sql/queries/group.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Pool
from db.statements import statement
from db.task import TOTAL_COUNT_STOPS_AT


@dataclass(slots=True)
class GroupRow:
    group_no: int
    id: UUID
    name: str
    metadata: str | None
    created_at: datetime
    is_paused: bool


@dataclass(slots=True)
class GroupCountRow:
    group_no: int
    state: int
    n: int
    weight: int
    finished_at: datetime | None


@dataclass(slots=True)
class GroupPageRow:
    group_no: int
    sort_key: str


@dataclass(slots=True)
class ChannelRow:
    number: int
    name: str
    is_paused: bool


@dataclass(slots=True)
class WorkgroupRow:
    number: int
    name: str
    suspended_until: datetime | None
    reason: str | None


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


@dataclass(slots=True)
class GroupFilter:
    name_contains: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    states: list[int] | None = None

    def args(self) -> tuple[object, ...]:
        return (self.name_contains, self.created_after, self.created_before, self.states)


async def read_groups(
    pool: Pool, ns: int, *, nos: list[int] | None = None, ids: list[UUID] | None = None
) -> list[GroupRow]:
    rows = await pool.fetch(statement("group", "read_groups"), ns, nos or [], ids or [])
    return [GroupRow(*row) for row in rows]


async def group_counts(pool: Pool, ns: int, nos: list[int]) -> list[GroupCountRow]:
    return [GroupCountRow(*row) for row in await pool.fetch(statement("group", "group_counts"), ns, nos)]


async def group_numbers(pool: Pool, ns: int, group_no: int, limit: int) -> list[int]:
    return [row["no"] for row in await pool.fetch(statement("group", "group_numbers"), ns, group_no, limit)]


async def page_of_groups(
    pool: Pool, ns: int, narrowed: GroupFilter, order: int, after: GroupPageRow | None, first: int
) -> list[GroupPageRow]:
    no, key = (after.group_no, after.sort_key) if after else (None, None)
    rows = await pool.fetch_planned(statement("group", "page_of_groups"), ns, *narrowed.args(), order, no, key, first)
    return [GroupPageRow(*row) for row in rows]


async def count_groups(pool: Pool, ns: int, narrowed: GroupFilter) -> int:
    rows = await pool.fetch_planned(statement("group", "count_groups"), ns, *narrowed.args(), TOTAL_COUNT_STOPS_AT + 1)
    n: int = rows[0]["n"]
    return n


async def read_channels(
    pool: Pool, ns: int, names: list[str] | None, after: str | None, first: int
) -> list[ChannelRow]:
    rows = await pool.fetch(statement("group", "read_channels"), ns, names, after, first)
    return [ChannelRow(*row) for row in rows]


async def oldest_ready(pool: Pool, ns: int, channels: list[int]) -> dict[int, float]:
    rows = await pool.fetch(statement("group", "oldest_ready"), ns, channels)
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


async def server_now(pool: Pool) -> datetime:
    rows = await pool.fetch(statement("group", "server_now"))
    now: datetime = rows[0]["now"]
    return now
