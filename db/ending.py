"""What people do to many tasks, and what follows for others when a task ends. The statements of sql/queries/ending.sql."""

from __future__ import annotations

from dataclasses import dataclass

from db.lease import FreedRow
from db.pool import Connection
from db.statements import statement


@dataclass(slots=True)
class CancelledRow:
    cancelled: list[int] | None
    ended: list[int] | None
    """Of those, the ones that had not failed before."""
    runners: list[int] | None
    moved: list[int] | None


@dataclass(slots=True)
class RetriedRow:
    no: int
    channel: int
    rank: int
    merges: bool


async def descendants(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    """With themselves."""
    return [row["no"] for row in await connection.fetch(statement("ending", "descendants"), ns, nos)]


async def unsettled_of_group(connection: Connection, ns: int, group_no: int) -> list[int]:
    return [row["no"] for row in await connection.fetch(statement("ending", "unsettled_of_group"), ns, group_no)]


async def failed_of_group(connection: Connection, ns: int, group_no: int) -> list[int]:
    return [row["no"] for row in await connection.fetch(statement("ending", "failed_of_group"), ns, group_no)]


async def cancel_tasks(connection: Connection, ns: int, nos: list[int]) -> CancelledRow:
    return CancelledRow(*(await connection.fetch(statement("ending", "cancel_tasks"), ns, nos))[0])


async def doomed(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    return [row["no"] for row in await connection.fetch(statement("ending", "doomed"), ns, nos)]


async def settle_children(
    connection: Connection, ns: int, *, joins: list[int], failed: list[int], doomed: list[int]
) -> FreedRow:
    rows = await connection.fetch(statement("ending", "settle_children"), ns, joins, failed, doomed)
    return FreedRow(*rows[0])


async def retry_tasks(connection: Connection, ns: int, nos: list[int], attempts: int) -> list[RetriedRow]:
    return [RetriedRow(*row) for row in await connection.fetch(statement("ending", "retry_tasks"), ns, nos, attempts)]
