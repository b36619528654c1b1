"""Namespaces, and the key that signs lease ids."""

from __future__ import annotations

from db.pool import Pool
from db.statements import statement


async def namespace_number(pool: Pool, name: str) -> int:
    number: int = (await pool.fetch(statement("namespace", "namespace_by_name"), name))[0]["ns"]
    return number


async def lease_key(pool: Pool) -> bytes:
    key: bytes = (await pool.fetch(statement("namespace", "lease_key")))[0]["value"]
    return key
