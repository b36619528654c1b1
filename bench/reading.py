"""Reading at ten million tasks: the median time of every list, filter, order, count, progress and graph, through HTTP.

    python -m bench.reading [--tasks 10000000] [--rounds 7]

Fills a fresh database by SQL (minutes; embedded PostgreSQL, or DATABASE_URL, whose user must be able to create databases), in
thousandths of --tasks: 850 that ended over ten days (one group in a hundred with one cancelled task), then 150 that wait,
run or failed, in groups of 100, and among the newest one group of 100. Then it asks a server process, warm. A line says
how long, what came (rows, or TOO_BROAD), and `!` where it took over 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import orjson
import uvloop

from bench.client import Client
from bench.throughput import crew, fresh_database
from db.migrate import migrate, migrations

LIMIT_MS = 50.0

# $1 is the number of tasks. Places go by the number: the first 85 % have ended.
FILL = """
insert into channel (ns, channel, name)
select 1, 1000 + n, 'c' || n
from generate_series(0, 19) n;
insert into workgroup (ns, workgroup, name)
select 1, 2000 + n, 'w' || n
from generate_series(0, 9) n;
insert into worker (ns, worker, name)
select 1, 3000 + n, 'k' || n
from generate_series(0, 999) n;
insert into hold (ns, workgroup, until) values (1, 2009, now() + interval '1 day');
insert into task_group (ns, group_no, id, name, made_upto, created_at)
select 1, n, gen_random_uuid(), 'group ' || n % 5000, 0, now() - interval '10 days' * (1 - n * 100.0 / $1)
from generate_series(1, $1 / 100 * 9 / 10) n;
insert into task_group (ns, group_no, id, name, made_upto) values (1, $1, gen_random_uuid(), 'big', 0);
insert into task (ns, no, id, group_no, channel, workgroup, rank, name, input, max_attempts, retry_delay, backoff, max_delay,
  weight, key, created_at)
select 1, n, gen_random_uuid(), case when n > $1 / 10 * 9 then $1 else 1 + (n - 1) / 100 end, 1000 + n % 20, case when n % 10 =
  9 then 2009 when n % 10 < 3 then 2000 + n % 9 else 0 end, case when n % 50 = 1 then -5 when n % 50 = 2 then 3 else 0 end,
  'task ' || n, '{"to": "user1@example.com", "template": "welcome", "locale": "en-GB"}', 5, 30, 1, 3600, case when n % 1000 = 7
  then 5 else 1 end, case when n % 100 = 50 then 'key ' || n / 1000 end, now() - interval '10 days' * (1 - n::float8 / $1)
from generate_series(1, $1) n;
insert into done (ns, no, lease_no, outcome, attempt, remaining, worker, started_at, at, output)
select 1, n, n / 100, case when n % 10000 = 0 then 7 else 5 end, 1, 4, 3000 + n / 100 % 1000, now() - interval '10 days' * (1 -
  n::float8 / $1), now() - interval '9 days' * (1 - n::float8 / $1), '{"ok": true}'
from generate_series(1, $1 / 1000 * 850) n;
insert into failed (ns, no, channel, rank, workgroup, group_no, attempt, remaining, worker, started_at, at)
select 1, no, channel, rank, workgroup, group_no, 5, 0, 3000 + no % 1000, now(), created_at + interval '1 s'
from task where no > $1 / 1000 * 850 and no % 30 = 0;
insert into error (ns, no, attempt, worker, started_at, error)
select 1, no, a, 3000, now(), '"no"'
from failed cross join generate_series(1, 5) a;
insert into lease (ns, lease_no, worker, until, nos, groups, channels, workgroups, attempts, remainings, failures, keys)
select 1, min(no), 3000 + no / 3000 % 1000, now() + interval '1 day', array_agg(no), array_agg(group_no), array_agg(channel),
  array_agg(workgroup), array_agg(1), array_agg(4), array_agg(0), array_agg(null::text)
from task where no > $1 / 1000 * 850 and no % 300 = 1 group by no / 3000;
insert into blocked (ns, no, open, channel, rank, workgroup, group_no, attempt, remaining, failures)
select 1, no, 1, channel, rank, workgroup, group_no, 0, 5, 0
from task where no > $1 / 1000 * 850 and no % 30 between 11 and 20;
insert into edge (ns, parent, child, place)
select 1, no - 1, no, 0
from blocked;
insert into edge (ns, parent, child, place)
select 1, n, n + 1, 0
from generate_series(1, $1 / 100 * 80) n where n % 100 between 1 and 98;
insert into edge (ns, parent, child, place)
select 1, no, (select max(no) from blocked), 1
from blocked where no between $1 / 1000 * 999 and $1 - 100;
insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures)
select 1, now() + interval '1 day', no, channel, rank, workgroup, group_no, 0, 5, 0
from task where no > $1 / 1000 * 850 and no % 30 in (21, 22);
insert into parked (ns, workgroup, rank, no, channel, group_no, attempt, remaining, failures, ready_at)
select 1, workgroup, rank, no, channel, group_no, 0, 5, 0, created_at
from task where no > $1 / 1000 * 850 and no % 30 = 29;
insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, ready_at)
select 1, channel, rank, workgroup, no, group_no, 0, 5, 0, created_at
from task where no > $1 / 1000 * 850 and not (no % 30 = 0 or no % 300 = 1 or no % 30 between 11 and 22 or no % 30 = 29);
insert into tally (ns, ref, state, n)
select 1, channel, state, count(*)
from task_place group by channel, state;
insert into tally (ns, ref, state, n)
select 1, workgroup, state, count(*)
from task_place where workgroup <> 0 group by workgroup, state;
insert into pause (ns, kind, ref)
select 1, 2, n * 97
from generate_series(1, 500) n;
select setval('task_no', $1 + 1), setval('group_no', $1 + 1), setval('lease_no', $1 + 1), setval('name_no', 10000);
"""
UNLOADED = ("task", "done", "edge", "task_group")


async def fill(dsn: str, tasks: int) -> None:
    """Under the migrations that make the tables; the later ones take in what is there, as in an upgrade."""
    c = await asyncpg.connect(
        dsn,
        command_timeout=3600,
        server_settings={"synchronous_commit": "off", "maintenance_work_mem": "1GB", "work_mem": "256MB"},
    )
    try:
        await c.execute(
            "create table migration (number int primary key, name text not null, applied_at timestamptz not null default now())"
        )
        for step in migrations()[:2]:
            await c.execute(step.sql)
            await c.execute("insert into migration (number, name) values ($1, $2)", step.number, step.name)
        keys = await c.fetch(
            "select conrelid::regclass::text as of, conname, pg_get_constraintdef(oid) as def from pg_constraint"
            " where contype in ('p', 'u') and conrelid::regclass::text = any ($1)",
            UNLOADED,
        )
        for key in keys:
            await c.execute(f"alter table {key['of']} drop constraint {key['conname']}")
        indexes = await c.fetch("select indexname, indexdef from pg_indexes where tablename = any ($1)", UNLOADED)
        for index in indexes:
            await c.execute(f"drop index {index['indexname']}")
        restored = False
        for line in filter(str.strip, FILL.split(";\n")):
            if line.lstrip().startswith("insert into failed"):
                await _timed("keys and indexes", _restore(c, keys, indexes))
                restored = True
            await _timed(line.strip()[:40], c.execute(line.replace("$1", str(tasks))))
        assert restored
        await _timed("the last migrations", migrate(dsn))
        await _timed("vacuum analyze", c.execute("vacuum analyze"))
    finally:
        await c.close()


async def _restore(c: Any, keys: list[Any], indexes: list[Any]) -> None:
    for key in keys:
        await c.execute(f"alter table {key['of']} add constraint {key['conname']} {key['def']}")
    for index in indexes:
        await c.execute(index["indexdef"])
    await c.execute("analyze")


async def _timed(what: str, work: Any) -> None:
    start = time.perf_counter()
    await work
    print(f"{time.perf_counter() - start:8.1f} s  {what}", file=sys.stderr, flush=True)


ORDERS = ("CREATED_ASC", "CREATED_DESC", "PRIORITY_DESC", "FINISHED_DESC")
STATES = ("BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED")


def task_filters(known: dict[str, str]) -> Iterator[str]:
    yield "{}"
    for state in STATES:
        yield f"{{states: [{state}]}}"
    yield "{states: [READY, SUCCEEDED]}"
    yield '{channels: ["c7"]}'
    yield '{channels: ["c7"], states: [READY]}'
    yield '{channels: ["nobody"]}'
    yield '{workgroups: ["w1"]}'
    yield '{workgroups: ["w9"], states: [READY]}'
    yield f'{{groupId: "{known["group"]}"}}'
    yield f'{{groupId: "{known["big"]}"}}'
    yield f'{{groupId: "{known["big"]}", states: [FAILED]}}'
    yield f'{{groupId: "{known["big"]}", states: [SUCCEEDED]}}'
    yield '{key: "key 77"}'
    yield '{workerId: "k7"}'
    yield '{workerId: "k7", states: [RUNNING]}'
    yield '{nameContains: "task 9"}'
    yield '{nameContains: "nowhere"}'
    yield f'{{createdAfter: "{known["late"]}"}}'
    yield f'{{createdAfter: "{known["early"]}", createdBefore: "{known["later"]}"}}'
    yield f'{{createdBefore: "{known["early"]}"}}'
    yield f'{{createdAfter: "{known["early"]}", createdBefore: "{known["later"]}", states: [CANCELLED]}}'


def group_filters(known: dict[str, str]) -> Iterator[str]:
    yield "{}"
    for state in ("OPEN", "FINISHED", "FAILING", "PAUSED"):
        yield f"{{states: [{state}]}}"
    yield "{states: [OPEN, FAILING, PAUSED]}"
    yield '{nameContains: "77"}'
    yield '{nameContains: "nowhere"}'
    yield f'{{createdAfter: "{known["early"]}", createdBefore: "{known["later"]}"}}'


def queries(known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What it is called, and the document."""
    row = "id name state priority workerId leaseExpiresAt output finishedAt"
    for given in task_filters(known):
        for order in ORDERS:
            yield (
                f"tasks {order} {given}",
                f"{{ tasks(orderBy: {order}, filter: {given}) {{ nodes {{ {row} }} pageInfo {{ endCursor }} }} }}",
            )
        yield f"tasks totalCount {given}", f"{{ tasks(first: 0, filter: {given}) {{ totalCount totalCountIsExact }} }}"
    for given in group_filters(known):
        for order in ("CREATED_ASC", "CREATED_DESC", "FINISHED_DESC", "NAME_ASC"):
            yield (
                f"taskGroups {order} {given}",
                f"{{ taskGroups(orderBy: {order}, filter: {given}) {{ nodes {{ id name finishedAt "
                "progress { fraction total counts { state count } } } } }",
            )
        yield (
            f"taskGroups totalCount {given}",
            f"{{ taskGroups(first: 0, filter: {given}) {{ totalCount totalCountIsExact }} }}",
        )
    for which in ("group", "big"):
        group = f'taskGroup(id: "{known[which]}")'
        yield (
            f"taskGroup progress ({which})",
            f"{{ {group} {{ finishedAt progress {{ fraction total counts {{ state count }} }} }} }}",
        )
        yield (
            f"taskGroup graph ({which})",
            f"{{ {group} {{ graph(limit: 100) {{ nodes {{ id name state }} edges {{ parentId childId waitFor }} truncated }} }} }}",
        )
        yield (
            f"taskGroup graph of 1000 ({which})",
            f"{{ {group} {{ graph {{ nodes {{ id name state }} edges {{ parentId childId waitFor }} truncated }} }} }}",
        )
    task = f'task(id: "{known["task"]}")'
    yield (
        "task, everything",
        f"{{ {task} {{ id group {{ name progress {{ fraction }} }} errors {{ error }} "
        "parents { id } parentCount children { id } childCount spawnedBy { id } mergedInto { id } } }",
    )
    yield "task with many parents", f'{{ task(id: "{known["join"]}") {{ parents(first: 100) {{ id }} parentCount }} }}'
    yield "channels", "{ channels { name counts { state count } oldestReadySeconds } }"
    yield "workgroups", "{ workgroups { name suspendedUntil counts { state count } } }"
    yield "workgroups, suspended", "{ workgroups(suspendedOnly: true) { name counts { state count } } }"
    yield "workers", "{ workers(aliveOnly: false) { id running isAlive } }"
    yield "throughput, an hour", "{ throughput { at created succeeded failed waitP50 waitP99 } }"


async def known_things(dsn: str) -> dict[str, str]:
    c = await asyncpg.connect(dsn)
    try:
        first = await c.fetchval("select id::text from task_group order by group_no limit 1 offset 50")
        big = await c.fetchval("select id::text from task_group where name = 'big'")
        task = await c.fetchval("select t.id::text from task t join failed f using (ns, no) order by no desc limit 1")
        join = await c.fetchval(
            "select t.id::text from task t join (select child from edge where place = 1 limit 1) e on e.child = t.no"
        )
        now = await c.fetchrow(
            "select now() - interval '60 s' as late, now() - interval '5 days' as early, now() - interval '119 hours' as later"
        )
    finally:
        await c.close()
    assert now is not None
    return {"group": first, "big": big, "task": task, "join": join, **{k: v.isoformat() for k, v in now.items()}}


async def ask(client: Client, document: str) -> str:
    """What came."""
    try:
        data = await client.ask(document, {})
    except RuntimeError as error:
        return str(error.args[0][0]["extensions"]["code"])
    (found,) = data.values()
    if isinstance(found, dict) and "nodes" in found:
        return f"{len(found['nodes'])} rows"
    if isinstance(found, dict) and "totalCount" in found:
        return f"{found['totalCount']}{'' if found['totalCountIsExact'] else '+'}"
    return f"{len(orjson.dumps(found))} bytes"


async def measure(host: str, port: int, known: dict[str, str], rounds: int) -> int:
    slow = 0
    async with Client(host, port) as client:
        for name, document in queries(known):
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                came = await ask(client, document)
                times.append((time.perf_counter() - start) * 1000)
            median = statistics.median(times[1:] or times)
            slow += median > LIMIT_MS
            print(f"{median:8.1f} ms {'!' if median > LIMIT_MS else ' '} {came:>12}  {name}", flush=True)
    return slow


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tasks", type=int, default=10_000_000)
    arguments.add_argument("--rounds", type=int, default=7)
    given = arguments.parse_args()
    with fresh_database() as dsn, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(fill(dsn, given.tasks))
        known = runner.run(known_things(dsn))
        with crew(dsn) as (host, port):
            slow = runner.run(measure(host, port, known, given.rounds))
    print(f"{slow} over {LIMIT_MS:g} ms")


if __name__ == "__main__":
    main()
