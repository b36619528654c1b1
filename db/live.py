"""The event log: the statements of sql/queries/live.sql."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection, Pool
from db.statements import statement


@dataclass(slots=True)
class TickRow:
    tick: int
    mark: int
    made: bool
    wanted: bool


@dataclass(slots=True)
class PieceRow:
    """Some items of one row of the log, from item `first` on; `seq` is None for a tick that has none (left)."""

    tick: int
    mark: int
    mark_before: int
    seq: int | None
    first: int | None
    at: datetime | None
    kind: int | None
    state: int | None
    worker: int | None
    until: datetime | None
    nos: list[int] | None
    groups: list[int] | None
    channels: list[int] | None
    workgroups: list[int] | None
    attempts: list[int] | None
    progress: list[float | None] | None


async def make_tick(pool: Pool, ns: int) -> TickRow:
    """The last tick there is, and whether this call made it."""
    return TickRow(*(await pool.fetch(statement("live", "make_tick"), ns))[0])


async def tick_stands(pool: Pool, ns: int, tick: int, mark: int) -> bool:
    stands: bool = (await pool.fetch(statement("live", "tick_stands"), ns, tick, mark))[0]["stands"]
    return stands


async def read_ticks(
    pool: Pool, ns: int, after: tuple[int, int, int], *, ticks: int, pieces: int, items: int
) -> list[PieceRow]:
    """What follows a place (the last tick that is done; in the next, the row and the item to go on with)."""
    rows = await pool.fetch(statement("live", "read_ticks"), ns, *after, ticks, pieces, items)
    return [PieceRow(*row) for row in rows]


TASK, GROUP, CHANNEL, WORKGROUP, WORKER = range(1, 6)


async def name_events(pool: Pool, ns: int, numbers: Mapping[int, Iterable[int]]) -> dict[tuple[int, int], str]:
    """What numbers of each kind (TASK, …) stand for: (kind, number) → id or name, of those that are known."""
    asked = [list(numbers.get(kind, ())) for kind in (TASK, GROUP, CHANNEL, WORKGROUP, WORKER)]
    rows = await pool.fetch(statement("live", "name_events"), ns, *asked)
    return {(row["kind"], row["ref"]): row["text"] for row in rows}


async def forget_ticks(pool: Pool, ns: int, seconds: float, limit: int) -> int:
    gone: int = (await pool.fetch(statement("live", "forget_ticks"), ns, seconds, limit))[0]["gone"]
    return gone


async def forget_events(pool: Pool, ns: int, limit: int, seconds: float) -> int:
    gone: int = (await pool.fetch(statement("live", "forget_events"), ns, limit, seconds))[0]["gone"]
    return gone


async def settle_logs(connection: Connection) -> list[int]:
    """Begins the logs of a database that came from another cluster anew; the namespaces that were concerned. In a transaction."""
    moved = [row["ns"] for row in await connection.fetch(statement("live", "moved_logs"))]
    for ns in moved:
        await connection.fetch(statement("clock", "fold_events"), ns)
        await connection.fetch(statement("progress", "fold_groups"), ns)
        await connection.fetch(statement("live", "begin_log"), ns)
    return moved
