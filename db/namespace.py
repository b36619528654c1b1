"""Namespaces, and the key that signs lease ids."""

from __future__ import annotations

from db.pool import Pool
from db.statements import statement


async def namespace_number(pool: Pool, name: str) -> int | None:
    """None where there is no such namespace."""
    found = await pool.fetch(statement("namespace", "namespace_by_name"), name)
    return found[0]["ns"] if found else None


async def namespaces(pool: Pool) -> list[str]:
    return [row["name"] for row in await pool.fetch(statement("namespace", "namespaces"))]


async def make_namespace(pool: Pool, name: str) -> int:
    """Its number; that of the one which is there, if there is one."""
    while True:
        number = await namespace_number(pool, name)
        if number is not None:
            return number
        await pool.fetch(statement("namespace", "make_namespace"), name)


async def lease_key(pool: Pool) -> bytes:
    key: bytes = (await pool.fetch(statement("namespace", "lease_key")))[0]["value"]
    return key
