"""Applies sql/migrations in order, each in a transaction of its own, under one advisory lock."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from db.errors import NewerSchema
from db.live import settle_logs

_LOCK = 0x43524557  # "CREW"
MINIMUM_POSTGRES = 150000
_SESSION = {
    "application_name": "crew migrates",
    "statement_timeout": "600000",
    "lock_timeout": "600000",
    "idle_in_transaction_session_timeout": "60000",
}

_WHERE_IT_IS = """
select set_config('search_path', quote_ident(coalesce(
  (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass('migration')),
  current_schema())) || ', pg_temp', false)
"""
"""Where the tables are, or may be made. A role called crew has the schema crew first on its path, which holds what applications
call (0008_inbox.sql). Functions keep this path."""


@dataclass(frozen=True)
class Migration:
    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All that this code knows, in order."""
    found = [f for f in files("sql").joinpath("migrations").iterdir() if f.name.endswith(".sql")]
    return [Migration(int(f.name[:4]), f.name, f.read_text()) for f in sorted(found, key=lambda f: f.name)]


async def migrate(dsn: str) -> list[str]:
    """Bring the database up to date; the names of what was applied, and what was done to a restored one.

    Raises NewerSchema when the database has migrations that this code does not know, and RuntimeError for a PostgreSQL
    older than 15. Safe to run from many servers at once.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=10, command_timeout=600, server_settings=_SESSION)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise RuntimeError(f"cannot connect to the database: {error or type(error).__name__}") from error
    try:
        version = int(await connection.fetchval("show server_version_num"))
        if version < MINIMUM_POSTGRES:
            raise RuntimeError(f"Crew needs PostgreSQL 15 or newer; this one is {version // 10000}.")
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        done = await _apply(connection)
        async with connection.transaction():
            moved = await settle_logs(connection)
        return done + [f"namespace {ns}: restored from another cluster, its event log begins anew" for ns in moved]
    finally:
        await connection.close(timeout=5)


async def _apply(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    await connection.execute(_WHERE_IT_IS)
    await connection.execute(
        "create table if not exists migration ("
        "number int primary key, name text not null, applied_at timestamptz not null default now())"
    )
    applied = {row["number"] for row in await connection.fetch("select number from migration")}
    known = migrations()
    newest = known[-1].number
    if applied and max(applied) > newest:
        raise NewerSchema(
            f"This database is at migration {max(applied)}; this Crew knows up to {newest}. "
            "Run the newer Crew, or restore a backup from before its upgrade."
        )
    done = []
    for step in known:
        if step.number in applied:
            continue
        async with connection.transaction():
            await connection.execute(step.sql)
            await connection.execute("insert into migration (number, name) values ($1, $2)", step.number, step.name)
        done.append(step.name)
    return done
