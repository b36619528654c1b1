"""How claims slow down as a database grows: over waiting tasks, channels, workgroups, finished rows, tasks made and drained through
the API, and while another transaction holds a snapshot.

    python -m bench.growth [--quick] [--only ready channels workgroups finished tasks snapshot] [--rounds 1] [--save]

Each point has a fresh database, filled by SQL, and a fresh server process. One client claims and completes 100 at a time
through HTTP: tasks a second, and the median time of a claim alone. Every curve ends with its last point over its first.
`tasks` fills nothing: so many are created in batches of 500, and drained by two loops, and each costs so many microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import asyncpg
import uvloop

from bench.client import Client
from bench.results import Figure, Round, add_argument, figures, save
from bench.throughput import TURN, created_in_bulk, crew, drained, fresh_database
from db.migrate import migrate

BATCH = 100
CREATED = 500
TURNS = 60
CLAIM = "mutation($claim: ClaimTasksInput!) { claimTasks(input: $claim) { leases { id } } }"
Found = TypeVar("Found")
COMPLETE = "mutation($done: CompleteTasksInput!) { completeTasks(input: $done) { completed } }"

TASKS = """
with c as (select array_agg(channel order by channel) as numbers from channel),
w as (select array_agg(workgroup order by workgroup) as numbers from workgroup),
made as (
  insert into task (ns, no, id, group_no, channel, workgroup, name, max_attempts, retry_delay, backoff, max_delay)
  select 1, nextval('task_no'), gen_random_uuid(), 1, c.numbers[1 + i % cardinality(c.numbers)],
    coalesce(w.numbers[1 + i % cardinality(w.numbers)], 0), 'noop', 5, 30, 1, 3600
  from c, w, generate_series(0, $1::int - 1) i
  returning no, channel, workgroup)
"""
PLACES = {
    "ready": "insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures) "
    "select 1, channel, 0, workgroup, no, 1, 0, 5, 0 from made",
    "blocked": "insert into blocked (ns, no, open, channel, rank, workgroup, group_no, attempt, remaining, failures) "
    "select 1, no, 1, channel, 0, workgroup, 1, 0, 5, 0 from made",
    "done": "insert into done (ns, no, outcome, attempt, remaining) select 1, no, 5, 1, 4 from made",
}


@dataclass(frozen=True)
class Point:
    """What the database holds."""

    label: str
    ready: int = 100_000
    blocked: int = 0
    done: int = 0
    channels: int = 1
    named: int = 1
    """How many of the channels a claim names."""
    workgroups: int = 0
    suspended: int = 0
    """Of the workgroups."""


def curves(quick: bool) -> dict[str, list[Point]]:
    million = 100_000 if quick else 1_000_000
    return {
        "ready": [Point(f"{n:,} ready", ready=n) for n in (10_000, 100_000, million)],
        "channels": [Point(f"{n:,} channels, all named", channels=n, named=n) for n in (1, 10, 100, 1000)],
        "workgroups": [Point(f"{n:,} workgroups", workgroups=n) for n in (1, 10, 100, 1000, 10_000, 100_000)]
        + [Point(f"{n:,} workgroups, a tenth suspended", workgroups=n, suspended=n // 10) for n in (100, 10_000)],
        "finished": [
            Point("nothing finished or waiting"),
            Point(f"{million:,} finished", done=million),
            *([] if quick else [Point("10,000,000 finished", done=10_000_000)]),
            Point(f"{million:,} finished and {million:,} waiting", done=million, blocked=million),
        ],
    }


async def fill(dsn: str, point: Point) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "insert into task_group (ns, group_no, id, name, made_upto) values (1, 1, gen_random_uuid(), 'g', 0)"
        )
        for table, count in (("channel", point.channels), ("workgroup", point.workgroups)):
            await connection.execute(
                f"insert into {table} (ns, name) select 1, '{table[0]}' || i from generate_series(0, $1::int - 1) i",
                count,
            )
        await connection.execute(
            "insert into hold (ns, workgroup, until) "
            "select 1, workgroup, now() + interval '1 hour' from workgroup order by workgroup limit $1",
            point.suspended,
        )
        for place, insert in PLACES.items():
            count = getattr(point, place)
            if count:
                await connection.execute(TASKS + insert, count)
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def measured(host: str, port: int, point: Point) -> tuple[float, float]:
    """Tasks a second, and milliseconds of a claim of 100."""
    names = [f"c{n}" for n in range(point.named)]
    results: list[dict[str, object]] = []
    times = []
    async with Client(host, port) as client:

        def claim() -> dict[str, object]:
            return {"workerId": "w", "channels": names, "limit": BATCH, "claimId": str(uuid.uuid4())}

        async def turns(count: int) -> int:
            nonlocal results
            done = 0
            for _ in range(count):
                data = await client.ask(TURN, {"done": {"results": results}, "claim": claim()})
                done += data["completeTasks"]["completed"]
                results = [{"lease": x["id"]} for x in data["claimTasks"]["leases"]]
            return done

        await turns(10)
        start = time.perf_counter()
        done = await turns(TURNS)
        rate = done / (time.perf_counter() - start)
        for _ in range(10):
            start = time.perf_counter()
            leases = (await client.ask(CLAIM, {"claim": claim()}))["claimTasks"]["leases"]
            times.append(time.perf_counter() - start)
            await client.ask(COMPLETE, {"done": {"results": [{"lease": x["id"]} for x in leases]}})
    return rate, statistics.median(times) * 1000


async def under_a_snapshot(dsn: str, host: str, port: int, tasks: int) -> list[float]:
    """Tasks a second in each tenth of a drain while another transaction's snapshot keeps every dead row."""
    other = await asyncpg.connect(dsn)
    try:
        transaction = other.transaction(isolation="repeatable_read")
        await transaction.start()
        await other.fetchval("select count(*) from namespace")
        rates = []
        async with Client(host, port) as client:
            results: list[dict[str, object]] = []
            for _ in range(10):
                start, done = time.perf_counter(), 0
                while done < tasks // 10:
                    claim = {"workerId": "w", "channels": ["c0"], "limit": BATCH, "claimId": str(uuid.uuid4())}
                    data = await client.ask(TURN, {"done": {"results": results}, "claim": claim})
                    done += data["completeTasks"]["completed"]
                    results = [{"lease": x["id"]} for x in data["claimTasks"]["leases"]]
                rates.append(done / (time.perf_counter() - start))
        await transaction.rollback()
        return rates
    finally:
        await other.close()


async def from_nothing(host: str, port: int, size: int) -> tuple[float, float]:
    """Microseconds of each task to create it, and to claim and complete it. Few are made again and again."""
    await created_in_bulk(host, port, 5000, CREATED)
    await drained(host, port, 5000, CREATED, 2)
    goes = max(1, 20_000 // size)
    rates = []
    for _ in range(goes):
        rates.append((await created_in_bulk(host, port, size, CREATED), await drained(host, port, size, CREATED, 2)))
    created, done = zip(*rates, strict=True)
    return statistics.fmean(1e6 / rate for rate in created), statistics.fmean(1e6 / rate for rate in done)


def at(point: Point, work: Callable[[str, str, int], Awaitable[Found]]) -> Found:
    print(f"{point.label} …", file=sys.stderr, flush=True)
    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        asyncio.run(fill(dsn, point))
        with crew(dsn) as (host, port), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work(dsn, host, port))  # type: ignore[arg-type]


def along(name: str, points: list[Point]) -> Round:
    found = {p.label: at(p, lambda _, host, port, p=p: measured(host, port, p)) for p in points}  # type: ignore[misc]
    return {
        (name, "tasks/s"): {label: rate for label, (rate, _) in found.items()},
        (f"{name}, claim", "ms"): {label: claim for label, (_, claim) in found.items()},
    }


def tasks(quick: bool) -> Round:
    sizes = [1000, 10_000, 100_000] + ([] if quick else [1_000_000])
    found = {}
    for n in sizes:
        point = Point(f"{n:,} tasks", ready=0)
        found[point.label] = at(point, lambda _, host, port, n=n: from_nothing(host, port, n))  # type: ignore[misc]
    return {
        ("tasks, create", "µs/task"): {label: create for label, (create, _) in found.items()},
        ("tasks, claim and complete", "µs/task"): {label: done for label, (_, done) in found.items()},
    }


def snapshot(quick: bool) -> Round:
    many = 20_000 if quick else 100_000
    point = Point(f"a snapshot held while {many:,} are drained", ready=many + BATCH * 2)
    rates = at(point, lambda dsn, host, port: under_a_snapshot(dsn, host, port, many))
    return {("snapshot", "tasks/s"): {f"tenth {n + 1}": rate for n, rate in enumerate(rates)}}


def bar(value: float, most: float) -> str:
    return "█" * round(30 * value / most)


def draw(figure: Figure) -> None:
    values = {label: figure.median(label) for label in figure.series}
    print(f"\n{figure.name}")
    for label, value in values.items():
        print(f"  {label:45} {value:10,.2f} {figure.unit:8} {bar(value, max(values.values()))}")
    first, *_, last = values
    print(f"  last over first: {statistics.median(figure.ratio(last, first)):.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="A hundred thousand where it says a million.")
    arguments.add_argument("--only", nargs="+")
    arguments.add_argument("--rounds", type=int, default=1)
    add_argument(arguments)
    given = arguments.parse_args()
    curve = {name: partial(along, name, points) for name, points in curves(given.quick).items()}
    curve |= {"tasks": partial(tasks, given.quick), "snapshot": partial(snapshot, given.quick)}
    kept: list[Figure] = []
    for name in given.only or curve:
        found = figures([curve[name]() for _ in range(given.rounds)])
        for figure in found:
            draw(figure)
        kept += found
    if given.save:
        save("growth", kept)


if __name__ == "__main__":
    main()
