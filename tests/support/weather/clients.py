"""Workers and subscribers that get through any weather by the rules of sdk/PROTOCOL.md alone: a call is repeated until it is
answered, a stream that breaks or falls silent is opened again from where it was."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets
from websockets.exceptions import WebSocketException

from tests.support.weather.line import RoughLine

Json = dict[str, Any]
TRANSPORTS = ("websocket", "sse", "long poll", "short poll")
_LEASES = "leases { id attempt task { id } }"
CLAIM = f"mutation($input: ClaimTasksInput!) {{ claimTasks(input: $input) {{ {_LEASES} }} }}"
PUSH = f"subscription($input: ClaimedTasksInput!) {{ claimedTasks(input: $input) {{ {_LEASES} }} }}"
COMPLETE = "mutation($input: CompleteTasksInput!) { completeTasks(input: $input) { completed errors { code lease } } }"
_EVENTS = "cursor events { kind at taskId groupId workerId }"
POLL = (
    "query($after: Cursor, $limit: Int, $wait: Float) "
    f"{{ taskEvents(after: $after, limit: $limit, waitSeconds: $wait) {{ {_EVENTS} }} }}"
)
FOLLOW = f"subscription($after: Cursor) {{ taskEvents(after: $after) {{ {_EVENTS} }} }}"
OPEN_SECONDS = 2.0
WAIT_SECONDS = 3.0
"""Of a long poll."""
_BETWEEN_POLLS = 0.1
_FEW, _MANY = 16, 200
"""Events asked for in one poll: fewer after each answer that broke off."""
_AGAIN = 0.05, 0.5
"""The first pause before something is tried again, and the longest."""


class Broken(Exception):
    """The stream is no more."""


@dataclass
class Patience:
    """When a client gives a connection up."""

    answer: float = 2.0
    """An answer takes longer, beyond what was asked to wait."""
    silence: float = 15.0
    """A stream says nothing. The server speaks every 10 s."""
    ping: float = 1.0
    """Between the pings of a websocket, each to be answered within twice that."""


@dataclass
class Client:
    """One client behind its line. `heard` holds when (monotonic) something new came, and what: a task, an event."""

    name: str
    transport: str
    line: RoughLine
    rng: random.Random
    patience: Patience
    heard: list[tuple[float, str]] = field(default_factory=list)
    repeats: int = 0
    """Calls and streams that had to be begun again."""
    refused: list[Any] = field(default_factory=list)

    async def __aenter__(self) -> None:
        self._all_http = AsyncExitStack()
        await self._connect_anew()

    async def __aexit__(self, *_: object) -> None:
        await self._all_http.aclose()

    async def _connect_anew(self) -> None:
        """What kept-alive connections there are may all be dead: none is used again."""
        self.http = await self._all_http.enter_async_context(httpx.AsyncClient(verify=False, trust_env=False))

    def hear(self, what: str) -> None:
        self.heard.append((time.monotonic(), what))

    async def pause(self, failures: int) -> None:
        first, longest = _AGAIN
        self.repeats += 1
        await asyncio.sleep(min(first * 2**failures, longest) * self.rng.uniform(0.5, 1.5))

    async def call(self, query: str, variables: Json, wait: float = 0) -> Json:
        """The data, however often it must be asked for."""
        failures = 0
        while (data := await self.attempt(query, variables, wait)) is None:
            await self.pause(failures)
            failures += 1
        return data

    async def attempt(self, query: str, variables: Json, wait: float = 0) -> Json | None:
        """The data, if it comes."""
        limit = httpx.Timeout(wait + self.patience.answer, connect=OPEN_SECONDS)
        try:
            async with asyncio.timeout(wait + 2 * self.patience.answer):
                response = await self.http.post(self._url("http"), json=_params(query, variables), timeout=limit)
            return self._data(response.json())
        except (httpx.TransportError, TimeoutError, ValueError, Broken):
            await self._connect_anew()
            return None

    def _url(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self.line.port}/graphql"

    def stream(self, query: str, variables: Json) -> AsyncGenerator[Json, None]:
        """The data of each message of one subscription. Ends, or raises Broken, when the stream is no more."""
        return self._websocket(query, variables) if self.transport == "websocket" else self._sse(query, variables)

    async def _websocket(self, query: str, variables: Json) -> AsyncGenerator[Json, None]:
        try:
            async with websockets.connect(
                self._url("ws"),
                subprotocols=[websockets.Subprotocol("graphql-transport-ws")],
                open_timeout=OPEN_SECONDS,
                ping_interval=self.patience.ping,
                ping_timeout=2 * self.patience.ping,
                close_timeout=0.1,
            ) as ws:
                await ws.send('{"type": "connection_init"}')
                await ws.send(json.dumps({"type": "subscribe", "id": "1", "payload": _params(query, variables)}))
                while True:
                    said = json.loads(await asyncio.wait_for(ws.recv(), self.patience.silence))
                    if said["type"] == "next":
                        yield self._data(said["payload"])
                    elif said["type"] == "error":
                        self.refused.append(said["payload"])
                        raise Broken
                    elif said["type"] == "complete":
                        return
        except (WebSocketException, OSError, TimeoutError) as error:
            raise Broken from error

    async def _sse(self, query: str, variables: Json) -> AsyncGenerator[Json, None]:
        limit = httpx.Timeout(self.patience.silence, connect=OPEN_SECONDS)
        headers = {"accept": "text/event-stream"}
        try:
            async with self.http.stream(
                "POST", self._url("http"), json=_params(query, variables), headers=headers, timeout=limit
            ) as response:
                kind = ""
                async for line in response.aiter_lines():
                    if line.startswith("event: "):
                        kind = line[7:]
                    elif line.startswith("data: ") and kind == "next":
                        yield self._data(json.loads(line[6:]))
                    elif kind == "complete":
                        return
        except (httpx.TransportError, ValueError) as error:
            await self._connect_anew()
            raise Broken from error

    def _data(self, answer: Json) -> Json:
        if "errors" in answer:
            self.refused += answer["errors"]
            raise Broken
        return answer["data"]


@dataclass
class Worker(Client):
    """Takes tasks of the channel of its name, a few at a time, and completes each."""

    ran: Counter[str] = field(default_factory=Counter)
    completed: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    _working: set[str] = field(default_factory=set)

    async def run(self) -> None:
        async with self, asyncio.TaskGroup() as self._tasks:
            if self.transport in ("websocket", "sse"):
                await self._take_pushed()
            else:
                await self._poll()

    async def _poll(self) -> None:
        wait = WAIT_SECONDS if self.transport == "long poll" else 0.0
        while True:
            asked = {"workerId": self.name, "channels": [self.name], "limit": 16, "leaseSeconds": 60}
            claim = {**asked, "waitSeconds": wait, "claimId": str(uuid.uuid4())}
            leases = (await self.call(CLAIM, {"input": claim}, wait))["claimTasks"]["leases"]
            await asyncio.gather(*self._begin(leases))
            if not wait and not leases:
                await asyncio.sleep(_BETWEEN_POLLS)

    async def _take_pushed(self) -> None:
        failures = 0
        while True:
            asked = {"workerId": self.name, "channels": [self.name], "limit": 16, "leaseSeconds": 60}
            try:
                async with aclosing(
                    self.stream(PUSH, {"input": {**asked, "holding": sorted(self._working)}})
                ) as stream:
                    async for data in stream:
                        failures = 0
                        self._begin(data["claimedTasks"]["leases"])
            except Broken:
                pass
            await self.pause(failures)
            failures += 1

    def _begin(self, leases: list[Json]) -> list[asyncio.Task[None]]:
        """One that is sent again is worked on once."""
        new = [lease for lease in leases if lease["id"] not in self._working]
        self._working.update(lease["id"] for lease in new)
        return [self._tasks.create_task(self._work(lease)) for lease in new]

    async def _work(self, lease: Json) -> None:
        id = lease["task"]["id"]
        self.hear(id)
        self.ran[id] += 1
        await asyncio.sleep(self.rng.uniform(0, 0.02))
        result = {"lease": lease["id"], "output": {"by": self.name}}
        answer = (await self.call(COMPLETE, {"input": {"results": [result]}}))["completeTasks"]
        self._working.discard(lease["id"])
        if answer["completed"]:
            self.completed[id] += 1
        self.lost += len(answer["errors"])


@dataclass
class Subscriber(Client):
    """Follows all events from `cursor` on."""

    cursor: str = ""
    events: list[Json] = field(default_factory=list)

    async def run(self) -> None:
        async with self:
            if self.transport in ("websocket", "sse"):
                await self._follow()
            else:
                await self._poll()

    async def _poll(self) -> None:
        wait = WAIT_SECONDS if self.transport == "long poll" else 0.0
        limit, failures = _FEW, 0
        while True:
            data = await self.attempt(POLL, {"after": self.cursor, "limit": limit, "wait": wait}, wait)
            if data is None:
                await self.pause(failures)
                limit, failures = max(limit // 2, _FEW), failures + 1
                continue
            limit, failures = min(2 * limit, _MANY), 0
            batch = data["taskEvents"]
            self._take(batch)
            if not wait and not batch["events"]:
                await asyncio.sleep(_BETWEEN_POLLS)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(self.stream(FOLLOW, {"after": self.cursor})) as stream:
                    async for data in stream:
                        failures = 0
                        self._take(data["taskEvents"])
            except Broken:
                pass
            await self.pause(failures)
            failures += 1

    def _take(self, batch: Json) -> None:
        for event in batch["events"]:
            self.hear(event["at"])
        self.events += batch["events"]
        self.cursor = batch["cursor"]


def _params(query: str, variables: Json) -> Json:
    return {"query": query, "variables": variables}
