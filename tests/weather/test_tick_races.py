"""The order of the log while transactions overlap: none skipped, none repeated, the same for all readers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from db.live import TickRow, make_tick
from db.pool import Pool
from resolvers.core import Core, Limits, Rhythm
from resolvers.cursor import Cursor, Place
from resolvers.event_log import EventLog

WRITE = "insert into event (ns, kind, groups) values (1, 18, array[$1::bigint])"
Read = list[tuple[int, int]]


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    pool = Pool(dsn)
    await pool.open()
    yield pool
    await pool.close()


@asynccontextmanager
async def connections(dsn: str, n: int) -> AsyncIterator[list[asyncpg.Connection]]:
    opened = [await asyncpg.connect(dsn) for _ in range(n)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.terminate()


async def all_read(pool: Pool, after: TickRow) -> Read:
    """What a reader finds: (tick, number)."""
    log = EventLog(Core.of(pool, 1, b"", Limits(), Rhythm()))
    cursor, more, found = Cursor(Place(after.tick), after.mark), True, []
    while more:
        pieces, more = await log.read(cursor)
        found += [(p.start.tick + 1, no) for p in pieces if p.row for no in p.row.groups or ()]
        cursor = pieces[-1].end if pieces else cursor
    return found


async def test_what_commits_late_is_told_late_and_not_skipped(dsn: str, pool: Pool) -> None:
    start = await make_tick(pool, 1)
    async with connections(dsn, 2) as (slow, fast):
        late = slow.transaction()
        await late.start()
        await slow.execute(WRITE, 1)
        await fast.execute(WRITE, 2)
        first = await make_tick(pool, 1)
        assert [no for _, no in await all_read(pool, start)] == [2]
        await late.commit()
        second = await make_tick(pool, 1)
    assert await all_read(pool, start) == [(first.tick, 2), (second.tick, 1)]


async def test_what_was_rolled_back_is_never_told(dsn: str, pool: Pool) -> None:
    start = await make_tick(pool, 1)
    async with connections(dsn, 1) as (one,):
        undone = one.transaction()
        await undone.start()
        await one.execute(WRITE, 1)
        await undone.rollback()
        await one.execute(WRITE, 2)
    await make_tick(pool, 1)
    assert [no for _, no in await all_read(pool, start)] == [2]


async def test_no_tick_is_made_when_nothing_was_committed(pool: Pool) -> None:
    first = await make_tick(pool, 1)
    second = await make_tick(pool, 1)
    assert (second.tick, second.mark, second.made, second.wanted) == (first.tick, first.mark, False, False)


async def test_of_two_that_make_a_tick_at_once_one_fails_and_says_that_it_is_wanted_still(dsn: str, pool: Pool) -> None:
    start = await make_tick(pool, 1)
    async with connections(dsn, 2) as (one, other):
        await one.execute(WRITE, 1)
        making = one.transaction()
        await making.start()
        await one.execute(
            "insert into tick (ns, tick, snapshot) select 1, max(tick) + 1, pg_current_snapshot() from tick where ns = 1"
        )
        await other.execute(WRITE, 2)
        second = asyncio.create_task(make_tick(pool, 1))
        await _waits_for_a_lock(other)
        await making.commit()
        row = await second
        assert (row.made, row.wanted) == (False, True)
        again = await make_tick(pool, 1)
    assert again.made
    assert await all_read(pool, start) == [(start.tick + 1, 1), (start.tick + 2, 2)]


async def _waits_for_a_lock(connection: asyncpg.Connection) -> None:
    while not await connection.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    ):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("seed", range(8))
async def test_however_transactions_overlap_every_reader_reads_all_in_one_order(
    dsn: str, pool: Pool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    start = await make_tick(pool, 1)
    committed: set[int] = set()
    async with connections(dsn, 5) as writers:
        running: dict[int, tuple[asyncpg.transaction.Transaction, list[int]]] = {}
        for no in range(1, 151):
            w = chance.randrange(len(writers))
            if w not in running:
                transaction = writers[w].transaction()
                await transaction.start()
                running[w] = (transaction, [])
            await writers[w].execute(WRITE, no)
            running[w][1].append(no)
            if chance.random() < 0.4:
                transaction, nos = running.pop(w)
                if chance.random() < 0.2:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    committed.update(nos)
            if chance.random() < 0.3:
                await asyncio.gather(*(make_tick(pool, 1) for _ in range(chance.randrange(1, 4))))
        for transaction, nos in running.values():
            await transaction.commit()
            committed.update(nos)
    while (await make_tick(pool, 1)).wanted:
        pass
    read = await all_read(pool, start)
    assert sorted(no for _, no in read) == sorted(committed)
    for pieces, ticks in ((1, 1), (2, 20), (7, 3)):
        monkeypatch.setattr("resolvers.event_log._PIECES", pieces)
        monkeypatch.setattr("resolvers.event_log._TICKS", ticks)
        assert await all_read(pool, start) == read
