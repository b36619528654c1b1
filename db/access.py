"""API keys: the statements of sql/queries/access.sql."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Pool
from db.statements import statement


@dataclass(slots=True)
class ApiKeyRow:
    id: UUID
    name: str
    hash: bytes
    role: int
    channels: list[str] | None
    namespace: str | None
    created_at: datetime
    expires_at: datetime | None
    expires_in: float | None
    """Seconds from when it was read; not above 0 when it has expired."""
    last_used_at: datetime | None


async def api_keys(pool: Pool) -> list[ApiKeyRow]:
    return [ApiKeyRow(*row) for row in await pool.fetch(statement("access", "api_keys"))]


async def keys_mark(pool: Pool) -> str:
    """Another one whenever a key was made or revoked; empty as long as there has never been one."""
    mark: str = (await pool.fetch(statement("access", "keys_mark")))[0]["mark"]
    return mark


async def make_api_key(
    pool: Pool,
    id: UUID,
    ns: int | None,
    name: str,
    hash: bytes,
    role: int,
    channels: list[str] | None,
    expires_at: datetime | None,
) -> None:
    await pool.fetch(statement("access", "make_api_key"), id, ns, name, hash, role, channels, expires_at)


async def revoke_api_key(pool: Pool, id: UUID, namespace: str | None) -> bool:
    """False when there is no such key (of that namespace, if one is named), or it is revoked already."""
    return bool(await pool.fetch(statement("access", "revoke_api_key"), id, namespace))


async def note_key_uses(pool: Pool, ids: Iterable[UUID]) -> None:
    await pool.fetch(statement("access", "note_key_uses"), list(ids))


async def channels_of_tasks(pool: Pool, ns: int, nos: list[int]) -> list[tuple[int, str]]:
    """(task number, name of its channel) of those that are there, in order of number."""
    rows = await pool.fetch(statement("access", "channels_of_tasks"), ns, nos)
    return [(row["no"], row["channel"]) for row in rows]
