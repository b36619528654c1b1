"""A thousand workers of the Python SDK that have nothing to do: what they cost the server, and how soon one has a new task."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from bench.faults.stage import Pair, client, cpu, forget_statements, quantile, served, statements, task
from bench.throughput import GROUP, NOOP, TASKS
from tests.support.process import ROOT, ServerProcess, environment, open_directory, wait_for

PROGRAM = """
import asyncio, os, time
import uvloop
from crew_worker import Crew

def worker(n):
    crew = Crew(transport=os.environ["TRANSPORT"], concurrency=1, worker_id=f"idle-{n}")

    @crew.task(os.environ["CHANNEL"])
    async def noop(task):
        if task.input:
            print(time.time() - task.input["sent_at"], flush=True)

    return crew.work()

async def main():
    async with asyncio.TaskGroup() as all:
        for n in range(int(os.environ["WORKERS"])):
            all.create_task(worker(n))
            await asyncio.sleep(0.005)

uvloop.run(main())
"""
WORKERS, PROBES = 1000, 50
SETTLE = 30.0
"""A worker starts with a long poll of 20 s, also where it climbs to a websocket."""
TRANSPORTS = ("long-poll", "websocket")


@contextmanager
def idle(server: ServerProcess, transport: str, workers: int, home: Path) -> Iterator[Path]:
    """So many, in one process; the file to which they write how soon they had a task."""
    told = home / f"{transport}-{workers}"
    given = {"CREW_URL": server.url, "CHANNEL": NOOP, "TRANSPORT": transport, "WORKERS": str(workers)}
    path = str(ROOT / "sdk/python/src")
    with told.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environment() | given | {"PYTHONPATH": path},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    open_before = sockets(server)
    try:
        wait_for(lambda: sockets(server) >= open_before + workers, f"{workers} workers connect", 120)
        time.sleep(SETTLE if workers > 1 else 5)
        if process.poll() is not None:
            raise RuntimeError("the workers ended")
        yield told
    finally:
        process.kill()
        process.wait()


def sockets(server: ServerProcess) -> int:
    links = Path(f"/proc/{server.process.pid}/fd")
    return sum(os.readlink(link).startswith("socket:") for link in links.iterdir())


def cost(server: ServerProcess, seconds: float) -> tuple[float, dict[str, int]]:
    """Per cent of a core, and how often each statement ran."""
    uvloop.run(forget_statements(server))
    before = cpu(server.process.pid)
    time.sleep(seconds)
    used = cpu(server.process.pid) - before
    return 100 * used / seconds, {name: calls for name, (calls, _) in uvloop.run(statements(server)).items()}


def pick_ups(server: ServerProcess, told: Path) -> list[float]:
    """Milliseconds from before a task's creation to the start of its handler."""
    uvloop.run(create_apart(server))
    found = [float(line) * 1000 for line in told.read_text().split()]
    if len(found) != PROBES:
        raise RuntimeError(f"{len(found)} of {PROBES} tasks were picked up")
    return found


async def create_apart(server: ServerProcess) -> None:
    """Tasks one at a time, so slowly that each finds all workers idle."""
    async with client(server) as creating:
        group = (await creating.ask(GROUP, {"input": {"name": "idle"}}))["createTaskGroup"]["taskGroup"]["id"]
        for _ in range(PROBES):
            given = task(input={"sent_at": time.time()})
            await creating.ask(TASKS, {"input": {"groupId": group, "tasks": [given]}})
            await asyncio.sleep(0.08)
    await asyncio.sleep(2)


def by(transport: str, seconds: float) -> list[Pair]:
    with served() as server, open_directory("crew-bench-idle-") as home:
        none, floor = cost(server, seconds)
        with idle(server, transport, 1, home) as told:
            alone = pick_ups(server, told)
        with idle(server, transport, WORKERS, home) as told:
            busy, asked = cost(server, seconds)
            among = pick_ups(server, told)
    # What runs anyway comes a time more or less often by chance.
    at_rest = sum(floor.values()) / seconds
    more = {name: n - floor.get(name, 0) for name, n in asked.items() if n > floor.get(name, 0) + 2}
    print(f"{transport}: in {seconds:g} s beyond those without workers: {more or 'none'}", file=sys.stderr)
    who = f"{WORKERS:,} idle workers by {transport}"
    return [
        Pair(f"server with {who}, beside none", "% of core", none, busy),
        Pair(f"statements with {who}, beside none", "per s", at_rest, at_rest + sum(more.values()) / seconds),
        Pair(f"pick-up by {who}, beside one, median", "ms", quantile(alone, 0.5), quantile(among, 0.5)),
        Pair(f"pick-up by {who}, beside one, p99", "ms", quantile(alone, 0.99), quantile(among, 0.99)),
    ]


def measure(quick: bool) -> list[Pair]:
    return [pair for transport in TRANSPORTS for pair in by(transport, 5 if quick else 30)]
