"""How far groups are, lists of groups, how fast channels go: the statements of sql/queries/progress.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from db.pool import Connection, Pool
from db.statements import statement
from db.walk import Direction, Keyed, Span, TurnRow


@dataclass(slots=True)
class GroupFilter:
    """What a list of groups is narrowed to; None is no narrowing. States: 1 OPEN 2 FINISHED 3 FAILING 4 PAUSED."""

    name_contains: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    states: list[int] | None = None

    def args(self) -> tuple[object, ...]:
        return (self.name_contains, self.created_after, self.created_before, self.states)


@dataclass(slots=True)
class GroupProgressRow:
    group_no: int
    counts: list[int]
    """How many tasks stand in each state, from BLOCKED to CANCELLED."""
    weight: int
    settled_weight: int
    finished_at: datetime | None


@dataclass(slots=True)
class ChangedRow:
    group_no: int
    ended: int


@dataclass(slots=True)
class GroupNameRow:
    group_no: int
    name: str


@dataclass(slots=True)
class PaceRow:
    at: datetime
    """When its bucket begins."""
    what: int | None
    """1 created 2 succeeded 3 failed; from 100 on started, by how long it had waited; None: nothing was."""
    n: int | None


async def fold_groups(pool: Pool | Connection, ns: int) -> int:
    """How many groups had changed."""
    rows = await pool.fetch(statement("progress", "fold_groups"), ns)
    return rows[0]["groups"] if rows else 0


async def forget_pace(pool: Pool, ns: int, seconds: float) -> None:
    await pool.fetch(statement("progress", "forget_pace"), ns, seconds)


async def throughput(pool: Pool, ns: int, channel: int, seconds: float, buckets: int) -> list[PaceRow]:
    rows = await pool.fetch(statement("progress", "throughput"), ns, channel, seconds, buckets)
    return [PaceRow(*row) for row in rows]


async def group_progress(pool: Pool | Connection, ns: int, nos: list[int]) -> list[GroupProgressRow]:
    return [GroupProgressRow(*row) for row in await pool.fetch(statement("progress", "group_progress"), ns, nos)]


async def changed_groups(pool: Pool, ns: int, limit: int) -> list[ChangedRow]:
    return [ChangedRow(*row) for row in await pool.fetch(statement("progress", "changed_groups"), ns, limit)]


async def walk_groups(pool: Pool, ns: int, way: Direction, span: Span, limit: int) -> list[int]:
    return await _numbers(pool, statement("progress", f"walk_groups_{way}"), ns, span.low, span.high, limit)


async def walk_standing(pool: Pool, ns: int, way: Direction, span: Span, limit: int, states: list[int]) -> list[int]:
    sql = statement("progress", f"walk_standing_{way}")
    return await _numbers(pool, sql, ns, span.low, span.high, limit, states)


async def walk_names(pool: Pool, ns: int, name: str, no: int, limit: int) -> list[tuple[str, int]]:
    rows = await pool.fetch(statement("progress", "walk_names"), ns, name, no, limit)
    return list(zip(rows[0]["keys"] or (), rows[0]["nos"] or (), strict=True))


async def walk_finished(pool: Pool, ns: int, micros: int, no: int, limit: int) -> Keyed:
    rows = await pool.fetch(statement("progress", "walk_finished"), ns, micros, no, limit)
    return list(zip(rows[0]["keys"] or (), rows[0]["nos"] or (), strict=True))


async def names_of_groups(pool: Pool, ns: int, nos: list[int]) -> list[GroupNameRow]:
    return [GroupNameRow(*row) for row in await pool.fetch(statement("progress", "names_of_groups"), ns, nos)]


async def matching_groups(pool: Pool, ns: int, nos: list[int], narrowed: GroupFilter) -> set[int]:
    return set(await _numbers(pool, statement("progress", "matching_groups"), ns, nos, *narrowed.args()))


async def turn_of_group_time(pool: Pool, ns: int, at: datetime) -> TurnRow | None:
    """None when there are no groups."""
    rows = [TurnRow(*row) for row in await pool.fetch(statement("progress", "turn_of_group_time"), ns, at)]
    return rows[0] if rows else None


async def _numbers(pool: Pool, sql: str, *args: object) -> list[int]:
    rows = await pool.fetch(sql, *args)
    return rows[0]["nos"] or []
