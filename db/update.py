"""Changing tasks and groups: the statements of sql/queries/update.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Connection, Pool
from db.statements import statement


@dataclass(slots=True)
class StandRow:
    """Where a task stands, and its ticket there."""

    state: int
    attempt: int
    remaining: int
    failures: int
    run_at: datetime | None
    ready_at: datetime | None


@dataclass(slots=True)
class ChangingRow:
    """What of a task can be changed; its group and onDuplicate cannot."""

    group_no: int
    channel: int
    workgroup: int
    rank: int
    name: str
    key: str | None
    input: str | None
    metadata: str | None
    run_after: datetime | None
    max_attempts: int
    retry_delay: float
    backoff: float
    max_delay: float
    timeout: float | None
    weight: int
    is_seed: bool
    on_duplicate: int
    on_parent_failure: int


@dataclass(slots=True)
class PlacedRow:
    channel: int
    rank: int
    no: int
    state: int
    merges: bool
    due_in: float | None


async def lock_place(connection: Connection, ns: int, no: int, *, take_out: bool) -> StandRow | None:
    """None when it has just moved. `take_out`: a ready or delayed one stands nowhere then, until place_again."""
    rows = [StandRow(*row) for row in await connection.fetch(statement("update", "lock_place"), ns, no, take_out)]
    return rows[0] if rows else None


async def task_to_change(connection: Connection, ns: int, no: int) -> ChangingRow | None:
    rows = [ChangingRow(*row) for row in await connection.fetch(statement("update", "task_to_change"), ns, no)]
    return rows[0] if rows else None


async def change_task(
    connection: Connection, ns: int, no: int, state: int, t: ChangingRow, remaining: int, run_at: datetime | None
) -> None:
    await connection.fetch(
        statement("update", "change_task"),
        ns,
        no,
        state,
        t.name,
        t.channel,
        t.workgroup,
        t.rank,
        t.key,
        t.input,
        t.metadata,
        t.run_after,
        t.max_attempts,
        t.retry_delay,
        t.backoff,
        t.max_delay,
        t.timeout,
        t.weight,
        t.is_seed,
        t.on_parent_failure,
        remaining,
        run_at,
    )


async def place_again(connection: Connection, ns: int, no: int, stood: StandRow, *, blocked: bool) -> PlacedRow:
    rows = await connection.fetch(
        statement("update", "place_again"),
        ns,
        no,
        stood.state,
        stood.attempt,
        stood.remaining,
        stood.failures,
        stood.run_at,
        stood.ready_at,
        blocked,
    )
    return PlacedRow(*rows[0])


async def tell_of_update(connection: Connection, ns: int, no: int, stood: StandRow) -> None:
    await connection.execute(statement("update", "tell_of_update"), ns, no, stood.state, stood.attempt)


async def change_group(
    pool: Pool, ns: int, group_id: UUID, *, name: tuple[bool, str | None], metadata: tuple[bool, str | None]
) -> bool:
    """Each with whether it is to be changed. False when there is no such group."""
    return bool(await pool.fetch(statement("update", "change_group"), ns, group_id, *name, *metadata))
