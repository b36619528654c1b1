"""Migrations: from nothing, again, at once, and by an older program; and the dump that people read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from db import migrate as migrating
from db.create import Batch, NewGroupRow, create_tasks
from db.ending import cancel_tasks
from db.errors import NewerSchema
from db.migrate import Migration, migrate, migrations
from db.pool import Pool
from db.progress import fold_groups, group_progress
from resolvers.draft import new_id
from tests.support.dump_schema import FILE, dump
from tests.support.postgres import drop, on_database
from tests.support.process import open_directory
from tests.support.races import batch_of

ALL = [m.name for m in migrations()]


@pytest.fixture
async def empty(server: str) -> AsyncIterator[str]:
    """A database with nothing in it."""
    name = f"crew_empty_{uuid4().hex[:12]}"
    await run(server, f'create database "{name}"')
    dsn = on_database(server, name)
    yield dsn
    await drop(server, dsn)


async def run(dsn: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def applied(dsn: str) -> list[tuple[int, str]]:
    return [(r["number"], r["name"]) for r in await run(dsn, "select number, name from migration order by number")]


async def tables(dsn: str) -> set[str]:
    return {r["tablename"] for r in await run(dsn, "select tablename from pg_tables where schemaname = 'public'")}


def test_numbers_are_counted_from_one_without_a_gap():
    assert [m.number for m in migrations()] == list(range(1, len(ALL) + 1))


async def test_from_nothing_all_are_applied_in_order_and_again_none(empty: str):
    assert await migrate(empty) == ALL
    before = await run(empty, "select * from migration")
    assert [(m.number, m.name) for m in migrations()] == await applied(empty)
    assert {"task", "ready", "lease", "done"} <= await tables(empty)
    assert await migrate(empty) == []
    assert await run(empty, "select * from migration") == before


async def test_ten_at_once_apply_each_once(empty: str):
    answers = await asyncio.gather(*(migrate(empty) for _ in range(10)))
    assert sorted(answers) == [[]] * 9 + [ALL]
    assert [name for _, name in await applied(empty)] == ALL


async def test_a_newer_schema_is_refused_and_left_alone(empty: str):
    await migrate(empty)
    await run(empty, "insert into migration (number, name) values (9001, '9001_from_the_future.sql')")
    before = await applied(empty)
    with pytest.raises(NewerSchema, match=f"at migration 9001; this Crew knows up to {len(ALL)}"):
        await migrate(empty)
    assert await applied(empty) == before


async def test_a_migration_that_fails_leaves_nothing_of_itself_and_those_before_it_stay(
    empty: str, monkeypatch: pytest.MonkeyPatch
):
    bad = Migration(len(ALL) + 1, "bad.sql", "create table half_way (n int); select 1 / 0;")
    known = [*migrations(), bad]
    monkeypatch.setattr(migrating, "migrations", lambda: known)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty)
    assert [name for _, name in await applied(empty)] == ALL
    assert "half_way" not in await tables(empty)
    mended = Migration(bad.number, "good.sql", "create table half_way (n int);")
    monkeypatch.setattr(migrating, "migrations", lambda: [*known[:-1], mended])
    assert await migrate(empty) == ["good.sql"]


def test_schema_sql_is_what_the_migrations_make():
    with open_directory("crew-dump-") as home:
        assert FILE.read_text() == dump(home), "stale: run `make schema`"


async def test_what_was_there_before_reading_was_folded_is_counted_as_it_is(empty: str):
    """Groups made under the second migration, and what old servers do after the third."""
    old = await asyncpg.connect(empty)
    try:
        await old.execute(
            "create table migration (number int primary key, name text not null, applied_at timestamptz default now())"
        )
        for step in migrations()[:2]:
            await old.execute(step.sql)
            await old.execute("insert into migration (number, name) values ($1, $2)", step.number, step.name)
        await old.execute("insert into channel (ns, channel, name) values (1, 1001, 'c')")
        # A column that the statements of today write, and those of then did not.
        await old.execute("alter table task add column has_parents boolean")
        nos = [row.no for row in await create_tasks(old, 1, batch_of({"a": (), "b": ("a",), "c": ()}))]
        await create_tasks(old, 1, Batch(groups=[NewGroupRow(new_id(), "empty", None)]))
        await cancel_tasks(old, 1, nos[2:])
        await old.execute("alter table task drop column has_parents")
        assert "0003_reading.sql" in await migrate(empty)
        await create_tasks(old, 1, batch_of({"d": ()}))
        await cancel_tasks(old, 1, nos[:1])
    finally:
        await old.close()
    pool = Pool(empty)
    await pool.open()
    try:
        groups = [row["group_no"] for row in await pool.fetch("select group_no from task_group order by group_no")]
        for _ in range(3):
            found = {row.group_no: row for row in await group_progress(pool, 1, groups)}
            assert [found[no].counts for no in groups] == [
                [1, 0, 0, 0, 0, 0, 0, 2],
                [0] * 8,
                [0, 0, 1, 0, 0, 0, 0, 0],
            ]
            assert [(found[no].weight, found[no].settled_weight) for no in groups] == [(3, 2), (0, 0), (1, 0)]
            await fold_groups(pool, 1)
    finally:
        await pool.close()


async def test_tables_may_stand_in_another_schema_and_applications_still_find_the_way(empty: str):
    await run(empty, "create schema elsewhere")
    there = f"{empty}{'&' if '?' in empty else '?'}search_path=elsewhere"
    assert await migrate(there) == ALL
    assert await migrate(there) == []
    await run(empty, """select crew.create_tasks('{"name": "g"}')""")
    assert len(await run(empty, "select from elsewhere.inbox")) == 1
    assert await tables(empty) == set()


async def test_a_role_called_crew_keeps_its_tables_where_they_were(empty: str):
    """Its path begins with the schema of that name, which a migration makes."""
    path = f"{empty}{'&' if '?' in empty else '?'}search_path=crew,public"
    assert await migrate(path) == ALL
    assert await migrate(path) == []
    assert {"task", "migration", "inbox"} <= await tables(empty)
    assert await run(empty, "select from pg_tables where schemaname = 'crew'") == []
