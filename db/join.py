"""SUBTREE links: the statements of sql/queries/join.sql."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from db.pool import Connection
from db.statements import statement


@dataclass(slots=True)
class MemberRow:
    root: int
    no: int
    id: UUID
    joins: bool
    """It waits for the root and all it spawns itself."""


async def subtree_members(connection: Connection, ns: int, nos: list[int]) -> list[MemberRow]:
    return [MemberRow(*row) for row in await connection.fetch(statement("join", "subtree_members"), ns, nos)]


async def joins(connection: Connection, ns: int, nos: list[int], spawner: int) -> dict[int, list[int]]:
    """Join → of the parents that it was told to wait for with all they spawn, those that have spawned the spawner, or are it."""
    return {row["no"]: row["roots"] for row in await connection.fetch(statement("join", "joins"), ns, nos, spawner)}


async def waiting_for(connection: Connection, ns: int, joins: list[int], tasks: list[int]) -> set[tuple[int, int]]:
    """Pairs (join, task): the task is the join or waits for it, down any links."""
    rows = await connection.fetch(statement("join", "waiting_for"), ns, joins, tasks)
    return {(row["root"], row["no"]) for row in rows}


async def adopt(connection: Connection, ns: int, pairs: list[tuple[int, int]]) -> set[int]:
    """Pairs (task just made, join): joins that have not started wait for it. Answers those that changed their place: run again."""
    rows = await connection.fetch(statement("join", "adopt"), ns, [p[0] for p in pairs], [p[1] for p in pairs])
    return {row["join_no"] for row in rows if row["moved"]}


async def subtree_links(connection: Connection, ns: int, nos: list[int]) -> dict[int, list[int]]:
    """Join, oldest first → what it was told to wait for with all that it spawns."""
    found: dict[int, list[int]] = {}
    for row in await connection.fetch(statement("join", "subtree_links"), ns, nos):
        found.setdefault(row["join_no"], []).append(row["root"])
    return found


async def link_adopted(connection: Connection, ns: int, pairs: list[tuple[int, int]]) -> None:
    """Pairs (task, join that stands nowhere)."""
    await connection.execute(statement("join", "link_adopted"), ns, [p[0] for p in pairs], [p[1] for p in pairs])


async def feed(connection: Connection, ns: int, pairs: list[tuple[int, int]]) -> None:
    """Pairs (task, join that adopts what it spawns, though not itself)."""
    await connection.execute(statement("join", "feed"), ns, [p[0] for p in pairs], [p[1] for p in pairs])
