"""Steady load: clients in closed loops that create, complete and claim ten tasks at a time, and repeat what is not answered."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from itertools import pairwise
from typing import Any

from bench.client import Client
from bench.faults.stage import client, quantile, task
from bench.throughput import GROUP, TASKS, TURN
from tests.support.process import ServerProcess

TEN = 10
Spell = tuple[float, float]
"""Its begin and end by time.perf_counter()."""


class Load:
    """`start` … `stop`. In between the queue stays as long as there are clients."""

    def __init__(self, server: ServerProcess, clients: int = 8) -> None:
        self._server, self._clients = server, clients
        self._over = False
        self._running: list[asyncio.Task[None]] = []
        self.group = str(uuid.uuid4())
        self.answers: list[tuple[float, float, int]] = []
        """When each answer came, the seconds it took, and the tasks it completed."""
        self.made: set[str] = set()
        self.ran: Counter[str] = Counter()
        self.repeats = 0

    async def start(self) -> None:
        async with client(self._server) as first:
            await first.ask(GROUP, {"input": {"id": self.group, "name": "load"}})
        self._running = [asyncio.create_task(self._loop(f"w{n}")) for n in range(self._clients)]

    async def stop(self) -> None:
        """Creates no more, and ends when all that was created is done."""
        self._over = True
        await asyncio.gather(*self._running)

    async def _loop(self, name: str) -> None:
        line = Line(self._server, self)
        results: list[dict[str, Any]] = []
        while True:
            if not self._over:
                ids = [str(uuid.uuid4()) for _ in range(TEN)]
                tasks = [task(id=id) for id in ids]
                await line.ask(TASKS, {"input": {"groupId": self.group, "tasks": tasks}})
                self.made.update(ids)
            claim = {"workerId": name, "channels": ["noop"], "limit": TEN, "claimId": str(uuid.uuid4())}
            data = await line.ask(TURN, {"done": {"results": results}, "claim": claim}, len(results))
            leases = data["claimTasks"]["leases"]
            self.ran.update(x["task"]["id"] for x in leases)
            results = [{"lease": x["id"]} for x in leases]
            if self._over and not results:
                await line.close()
                return

    # -- what came of it

    def rate(self, *spells: Spell) -> float:
        """Tasks completed a second."""
        done = sum(n for spell in spells for _, _, n in self._within(spell))
        return done / sum(end - begin for begin, end in spells)

    def p99(self, *spells: Spell) -> float:
        """Milliseconds from a call to its answer."""
        return quantile([took for spell in spells for _, took, _ in self._within(spell)], 0.99) * 1000

    def longest_gap(self, spell: Spell) -> float:
        """Milliseconds between two answers, whoever got them."""
        times = [spell[0], *sorted(at for at, _, _ in self._within(spell)), spell[1]]
        return max(b - a for a, b in pairwise(times)) * 1000

    def _within(self, spell: Spell) -> list[tuple[float, float, int]]:
        return [answer for answer in self.answers if spell[0] <= answer[0] < spell[1]]

    @property
    def wrong(self) -> int:
        """Tasks that did not run exactly once, as their workers saw it."""
        return len(self.made - set(self.ran)) + sum(n != 1 for n in self.ran.values())


class Line:
    """A connection that is made again when it breaks; a call that got no answer is repeated as it was."""

    def __init__(self, server: ServerProcess, load: Load) -> None:
        self._server, self._load = server, load
        self._client: Client | None = None

    async def ask(self, query: str, variables: dict[str, Any], completes: int = 0) -> dict[str, Any]:
        begun = time.perf_counter()
        while True:
            try:
                if self._client is None:
                    self._client = await client(self._server).__aenter__()
                data = await self._client.ask(query, variables)
                break
            except (OSError, asyncio.IncompleteReadError):
                self._client = None
            except RuntimeError as refused:
                if "UNAVAILABLE" not in str(refused):
                    raise
            self._load.repeats += 1
            await asyncio.sleep(0.05)
        answered = time.perf_counter()
        taken = data["completeTasks"]["completed"] if "completeTasks" in data else 0
        if taken != completes:
            raise RuntimeError(f"{taken} of {completes} tasks completed: {data}")
        self._load.answers.append((answered, answered - begun, taken))
        return data

    async def close(self) -> None:
        if self._client is not None:
            await self._client.__aexit__()
