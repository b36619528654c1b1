"""Plans of the hot statements: a million waiting tasks cost them nothing (DESIGN.md §3.9).

One database grows: a small working set, then 1,000 and 1,000,000 tasks that wait, blocked, scheduled or parked. The same
statements run on it each time, in transactions that are undone, planned for their parameters and (as a connection does
after five times) for any. Buffers are counted, not milliseconds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from db.claim import ClaimedRow, claim_tasks, claim_tasks_full
from db.clock import EVER
from db.create import Batch, NewGroupRow, NewLink, create_tasks
from db.lease import complete_tasks, extend_leases, fail_tasks
from db.pool import REPLAN, SESSION
from db.statements import statement
from resolvers.draft import new_id
from tests.support import reading
from tests.support.postgres import clone, drop
from tests.support.races import (
    CHANNEL,
    NS,
    START,
    WORKGROUP,
    completions,
    failures,
    new_task,
    pairs,
    request,
)

BIG = {
    "task",
    "ready",
    "blocked",
    "scheduled",
    "parked",
    "edge",
    "done",
    "failed",
    "error",
    "task_group",
    "group_tally",
    "pace",
}
SCANS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan"}
SIZES = (0, 1_000, 1_000_000)
BACKLOGGED = 1_300_000
"""A million that wait, and 300,000 more that are ready in another channel."""
MODES = ("custom", "generic")
STATEMENTS = {
    "claim_tasks": "claim",
    "claim_tasks_full": "claim",
    "complete_tasks": "lease",
    "complete_tasks_full": "lease",
    "create_tasks": "create",
    "create_ready_tasks": "create",
    "create_ready_tasks_full": "create",
    "create_tasks_full": "create",
    "merge_ready": "key",
    "take_in": "key",
    "bring_twins": "key",
    "doomed": "ending",
    "settle_children": "ending",
    "fail_tasks": "lease",
    "extend_leases": "lease",
    "extend_leases_full": "lease",
    "free_leases": "lease",
    "promote_scheduled": "clock",
    "overdue_leases": "clock",
    "expire_leases": "clock",
    "next_due": "clock",
    "ready_channels": "clock",
    "park_held": "hold",
    **reading.NOUNS,
}
LOOKS_UP = {
    "bring_twins": 100,
    "doomed": 100,
    "settle_children": 100,
    **dict.fromkeys(reading.NOUNS, 100),
    "read_tasks": 150,
    "read_tasks_full": 150,
}
"""Statements that look so many tasks up, and find little, or read a page: on small tables that costs next to nothing."""
FAR = 1_000_000_000
"""Numbers of the working set start here, so that it is newer than all that waits."""

# What waits, and half as much that has ended: $1 how many $2 the first number.
FILL = """
insert into task (ns, no, id, group_no, channel, workgroup, rank, name, key, max_attempts, retry_delay, backoff, max_delay)
select 1, $2::bigint + i, gen_random_uuid(), 1 + i / 100, 1005, case when i % 10 in (8, 9) then 3009 else 0 end,
  case when i % 10 = 5 then -5 else 0 end, 'waits', case when i % 100 = 6 then 'k' end, 5, 30, 1, 3600
from generate_series(0, $1::int * 5 / 4 - 1) i;
insert into blocked (ns, no, open, channel, rank, workgroup, group_no, attempt, remaining, failures)
select 1, $2::bigint + i, 1, 1005, 0, 0, 1 + i / 100, 0, 5, 0 from generate_series(0, $1::int - 1) i where i % 10 < 5;
insert into edge (ns, parent, child, place)
select 1, $2::bigint + i + 1, $2::bigint + i, 0 from generate_series(0, $1::int - 1) i where i % 10 < 5;
insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures)
select 1, now() + interval '1 day' + i * interval '1 s', $2::bigint + i, 1005, 0, 0, 1 + i / 100, 0, 5, 0
from generate_series(0, $1::int - 1) i where i % 10 between 5 and 7;
insert into parked (ns, workgroup, rank, no, channel, group_no, attempt, remaining, failures, ready_at)
select 1, 3009, 0, $2::bigint + i, 1005, 1 + i / 100, 0, 5, 0, now() from generate_series(0, $1::int - 1) i where i % 10 > 7;
insert into done (ns, no, outcome, attempt, remaining)
select 1, $2::bigint + i, 5, 1, 4 from generate_series($1::int, $1::int * 5 / 4 - 1) i;
"""


@dataclass
class Measured:
    plan: dict[str, Any]
    buffers: int

    def sequential(self) -> set[str]:
        """Big tables that are read from end to end."""
        return {n["Relation Name"] for n in nodes(self.plan) if n["Node Type"] == "Seq Scan"} & BIG


Key = tuple[str, str, int]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def measured(text: str) -> Measured:
    """Buffers of the nodes that touch tables. The top node's alone will not do: CTEs that only write run after it."""
    plan = json.loads(text)[0]["Plan"]
    return Measured(plan, sum(map(_own_buffers, nodes(plan))))


def _own_buffers(node: dict[str, Any]) -> int:
    inside = [x for x in node.get("Plans", ()) if x["Parent Relationship"] != "InitPlan"]
    if node["Node Type"] in ("ModifyTable", "LockRows"):
        return _touched(node) - sum(map(_touched, inside))
    if node["Node Type"] in SCANS:
        return _touched(node)
    return 0


def _touched(node: dict[str, Any]) -> int:
    return sum(node[k] for k in ("Shared Hit Blocks", "Shared Read Blocks", "Shared Dirtied Blocks"))


# A backlog of another channel: tasks that could be claimed, and are not asked for. $1 how many $2 the first number.
BACKLOG = """
insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures)
select 1, 1004, 0, 0, $2::bigint + i, 1, 0, 5, 0 from generate_series(0, $1::int - 1) i;
"""


class Undo(Exception):
    pass


@asynccontextmanager
async def undone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


class Recorder:
    """Stands for a connection: takes the statement and its arguments from a function of db/*.py, and runs nothing."""

    def __init__(self) -> None:
        self.sql, self.args = "", ()

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        self.sql, self.args = sql, args
        raise Undo


async def call(work: Any) -> tuple[str, tuple[Any, ...]]:
    recorder = Recorder()
    try:
        await work(recorder)
    except Undo:
        return recorder.sql, recorder.args
    raise AssertionError("the function ran no statement")


async def make_working_set(c: asyncpg.Connection) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Small, and the same however much waits. What each statement is asked with."""
    await c.execute("insert into channel (ns, channel, name) select 1, n, n::text from generate_series(1001, 1005) n")
    await c.execute("insert into worker (ns, worker, name) values (1, 2001, 'w')")
    await c.execute(
        "insert into workgroup (ns, workgroup, name) select 1, n, n::text from (values (3001), (3009)) x(n)"
    )
    await c.execute(
        "insert into hold (ns, workgroup, until) select 1, unnest(array[3001, 3009]), now() + interval '1 day'"
    )
    await c.execute("update namespace set alive_at = now() + interval '1 hour'")
    await c.execute("select setval('task_no', $1)", FAR)

    async def make(n: int, *, child: bool = False, **more: Any) -> None:
        batch = Batch(groups=[NewGroupRow(new_id(), "g", None)])
        batch.tasks = [new_task("t", new_group=1, **more) for _ in range(n)]
        if child:
            batch.tasks += [new_task("child", new_group=1, open=1) for _ in range(n)]
            batch.links = [NewLink(p, 0, n + p, 0) for p in range(1, n + 1)]
        await create_tasks(c, NS, batch)

    async def leased(n: int, size: int) -> list[ClaimedRow]:
        return (await claim_tasks(c, NS, [START], [request(size, seconds=86400) for _ in range(n)]))[0]

    await make(100, child=True)
    completing = await leased(4, 25)
    await make(100)
    failing = await leased(4, 25)
    await make(100)
    extending = await leased(4, 25)
    await make(200)
    expiring = await leased(50, 4)
    await c.execute(
        "update lease set until = now() - interval '1 s' where lease_no = any ($1)", [r.lease_no for r in expiring]
    )
    await make(200, channel=1002, delay=3600.0)
    await c.execute("update scheduled set run_at = now() - interval '1 s'")
    await make(500, channel=1003, workgroup=WORKGROUP)
    await make(2000)
    # Of one key: 100 that are ready, in a channel of their own.
    await make(100, channel=1002, key="k")
    keyed = [row["no"] for row in await c.fetch("select no from ready where key = 'k' order by no")]
    await c.execute("insert into runner (ns, channel, key, no) values (1, 1002, 'k', $1)", keyed[0])
    page, group_no = [r.no for r in completing[:50]], completing[0].group_no
    fresh = Batch(
        groups=[NewGroupRow(new_id(), "g", None)],
        tasks=[new_task("t", new_group=1, open=int(n > 0)) for n in range(100)],
        links=[NewLink(n, 0, n + 1, 0) for n in range(1, 100)],
    )
    policy = {"retry_delay": 30.0, "max_delay": 3600.0}
    into_new = Batch(groups=fresh.groups, tasks=[new_task("t", new_group=1, **policy) for _ in range(100)])
    into_old = Batch(tasks=[new_task("t", group_no=1 + n % 50, **policy) for n in range(100)])
    with_keys = Batch(groups=fresh.groups, tasks=[replace(t, key="k") for t in fresh.tasks], links=list(fresh.links))
    return {
        "claim_tasks": await call(
            lambda r: claim_tasks(r, NS, [START], [request(20, claim_id=new_id()) for _ in range(5)])
        ),
        "claim_tasks_full": await call(
            lambda r: claim_tasks_full(r, NS, [START], [request(20, claim_id=new_id()) for _ in range(5)])
        ),
        "complete_tasks": await call(lambda r: complete_tasks(r, NS, completions(*completing), waits=False)),
        "complete_tasks_full": await call(lambda r: complete_tasks(r, NS, completions(*completing), keyed=True)),
        "create_tasks": await call(lambda r: create_tasks(r, NS, fresh)),
        "create_tasks_full": await call(lambda r: create_tasks(r, NS, with_keys)),
        "create_ready_tasks": await call(lambda r: create_tasks(r, NS, into_old)),
        "create_ready_tasks_full": await call(lambda r: create_tasks(r, NS, into_new)),
        "merge_ready": (statement("key", "merge_ready"), (NS, keyed[:100])),
        "take_in": (statement("key", "take_in"), (NS, keyed[:1])),
        "bring_twins": (
            statement("key", "bring_twins"),
            (NS, [r.lease_no for r in failing], [r.no for r in failing], True),
        ),
        "doomed": (statement("ending", "doomed"), (NS, [r.no for r in completing])),
        "settle_children": (statement("ending", "settle_children"), (NS, [], [r.no for r in completing], [])),
        "fail_tasks": await call(lambda r: fail_tasks(r, NS, failures(*failing))),
        "extend_leases": await call(lambda r: extend_leases(r, NS, pairs(*extending[:90]), 60, waits=False)),
        "extend_leases_full": await call(lambda r: extend_leases(r, NS, pairs(*extending[:90]), 60)),
        "free_leases": (statement("lease", "free_leases"), (NS, sorted({r.lease_no for r in extending}))),
        "promote_scheduled": (statement("clock", "promote_scheduled"), (NS, 1000, EVER)),
        "overdue_leases": (statement("clock", "overdue_leases"), (NS, 5.0, 200, EVER)),
        "expire_leases": (statement("clock", "expire_leases"), (NS, sorted({r.lease_no for r in expiring}))),
        "next_due": (statement("clock", "next_due"), (NS, EVER)),
        "ready_channels": (
            statement("clock", "ready_channels"),
            (NS, [CHANNEL, 1002, 1003, 1004, 1005], [START[1]] * 5, [START[2]] * 5, [new_id() for _ in range(5)]),
        ),
        "park_held": (statement("hold", "park_held"), (NS, 1000)),
        **{name: (sql, args) for name, (_, sql, args) in reading.asked(page, group_no).items()},
    }


async def literal(c: asyncpg.Connection, type_name: str, value: Any) -> str:
    quoted = await c.fetchval(f"select quote_nullable(($1::{type_name})::text)", value)
    return f"{quoted}::{type_name}"


async def parameter_types(c: asyncpg.Connection, sql: str) -> list[str]:
    return [t.name for t in (await c.prepare(sql)).get_parameters()]


async def prepare_generic(c: asyncpg.Connection, asked: dict[str, tuple[str, tuple[Any, ...]]]) -> dict[str, str]:
    """PREPARE each; the EXECUTE that runs it."""
    runs = {}
    for name, (sql, args) in asked.items():
        types = await parameter_types(c, sql)
        await c.execute(f"prepare p_{name} ({', '.join(types)}) as {sql}")
        runs[name] = (
            f"execute p_{name} ({', '.join([await literal(c, t, v) for t, v in zip(types, args, strict=True)])})"
        )
    return runs


async def measure(
    c: asyncpg.Connection, asked: dict[str, Any], runs: dict[str, str]
) -> dict[tuple[str, str], Measured]:
    found: dict[tuple[str, str], Measured] = {}
    explain = "explain (analyze, buffers, timing off, format json) "
    for name, (sql, args) in asked.items():
        for _ in range(2):  # The first of the two meets rows without hint bits.
            async with undone(c):
                found[name, "custom"] = measured(await c.fetchval(explain + sql, *args))
            async with undone(c):
                found[name, "generic"] = measured(await c.fetchval(explain + runs[name]))
    return found


FILL += reading.FILL


async def fill(c: asyncpg.Connection, script: str, n: int, first: int) -> None:
    for line in filter(str.strip, script.split(";\n")):
        await c.execute(line.replace("$1", str(n)).replace("$2", str(first)))


async def measure_all(dsn: str) -> dict[Key, Measured]:
    found: dict[Key, Measured] = {}
    c = await asyncpg.connect(dsn, server_settings={**SESSION, "statement_timeout": "90000"}, statement_cache_size=0)
    try:
        await c.execute("set synchronous_commit = off")
        await c.execute("set plan_cache_mode = force_generic_plan")
        asked = await make_working_set(c)
        runs: dict[str, str] = {}
        for n in (*SIZES, BACKLOGGED):
            if n == BACKLOGGED:
                await fill(c, BACKLOG, BACKLOGGED - SIZES[-1], 1)
            elif n:
                await fill(c, FILL, n, 10 * n + 1)
            await c.execute("analyze")
            runs = runs or await prepare_generic(c, asked)
            for (name, mode), what in (await measure(c, asked, runs)).items():
                found[name, mode, n] = what
    finally:
        await c.close()
    return found


async def measure_after_lull(dsn: str, burst: int) -> dict[str, Measured | None]:
    """What plans cost that a connection made and kept while nothing was there; None when over 3 s."""
    found: dict[str, Measured | None] = {}
    c = await asyncpg.connect(dsn, server_settings=SESSION, statement_cache_size=0)
    try:
        await c.execute("set synchronous_commit = off")
        for table in BIG | {"lease", "claim", "hold"}:
            await c.execute(f"vacuum analyze {table}")
        types = {}
        for name, noun in STATEMENTS.items():
            types[name] = await parameter_types(c, statement(noun, name))
            await c.execute(f"prepare p_{name} ({', '.join(types[name])}) as {statement(noun, name)}")
            for _ in range(7):  # From the sixth on PostgreSQL may keep the plan.
                await c.execute(f"explain execute p_{name} ({', '.join(['null'] * len(types[name]))})")
        asked = await make_working_set(c)
        await fill(c, FILL, burst, 1)
        await fill(c, BACKLOG, burst, 1)
        await c.execute(REPLAN)  # As the pool does once a second.
        for name, (_, args) in asked.items():
            values = [await literal(c, t, v) for t, v in zip(types[name], args, strict=True)]
            try:
                async with undone(c):
                    await c.execute("set local statement_timeout = '3s'")
                    run = f"explain (analyze, buffers, timing off, format json) execute p_{name} ({', '.join(values)})"
                    found[name] = measured(await c.fetchval(run))
            except asyncpg.QueryCanceledError:
                found[name] = None
    finally:
        await c.close()
    return found


@pytest.fixture(scope="module")
def after_lull(server: str) -> Iterator[dict[str, Measured | None]]:
    dsn = asyncio.run(clone(server))
    try:
        yield asyncio.run(measure_after_lull(dsn, 100_000))
    finally:
        asyncio.run(drop(server, dsn))


@pytest.fixture(scope="module")
def plans(server: str) -> Iterator[dict[Key, Measured]]:
    dsn = asyncio.run(clone(server))
    try:
        yield asyncio.run(measure_all(dsn))
    finally:
        asyncio.run(drop(server, dsn))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", STATEMENTS)
def test_no_big_table_is_read_from_end_to_end(plans: dict[Key, Measured], name: str, mode: str) -> None:
    assert plans[name, mode, 1_000_000].sequential() - {"ready"} == set()
    assert plans[name, mode, BACKLOGGED].sequential() == set()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_million_that_wait_cost_no_more_than_a_thousand(plans: dict[Key, Measured], name: str, mode: str) -> None:
    """Up to twice the buffers: indexes are deeper, and the smallest tables are read whole. A few hundred rows are touched. Or 10 a
    task, for statements that only look tasks up."""
    buffers = [plans[name, mode, n].buffers for n in (*SIZES, BACKLOGGED)]
    enough = 10 * LOOKS_UP.get(name, 0)
    for less, more in pairwise(buffers):
        assert more <= max(2 * less + 100, enough), buffers
    assert buffers[-1] <= max(2 * buffers[1] + 100, enough), buffers


def test_every_statement_did_its_work(plans: dict[Key, Measured]) -> None:
    """So many rows were moved: a plan of a statement that finds nothing proves nothing."""
    expected = {
        "claim_tasks": ("ready", 100),
        "claim_tasks_full": ("ready", 100),
        "complete_tasks_full": ("blocked", 100),
        "merge_ready": ("ready", 100),
        "complete_tasks": ("blocked", 100),
        "promote_scheduled": ("scheduled", 200),
        "expire_leases": ("lease", 50),
        "park_held": ("ready", 500),
    }
    for (name, mode, n), what in plans.items():
        if name in expected:
            table, rows = expected[name]
            deleted = [
                x["Plans"][0]["Actual Rows"]
                for x in nodes(what.plan)
                if x["Node Type"] == "ModifyTable" and x["Operation"] == "Delete" and x["Relation Name"] == table
            ]
            assert deleted == [rows], (name, mode, n)


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_plan_kept_from_a_lull_does_not_read_whole_tables_when_a_burst_comes(
    after_lull: dict[str, Measured | None], name: str
) -> None:
    """PostgreSQL keeps a connection's plans until the next ANALYZE: an empty table is read whole, a full one must not be."""
    found = after_lull[name]
    assert found is not None, "over 3 s"
    assert found.sequential() == set()
    assert found.buffers < 8000
