"""Servers and the hints between them: the statements of sql/queries/server.sql, and LISTEN on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from db.pool import SESSION, Pool
from db.statements import statement

_SESSION = {**SESSION, "application_name": "crew listens"}


@dataclass(slots=True)
class OthersRow:
    count: int
    read: bool
    """One of them follows the event log."""
    keys: str
    """As keys_mark."""


async def announce(pool: Pool, ns: int, id: UUID, name: str, version: str, silence: float, reads: bool) -> OthersRow:
    """The other servers that were heard of within `silence` seconds."""
    return OthersRow(*(await pool.fetch(statement("server", "announce"), ns, id, name, version, silence, reads))[0])


async def withdraw(pool: Pool, ns: int, id: UUID) -> None:
    await pool.fetch(statement("server", "withdraw"), ns, id)


async def hint(pool: Pool, channel: str, payload: str) -> None:
    await pool.fetch(statement("server", "hint"), channel, payload)


async def listen(
    dsn: str, channel: str, heard: Callable[[str], None], listening: Callable[[], None], ping: float
) -> None:
    """Calls `listening` when the connection stands, and `heard` with each payload; raises one of OUTAGE when it is lost.

    A cut network closes no connection: every `ping` seconds it has to answer, in as long. `dsn` must lead to PostgreSQL
    itself or to a pooler in session mode.
    """
    connection = await asyncpg.connect(dsn, timeout=ping, command_timeout=ping, server_settings=_SESSION)
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(channel, lambda *args: heard(str(args[3])))
        listening()
        while not lost.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), ping)
                break
            await connection.execute("select 1")
        raise ConnectionError("the connection that listens was closed")
    finally:
        connection.terminate()
