"""Taking tasks out of their places, and deleting them: the statements of sql/queries/delete.sql."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from db.lease import FreedRow
from db.pool import Connection
from db.statements import statement


@dataclass(slots=True)
class MemberRow:
    no: int
    is_seed: bool


@dataclass(slots=True)
class TakenRow:
    nos: list[int] | None
    wases: list[int] | None
    """The states that they were in."""
    attempts: list[int] | None
    runners: list[int] | None
    moved: list[int] | None


@dataclass(slots=True)
class CountRow:
    ref: int
    """A channel or a workgroup."""
    state: int
    n: int


Taken = dict[int, tuple[int, int]]
"""Task number → the state that it was in, and its attempts."""


async def lock_group(connection: Connection, ns: int, group_id: UUID) -> int | None:
    """Its number; None when there is none."""
    rows = await connection.fetch(statement("delete", "lock_group"), ns, group_id)
    return rows[0]["group_no"] if rows else None


async def numbers_of_groups(connection: Connection, ns: int, group_nos: list[int]) -> list[MemberRow]:
    return [MemberRow(*row) for row in await connection.fetch(statement("delete", "numbers_of_groups"), ns, group_nos)]


async def lock_leases_of(connection: Connection, ns: int, nos: list[int]) -> None:
    await connection.fetch(statement("delete", "lock_leases_of"), ns, nos)


async def take_tasks(connection: Connection, ns: int, nos: list[int]) -> TakenRow:
    return TakenRow(*(await connection.fetch(statement("delete", "take_tasks"), ns, nos))[0])


async def weigh_otherwise(connection: Connection, ns: int, nos: list[int]) -> bool:
    """Whether one of them does not weigh 1."""
    yes: bool = (await connection.fetch(statement("delete", "weigh_otherwise"), ns, nos))[0]["yes"]
    return yes


async def lock_fold(connection: Connection, ns: int) -> None:
    await connection.fetch(statement("delete", "lock_fold"), ns)


async def lock_joins_of(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    return [row["no"] for row in await connection.fetch(statement("delete", "lock_joins_of"), ns, nos)]


async def delete_tasks(connection: Connection, ns: int, taken: Taken, *, of_group: bool) -> list[CountRow]:
    """`of_group`: the verb is on the group; what is to be taken off the counts is answered then."""
    rows = await connection.fetch(
        statement("delete", "delete_tasks"),
        ns,
        list(taken),
        [was for was, _ in taken.values()],
        [attempt for _, attempt in taken.values()],
        of_group,
    )
    return [CountRow(*row) for row in rows]


async def delete_groups(connection: Connection, ns: int, group_nos: list[int], counts: list[CountRow]) -> None:
    await connection.fetch(
        statement("delete", "delete_groups"),
        ns,
        group_nos,
        [c.ref for c in counts],
        [c.state for c in counts],
        [c.n for c in counts],
    )


async def recount(connection: Connection, ns: int, nos: list[int]) -> FreedRow:
    """Of blocked tasks that are locked; those that wait for nobody any more go on."""
    return FreedRow(*(await connection.fetch(statement("delete", "recount"), ns, nos))[0])
