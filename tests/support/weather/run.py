"""One run: a worker and a subscriber of each transport, each behind a rough line of its own, while graphs of tasks come in."""

from __future__ import annotations

import asyncio
import bisect
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.weather.clients import POLL, TRANSPORTS, Client, Patience, Subscriber, Worker
from tests.support.weather.line import RoughLine, rough_line

Json = dict[str, Any]
CREATE = "mutation($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } } }"
DIAMOND = [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"])]


@dataclass
class Cell:
    """What one client of one transport saw. Times in seconds."""

    fault: str
    transport: str
    role: str
    faults: int
    repeats: int
    lags: list[float]
    """Of a worker: from ready to in its hands. Of a subscriber: from the change to the event."""
    recoveries: list[float]
    """From the moment it could get through again to the next new thing it heard."""
    lost: int = 0
    doubled: int = 0
    missed: int = 0
    repeated: int = 0
    refused: int = 0

    @property
    def whole(self) -> bool:
        return not (self.lost or self.doubled or self.missed or self.repeated or self.refused)


class Direct:
    """Calls past the weather."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.AsyncClient(timeout=30, verify=False, trust_env=False)

    async def ask(self, query: str, **variables: Any) -> Json:
        answer: Json = (await self._http.post(self._url, json={"query": query, "variables": variables})).json()
        if "errors" in answer:
            raise RuntimeError(answer["errors"])
        return answer["data"]

    async def events(self, after: str | None) -> tuple[str, list[Json]]:
        """All there are, and the cursor behind them."""
        found: list[Json] = []
        while True:
            batch = (await self.ask(POLL, after=after, limit=200, wait=0))["taskEvents"]
            found += batch["events"]
            after = batch["cursor"]
            if after is not None and not batch["events"]:
                return after, found

    async def close(self) -> None:
        await self._http.aclose()


async def run(url: str, fault: str, seed: int, seconds: float, patience: Patience, grace: float) -> list[Cell]:
    """Graphs come in for so many seconds; all is to be done within `grace` seconds after, before the weather ends.

    `url` is the server's /graphql.
    """
    direct = Direct(url)
    cursor, _ = await direct.events(None)
    rng = random.Random(seed)
    async with _clients(url, fault, rng, patience, cursor) as (workers, subscribers):
        running = [asyncio.create_task(client.run()) for client in (*workers, *subscribers)]
        try:
            groups = await _produce(direct, [w.name for w in workers], seconds, rng)
            truth = await _finished(direct, cursor, groups, grace)
            await _arrived(subscribers, len(truth), grace)
            cells = [_worker_cell(fault, w, truth) for w in workers]
            return cells + [_subscriber_cell(fault, s, truth) for s in subscribers]
        finally:
            for task in running:
                task.cancel()
            ends = await asyncio.gather(*running, return_exceptions=True)
            await direct.close()
            for end in ends:
                if isinstance(end, Exception):
                    raise end


@asynccontextmanager
async def _clients(
    url: str, fault: str, rng: random.Random, patience: Patience, cursor: str
) -> AsyncIterator[tuple[list[Worker], list[Subscriber]]]:
    parts = urlsplit(url)
    async with AsyncExitStack() as stack:

        async def line() -> RoughLine:
            own = random.Random(rng.random())
            return await stack.enter_async_context(rough_line(parts.hostname or "", parts.port or 0, fault, own))

        workers = [Worker(f"worker by {t}", t, await line(), rng, patience) for t in TRANSPORTS]
        yield (
            workers,
            [Subscriber(f"subscriber by {t}", t, await line(), rng, patience, cursor=cursor) for t in TRANSPORTS],
        )


async def _produce(direct: Direct, channels: list[str], seconds: float, rng: random.Random) -> int:
    """A diamond of four for each worker, again and again."""
    groups = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for channel in channels:
            tasks = [
                {"ref": ref, "name": ref, "channel": channel, "parents": [{"ref": p} for p in parents]}
                for ref, parents in DIAMOND
            ]
            await direct.ask(CREATE, input={"name": channel, "tasks": tasks})
            groups += 1
        await asyncio.sleep(rng.uniform(0.05, 0.25))
    return groups


async def _finished(direct: Direct, cursor: str, groups: int, grace: float) -> list[Json]:
    """The whole log since `cursor`, once all groups have finished; or as it stands when that takes too long."""
    give_up = time.monotonic() + grace
    truth: list[Json] = []
    while True:
        cursor, more = await direct.events(cursor)
        truth += more
        if sum(e["kind"] == "GROUP_FINISHED" for e in truth) >= groups or time.monotonic() > give_up:
            return truth
        await asyncio.sleep(0.1)


async def _arrived(subscribers: list[Subscriber], count: int, grace: float) -> None:
    give_up = time.monotonic() + grace
    while any(len(s.events) < count for s in subscribers) and time.monotonic() < give_up:
        await asyncio.sleep(0.1)


def _worker_cell(fault: str, worker: Worker, truth: list[Json]) -> Cell:
    ready = {e["taskId"]: _at(e) for e in truth if e["kind"] in ("CREATED", "READY")}
    cell = _cell(fault, "worker", worker, ready)
    group_ids = {e["groupId"] for e in truth if e["kind"] == "STARTED" and e["workerId"] == worker.name}
    mine = {e["taskId"] for e in truth if e["kind"] == "CREATED" and e["groupId"] in group_ids}
    succeeded = Counter(e["taskId"] for e in truth if e["kind"] == "SUCCEEDED" and e["taskId"] in mine)
    cell.lost = len(mine - succeeded.keys())
    cell.doubled = sum(n - 1 for n in succeeded.values()) + sum(n - 1 for n in worker.completed.values())
    return cell


def _subscriber_cell(fault: str, subscriber: Subscriber, truth: list[Json]) -> Cell:
    """Every event once, in the order of the log."""
    cell = _cell(fault, "subscriber", subscriber, {e["at"]: _at(e) for e in subscriber.events})
    seen = [_known(e) for e in subscriber.events]
    told = [_known(e) for e in truth]
    cell.missed = sum((Counter(told) - Counter(seen)).values())
    cell.repeated = sum((Counter(seen) - Counter(told)).values())
    if not cell.missed and not cell.repeated and seen != told:
        cell.repeated = sum(a != b for a, b in zip(seen, told, strict=True))
    return cell


def _at(event: Json) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def _known(event: Json) -> tuple[Any, ...]:
    return event["kind"], event["at"], event["taskId"], event["groupId"]


def _cell(fault: str, role: str, client: Client, began: dict[str, float]) -> Cell:
    since = time.time() - time.monotonic()
    lags = [at + since - began[what] for at, what in client.heard]
    heard = [at for at, _ in client.heard]
    recoveries = []
    for struck in client.line.struck:
        next_one = bisect.bisect(heard, struck)
        if next_one < len(heard):
            recoveries.append(heard[next_one] - struck)
    cell = Cell(fault, client.transport, role, len(client.line.struck), client.repeats, lags, recoveries)
    cell.refused = len(client.refused)
    return cell
