"""Lists of tasks, so many candidates at a time: the statements of sql/queries/walk.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from db.pool import Pool
from db.statements import statement

HIGHEST = (1 << 63) - 1
Direction = Literal["asc", "desc"]


@dataclass(slots=True)
class Narrowed:
    """What a list of tasks is narrowed to, by numbers; None is no narrowing."""

    channels: list[int] | None = None
    workgroups: list[int] | None = None
    group_no: int | None = None
    name_contains: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    key: str | None = None
    rank: int | None = None
    states: list[int] | None = None
    worker: int | None = None
    runs: list[int] | None = None
    """What that worker runs now."""

    def own(self) -> tuple[object, ...]:
        """What a task's own row tells."""
        return (
            self.channels,
            self.workgroups,
            self.group_no,
            self.name_contains,
            self.created_after,
            self.created_before,
            self.key,
            self.rank,
        )

    def args(self) -> tuple[object, ...]:
        return (*self.own(), self.states, self.worker, self.runs)


@dataclass(slots=True)
class Span:
    """Numbers above `low` and below `high`."""

    low: int = -1
    high: int = HIGHEST


@dataclass(slots=True)
class ScanRow:
    looked: int
    last: int | None
    nos: list[int] | None


@dataclass(slots=True)
class LaneRow:
    channel: int
    rank: int


@dataclass(slots=True)
class RunningRow:
    leases: int
    tasks: int


@dataclass(slots=True)
class KeysRow:
    no: int
    priority: int
    ended: int


@dataclass(slots=True)
class TurnRow:
    low: int
    high: int


Keyed = list[tuple[int, int]]
"""Sort key and number."""


async def walk_created(pool: Pool, ns: int, way: Direction, span: Span, limit: int) -> list[int]:
    return await _numbers(pool, statement("walk", f"walk_created_{way}"), ns, span.low, span.high, limit)


async def scan_created(pool: Pool, ns: int, way: Direction, span: Span, limit: int, narrowed: Narrowed) -> ScanRow:
    """`narrowed` as far as a task's own row tells."""
    sql = statement("walk", f"scan_created_{way}")
    rows = await pool.fetch(sql, ns, span.low, span.high, limit, *narrowed.own())
    return ScanRow(*rows[0])


async def walk_group(pool: Pool, ns: int, way: Direction, span: Span, limit: int, group_no: int) -> list[int]:
    return await _numbers(pool, statement("walk", f"walk_group_{way}"), ns, span.low, span.high, limit, group_no)


async def walk_key(pool: Pool, ns: int, way: Direction, span: Span, limit: int, key: str) -> list[int]:
    return await _numbers(pool, statement("walk", f"walk_key_{way}"), ns, span.low, span.high, limit, key)


async def walk_places(
    pool: Pool, ns: int, way: Direction, span: Span, limit: int, states: list[int], lanes: list[LaneRow]
) -> list[int]:
    channels, ranks = [lane.channel for lane in lanes], [lane.rank for lane in lanes]
    sql = statement("walk", f"walk_places_{way}")
    return await _numbers(pool, sql, ns, span.low, span.high, limit, states, channels, ranks)


async def ready_lanes(pool: Pool, ns: int, channels: list[int] | None, limit: int) -> list[LaneRow]:
    """Of these channels, or of all."""
    if channels is None:
        return [LaneRow(*row) for row in await pool.fetch(statement("walk", "ready_lanes"), ns, limit)]
    return [LaneRow(*row) for row in await pool.fetch(statement("walk", "ready_lanes_of"), ns, limit, channels)]


async def walk_rank(pool: Pool, ns: int, span: Span, limit: int, rank: int, channels: list[int]) -> list[int]:
    return await _numbers(pool, statement("walk", "walk_rank"), ns, span.low, span.high, limit, rank, channels)


async def parked_ranks(pool: Pool, ns: int, limit: int) -> list[int]:
    return [row["rank"] for row in await pool.fetch(statement("walk", "parked_ranks"), ns, limit)]


async def running_count(pool: Pool, ns: int, limit: int) -> RunningRow:
    rows = await pool.fetch(statement("walk", "running_count"), ns, limit)
    return RunningRow(*rows[0])


async def known_worker(pool: Pool, ns: int, name: str) -> int | None:
    rows = await pool.fetch(statement("walk", "known_worker"), ns, name)
    return rows[0]["worker"] if rows else None


async def leased_to(pool: Pool, ns: int, worker: int) -> list[int]:
    return await _numbers(pool, statement("walk", "leased_to"), ns, worker)


async def walk_ranked(pool: Pool, ns: int, rank: int, no: int, below: int, limit: int) -> Keyed:
    rows = await pool.fetch(statement("walk", "walk_ranked"), ns, rank, no, below, limit)
    return list(zip(rows[0]["keys"] or (), rows[0]["nos"] or (), strict=True))


async def walk_ended(pool: Pool, ns: int, micros: int, no: int, limit: int, states: list[int]) -> Keyed:
    rows = await pool.fetch(statement("walk", "walk_ended"), ns, micros, no, limit, states)
    return list(zip(rows[0]["keys"] or (), rows[0]["nos"] or (), strict=True))


async def keys_of_tasks(pool: Pool, ns: int, nos: list[int]) -> list[KeysRow]:
    return [KeysRow(*row) for row in await pool.fetch(statement("walk", "keys_of_tasks"), ns, nos)]


async def matching_numbers(pool: Pool, ns: int, nos: list[int], narrowed: Narrowed) -> set[int]:
    return set(await _numbers(pool, statement("walk", "matching_numbers"), ns, nos, *narrowed.args()))


async def turn_of_time(pool: Pool, ns: int, at: datetime) -> TurnRow | None:
    """None when there are no tasks."""
    rows = [TurnRow(*row) for row in await pool.fetch(statement("walk", "turn_of_time"), ns, at)]
    return rows[0] if rows else None


async def _numbers(pool: Pool, sql: str, *args: object) -> list[int]:
    rows = await pool.fetch(sql, *args)
    return rows[0]["nos"] or []
