"""What all of it gave: the same work done as before and as now, in turn, in one run. (Lever by lever: bench.ablation.)

    python -m bench.levers [--rounds 3] [--base 142e665] [--save]

Single steps, in microseconds: how they were done before stands here. And through the public API, with the Python SDK: the SDK and
the server of `--base` (a commit of before), the SDK of today with the server of then, and both of today.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
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

import asyncpg
import httpx
import orjson
import uvloop
from asyncpg.pgproto.pgproto import UUID as QuickUUID

from bench.results import Figure, add_argument, save
from bench.throughput import NOOP, NS, PAYLOAD, crew, drained, fresh_database
from crew_worker.api import decode
from crew_worker.http import Http
from db.create import Batch, NewTaskRow, create_tasks
from db.migrate import migrate
from db.pool import SESSION
from resolvers.draft import new_id
from server.operations import _DIGITS, _LONG, _LONG_BELOW_ZERO

ROOT = Path(__file__).resolve().parent.parent
BEFORE, SDK, NOW = "before", "SDK of today", "SDK and server of today"
Series = dict[str, dict[str, list[float]]]

CLIENT = """
import asyncio, json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import uvloop
from crew_worker import Crew
url, channel, payload = sys.argv[2], sys.argv[3], json.loads(sys.argv[4])

async def one_by_one(clients, seconds):
    crews = [Crew(url) for _ in range(clients)]
    groups = [crew.group("bench") for crew in crews]
    for group in groups:
        await group.send()
    end = time.perf_counter() + seconds
    async def loop(group):
        n = 0
        while time.perf_counter() < end:
            group.task(channel, payload)
            await group.send()
            n += 1
        return n
    began = time.perf_counter()
    n = sum(await asyncio.gather(*map(loop, groups)))
    return n / (time.perf_counter() - began)

async def bulk(tasks):
    crew, began = Crew(url), time.perf_counter()
    for _ in range(0, tasks, 2000):
        group = crew.group("bench")
        for _ in range(2000):
            group.task(channel, payload)
        await group.send()
    return tasks / (time.perf_counter() - began)

async def drain(tasks):
    crew, done, began = Crew(url, concurrency=1000, transport="long-poll"), 0, 0.0
    @crew.task(channel)
    async def noop(task):
        nonlocal done, began
        began = began or time.perf_counter()
        done += 1
        if done == tasks:
            crew.stop()
    await crew.work()
    return tasks / (time.perf_counter() - began)

async def main():
    found = {"create one by one, 1 client": await one_by_one(1, 2.0), "create one by one, 10 clients": await one_by_one(10, 2.0)}
    print(json.dumps(found), flush=True)
    sys.stdin.readline()
    print(json.dumps({"create in bulk": await bulk(20_000), "drain": await drain(20_000)}), flush=True)

uvloop.run(main())
"""


# -- through the API ----------------------------------------------------------------------------------------------------


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crew-levers-") as home:
        place = Path(home, "base")
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", place, commit], check=True)
        try:
            yield place
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", place], check=True)


def measured(sdk: Path, server: Path) -> dict[str, float]:
    """Tasks a second, with the SDK of one checkout and the server of another."""
    run = ["-c", f"import sys; sys.path.insert(0, {str(server)!r}); from server.cli import main; main()"]
    with fresh_database() as dsn, tempfile.TemporaryDirectory() as home:
        migrating = {"DATABASE_URL": dsn, "PATH": "/usr/bin:/bin"}
        subprocess.run([sys.executable, *run, "migrate"], check=True, cwd=home, env=migrating, capture_output=True)
        with crew(dsn, run) as (host, port):
            program = Path(home, "client.py")
            program.write_text(CLIENT)
            given = [str(sdk / "sdk/python/src"), f"http://{host}:{port}", NOOP, json.dumps(PAYLOAD)]
            client = subprocess.Popen(
                [sys.executable, program, *given], cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert client.stdin
            assert client.stdout
            found: dict[str, float] = json.loads(client.stdout.readline())
            uvloop.run(drained(host, port, 1 << 60, 500, 2))
            client.stdin.write("\n")
            client.stdin.flush()
            found |= json.loads(client.stdout.readline())
            client.wait(60)
            return found


def through_the_api(base: str, rounds: int) -> Series:
    found: Series = defaultdict(lambda: defaultdict(list))
    with checked_out(base) as before:
        turns = {BEFORE: (before, before), SDK: (ROOT, before), NOW: (ROOT, ROOT)}
        for n in range(rounds):
            for who in list(turns)[:: 1 if n % 2 == 0 else -1]:
                print(f"round {n + 1} of {rounds}: {who} …", file=sys.stderr, flush=True)
                for what, rate in measured(*turns[who]).items():
                    found[what][who].append(rate)
    return found


# -- single steps -------------------------------------------------------------------------------------------------------

Step = Callable[[], object]
BODY = orjson.dumps([{"id": str(uuid.uuid4()), "name": "noop", "channel": NOOP, "input": PAYLOAD} for _ in range(500)])
LEASES = orjson.dumps(
    [{"id": "x" * 32, "attempt": 1, "task": {"id": str(uuid.uuid4()), "name": "noop", "input": PAYLOAD}, "parents": []}]
    * 500
)
ID = str(uuid.uuid4())
STEPS: dict[str, tuple[Step, Step, int]] = {
    "looking for long numbers in a body, a task": (
        lambda: re.search(rb"\d{19}", BODY),
        lambda: _LONG in (digits := BODY.translate(_DIGITS)) or _LONG_BELOW_ZERO in digits,
        500,
    ),
    "reading leases in the SDK, a lease": (lambda: json.loads(LEASES), lambda: decode(LEASES), 500),
    "reading an id": (lambda: uuid.UUID(ID), lambda: QuickUUID(ID), 1),
}


def micro(step: Step, each: int) -> float:
    """Microseconds for each thing."""
    times = max(3, 20_000 // each)
    began = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - began) / times / each * 1e6


async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request with two bytes."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def of_clients() -> tuple[float, float]:
    """CPU of a call; the little server runs in the same process, and its share is in both."""
    server = await asyncio.start_server(nothing, "127.0.0.1", 0)
    url, body = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/graphql", bytes(600)

    async def timed(call: Callable[[], Awaitable[object]], times: int) -> float:
        await call()
        began = time.process_time()
        for _ in range(times):
            await call()
        return (time.process_time() - began) / times * 1e6

    async with httpx.AsyncClient(trust_env=False) as general:
        before = await timed(lambda: general.post(url, content=body), 300)
    own = Http(url, {}, trust_env=False)
    now = await timed(lambda: own.post(body, silence=10), 3000)
    await own.close()
    server.close()
    return before, now


async def of_creation(dsn: str, count: int) -> tuple[float, float]:
    """A task made by the general statement (a weight of 2 is none of everyday) and by that for everyday tasks, in turn."""
    c = await asyncpg.connect(dsn, server_settings={**SESSION, "synchronous_commit": "off"})
    await c.execute(
        "insert into task_group (ns, group_no, id, name, made_upto) values (1, 1, gen_random_uuid(), 'g', 0) on conflict do nothing"
    )
    text = json.dumps(PAYLOAD)

    def batch(weight: int) -> Batch:
        tasks = range(count)
        return Batch(
            tasks=[NewTaskRow(new_id(), "noop", group_no=1, channel=1, input=text, weight=weight) for _ in tasks]
        )

    times: dict[int, list[float]] = {2: [], 1: []}
    for _ in range(max(10, 300 // count)):
        for weight, taken in times.items():
            made = batch(weight)
            began = time.perf_counter()
            await create_tasks(c, NS, made)
            taken.append((time.perf_counter() - began) / count * 1e6)
    await c.close()
    return statistics.median(times[2]), statistics.median(times[1])


def single_steps(rounds: int) -> Series:
    found: Series = defaultdict(lambda: defaultdict(list))

    def add(what: str, before: float, now: float) -> None:
        found[what]["before"].append(before)
        found[what]["now"].append(now)

    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        for _ in range(rounds):
            for what, (before, now, each) in STEPS.items():
                add(what, micro(before, each), micro(now, each))
            add("a call of the SDK (httpx, then its own client), CPU", *uvloop.run(of_clients()))
            for count in (1, 500):
                add(f"creating {count} by statement, a task", *uvloop.run(of_creation(dsn, count)))
    return found


def show(figures: list[Figure]) -> None:
    for figure in figures:
        first = next(iter(figure.series))
        cells = [
            f"{who} {figure.median(who):,.4g}"
            + (f" (× {statistics.median(figure.ratio(who, first)):.2f})" if who != first else "")
            for who in figure.series
        ]
        print(f"{figure.name} [{figure.unit}]: {', '.join(cells)}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--base", default="142e665", help="The commit of before.")
    add_argument(arguments)
    given = arguments.parse_args()
    figures = [Figure(what, "µs", dict(series)) for what, series in single_steps(given.rounds).items()]
    figures += [
        Figure(what, "tasks/s", dict(series)) for what, series in through_the_api(given.base, given.rounds).items()
    ]
    show(figures)
    if given.save:
        save("levers", figures, [f"--rounds {given.rounds}", f"--base {given.base}"])


if __name__ == "__main__":
    main()
