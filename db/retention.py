"""What is forgotten when it is old: the statements of sql/queries/retention.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection, Pool
from db.statements import statement


@dataclass(slots=True)
class OldGroupRow:
    group_no: int
    total: int
    """How many tasks it has, by the fold."""


@dataclass(slots=True)
class SettledGroupRow:
    group_no: int
    is_settled: bool
    is_old: bool


@dataclass(slots=True)
class OldTaskRow:
    at: datetime
    no: int
    may_go: bool


async def expired_groups(pool: Pool, ns: int, seconds: float, without: list[int], limit: int) -> list[OldGroupRow]:
    rows = await pool.fetch(statement("retention", "expired_groups"), ns, seconds, without, limit)
    return [OldGroupRow(*row) for row in rows]


async def stale_groups(pool: Pool, ns: int, seconds: float, after: int, limit: int) -> list[OldGroupRow]:
    rows = await pool.fetch(statement("retention", "stale_groups"), ns, seconds, after, limit)
    return [OldGroupRow(*row) for row in rows]


async def lock_groups(connection: Connection, ns: int, group_nos: list[int]) -> list[int]:
    rows = await connection.fetch(statement("retention", "lock_groups"), ns, group_nos)
    return [row["group_no"] for row in rows]


async def lock_settled_of(
    connection: Connection, ns: int, group_nos: list[int], seconds: float
) -> list[SettledGroupRow]:
    """Not of groups without tasks."""
    rows = await connection.fetch(statement("retention", "lock_settled_of"), ns, group_nos, seconds)
    return [SettledGroupRow(*row) for row in rows]


async def running_groups(connection: Connection, ns: int, group_nos: list[int]) -> list[int]:
    rows = await connection.fetch(statement("retention", "running_groups"), ns, group_nos)
    return [row["group_no"] for row in rows]


async def old_settled(pool: Pool, ns: int, seconds: float, after: tuple[datetime, int], limit: int) -> list[OldTaskRow]:
    rows = await pool.fetch(statement("retention", "old_settled"), ns, seconds, *after, limit)
    return [OldTaskRow(*row) for row in rows]


async def lock_settled(connection: Connection, ns: int, nos: list[int], seconds: float) -> list[int]:
    return [row["no"] for row in await connection.fetch(statement("retention", "lock_settled"), ns, nos, seconds)]


async def needless(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    return [row["no"] for row in await connection.fetch(statement("retention", "needless"), ns, nos)]
