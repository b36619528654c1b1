"""Beginning again: the statements of sql/queries/reset.sql."""

from __future__ import annotations

from dataclasses import dataclass

from db.delete import Taken
from db.lease import FreedRow
from db.pool import Connection, Pool
from db.statements import statement


@dataclass(slots=True)
class BlockedRow:
    blocked: list[int] | None
    moved: list[int] | None


async def spawned_below(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    """What these have spawned, and all below that."""
    return [row["no"] for row in await connection.fetch(statement("reset", "spawned_below"), ns, nos)]


async def lock_keys_of(connection: Connection, ns: int, nos: list[int]) -> None:
    await connection.execute(statement("reset", "lock_keys_of"), ns, nos)


async def parents_of(
    connection: Connection, ns: int, nos: list[int], *, without: list[int], unsucceeded: bool = False
) -> list[int]:
    rows = await connection.fetch(statement("reset", "parents_of"), ns, nos, without, not unsucceeded)
    return [row["no"] for row in rows]


async def children_of(connection: Connection, ns: int, nos: list[int], *, without: list[int]) -> list[int]:
    """Those that are not settled."""
    return [row["no"] for row in await connection.fetch(statement("reset", "children_of"), ns, nos, without)]


async def begin_again(connection: Connection, ns: int, taken: Taken) -> FreedRow:
    rows = await connection.fetch(
        statement("reset", "begin_again"), ns, list(taken), [was for was, _ in taken.values()]
    )
    return FreedRow(*rows[0])


async def block_again(connection: Connection, ns: int, nos: list[int]) -> BlockedRow:
    return BlockedRow(*(await connection.fetch(statement("reset", "block_again"), ns, nos))[0])


async def wait_again(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    """Those that are ahead of a parent."""
    return [row["no"] for row in await connection.fetch(statement("reset", "wait_again"), ns, nos)]


async def tell_of_group(connection: Connection, ns: int, group_no: int, kind: int) -> None:
    await connection.execute(statement("reset", "tell_of_group"), ns, group_no, kind)


async def forget_ended_ahead(pool: Pool, ns: int) -> None:
    await pool.fetch(statement("reset", "forget_ended_ahead"), ns)
