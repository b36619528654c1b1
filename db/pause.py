"""Pauses by people: the statements of sql/queries/pause.sql."""

from __future__ import annotations

from db.clock import Moved
from db.pool import Connection, Pool
from db.statements import statement


async def pause_tasks(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    """Those that are paused now and were not."""
    return [row["no"] for row in await connection.fetch(statement("pause", "pause_tasks"), ns, nos)]


async def resume_tasks(connection: Connection, ns: int, nos: list[int]) -> list[int]:
    return [row["no"] for row in await connection.fetch(statement("pause", "resume_tasks"), ns, nos)]


async def pause_groups(connection: Connection, ns: int, group_nos: list[int]) -> bool:
    """Whether one was not paused before."""
    return bool(await connection.fetch(statement("pause", "pause_groups"), ns, group_nos))


async def resume_group(connection: Connection, ns: int, group_no: int) -> bool:
    return bool(await connection.fetch(statement("pause", "resume_group"), ns, group_no))


async def pause_channel(connection: Connection, ns: int, channel: int) -> bool:
    return bool(await connection.fetch(statement("pause", "pause_channel"), ns, channel))


async def resume_channel(connection: Connection, ns: int, channel: int) -> bool:
    return bool(await connection.fetch(statement("pause", "resume_channel"), ns, channel))


async def paused_tasks(pool: Pool, ns: int, nos: list[int]) -> set[int]:
    """Those of these tasks that are paused themselves."""
    return {row["no"] for row in await pool.fetch(statement("pause", "paused_tasks"), ns, nos)}


async def park_paused(connection: Connection, ns: int, *, tasks: list[int], groups: list[int]) -> Moved:
    return Moved.of(await connection.fetch(statement("pause", "park_paused"), ns, tasks, groups))


async def park_front(connection: Connection, ns: int, limit: int) -> Moved:
    return Moved.of(await connection.fetch(statement("pause", "park_front"), ns, limit))


async def unpark_paused(connection: Connection, ns: int, *, tasks: list[int], groups: list[int]) -> Moved:
    return Moved.of(await connection.fetch(statement("pause", "unpark_paused"), ns, tasks, groups))


async def count_held(connection: Connection, ns: int, group_no: int) -> int:
    """Ready tasks of a group."""
    n: int = (await connection.fetch(statement("pause", "count_held"), ns, group_no))[0]["n"]
    return n


async def forget_ended_pauses(pool: Pool, ns: int) -> None:
    await pool.fetch(statement("pause", "forget_ended_pauses"), ns)
