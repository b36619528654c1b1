"""What the clock does, and suspensions: the statements of sql/queries/clock.sql and hold.sql."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.claim import ClaimedBefore, Place
from db.pool import Connection, Pool
from db.statements import statement


@dataclass(slots=True)
class Moved:
    """How many tasks moved, and from where claims should look again."""

    count: int
    places: list[Place]
    merging: list[int]
    """Those with a key: they may have to ride with a runner that came meanwhile."""

    @staticmethod
    def of(rows: list[Any]) -> Moved:
        return Moved(
            count=sum(row["moved"] for row in rows),
            places=[(row["channel"], row["rank"], row["no"]) for row in rows if "channel" in row],
            merging=[no for row in rows for no in row["merging"] or ()],
        )


@dataclass(slots=True)
class OverdueRow:
    lease_no: int
    timed_out: bool
    keyed: list[int] | None


@dataclass(slots=True)
class ExpiredRow:
    no: int
    channel: int
    rank: int
    state: int
    due_in: float


@dataclass(slots=True)
class HeldRow:
    workgroup: int
    due_in: float


@dataclass(slots=True)
class Beat:
    silence: float
    """Seconds since the last beat of any server."""
    prolonged: int


EVER = 3e9
"""However long ago, in seconds."""


async def next_due(pool: Pool, ns: int, back: float = EVER) -> float | None:
    """Seconds until the next lease, delay or suspension ends (negative when one is overdue, by at most `back`)."""
    rows = await pool.fetch(statement("clock", "next_due"), ns, back)
    value: float | None = rows[0]["due_in"]
    return value


async def beat(pool: Pool, ns: int, longest_silence: float, grace: float) -> Beat:
    rows = await pool.fetch(statement("clock", "beat"), ns, longest_silence, grace)
    return Beat(*rows[0])


async def overdue_leases(
    connection: Connection, ns: int, longest_silence: float, limit: int, back: float = EVER
) -> list[OverdueRow]:
    rows = await connection.fetch(statement("clock", "overdue_leases"), ns, longest_silence, limit, back)
    return [OverdueRow(*row) for row in rows]


async def expire_leases(connection: Connection, ns: int, lease_nos: list[int]) -> list[ExpiredRow]:
    return [ExpiredRow(*row) for row in await connection.fetch(statement("clock", "expire_leases"), ns, lease_nos)]


async def promote_scheduled(connection: Connection, ns: int, limit: int, back: float = EVER) -> Moved:
    return Moved.of(await connection.fetch(statement("clock", "promote_scheduled"), ns, limit, back))


async def unpark(connection: Connection, ns: int, workgroup: int, limit: int) -> Moved:
    return Moved.of(await connection.fetch(statement("hold", "unpark"), ns, workgroup, limit))


async def forget_claims(pool: Pool, ns: int) -> None:
    await pool.fetch(statement("clock", "forget_claims"), ns)


async def ready_channels(
    pool: Pool, ns: int, start: list[Place], claim_ids: list[UUID]
) -> tuple[list[Place], list[ClaimedBefore]]:
    """The first place of each of these channels that hold something; and of these claims, those that took something."""
    sql = statement("clock", "ready_channels")
    rows = await pool.fetch(sql, ns, [s[0] for s in start], [s[1] for s in start], [s[2] for s in start], claim_ids)
    ready = [(row["channel"], row["rank"], row["no"]) for row in rows if row["claim_id"] is None]
    taken = [row for row in rows if row["claim_id"] is not None]
    return ready, [ClaimedBefore(row["claim_id"], row["lease_no"], row["asked"]) for row in taken]


async def fold_events(pool: Pool, ns: int) -> None:
    await pool.fetch(statement("clock", "fold_events"), ns)


async def ping_workers(pool: Pool, ns: int, seen: dict[int, tuple[list[str], str]]) -> None:
    """Workers that were heard of: number → channels and transport."""
    nos = sorted(seen)
    channels = [json.dumps(seen[n][0]) for n in nos]
    await pool.fetch(statement("clock", "ping_workers"), ns, nos, channels, [seen[n][1] for n in nos])


async def suspend_workgroups(
    connection: Connection, ns: int, held: list[tuple[int, float, str | None]]
) -> list[HeldRow]:
    """Items: workgroup, seconds, reason. Answers those whose suspension is now longer than before."""
    rows = await connection.fetch(
        statement("hold", "suspend_workgroups"), ns, [x[0] for x in held], [x[1] for x in held], [x[2] for x in held]
    )
    return [HeldRow(*row) for row in rows]


async def resume_workgroup(pool: Pool, ns: int, workgroup: int) -> bool:
    return bool(await pool.fetch(statement("hold", "resume_workgroup"), ns, workgroup))


async def park_held(connection: Connection, ns: int, limit: int) -> Moved:
    return Moved.of(await connection.fetch(statement("hold", "park_held"), ns, limit))


async def parked_free(pool: Pool, ns: int) -> list[int]:
    return [row["workgroup"] for row in await pool.fetch(statement("hold", "parked_free"), ns)]


async def end_holds(pool: Pool, ns: int) -> list[int]:
    return [row["workgroup"] for row in await pool.fetch(statement("hold", "end_holds"), ns)]


async def channels_of_workgroups(pool: Pool, ns: int, workgroups: list[int]) -> list[Place]:
    rows = await pool.fetch(statement("hold", "channels_of_workgroups"), ns, workgroups)
    return [(row["channel"], row["rank"], row["no"]) for row in rows]
