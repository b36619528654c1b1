"""The pool: repeats what met the weather, gives up after its patience, and makes plans anew."""

from __future__ import annotations

import asyncpg
import pytest

from db.errors import DatabaseUnavailable
from db.pool import REPLAN, Pool


async def test_a_deadlock_is_run_again_and_an_outage_until_the_patience_is_over(dsn: str) -> None:
    pool = Pool(dsn, size=1, patience=0.3)
    await pool.open()
    tries = 0

    async def twice_in_the_way(_: object) -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise asyncpg.DeadlockDetectedError("met another")
        return tries

    async def gone(_: object) -> int:
        raise ConnectionResetError("gone")

    try:
        assert await pool.run(twice_in_the_way) == 3
        with pytest.raises(DatabaseUnavailable, match=r"0\.3 s"):
            await pool.run(gone)
    finally:
        await pool.close()


async def test_a_refused_transaction_leaves_nothing(dsn: str) -> None:
    pool = Pool(dsn, size=1)
    await pool.open()

    async def work(connection: asyncpg.Connection) -> None:
        await connection.execute("insert into channel (ns, name) values (1, 'half')")
        raise LookupError("no")

    try:
        with pytest.raises(LookupError):
            await pool.run(work, transaction=True)
        assert await pool.fetch("select from channel") == []
    finally:
        await pool.close()


async def test_plans_are_made_anew_after_a_while_and_not_each_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("db.pool.time.monotonic", lambda: clock)
    pool = Pool(dsn, size=1)
    await pool.open()
    said: list[str] = []

    async def listen(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(lambda record: said.append(record.query))

    try:
        await pool.run(listen)
        await pool.fetch("select 1")
        assert said == ["select 1"]
        clock += 1.5
        await pool.fetch("select 2")
        assert said == ["select 1", REPLAN, "select 2"]
    finally:
        await pool.close()


async def test_every_connection_has_its_time_outs_and_keeps_utc(dsn: str) -> None:
    pool = Pool(dsn, size=1)
    await pool.open()
    try:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert (await pool.fetch(f"show {name}"))[0][0] not in ("0", "")
        assert (await pool.fetch("show timezone"))[0][0] == "UTC"
    finally:
        await pool.close()
