"""Three worker processes of the Python SDK drain; in spells, one of them is killed (-9) each second and a new one started."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop

from bench.faults.stage import LOST, Pair, client, counts, quantile, served, settled, task
from bench.throughput import GROUP, NOOP, TASKS
from tests.support.process import ROOT, ServerProcess, environment

PROGRAM = """
import asyncio, os
from crew_worker import Crew

crew = Crew(concurrency=50, lease_seconds=float(os.environ["LEASE"]), worker_id=os.environ["WORKER"],
  transport=os.environ["TRANSPORT"])

@crew.task(os.environ["CHANNEL"])
async def noop(task):
    await asyncio.sleep(0.005)
    return {"ok": True}

crew.run()
"""
WORKERS = 3
TRANSPORTS = ("long-poll", "websocket")
LEASE_SECONDS = 5
SPELLS = 2
"""Of kills, each between two of calm."""
EVENTS = (
    "query($after: Cursor, $filter: TaskEventFilter) { taskEvents(after: $after, filter: $filter, limit: 5000) "
    "{ cursor events { kind at taskId workerId attempt } } }"
)
TOLD = ["STARTED", "SUCCEEDED"]


class Workers:
    """Worker processes, each with a name of its own."""

    def __init__(self, server: ServerProcess, transport: str, folder: Path) -> None:
        self._program = folder / "worker.py"
        self._program.write_text(PROGRAM)
        path = str(ROOT / "sdk/python/src")
        self._given = {
            "CREW_URL": server.url,
            "CHANNEL": NOOP,
            "LEASE": str(LEASE_SECONDS),
            "TRANSPORT": transport,
            "PYTHONPATH": path,
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0
        self.killed: dict[str, float] = {}
        """Worker → when, as time.time()."""

    def start(self) -> None:
        name = f"worker-{self._started}"
        self._started += 1
        self._running[name] = subprocess.Popen(
            [sys.executable, str(self._program)],
            env=environment() | self._given | {"WORKER": name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_oldest(self) -> None:
        name, process = next(iter(self._running.items()))
        del self._running[name]
        process.kill()
        self.killed[name] = time.time()
        process.wait()

    def end(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def workers_of(server: ServerProcess, transport: str) -> Iterator[Workers]:
    with tempfile.TemporaryDirectory(prefix="crew-bench-faults-") as folder:
        workers = Workers(server, transport, Path(folder))
        try:
            yield workers
        finally:
            workers.end()


async def created(server: ServerProcess, tasks: int) -> str:
    """A group of so many; its id."""
    group = str(uuid.uuid4())
    async with client(server) as creating:
        await creating.ask(GROUP, {"input": {"id": group, "name": "workers"}})
        for _ in range(0, tasks, 500):
            await creating.ask(TASKS, {"input": {"groupId": group, "tasks": [task()] * 500}})
    return group


async def rate(server: ServerProcess, group: str, seconds: float, workers: Workers | None = None) -> float:
    """Tasks that end a second, for so long; one of `workers` is killed in each."""
    start, before = time.perf_counter(), (await counts(server, group)).get("SUCCEEDED", 0)
    next_kill = start
    while time.perf_counter() < start + seconds:
        if workers and time.perf_counter() >= next_kill:
            workers.kill_oldest()
            workers.start()
            next_kill += 1
        await asyncio.sleep(0.02)
    found = await counts(server, group)
    if not found.get("READY"):
        raise RuntimeError("the tasks were drained before the time was over")
    return (found["SUCCEEDED"] - before) / (time.perf_counter() - start)


async def until_ended(server: ServerProcess, group: str, tasks: int, seconds: float) -> dict[str, int]:
    give_up = time.monotonic() + seconds
    while (found := await counts(server, group)) != {"SUCCEEDED": tasks} and time.monotonic() < give_up:
        await asyncio.sleep(0.2)
    return found


async def told(server: ServerProcess, after: str | None, group: str) -> tuple[str, list[dict[str, Any]]]:
    """The events since a cursor, and where to go on."""
    events: list[dict[str, Any]] = []
    async with client(server) as asking:
        while True:
            given = {"after": after, "filter": {"groupId": group, "kinds": TOLD}}
            batch = (await asking.ask(EVENTS, given))["taskEvents"]
            after = batch["cursor"]
            events += batch["events"]
            if not batch["events"]:
                return batch["cursor"], events


def waits(events: list[dict[str, Any]], killed: dict[str, float]) -> list[float]:
    """Seconds from a worker's kill to the next start of each task that it had."""
    owner: dict[str, str] = {}
    found = []
    for event in (e for e in events if e["kind"] == "STARTED"):
        if (died := killed.get(owner.get(event["taskId"], ""))) is not None:
            found.append(datetime.fromisoformat(event["at"]).timestamp() - died)
        owner[event["taskId"]] = event["workerId"]
    return found


async def drained(server: ServerProcess, transport: str, tasks: int, seconds: float) -> list[Pair]:
    group = await created(server, tasks)
    await settled(server)
    cursor, _ = await told(server, None, group)
    with workers_of(server, transport) as workers:
        for _ in range(WORKERS):
            workers.start()
        await asyncio.sleep(4)
        calm, fault = [], []
        for _ in range(SPELLS):
            calm.append(await rate(server, group, seconds / 2))
            fault.append(await rate(server, group, seconds, workers))
            await asyncio.sleep(3)
            calm.append(await rate(server, group, seconds / 2))
        ended = await until_ended(server, group, tasks, 90)
    _, events = await told(server, cursor, group)
    ends = Counter(e["taskId"] for e in events if e["kind"] == "SUCCEEDED")
    wrong = tasks - len(ends) + sum(n != 1 for n in ends.values()) + (ended != {"SUCCEEDED": tasks})
    waited = waits(events, workers.killed)
    drain = f"drain by {WORKERS} workers ({transport}) while one is killed each second"
    wait = f"wait of a killed worker's tasks ({transport}, leases of {LEASE_SECONDS} s)"
    return [
        Pair(drain, "tasks/s", statistics.mean(calm), statistics.mean(fault)),
        Pair(f"{wait}, median", "s", None, quantile(waited, 0.5)),
        Pair(f"{wait}, longest", "s", None, max(waited)),
        Pair(f"tasks begun again after kills ({transport})", "tasks", None, len(waited)),
        Pair(f"tasks lost or ended twice while workers are killed ({transport})", LOST, None, wrong),
    ]


def measure(quick: bool) -> list[Pair]:
    found = []
    for transport in TRANSPORTS:
        with served() as server:
            tasks, seconds = (100_000, 2) if quick else (400_000, 6)
            found += uvloop.run(drained(server, transport, tasks, seconds))
    return found
