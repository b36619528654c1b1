"""Keys: who runs for one, and what rides with it. The statements of sql/queries/key.sql."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from db.claim import Place
from db.pool import Connection, Pool
from db.statements import statement

Key = tuple[int, str]
"""Channel and key."""


@dataclass(slots=True)
class KeyedRow:
    channel: int
    key: str
    no: int
    id: UUID
    group_no: int


async def lock_keys(connection: Connection, ns: int, keys: list[Key]) -> None:
    await connection.execute(statement("key", "lock_keys"), ns, [k[0] for k in keys], [k[1] for k in keys])


async def tasks_with_keys(connection: Connection, ns: int, keys: list[Key]) -> list[KeyedRow]:
    """Those that have not ended, oldest first."""
    rows = await connection.fetch(statement("key", "tasks_with_keys"), ns, [k[0] for k in keys], [k[1] for k in keys])
    return [KeyedRow(*row) for row in rows]


async def remember_keys(connection: Connection, ns: int, nos: list[int]) -> None:
    await connection.execute(statement("key", "remember_keys"), ns, nos)


async def merge_ready(connection: Connection, ns: int, nos: list[int]) -> None:
    await connection.fetch(statement("key", "merge_ready"), ns, nos)


async def take_in(connection: Connection, ns: int, nos: list[int]) -> None:
    await connection.fetch(statement("key", "take_in"), ns, nos)


async def bring_twins(connection: Connection, ns: int, leases: list[tuple[int, int]], *, succeed: bool) -> None:
    """For (lease number, task number) of runners: lock them and their keys; then what rides with them joins their leases."""
    nos = [lease_no for lease_no, _ in leases]
    rows = await connection.fetch(statement("key", "lock_runners"), ns, nos, [no for _, no in leases])
    await connection.fetch(statement("key", "bring_twins"), ns, nos, [row["no"] for row in rows], succeed)


async def free_twins(connection: Connection, ns: int, nos: list[int]) -> list[Place]:
    """What rode with these tasks is ready again, here; they run for their keys no more."""
    rows = await connection.fetch(statement("key", "lock_runners_of"), ns, nos)
    freed = await connection.fetch(statement("key", "free_twins"), ns, [row["no"] for row in rows])
    return [(row["channel"], row["rank"], row["no"]) for row in freed]


async def forget_ended_keys(pool: Pool, ns: int, limit: int) -> int:
    """How many rows went, of the kind of which most went."""
    rows = await pool.fetch(statement("key", "forget_ended_keys"), ns, limit)
    most: int = max(rows[0]["idle"], rows[0]["ended"])
    return most
