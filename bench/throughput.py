"""Tasks a second: created, and claimed + completed; through HTTP, and the same statements straight through asyncpg.

    python -m bench.throughput [--rounds 3] [--tasks 20000] [--out FILE] [--save]

Each round starts from a fresh database and a fresh server process (embedded PostgreSQL, or DATABASE_URL, whose user must be
able to create databases); the client is this process, the server another, PostgreSQL a third. Ratios inside one run count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import uvloop

from bench.client import Client
from bench.results import Figure, add_argument, save, spread
from db.claim import ClaimRequest, claim_tasks
from db.create import Batch, NewGroupRow, NewTaskRow, create_tasks
from db.embedded import EmbeddedPostgres
from db.lease import Completion, complete_tasks
from db.migrate import migrate
from server.cli import _free_port

GROUP = "mutation($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } tasks { id } } }"
TASKS = "mutation($input: CreateTasksInput!) { createTasks(input: $input) { tasks { id } } }"
TURN = (
    "mutation($done: CompleteTasksInput!, $claim: ClaimTasksInput!) { "
    "completeTasks(input: $done) { completed errors { index code message } } "
    "claimTasks(input: $claim) { leases { id task { id name input } } } }"
)
PAYLOAD = {"t": 0, "to": "user1@example.com", "template": "welcome", "locale": "en-GB"}
NS, NOOP = 1, "noop"

Figures = dict[str, float]
WAYS = {"http": "through HTTP", "asyncpg": "asyncpg alone"}


def new_task() -> dict[str, object]:
    return {"name": "noop", "channel": NOOP, "input": PAYLOAD}


# -- through HTTP -------------------------------------------------------------------------------------------------------


async def created_one_by_one(host: str, port: int, clients: int, seconds: float) -> float:
    """Closed loop: each client sends its next task when the last one is answered."""
    async with Client(host, port) as client:
        group = (await client.ask(GROUP, {"input": {"name": "bench"}}))["createTaskGroup"]["taskGroup"]["id"]
    end = time.perf_counter() + seconds

    async def loop() -> int:
        n = 0
        async with Client(host, port) as client:
            while time.perf_counter() < end:
                await client.ask(TASKS, {"input": {"groupId": group, "tasks": [new_task()]}})
                n += 1
        return n

    start = time.perf_counter()
    counts = await asyncio.gather(*(loop() for _ in range(clients)))
    return sum(counts) / (time.perf_counter() - start)


async def created_in_bulk(host: str, port: int, tasks: int, batch: int) -> float:
    start = time.perf_counter()
    async with Client(host, port) as client:
        for _ in range(0, tasks, batch):
            await client.ask(GROUP, {"input": {"name": "bench", "tasks": [new_task()] * batch}})
    return tasks / (time.perf_counter() - start)


async def drained(host: str, port: int, tasks: int, batch: int, clients: int, seconds: float = 1e9) -> float:
    """Claim and complete until `tasks` are done or the time is over; every document completes one batch and claims the next."""
    done = 0
    end = time.perf_counter() + seconds

    async def loop(name: str) -> None:
        nonlocal done
        results: list[dict[str, object]] = []
        async with Client(host, port) as client:
            while True:
                last = done >= tasks or time.perf_counter() > end
                claim = {"workerId": name, "channels": [NOOP], "limit": batch, "claimId": str(uuid.uuid4())}
                data = await client.ask(TURN, {"done": {"results": results}, "claim": claim})
                done += data["completeTasks"]["completed"]
                results = [{"lease": x["id"], "output": {"ok": True}} for x in data["claimTasks"]["leases"]]
                if not results or last:
                    return

    start = time.perf_counter()
    await asyncio.gather(*(loop(f"w{n}") for n in range(clients)))
    return done / (time.perf_counter() - start)


async def through_http(host: str, port: int, tasks: int) -> Figures:
    found: Figures = {}
    found["create one by one, 1 client"] = await created_one_by_one(host, port, 1, 2.5)
    found["create one by one, 10 clients"] = await created_one_by_one(host, port, 10, 2.5)
    await drained(host, port, 1 << 60, 500, 2)
    for batch in (100, 500):
        found[f"create, batches of {batch}"] = await created_in_bulk(host, port, tasks, batch)
        found[f"claim + complete, batches of {batch}, 1 client"] = await drained(host, port, tasks, batch, 1)
    await created_in_bulk(host, port, tasks, 500)
    found["drain, batches of 500, 1 worker process with 2 loops"] = await drained(host, port, tasks, 500, 2)
    for clients in (1, 10):
        await created_in_bulk(host, port, tasks, 500)
        found[f"claim + complete one by one, {clients} client{'s' * (clients > 1)}"] = await drained(
            host, port, 1 << 60, 1, clients, 2.5
        )
        await drained(host, port, 1 << 60, 500, 2)
    await created_in_bulk(host, port, tasks, 500)
    found["claim + complete, batches of 100, 10 clients"] = await drained(host, port, tasks, 100, 10)
    return found


# -- straight through asyncpg -------------------------------------------------------------------------------------------


def rows_of(channel: int, group_no: int, n: int) -> Batch:
    text = json.dumps(PAYLOAD)
    made = range(n)
    return Batch(tasks=[NewTaskRow(uuid.uuid4(), "noop", group_no=group_no, channel=channel, input=text) for _ in made])


async def straight(dsn: str, tasks: int) -> Figures:
    """The statements alone, on the same database, without HTTP, GraphQL and checks."""
    pool = await asyncpg.create_pool(dsn, min_size=10, max_size=10, reset=_keep)
    found: Figures = {}
    channel = await pool.fetchval("select channel from channel where name = $1", NOOP)
    worker = await pool.fetchval("select worker from worker limit 1")
    batch = Batch(groups=[NewGroupRow(uuid.uuid4(), "bench", None)])
    async with pool.acquire() as connection:
        await create_tasks(connection, NS, batch)
    group_no = await pool.fetchval("select max(group_no) from task_group")

    async def create(n: int) -> None:
        async with pool.acquire() as connection:
            await create_tasks(connection, NS, rows_of(channel, group_no, n))

    async def turn(n: int) -> int:
        start = [(channel, -(1 << 31), 0)]
        async with pool.acquire() as connection:
            rows = (await claim_tasks(connection, NS, start, [ClaimRequest(worker, n, 60.0, uuid.uuid4(), "")])).rows
            if rows:
                done = [Completion(r.lease_no, r.no, '{"ok": true}') for r in rows]
                await complete_tasks(connection, NS, done, waits=False)
        return len(rows)

    async def loop(work: Callable[[], Awaitable[int]], clients: int, most: int, seconds: float) -> float:
        done, end = 0, time.perf_counter() + seconds

        async def one() -> None:
            nonlocal done
            while done < most and time.perf_counter() < end:
                n = await work()
                done += n
                if not n:
                    return

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        return done / (time.perf_counter() - start)

    async def create_one() -> int:
        await create(1)
        return 1

    for clients in (1, 10):
        found[f"create one by one, {clients} client{'s' * (clients > 1)}"] = await loop(
            create_one, clients, 1 << 60, 2.5
        )
    for n in (100, 500):

        async def create_batch(size: int = n) -> int:
            await create(size)
            return size

        async def turn_batch(size: int = n) -> int:
            return await turn(size)

        found[f"create, batches of {n}"] = await loop(create_batch, 1, tasks, 1e9)
        found[f"claim + complete, batches of {n}, 1 client"] = await loop(turn_batch, 1, tasks, 1e9)
    for _ in range(tasks // 500):
        await create(500)
    for clients in (1, 10):
        found[f"claim + complete one by one, {clients} client{'s' * (clients > 1)}"] = await loop(
            lambda: turn(1), clients, 1 << 60, 2.5
        )
    await pool.close()
    return found


async def _keep(_: object) -> None:
    pass


# -- a round ------------------------------------------------------------------------------------------------------------


@contextmanager
def fresh_database() -> Iterator[str]:
    given = os.environ.get("DATABASE_URL")
    if given:
        name = f"crew_bench_{os.getpid()}_{time.monotonic_ns()}"
        asyncio.run(_execute(given, f"create database {name}"))
        try:
            yield urlunsplit(urlsplit(given)._replace(path=f"/{name}"))
        finally:
            asyncio.run(_execute(given, f"drop database {name} with (force)"))
        return
    with tempfile.TemporaryDirectory(prefix="crew-bench-") as home:
        os.chmod(home, 0o755)
        embedded = EmbeddedPostgres(Path(home, "pg"))
        try:
            yield embedded.start()
        finally:
            embedded.stop()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def crew(dsn: str, python: list[str] | None = None) -> Iterator[tuple[str, int]]:
    """A server process on the database; its host and port. `python` are the interpreter's arguments, where not as usual."""
    port = _free_port()
    command = [sys.executable, *(python or ["-m", "server.cli"]), "serve", "--port", str(port)]
    server = subprocess.Popen(command, env={**os.environ, "DATABASE_URL": dsn}, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                if time.monotonic() > give_up or server.poll() is not None:
                    raise RuntimeError("the server did not start") from None
                time.sleep(0.05)
        yield "127.0.0.1", port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(40)


def one_round(tasks: int, python: list[str] | None = None) -> dict[str, Figures]:
    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        with crew(dsn, python) as (host, port):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                http = runner.run(through_http(host, port, tasks))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            direct = runner.run(straight(dsn, tasks))
    return {"http": http, "asyncpg": direct}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--tasks", type=int, default=20_000)
    arguments.add_argument("--out", type=Path, help="append each round's figures as a JSON line")
    add_argument(arguments)
    given = arguments.parse_args()
    all_figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n in range(given.rounds):
        print(f"round {n + 1} of {given.rounds} …", file=sys.stderr, flush=True)
        figures = one_round(given.tasks)
        if given.out:
            with given.out.open("a") as out:
                out.write(json.dumps(figures) + "\n")
        for way, found in figures.items():
            for what, rate in found.items():
                all_figures[what][WAYS[way]].append(rate)
    kept = [Figure(what, "tasks/s", dict(ways)) for what, ways in all_figures.items()]
    show(kept)
    if given.save:
        save("throughput", kept)


def show(figures: list[Figure]) -> None:
    http, asyncpg = WAYS.values()
    print(f"{'tasks/s, median (lowest – highest)':55} {http:>28} {asyncpg:>28}  ratio")
    for figure in figures:
        cells = [spread(figure.series.get(way, []), 0) for way in WAYS.values()]
        ratio = f"{statistics.median(figure.ratio(http, asyncpg)):.2f}" if asyncpg in figure.series else ""
        print(f"{figure.name:55} {cells[0]:>28} {cells[1]:>28}  {ratio}")


if __name__ == "__main__":
    main()
