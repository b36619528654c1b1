"""Claims, as rows: one function per statement of sql/queries/claim.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from db.pool import Connection
from db.statements import statement

Place = tuple[int, int, int]
"""Channel, rank and number of a task that became ready: what wakes a dispatcher."""


@dataclass(slots=True)
class ClaimRequest:
    worker: int
    limit: int
    seconds: float
    claim_id: UUID | None
    asked: str
    offer: float | None = None
    """For how long the lease stands once it is confirmed; None: it need not be."""


@dataclass(slots=True)
class ClaimedRow:
    ord: int
    lease_no: int
    seconds: float
    """How long the lease lasts."""
    attempt: int
    remaining: int
    channel_no: int
    channel: str
    merges: bool
    """It runs for its key: others of the key ride with it."""
    no: int
    id: UUID
    group_no: int
    rank: int
    name: str
    workgroup: str | None
    key: str | None
    input: str | None
    metadata: str | None
    timeout: float | None
    has_parents: bool
    """False: it has none. True: it may have some."""
    started_at: datetime
    again: int
    opens_in: float | None
    until: datetime = datetime.max
    """`started_at` and `seconds`, added up once for all that last as long."""


class Claimed(NamedTuple):
    rows: list[ClaimedRow]
    again: int
    """In full: how many tasks merged instead of being claimed, or NEEDS_TURN. Lean: 0, IN_FULL or WITH_TURN."""
    opens_in: float | None
    """A rate limit that is reached now lets a task through after so many seconds."""


IN_FULL, WITH_TURN, NEEDS_TURN = 1, 2, -1


@dataclass(slots=True)
class ClaimedBefore:
    claim_id: UUID
    lease_no: int
    asked: str


async def best_places(connection: Connection, ns: int, start: list[Place], limit: int) -> list[Place]:
    """Of all that could be claimed in these channels, the best first."""
    rows = await connection.fetch(
        statement("claim", "best_places"),
        ns,
        [x[0] for x in start],
        [x[1] for x in start],
        [x[2] for x in start],
        limit,
    )
    return [(row["channel"], row["rank"], row["no"]) for row in rows]


async def claim_tasks(
    connection: Connection, ns: int, start: list[Place], requests: list[ClaimRequest], limits: list[int] | None = None
) -> Claimed:
    """What was claimed: nothing where a key, a pause or a limit is met.

    `limits`: at most so many of each place to start from.
    Raises asyncpg.UniqueViolationError, and takes nothing, when another server took one of the claim ids meanwhile.
    """
    return await _claim(connection, statement("claim", "claim_tasks"), ns, start, requests, limits)


async def claim_tasks_full(
    connection: Connection,
    ns: int,
    start: list[Place],
    requests: list[ClaimRequest],
    limits: list[int] | None = None,
    *,
    turn: bool = False,
) -> Claimed:
    """As claim_tasks, with keys and pauses; `turn`: limits too, after take_turn in the same transaction."""
    return await _claim(connection, statement("claim", "claim_tasks_full"), ns, start, requests, limits, turn)


async def _claim(
    connection: Connection,
    sql: str,
    ns: int,
    start: list[Place],
    requests: list[ClaimRequest],
    limits: list[int] | None,
    *turn: bool,
) -> Claimed:
    rows = await connection.fetch(
        sql,
        ns,
        [x[0] for x in start],
        [x[1] for x in start],
        [x[2] for x in start],
        [x.worker for x in requests],
        [x.limit for x in requests],
        [x.seconds for x in requests],
        [x.claim_id for x in requests],
        [x.asked for x in requests],
        limits or [sum(x.limit for x in requests)] * len(start),
        [x.offer for x in requests],
        *turn,
    )
    found = [ClaimedRow(*row) for row in rows if row["ord"] is not None]
    now = next((row.started_at for row in found if row.started_at), None)
    if now is not None:
        ends = {seconds: now + timedelta(seconds=seconds) for seconds in {row.seconds for row in found}}
        for row in found:
            row.started_at, row.until = now, ends[row.seconds]
    return Claimed(found, rows[0]["again"], rows[0]["opens_in"])


async def claimed_before(connection: Connection, ns: int, claim_ids: list[UUID]) -> list[ClaimedBefore]:
    rows = await connection.fetch(statement("claim", "claimed_before"), ns, claim_ids)
    return [ClaimedBefore(*row) for row in rows]
