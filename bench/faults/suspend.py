"""A workgroup with 100,000 ready tasks is suspended and resumed, again and again, while another's tasks are picked up.

Two channels are watched all the time, each by a worker of its own: one apart, beside the same before; and the workgroup's own while
it is suspended, beside the same while that was empty.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable
from typing import Any

import uvloop

from bench.client import Client
from bench.faults.stage import (
    Pair,
    client,
    forget_statements,
    quantile,
    served,
    settled,
    statements,
    task,
    with_database,
)
from bench.growth import CLAIM, COMPLETE
from bench.throughput import GROUP, NOOP, TASKS
from tests.support.process import ServerProcess

SUSPEND = 'mutation { suspendWorkgroup(name: "big", seconds: 3600) { workgroup { name } } }'
RESUME = 'mutation { resumeWorkgroup(name: "big") { workgroup { name } } }'
APART, QUIET = "apart", "quiet"
GAP = 0.01


async def pick_up(creating: Client, claiming: Client, group: str, channel: str) -> float:
    """Of one task, for which a worker waits by long poll: milliseconds from before its creation to the answer of the claim."""
    claim = {"workerId": channel, "channels": [channel], "waitSeconds": 20, "claimId": str(uuid.uuid4())}
    waiting = asyncio.create_task(claiming.ask(CLAIM, {"claim": claim}))
    await asyncio.sleep(GAP)
    start = time.perf_counter()
    made = task(channel=channel, workgroup="other")
    await creating.ask(TASKS, {"input": {"groupId": group, "tasks": [made]}})
    (lease,) = (await waiting)["claimTasks"]["leases"]
    took = time.perf_counter() - start
    await claiming.ask(COMPLETE, {"done": {"results": [{"lease": lease["id"]}]}})
    return took * 1000


async def watched(server: ServerProcess, channels: list[str], work: Awaitable[object]) -> list[list[float]]:
    """The pick-ups in each channel while `work` goes on, one at least."""
    over = asyncio.Event()

    async def watch(channel: str) -> list[float]:
        found: list[float] = []
        async with client(server) as creating, client(server) as claiming:
            group = await new_group(creating, channel)
            while not over.is_set() or not found:
                found.append(await pick_up(creating, claiming, group, channel))
        return found

    watching = asyncio.gather(*(watch(channel) for channel in channels))
    await work
    over.set()
    return await watching


async def new_group(creating: Client, name: str) -> str:
    made = await creating.ask(GROUP, {"input": {"name": name}})
    return str(made["createTaskGroup"]["taskGroup"]["id"])


async def create(server: ServerProcess, tasks: int) -> None:
    async with client(server) as creating:
        group = await new_group(creating, "big")
        for _ in range(0, tasks, 500):
            many = [task(workgroup="big")] * 500
            await creating.ask(TASKS, {"input": {"groupId": group, "tasks": many}})


async def longest(server: ServerProcess) -> float:
    """Of the server's statements, in milliseconds."""
    ran = sorted((ms, name) for name, (_, ms) in (await statements(server)).items())
    print("longest statements, ms: " + ", ".join(f"{name} {ms:.1f}" for ms, name in ran[-4:]), file=sys.stderr)
    return ran[-1][0]


async def call(server: ServerProcess, mutation: str) -> float:
    """Milliseconds."""
    async with client(server) as steering:
        start = time.perf_counter()
        await steering.ask(mutation, {})
        return (time.perf_counter() - start) * 1000


async def resumed(server: ServerProcess) -> tuple[float, float]:
    """Milliseconds of the call, and seconds until all its tasks can be claimed."""
    start = time.perf_counter()
    took = await call(server, RESUME)

    async def back(connection: Any) -> float:
        while await connection.fetchval("select exists (select from parked)"):
            await asyncio.sleep(0.1)
        return time.perf_counter() - start

    return took, await with_database(server, back)


async def steered(server: ServerProcess, tasks: int, seconds: float, cycles: int) -> list[Pair]:
    (empty,) = await watched(server, [NOOP], asyncio.sleep(seconds))
    await create(server, tasks)
    await settled(server)
    await forget_statements(server)
    before, _ = await watched(server, [APART, QUIET], asyncio.sleep(seconds * cycles))
    calm = await longest(server)
    await forget_statements(server)
    apart, own = list[float](), list[float]()
    suspends, resumes = list[float](), list[tuple[float, float]]()
    for _ in range(cycles):
        suspends.append(await call(server, SUSPEND))
        others, beside = await watched(server, [APART, NOOP], asyncio.sleep(seconds))
        resuming = asyncio.create_task(resumed(server))
        more, _ = await watched(server, [APART, QUIET], resuming)
        resumes.append(await resuming)
        apart += others + more
        own += beside
    said = f"a workgroup of {tasks:,} ready tasks is suspended and resumed"
    return [
        Pair(f"longest statement while {said}", "ms", calm, await longest(server)),
        Pair(f"pick-up in another channel while {said}, median", "ms", quantile(before, 0.5), quantile(apart, 0.5)),
        Pair(f"pick-up in another channel while {said}, p99", "ms", quantile(before, 0.99), quantile(apart, 0.99)),
        Pair(
            "pick-up in its own channel while it is suspended, beside an empty one, median",
            "ms",
            quantile(empty, 0.5),
            quantile(own, 0.5),
        ),
        Pair(
            "pick-up in its own channel while it is suspended, beside an empty one, p99",
            "ms",
            quantile(empty, 0.99),
            quantile(own, 0.99),
        ),
        Pair("the call that suspends it, longest", "ms", None, max(suspends)),
        Pair("the call that resumes it, longest", "ms", None, max(took for took, _ in resumes)),
        Pair("until all of it can be claimed again, longest", "s", None, max(back for _, back in resumes)),
    ]


def measure(quick: bool) -> list[Pair]:
    with served() as server:
        return uvloop.run(steered(server, 100_000, 4, 2 if quick else 5))
