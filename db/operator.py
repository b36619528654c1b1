"""Operators and their deliveries: the statements of sql/queries/operator.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Pool
from db.statements import statement


@dataclass(slots=True)
class OperatorRow:
    id: UUID
    channel: int
    name: str
    """The channel's."""
    url: str
    headers: bytes | None
    """Sealed."""
    header_names: list[str]
    is_paused: bool
    max_running: int
    timeout: float
    created_at: datetime


@dataclass(slots=True)
class NewOperator:
    id: UUID
    channel: int
    url: str
    headers: bytes | None
    header_names: list[str]
    is_paused: bool
    max_running: int
    timeout: float


@dataclass(slots=True)
class OperatorChange:
    """None keeps what is there."""

    url: str | None = None
    headers: tuple[bytes | None, list[str]] | None = None
    """Sealed, and their names."""
    is_paused: bool | None = None
    max_running: int | None = None
    timeout: float | None = None


async def webhook_key(pool: Pool) -> bytes:
    key: bytes = (await pool.fetch(statement("operator", "webhook_key")))[0]["value"]
    return key


async def read_operators(
    pool: Pool, ns: int, *, ids: list[UUID] | None = None, channels: list[int] | None = None
) -> list[OperatorRow]:
    rows = await pool.fetch(statement("operator", "read_operators"), ns, ids, channels)
    return [OperatorRow(*row) for row in rows]


async def create_operator(pool: Pool, ns: int, new: NewOperator) -> bool:
    """Whether it was made; not when the channel has another."""
    rows = await pool.fetch(
        statement("operator", "create_operator"),
        ns,
        new.id,
        new.channel,
        new.url,
        new.headers,
        new.header_names,
        new.is_paused,
        new.max_running,
        new.timeout,
    )
    return bool(rows)


async def update_operator(pool: Pool, ns: int, id: UUID, change: OperatorChange) -> bool:
    """Whether it is there."""
    headers, names = change.headers or (None, [])
    rows = await pool.fetch(
        statement("operator", "update_operator"),
        ns,
        id,
        change.url,
        change.headers is not None,
        headers,
        names,
        change.is_paused,
        change.max_running,
        change.timeout,
    )
    return bool(rows)


async def delete_operator(pool: Pool, ns: int, id: UUID) -> bool:
    """Whether it was there."""
    return bool(await pool.fetch(statement("operator", "delete_operator"), ns, id))


async def seal_headers_again(pool: Pool, ns: int, id: UUID, old: bytes, new: bytes) -> None:
    await pool.fetch(statement("operator", "seal_headers_again"), ns, id, old, new)


async def take_deliveries(pool: Pool, ns: int, server: UUID, channels: list[int], seconds: float) -> set[int]:
    """Those of the channels that this server delivers."""
    rows = await pool.fetch(statement("operator", "take_deliveries"), ns, server, channels, seconds)
    return {row["channel"] for row in rows}


async def leave_deliveries(pool: Pool, ns: int, server: UUID, keep: list[int]) -> None:
    await pool.fetch(statement("operator", "leave_deliveries"), ns, server, keep)


async def runs_of_worker(pool: Pool, ns: int, worker: int) -> set[tuple[int, int]]:
    """As (lease number, task number)."""
    rows = await pool.fetch(statement("operator", "runs_of_worker"), ns, worker)
    return {(row["lease_no"], row["no"]) for row in rows}
