"""A drain while another transaction holds a snapshot, so that no dead row can be cleared.

Beside a drain of another server without one: they take turns, a tenth each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import uvloop

from bench.client import Client
from bench.faults.stage import Pair, client, served, settled
from bench.throughput import NOOP, TURN, created_in_bulk
from tests.support.process import ServerProcess

BATCH = 100
WARM = 5000
"""Drained before: a server's first statements are slower."""


class Drain:
    """Claims and completes on one server, as many as asked."""

    def __init__(self, asking: Client) -> None:
        self._asking = asking
        self._results: list[dict[str, str]] = []

    async def rate(self, tasks: int) -> float:
        start, done = time.perf_counter(), 0
        while done < tasks:
            claim = {"workerId": "w", "channels": [NOOP], "limit": BATCH, "claimId": str(uuid.uuid4())}
            data = await self._asking.ask(TURN, {"done": {"results": self._results}, "claim": claim})
            done += data["completeTasks"]["completed"]
            self._results = [{"lease": x["id"]} for x in data["claimTasks"]["leases"]]
            if not self._results:
                raise RuntimeError(f"only {done} of {tasks} tasks were there")
        return done / (time.perf_counter() - start)


@contextmanager
def both() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    with served() as calm, served() as held:
        yield calm, held


async def tenths(calm: ServerProcess, held: ServerProcess, tasks: int) -> list[tuple[float, float]]:
    """Tasks a second in each tenth, calm and under the snapshot."""
    for server in (calm, held):
        await created_in_bulk("127.0.0.1", server.port, WARM + tasks + 12 * BATCH, 500)
        await settled(server)
    other = await asyncpg.connect(held.dsn)
    try:
        transaction = other.transaction(isolation="repeatable_read")
        await transaction.start()
        await other.fetchval("select count(*) from namespace")
        async with client(calm) as one, client(held) as two:
            drains = Drain(one), Drain(two)
            for drain in drains:
                await drain.rate(WARM)
            return [(await drains[0].rate(tasks // 10), await drains[1].rate(tasks // 10)) for _ in range(10)]
    finally:
        await other.close()


def measure(quick: bool) -> list[Pair]:
    tasks = 20_000 if quick else 100_000
    with both() as (calm, held):
        found = uvloop.run(tenths(calm, held, tasks))
    ones = [10 / sum(1 / pair[n] for pair in found) for n in (0, 1)]
    decays = [found[-1][n] / found[0][n] for n in (0, 1)]
    return [
        Pair(f"drain of {tasks:,} tasks while a snapshot is held", "tasks/s", *ones),
        Pair("last tenth of that drain over the first", "times", *decays),
    ]
