"""Hot tables are vacuumed by the servers themselves, one server at a time."""

from __future__ import annotations

import asyncpg

from db.vacuum import HOT, the_one_that_vacuums
from resolvers.core import Rhythm
from tests.support.crew import Crew, crew_on
from tests.support.wait import until

OFTEN = Rhythm(vacuum=0.05)
TOLD = 30
"""Seconds: an idle connection tells of its dead rows after 10."""
ROWS = 6000


async def turn_over(crew: Crew) -> None:
    """Thousands of tasks come and go, and leave their dead rows, which PostgreSQL's own autovacuum does not take first."""
    for table in HOT:
        await crew.sql(f"alter table {table} set (autovacuum_enabled = off)")
    await crew.create(*({"name": "x"} for _ in range(ROWS)))
    while leases := await crew.claim(3000):
        await crew.complete(*leases)


async def vacuumed(crew: Crew) -> set[str]:
    rows = await crew.sql("select relname::text as name from pg_stat_user_tables where vacuum_count > 0")
    return {row["name"] for row in rows}


async def test_what_many_tasks_leave_behind_is_vacuumed(dsn: str) -> None:
    async with crew_on(dsn, rhythm=OFTEN) as crew:
        await turn_over(crew)

        async def ready_was() -> bool:
            return "ready" in await vacuumed(crew)

        await until(ready_was, TOLD)
        assert await vacuumed(crew) <= {*HOT}


async def test_while_another_server_vacuums_this_one_does_not(dsn: str) -> None:
    async with the_one_that_vacuums(dsn) as other, crew_on(dsn, rhythm=OFTEN) as crew:
        assert other is not None
        await turn_over(crew)
        looked = 0

        async def looked_often() -> bool:
            nonlocal looked
            rows = await crew.sql(
                "select count(*)::int as n from pg_stat_activity where datname = current_database() "
                "and application_name = 'crew vacuums' and pid <> $1",
                other.get_server_pid(),
            )
            looked += rows[0]["n"]
            return looked >= 3

        await until(looked_often, TOLD)
        assert await vacuumed(crew) == set()


async def test_a_table_that_was_vacuumed_while_it_was_empty_is_not_taken_for_empty(dsn: str) -> None:
    """The planner would read all of it for each row of others, once it is full again."""
    async with crew_on(dsn, rhythm=OFTEN) as crew:
        await crew.sql("alter table blocked set (autovacuum_enabled = off)")
        made = await crew.create(
            {"name": "a", "ref": "a"}, *({"name": "b", "parents": [{"ref": "a"}]} for _ in range(2000))
        )
        await crew.ask("mutation($id: ID!) { deleteTaskGroup(id: $id) { deletedTasks } }", id=made["taskGroup"]["id"])
        eye = await asyncpg.connect(dsn)
        try:
            await eye.execute("vacuum (truncate false) blocked")

            async def is_taken_for_full() -> bool:
                rows, pages = await eye.fetchrow(
                    "select reltuples, relpages from pg_class where oid = 'blocked'::regclass"
                )
                assert pages > 0
                return bool(rows >= pages)

            await until(is_taken_for_full, TOLD)
        finally:
            await eye.close()


async def test_new_tables_that_grow_are_analyzed_and_no_others(dsn: str) -> None:
    async with crew_on(dsn, rhythm=OFTEN) as crew:
        await turn_over(crew)

        async def analyzed() -> bool:
            rows = await crew.sql("select relname::text as name from pg_stat_user_tables where analyze_count > 0")
            names = {row["name"] for row in rows}
            assert names.isdisjoint(HOT)
            return {"task", "done"} <= names

        await until(analyzed, TOLD)


async def test_every_hot_table_is_there(dsn: str) -> None:
    eye = await asyncpg.connect(dsn)
    try:
        there = {row[0] for row in await eye.fetch("select relname::text from pg_stat_user_tables")}
    finally:
        await eye.close()
    assert {*HOT} <= there
