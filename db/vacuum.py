"""VACUUM of hot tables, by one server at a time: the statements of sql/queries/vacuum.sql."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from db.pool import SESSION, Pool
from db.statements import statement

HOT = ("ready", "lease", "blocked", "scheduled", "parked", "merged", "runner", "claim", "tally", "progress", "inbox")
"""Tables whose rows come and go, or are updated, with every task."""

_LOCK = 0x43524557 + 1
_ROWS_OF_A_PAGE = 30
_SESSION = {**SESSION, "application_name": "crew vacuums", "statement_timeout": "0"}


async def dead_rows(pool: Pool, least: int) -> list[str]:
    """Hot tables with at least so many dead rows, the worst first."""
    return [row["name"] for row in await pool.fetch(statement("vacuum", "dead_rows"), list(HOT), least)]


async def never_analyzed(pool: Pool, least: int) -> list[str]:
    """Tables that only grow, with at least so many rows of which the planner knows nothing yet: it would read some whole."""
    return [row["name"] for row in await pool.fetch(statement("vacuum", "never_analyzed"), list(HOT), least)]


async def seem_empty(pool: Pool) -> list[tuple[str, int]]:
    """Hot tables, and their pages, that were vacuumed while they were empty."""
    return [(row["name"], row["pages"]) for row in await pool.fetch(statement("vacuum", "seem_empty"), list(HOT))]


@asynccontextmanager
async def the_one_that_vacuums(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record] | None]:
    """A connection, or None when another server vacuums just now. `dsn` must not lead to a pooler in transaction mode."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=3600, server_settings=_SESSION)
    try:
        is_ours = await connection.fetchval(statement("vacuum", "try_to_be_the_one"), _LOCK)
        yield connection if is_ours else None
    finally:
        connection.terminate()


async def vacuum(connection: asyncpg.Connection[asyncpg.Record], table: str) -> None:
    """Its dead rows go, from the indexes too, as far as no snapshot needs them. Waits for nobody's lock."""
    assert table in HOT, table
    await connection.execute(f"vacuum (skip_locked, index_cleanup on, truncate false, parallel 0) {table}")


async def tell_planner(connection: asyncpg.Connection[asyncpg.Record], table: str, pages: int) -> None:
    """What the planner is to believe of it, until the next vacuum."""
    await connection.execute(statement("vacuum", "tell_planner"), table, pages, float(pages * _ROWS_OF_A_PAGE))


async def analyze(connection: asyncpg.Connection[asyncpg.Record], table: str) -> None:
    """`table` as never_analyzed names it. Waits for nobody's lock."""
    await connection.execute(f"analyze (skip_locked) {table}")
