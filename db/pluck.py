"""Copies of tasks: the statements of sql/queries/pluck.sql."""

from __future__ import annotations

from db.pool import Connection
from db.statements import statement


async def keep_results(connection: Connection, ns: int, copy: int, original: int) -> bool:
    """Whether the original is still there."""
    return bool(await connection.fetch(statement("pluck", "keep_results"), ns, copy, original))
