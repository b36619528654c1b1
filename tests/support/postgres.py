"""PostgreSQL for tests: one server, the schema built once into a template, a fresh clone for each test.

CREW_TEST_DATABASE_URL names a server to use instead of the embedded one (its user must be able to create databases).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from db.migrate import migrate

_numbers = itertools.count()
TEMPLATE = f"crew_template_{os.getpid()}"
MEMORY = Path("/dev/shm")
ROOM = 6 << 30
"""Bytes free in memory for several servers, the largest of about 1 GB."""


def on_database(dsn: str, name: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(path=f"/{name}"))


def roomy_memory() -> Path | None:
    """Where files are kept in memory, if there is room: a clone has hundreds, and takes 0.01 s there and up to 0.5 s on a disk."""
    try:
        return MEMORY if shutil.disk_usage(MEMORY).free >= ROOM and os.access(MEMORY, os.W_OK) else None
    except OSError:
        return None


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The DSN of a server to make databases on."""
    given = os.environ.get("CREW_TEST_DATABASE_URL")
    if given:
        yield given
        return
    from db.embedded import EmbeddedPostgres

    home = Path(tempfile.mkdtemp(prefix="crew-pg-", dir=roomy_memory()))
    home.chmod(0o755)
    # Tests that crash things start a server of their own (support/process.py), which is durable.
    server = EmbeddedPostgres(home, options={"fsync": "off", "full_page_writes": "off", "max_wal_size": "1GB"})
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def make_template(server: str) -> None:
    asyncio.run(_execute(server, f'drop database if exists "{TEMPLATE}"', f'create database "{TEMPLATE}"'))
    asyncio.run(migrate(on_database(server, TEMPLATE)))


async def clone(server: str) -> str:
    """A fresh database with the schema; its DSN."""
    name = f"crew_test_{os.getpid()}_{next(_numbers)}"
    await _execute(server, f'create database "{name}" template "{TEMPLATE}" strategy file_copy')
    return on_database(server, name)


async def drop(server: str, dsn: str) -> None:
    name = urlsplit(dsn).path[1:]
    await _execute(server, f'drop database if exists "{name}" with (force)')
