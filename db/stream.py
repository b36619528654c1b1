"""Workers to which leases are pushed: the statements of sql/queries/stream.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Pool
from db.statements import statement


@dataclass(slots=True)
class OfferRow:
    worker: int
    lease_no: int
    until: datetime
    no: int
    attempt: int


@dataclass(slots=True)
class WatchedRow:
    workers: list[int]
    """Whose stream is still the newest."""
    standing: list[int]
    """Of the leases, by their places in the list, counted from 1."""


async def enter_streams(pool: Pool, ns: int, streams: list[tuple[int, UUID]]) -> None:
    """Each is its worker's only one from now on."""
    await pool.fetch(statement("stream", "enter_streams"), ns, [w for w, _ in streams], [id for _, id in streams])


async def renew_offers(pool: Pool, ns: int, workers: list[int], seconds: float) -> list[OfferRow]:
    """What these workers were offered and have not confirmed: offered anew."""
    return [OfferRow(*row) for row in await pool.fetch(statement("stream", "renew_offers"), ns, workers, seconds)]


async def watch_streams(
    pool: Pool, ns: int, streams: list[tuple[int, UUID]], leases: list[tuple[int, int]]
) -> WatchedRow:
    rows = await pool.fetch(
        statement("stream", "watch_streams"),
        ns,
        [w for w, _ in streams],
        [id for _, id in streams],
        [lease for lease, _ in leases],
        [no for _, no in leases],
    )
    return WatchedRow(*rows[0])


async def leave_streams(pool: Pool, ns: int, streams: list[tuple[int, UUID]]) -> None:
    await pool.fetch(statement("stream", "leave_streams"), ns, [w for w, _ in streams], [id for _, id in streams])
