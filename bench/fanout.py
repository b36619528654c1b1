"""What an event costs the server for each subscriber: CPU with 1,000 subscribers of the same selection, less that with none.

    python -m bench.fanout [--rounds 3] [--subscribers 1000] [--tasks 40] [--save]

By websocket (graphql-transport-ws) and over SSE. Tasks are created and completed, one at a time (each change is a message of its
own) and in batches of 50, at a fixed pace, which only waits where some subscriber has not had everything yet. CPU is the server
process's own, user and system, as the kernel counts it; PostgreSQL and the subscribers run beside it. Beside them `bare`: a loop of
uvloop that writes as many bytes to as many connections, and nothing else, which is what the kernel takes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import uvloop
import websockets

from bench.client import Client
from bench.faults.stage import cpu, served
from bench.growth import CLAIM, COMPLETE
from bench.results import Figure, Round, each_round, parser, save, spread
from bench.throughput import GROUP, NOOP, TASKS, new_task
from tests.support.process import ServerProcess

EVENTS = "subscription { taskEvents { cursor events { kind at taskId groupId channel state attempt workerId } } }"
EVENT = b'"kind"'
BATCH = 50
PACE = 0.1


@dataclass
class Seen:
    """What all subscribers have had."""

    events: int = 0
    messages: int = 0

    def take(self, message: bytes) -> None:
        self.events += message.count(EVENT)
        self.messages += 1


Subscriber = Callable[[int, Seen], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def by_websocket(port: int, seen: Seen) -> AsyncIterator[None]:
    protocol = websockets.Subprotocol("graphql-transport-ws")
    url = f"ws://127.0.0.1:{port}/graphql"
    async with websockets.connect(url, subprotocols=[protocol], compression=None, open_timeout=60) as socket:
        await socket.send('{"type":"connection_init"}')
        await socket.recv()
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": EVENTS}}))

        async def read() -> None:
            while True:
                message = await socket.recv(decode=False)
                if message == b'{"type":"ping"}':
                    await socket.send('{"type":"pong"}')
                else:
                    seen.take(message)

        async with running(read()):
            yield


@asynccontextmanager
async def by_sse(port: int, seen: Seen) -> AsyncIterator[None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"query": EVENTS}).encode()
    head = f"host: 127.0.0.1:{port}\r\naccept: text/event-stream\r\ncontent-type: application/json"
    writer.write(b"POST /graphql HTTP/1.1\r\n%b\r\ncontent-length: %d\r\n\r\n%b" % (head.encode(), len(body), body))
    await reader.readuntil(b"\r\n\r\n")

    async def read() -> None:
        while True:
            message = await reader.readuntil(b"\n\n")
            if b"event: next" in message:
                seen.take(message)

    async with running(read()):
        yield
    writer.close()


BARE = """
import asyncio, sys, uvloop

async def main():
    transports = []

    class Subscriber(asyncio.Protocol):
        def connection_made(self, transport):
            transports.append(transport)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Subscriber, "127.0.0.1", 0, backlog=2000)
    print(server.sockets[0].getsockname()[1], flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while events := await asked.readline():
        message = b"event: next\\ndata: " + int(events) * (b'{"kind":' + b"x" * 260 + b"}") + b"\\n\\n"
        for transport in transports:
            transport.write(message)

uvloop.run(main())
"""


@asynccontextmanager
async def by_nothing(port: int, seen: Seen) -> AsyncIterator[None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def read() -> None:
        while True:
            seen.take(await reader.readuntil(b"\n\n"))

    async with running(read()):
        yield
    writer.close()


async def bare(subscribers: int, size: int, goes: int) -> float:
    """Microseconds for each event and subscriber, where a server does nothing but write."""
    seen = Seen()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BARE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with AsyncExitStack() as open:
            for _ in range(subscribers):
                await open.enter_async_context(by_nothing(port, seen))
            await asyncio.sleep(1)
            before = cpu(process.pid)
            for n in range(3 * goes):
                process.stdin.write(b"%d\n" % size)
                await asyncio.sleep(PACE)
                while seen.events < (n + 1) * size * subscribers:
                    await asyncio.sleep(0.01)
            return (cpu(process.pid) - before) / seen.events * 1e6
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


TRANSPORTS: dict[str, Subscriber] = {"websocket": by_websocket, "SSE": by_sse}


class Work:
    """Creates and completes tasks, so many at a time."""

    def __init__(self, client: Client, group: str, size: int) -> None:
        self._client, self._group, self._size = client, group, size
        self._leases: list[dict[str, str]] = []

    async def create(self) -> None:
        await self._client.ask(TASKS, {"input": {"groupId": self._group, "tasks": [new_task()] * self._size}})

    async def claim(self) -> None:
        claim = {"workerId": "w", "channels": [NOOP], "limit": self._size, "claimId": str(uuid.uuid4())}
        leases = (await self._client.ask(CLAIM, {"claim": claim}))["claimTasks"]["leases"]
        self._leases = [{"lease": lease["id"]} for lease in leases]
        assert len(leases) == self._size, f"{len(leases)} tasks claimed instead of {self._size}"

    async def complete(self) -> None:
        await self._client.ask(COMPLETE, {"done": {"results": self._leases}})


async def paced(work: Work, goes: int, arrived: Callable[[], int], subscribers: int) -> None:
    """Each change, and no other before PACE is over and nothing more comes in."""
    for _ in range(goes):
        for change in (work.create, work.claim, work.complete):
            due = time.perf_counter() + PACE
            before = arrived()
            await change()
            await asyncio.sleep(due - time.perf_counter())
            give_up = time.monotonic() + 30
            while subscribers and (arrived() == before or arrived() % subscribers):
                if time.monotonic() > give_up:
                    raise RuntimeError(f"{arrived() - before} events came in, to {subscribers} subscribers")
                await asyncio.sleep(0.01)


async def measured(
    server: ServerProcess, subscriber: Subscriber, subscribers: int, size: int, goes: int
) -> tuple[float, Seen]:
    """Seconds of CPU of so many changes, and what the subscribers had of them."""
    seen = Seen()
    async with AsyncExitStack() as open:
        client = await open.enter_async_context(Client("127.0.0.1", server.port))
        group = (await client.ask(GROUP, {"input": {"name": "fan-out"}}))["createTaskGroup"]["taskGroup"]["id"]
        for _ in range(subscribers):
            await open.enter_async_context(subscriber(server.port, seen))
        work = Work(client, group, size)
        await asyncio.sleep(1)
        seen.events = 0  # Some were there before the others.
        await paced(work, 2, lambda: seen.events, subscribers)
        seen.events = seen.messages = 0
        before = cpu(server.process.pid)
        await paced(work, goes, lambda: seen.events, subscribers)
        await asyncio.sleep(2)
        return cpu(server.process.pid) - before, replace(seen)


async def one_round(server: ServerProcess, subscribers: int, tasks: int) -> Round:
    """Microseconds for each event and subscriber."""
    found: Round = {}
    for how, size in (("one at a time", 1), (f"in batches of {BATCH}", BATCH)):
        values = found[f"an event to each of {subscribers:,} subscribers, tasks {how}", "µs"] = {}
        for transport, subscriber in TRANSPORTS.items():
            alone, _ = await measured(server, subscriber, 0, size, tasks)
            used, seen = await measured(server, subscriber, subscribers, size, tasks)
            values[transport] = (used - alone) / seen.events * 1e6
            had = f"{seen.events:,} events in {seen.messages:,} messages"
            print(f"{transport}, tasks {how}: {used:.2f} s less {alone:.2f} s for {had}", file=sys.stderr)
        values["bare"] = await bare(subscribers, size, tasks)
    return found


def show(figures: list[Figure]) -> None:
    for figure in figures:
        print(f"{figure.name}: server CPU, {figure.unit}, median (lowest – highest)")
        for transport, values in figure.series.items():
            print(f"  {transport:12} {spread(values)}")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--subscribers", type=int, default=1000)
    arguments.add_argument("--tasks", type=int, default=40)
    given = arguments.parse_args()
    with served() as server:
        kept = each_round(given.rounds, lambda _: uvloop.run(one_round(server, given.subscribers, given.tasks)))
    show(kept)
    if given.save:
        save("fanout", kept)


if __name__ == "__main__":
    main()
