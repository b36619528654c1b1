"""Statements straight through asyncpg, on a database of their own: levers of bench.ablation that are no matter of the server."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable

import asyncpg
import uvloop

from bench.results import WITH, WITHOUT, Figure, figures
from bench.throughput import NOOP, NS, PAYLOAD, created_in_bulk, crew, drained, fresh_database, rows_of
from db.claim import ClaimedRow, ClaimRequest, claim_tasks
from db.create import Batch, NewGroupRow, create_tasks
from db.lease import Completion, complete_tasks
from db.pool import SESSION, Connection
from db.statements import statement

FIRST = (-(1 << 31), 0)
SECONDS = 2.0
Turn = Callable[[Connection, list[Completion], int, tuple[int, int]], Awaitable[list[ClaimedRow]]]
"""Completes these and claims so many behind this place."""


async def _keep(_: object) -> None:
    pass


async def looped(pool: asyncpg.Pool, work: Callable[[Connection], Awaitable[int]], loops: int) -> float:
    """What `work` does of tasks a second, on a connection for each loop, until it does nothing or the time is over."""
    done, end = 0, time.perf_counter() + SECONDS

    async def one() -> None:
        nonlocal done
        async with pool.acquire() as connection:
            while time.perf_counter() < end and (n := await work(connection)):
                done += n

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(loops)))
    return done / (time.perf_counter() - start)


# -- one commit ---------------------------------------------------------------------------------------------------------


async def make_turn(connection: Connection) -> str:
    """A function in the database that runs the statements of completing and claiming, and a call of it: one round trip and one
    commit. It answers what the claim does."""
    complete, claim = (
        statement("lease", "complete_tasks").rstrip(";\n"),
        statement("claim", "claim_tasks").rstrip(";\n"),
    )
    completing, claiming = await connection.prepare(complete), await connection.prepare(claim)
    given = [p.name for p in completing.get_parameters()]
    shifted = re.sub(r"\$(\d+)", lambda m: "$1" if m[1] == "1" else f"${int(m[1]) + len(given) - 1}", claim)
    given += [p.name for p in claiming.get_parameters()][1:]
    columns = ", ".join(f'"{a.name}" {a.type.name}' for a in claiming.get_attributes())
    await connection.execute(
        f"create function turn({', '.join(given)}) returns table({columns}) language plpgsql as $f$\n"
        f"#variable_conflict use_column\ndeclare x record;\nbegin\nfor x in {complete} loop end loop;\n"
        f"return query {shifted};\nend $f$"
    )
    return f"select * from turn({', '.join(f'${n + 1}' for n in range(len(given)))})"


def in_one_commit(call: str, channel: int, worker: int) -> Turn:
    async def turn(connection: Connection, done: list[Completion], n: int, place: tuple[int, int]) -> list[ClaimedRow]:
        leases = [d.lease_no for d in done]
        ended: list[object] = [sorted(set(leases)), leases, [d.no for d in done], [d.output for d in done], []]
        wanted = [channel], [place[0]], [place[1]], [worker], [n], [60.0], [uuid.uuid4()], [""], [n], [None]
        rows = await connection.fetch(call, NS, *ended, *wanted)
        return [ClaimedRow(*row) for row in rows if row["ord"] is not None]

    return turn


def in_two_commits(channel: int, worker: int) -> Turn:
    async def turn(connection: Connection, done: list[Completion], n: int, place: tuple[int, int]) -> list[ClaimedRow]:
        if done:
            await complete_tasks(connection, NS, done, waits=False)
        request = ClaimRequest(worker, n, 60.0, uuid.uuid4(), "")
        return (await claim_tasks(connection, NS, [(channel, *place)], [request])).rows

    return turn


async def drain(pool: asyncpg.Pool, turn: Turn, n: int, loops: int) -> float:
    """By turns with the remembered key, from empty tables on."""
    channel = await pool.fetchval("select channel from channel where name = $1", NOOP)
    group_no = await pool.fetchval("select max(group_no) from task_group")
    for table in ("ready", "lease", "claim"):
        await pool.execute(f"vacuum {table}")
    async with pool.acquire() as connection:
        for _ in range(20 if n < 100 else 80):
            await create_tasks(connection, NS, rows_of(channel, group_no, 500))
    place, held = FIRST, dict[Connection, list[Completion]]()

    async def work(connection: Connection) -> int:
        nonlocal place
        done = held.get(connection, [])
        rows = await turn(connection, done, n, place)
        held[connection] = [Completion(row.lease_no, row.no, '{"ok": true}') for row in rows]
        place = max([place, *((row.rank, row.no) for row in rows)])
        return len(rows)

    found = await looped(pool, work, loops)
    two = in_two_commits(channel, 1)
    async with pool.acquire() as connection:
        for done in held.values():
            await complete_tasks(connection, NS, done)
        while rows := await two(connection, [], 1000, FIRST):
            await complete_tasks(connection, NS, [Completion(row.lease_no, row.no) for row in rows])
    return found


async def one_commit(rounds: int, pool: asyncpg.Pool) -> list[Figure]:
    async with pool.acquire() as connection:
        call = await make_turn(connection)
        channel = await connection.fetchval("select channel from channel where name = $1", NOOP)
        await create_tasks(connection, NS, Batch(groups=[NewGroupRow(uuid.uuid4(), "bench", None)]))
    ways = {WITH: in_one_commit(call, channel, 1), WITHOUT: in_two_commits(channel, 1)}
    found = []
    for n, loops in ((1, 1), (1, 10), (100, 2), (500, 2)):
        name = f"{ONE_COMMIT}: claim + complete by statement, batches of {n}, {loops} client{'s' * (loops > 1)}"
        for _ in range(rounds):
            found.append({(name, "tasks/s"): {who: await drain(pool, way, n, loops) for who, way in ways.items()}})
    return figures(found)


# -- narrow tables ------------------------------------------------------------------------------------------------------

DESIGNS = """
create table wide (no bigint primary key, channel int, state smallint, rank int, worker int, until timestamptz, input text,
  output text);
create index wide_ready on wide (channel, rank, no) where state = 0;
create table w_task (no bigint primary key, input text);
create table w_ready (channel int, rank int, no bigint);
create unique index w_ready_key on w_ready (channel, rank, no);
create table w_lease (lease_no bigint generated always as identity primary key, worker int, until timestamptz, nos bigint[]);
create table w_done (no bigint, output text);
"""
WIDE = (
    "insert into wide select n, 1, 0, 0, null, null, $2, null from generate_series($1::bigint, $1 + 39999) n",
    "update wide set state = 1, worker = 1, until = now() + interval '60 s' where no = any (array(select no from wide "
    "where channel = 1 and state = 0 order by rank, no limit $1 for update skip locked)) returning no, input, null::bigint",
    "update wide set state = 2, output = '{\"ok\": true}' where no = any ($1::bigint[]) and $2::bigint is null",
)
NARROW = (
    "with made as (insert into w_task select n, $2 from generate_series($1::bigint, $1 + 39999) n returning no) "
    "insert into w_ready select 1, 0, no from made",
    "with claimed as (delete from w_ready where ctid = any (array(select ctid from w_ready where channel = 1 order by rank, no "
    "limit $1 for update skip locked)) returning no), leased as (insert into w_lease (worker, until, nos) "
    "select 1, now() + interval '60 s', array_agg(no) from claimed having count(*) > 0 returning lease_no) "
    "select t.no, t.input, l.lease_no from claimed join w_task t using (no) cross join leased l",
    "with ended as (delete from w_lease where lease_no = $2 returning nos) "
    "insert into w_done select unnest(nos), '{\"ok\": true}' from ended where $1::bigint[] is not null",
)


async def narrow_tables(rounds: int, pool: asyncpg.Pool) -> list[Figure]:
    await pool.execute(DESIGNS)
    rates: dict[str, list[float]] = {WITH: [], WITHOUT: []}
    for go in range(rounds):
        for who, (fill, claim, complete) in {WITH: NARROW, WITHOUT: WIDE}.items():
            await pool.execute(fill, 1 + go * 40_000, str(PAYLOAD))
            await pool.execute("vacuum analyze")

            async def work(connection: Connection, claim: str = claim, complete: str = complete) -> int:
                rows = await connection.fetch(claim, 100)
                if rows:
                    await connection.execute(complete, [row[0] for row in rows], rows[0][2])
                return len(rows)

            rates[who].append(await looped(pool, work, 2))
            await pool.execute("delete from w_ready; update wide set state = 2 where state = 0")
    return [Figure(f"{NARROW_TABLES}: claim + complete by statement, batches of 100, 2 clients", "tasks/s", rates)]


# -- both ---------------------------------------------------------------------------------------------------------------

ONE_COMMIT, NARROW_TABLES = "complete and claim in one commit (not built)", "narrow tables"
LEVERS: dict[str, Callable[[int, asyncpg.Pool], Awaitable[list[Figure]]]] = {
    NARROW_TABLES: narrow_tables,
    ONE_COMMIT: one_commit,
}


def measured(names: list[str], rounds: int) -> list[Figure]:
    async def begin(host: str, port: int) -> None:
        """A channel and a worker are there."""
        await created_in_bulk(host, port, 500, 500)
        await drained(host, port, 500, 500, 2)

    async def all(dsn: str) -> list[Figure]:
        settings = {**SESSION, "plan_cache_mode": "force_generic_plan"}
        pool = await asyncpg.create_pool(dsn, min_size=10, max_size=10, reset=_keep, server_settings=settings)
        try:
            return [figure for name in names for figure in await LEVERS[name](rounds, pool)]
        finally:
            await pool.close()

    with fresh_database() as dsn:
        with crew(dsn) as (host, port):
            uvloop.run(begin(host, port))
        return uvloop.run(all(dsn))
