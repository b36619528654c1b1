"""A database that came from another cluster: transaction numbers in it mean nothing here."""

from __future__ import annotations

import asyncpg
import pytest

from db.migrate import migrate
from db.namespace import make_namespace
from tests.support.crew import Refused, crew_on
from tests.support.streams import now, poll

AHEAD = "::text::bigint + 900000000000"
SNAPSHOT = (
    "((pg_snapshot_xmin({0}) {1}) || ':' || (pg_snapshot_xmax({0}) {1}) || ':' || coalesce("
    "(select string_agg((x {1})::text, ',') from pg_snapshot_xip({0}) x), ''))::pg_snapshot"
)
OTHER_CLUSTER = f"""
update namespace set log_system = 1;
update event set xid = (xid {AHEAD})::text::xid8;
update tick set snapshot = {SNAPSHOT.format("snapshot", AHEAD)};
update fold set upto = {SNAPSHOT.format("upto", AHEAD)};
update group_fold set upto = {SNAPSHOT.format("upto", AHEAD)};
update lease set grown = '900000000000';
"""
"""Its numbers are far ahead of ours: what is written now would seem to have been seen long ago."""

COUNTS = (
    "{ channels { name counts { state count } } taskGroups { nodes { progress { total counts { state count } } } } }"
)


async def test_its_log_begins_anew_and_nothing_else_is_lost(dsn: str) -> None:
    async with crew_on(dsn) as crew:
        await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}]})
        (lease,) = await crew.claim()
        cursor = await now(crew)
        counts = await crew.ask(COUNTS)
    connection = await asyncpg.connect(dsn)
    await connection.execute(OTHER_CLUSTER)
    await connection.close()
    (said,) = await migrate(dsn)
    assert "restored from another cluster" in said
    assert await migrate(dsn) == []
    async with crew_on(dsn) as crew:
        assert await crew.ask(COUNTS) == counts
        with pytest.raises(Refused, match="read afresh") as refused:
            await poll(crew, cursor)
        assert refused.value.code == "CURSOR_EXPIRED"
        start = await now(crew)
        assert (await crew.complete(lease))["completed"] == 1
        assert [e["kind"] for e in (await poll(crew, start))["events"]] == ["SUCCEEDED", "READY"]
        (group,) = (await crew.ask(COUNTS))["taskGroups"]["nodes"]
        assert group["progress"]["counts"] == [{"state": "READY", "count": 1}, {"state": "SUCCEEDED", "count": 1}]


async def test_a_namespace_made_while_the_server_runs_keeps_its_log_at_the_next_start(dsn: str) -> None:
    async with crew_on(dsn) as crew:
        await make_namespace(crew.services.core.pool, "tenant")
    assert await migrate(dsn) == []
