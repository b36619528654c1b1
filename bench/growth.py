"""How claims slow down as a database grows: curves over waiting tasks, channels, workgroups, finished rows, and a held snapshot.

    python -m bench.growth [--quick] [--only ready channels workgroups finished snapshot]

Each point has a fresh database, filled by SQL, and a fresh server process. One client claims and completes 100 at a time
through HTTP: tasks a second, and the median time of a claim alone. Every curve ends with its last point over its first.
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

import asyncpg
import uvloop

from bench.client import Client
from bench.throughput import TURN, crew, fresh_database
from db.migrate import migrate

BATCH = 100
TURNS = 60
CLAIM = "mutation($claim: ClaimTasksInput!) { claimTasks(input: $claim) { leases { id } } }"
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
        "workgroups": [Point(f"{n:,} workgroups", workgroups=n) for n in (1, 100, 10_000, 100_000)]
        + [Point(f"{n:,} workgroups, a tenth suspended", workgroups=n, suspended=n // 10) for n in (100, 10_000)],
        "finished": [
            Point("nothing finished or waiting"),
            Point(f"{million:,} finished", done=million),
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


def at(point: Point, work: Callable[[str, str, int], Awaitable[list[float]]]) -> list[float]:
    print(f"{point.label} …", file=sys.stderr, flush=True)
    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        asyncio.run(fill(dsn, point))
        with crew(dsn) as (host, port), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work(dsn, host, port))  # type: ignore[arg-type]


def bar(value: float, most: float) -> str:
    return "█" * round(30 * value / most)


def draw(name: str, labels: list[str], rates: list[float], claims: list[float]) -> None:
    print(f"\n{name}")
    for label, rate, claim in zip(labels, rates, claims, strict=True):
        print(
            f"  {label:45} {rate:8,.0f} tasks/s {bar(rate, max(rates)):30}"
            + (f"  claim {claim:6.2f} ms" if claim else "")
        )
    print(f"  last over first: {rates[-1] / rates[0]:.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="A hundred thousand where it says a million.")
    arguments.add_argument("--only", nargs="+")
    given = arguments.parse_args()
    for name, points in curves(given.quick).items():
        if given.only and name not in given.only:
            continue
        found = [at(point, lambda _, host, port, p=point: measured(host, port, p)) for point in points]  # type: ignore[misc]
        draw(name, [p.label for p in points], [f[0] for f in found], [f[1] for f in found])
    if not given.only or "snapshot" in given.only:
        tasks = 20_000 if given.quick else 100_000
        point = Point(f"a snapshot held while {tasks:,} are drained", ready=tasks + BATCH * 2)
        rates = at(point, lambda dsn, host, port: under_a_snapshot(dsn, host, port, tasks))
        draw("snapshot", [f"tenth {n + 1}" for n in range(10)], rates, [0.0] * 10)


if __name__ == "__main__":
    main()
