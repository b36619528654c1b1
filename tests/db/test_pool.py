"""The pool: repeats what met the weather, gives up after its patience, and makes plans anew."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from db.errors import DatabaseUnavailable
from db.migrate import migrate
from db.pool import REPLAN, SESSION, Pool
from db.vacuum import the_one_that_vacuums
from tests.support.crew import crew_on
from tests.support.wait import until


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


async def test_a_lock_that_another_holds_for_long_is_waited_for_again(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SESSION, "lock_timeout", "50")
    pool = Pool(dsn, size=2, patience=10)
    await pool.open()
    holder = await asyncpg.connect(dsn)
    tries = 0

    async def work(connection: asyncpg.Connection) -> str:
        nonlocal tries
        tries += 1
        if tries == 3:
            await holder.execute("rollback")
        await connection.execute("lock table channel")
        return "got it"

    try:
        await holder.execute("begin; lock table channel")
        assert await pool.run(work, transaction=True) == "got it"
        assert tries == 3
        tries, pool.patience = 3, 0.1
        await holder.execute("begin; lock table channel")
        with pytest.raises(DatabaseUnavailable, match="in the way"):
            await pool.run(work, transaction=True)
    finally:
        await holder.close()
        await pool.close()


async def test_a_connection_at_hand_that_was_closed_is_not_used(dsn: str) -> None:
    pool, other = Pool(dsn, size=1, patience=0), await asyncpg.connect(dsn)
    await pool.open()

    async def pid(connection: asyncpg.Connection) -> int:
        return connection.get_server_pid()

    try:
        first = await pool.run(pid)
        assert await pool.run(pid) == first
        await other.execute("select pg_terminate_backend($1, 5000)", first)
        await other.execute("select 1")  # The loop has heard of it by then.
        assert await pool.run(pid) != first
    finally:
        await other.close()
        await pool.close()


async def test_who_waits_for_a_connection_has_it_when_another_is_done(dsn: str) -> None:
    pool, done = Pool(dsn, size=1, patience=0), asyncio.Event()
    await pool.open()

    async def long(_: object) -> None:
        await done.wait()

    try:
        first, second = asyncio.create_task(pool.run(long)), asyncio.create_task(pool.fetch("select 1 as one"))
        await asyncio.sleep(0.05)
        assert not second.done()
        done.set()
        await first
        assert (await asyncio.wait_for(second, 5))[0]["one"] == 1
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


async def test_plans_are_made_anew_after_a_second_of_work_or_ten_of_little(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        clock += 1.5
        await pool.fetch("select 2")
        await asyncio.sleep(0)  # asyncpg tells what was said a turn later.
        assert said == ["select 1", "select 2"]
        # Little was done with them: they are kept for longer.
        clock += 9.0
        await pool.fetch("select 3")
        await asyncio.sleep(0)
        assert said[2:] == [REPLAN, "select 3"]

        async def long(connection: asyncpg.Connection) -> None:
            nonlocal clock
            clock += busy

        busy = 0.9
        await pool.run(long)
        await pool.fetch("select 4")
        busy = 0.2
        await pool.run(long)
        await pool.fetch("select 5")
        await asyncio.sleep(0)
        assert said[4:] == ["select 4", REPLAN, "select 5"]
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


async def test_every_connection_has_its_time_outs(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PostgreSQL shows them, on each connection that a server and its migrations make."""
    shown: dict[str, dict[str, str]] = {}
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    connect = asyncpg.connection.connect_utils._connect

    async def seen(**given: object) -> asyncpg.Connection:
        connection = await connect(**given)
        try:
            values = {name: await connection.fetchval(f"show {name}") for name in names}
            shown[await connection.fetchval("show application_name")] = values
        except BaseException:
            connection.terminate()
            raise
        return connection

    monkeypatch.setattr("asyncpg.connection.connect_utils._connect", seen)
    await migrate(dsn)
    async with crew_on(dsn):
        async with the_one_that_vacuums(dsn):
            pass

        async def all_seen() -> bool:
            return {*shown} == {"crew", "crew listens", "crew vacuums", "crew migrates"}

        await until(all_seen)
    assert shown["crew"] == shown["crew listens"] == dict(zip(names, ("30s", "10s", "15s"), strict=True))
    assert shown["crew vacuums"] == dict(zip(names, ("0", "10s", "15s"), strict=True)), (
        "a vacuum takes as long as it takes"
    )
    assert shown["crew migrates"] == dict(zip(names, ("10min", "10min", "1min"), strict=True))
