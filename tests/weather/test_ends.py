"""What a thousand clients leave behind that end without a word: no task, no socket, no memory, within 30 s."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import random
import socket
import struct
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.streams import EVENTS, PUSH, Served, served
from tests.support.wait import until
from tests.support.weather.packets import Link, behind, why_not

SECONDS = 30
CREATE = "mutation($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } } }"
LOOPS, POOL = 5, 16
"""What of its tasks and sockets a server itself has more or less of at times."""
_RST = struct.pack("ii", 1, 0)


class Raw:
    """A client on a bare socket, which answers nothing that it is sent."""

    def __init__(self, url: str, receive_buffer: int | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    async def _say(self, data: bytes, until: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.socket, data)
        heard = b""
        async with asyncio.timeout(20):
            while until not in heard:
                heard += (got := await loop.sock_recv(self.socket, 4096))
                assert got, f"closed after {heard!r}"

    async def subscribe(self, transport: str, query: str, **variables: Any) -> Raw:
        """Connected, and told the first message."""
        await asyncio.get_running_loop().sock_connect(self.socket, (self._host, self._port))
        payload = {"query": query, "variables": variables}
        if transport == "sse":
            body = json.dumps(payload).encode()
            head = "POST /graphql HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n"
            await self._say(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, b"event: next")
            return self
        key = base64.b64encode(random.randbytes(16)).decode()
        head = "GET /graphql HTTP/1.1\r\nHost: [::1]\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        protocol = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n"
        await self._say(f"{head}{protocol}Sec-WebSocket-Key: {key}\r\n\r\n".encode(), b"\r\n\r\n")
        await self._say(_frame({"type": "connection_init"}), b"connection_ack")
        await self._say(_frame({"type": "subscribe", "id": "1", "payload": payload}), b'"next"')
        return self

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self.socket.close()


def _frame(message: Any) -> bytes:
    """A masked text frame of under 64 kB."""
    data = json.dumps(message).encode()
    length = bytes([128 | len(data)]) if len(data) < 126 else bytes([128 | 126]) + struct.pack("!H", len(data))
    return b"\x81" + length + bytes(4) + data


def kind(n: int) -> tuple[str, str, dict[str, Any]]:
    """The n-th client: transport, subscription, variables. Subscribers and workers on both streams."""
    transport = ("websocket", "sse")[n % 2]
    if n // 2 % 2:
        return transport, EVENTS, {}
    return transport, PUSH, {"input": {"workerId": f"w{n}", "channels": ["c"]}}


async def subscribed(url: str, numbers: range) -> list[Raw]:
    limit = asyncio.Semaphore(50)

    async def one(n: int) -> Raw:
        async with limit:
            transport, query, variables = kind(n)
            return await Raw(url).subscribe(transport, query, **variables)

    return list(await asyncio.gather(*(one(n) for n in numbers)))


def sockets_of(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def left(server: Served) -> tuple[tuple[int, int, int], int, int]:
    """Listeners, streams and claims that wait; tasks; sockets."""
    services = server.services
    places = services.log.listeners, services.push.open, services.dispatcher.waiting
    return places, len(asyncio.all_tasks()), sockets_of("self")


def kinds() -> Counter[str]:
    """How many objects there are of each type."""
    return Counter(type(thing).__qualname__ for thing in gc.get_objects())


async def freed(server: Served, before: tuple[Any, int, int]) -> None:
    async def free() -> bool:
        places, tasks, sockets = left(server)
        return places == (0, 0, 0) and tasks <= before[1] + LOOPS and sockets <= before[2] + POOL

    await until(free, SECONDS)


async def test_a_thousand_ends_leave_nothing(dsn: str) -> None:
    """Reset; silent, without a pong; reading no more while much is told."""
    async with served(dsn) as server:
        async with httpx.AsyncClient(verify=False, timeout=30) as http:
            before = left(server)
            for client in await subscribed(server.url, range(200)):
                client.reset()
            await freed(server, before)
            del client
            gc.collect()
            objects = kinds()

            with ExitStack() as kept:
                resetting = await subscribed(server.url, range(900))
                silent = await subscribed(server.url, range(1000, 1160, 2))
                stuck = []
                for n in range(20):
                    stuck.append(await Raw(server.url, 4096).subscribe(("websocket", "sse")[n % 2], EVENTS))
                for client in (*silent, *stuck):
                    kept.callback(client.socket.close)
                assert left(server)[0][:2] == (450 + 40 + 20, 450 + 40)
                for client in resetting:
                    client.reset()
                began = time.monotonic()
                tasks = [{"name": f"task {n}", "channel": "other"} for n in range(1000)]
                for _ in range(5):
                    created = await http.post(
                        server.url, json={"query": CREATE, "variables": {"input": {"name": "g", "tasks": tasks}}}
                    )
                    assert "errors" not in created.json()
                ours = len(silent) + len(stuck)
                await freed(server, (*before[:2], before[2] + ours))
                assert time.monotonic() - began < SECONDS
        await freed(server, before)
        del resetting, silent, stuck, client  # the test's own ends
        gc.collect()
        grown = kinds() - objects
        assert grown.total() < 5_000, (
            f"five for each end at most, where the log keeps what was told: {grown.most_common(10)}"
        )


async def test_clients_whose_packets_come_no_more_are_let_go(dsn: str) -> None:
    """Half-open: no FIN and no answer, on both streams."""
    if reason := why_not():
        pytest.skip(reason)
    link = Link(lost=0, doubled=0, delay=0, jitter=0)
    async with behind(link, dsn, seed=1) as (url, pid):
        async with httpx.AsyncClient(verify=False) as http:
            await http.post(url, json={"query": "{ __typename }"})
            before = sockets_of(pid)
            clients = await subscribed(url, range(100))
            assert sockets_of(pid) >= before + 100
        link.lost = 1
        began = time.monotonic()

        async def free() -> bool:
            return sockets_of(pid) <= before + POOL

        await until(free, SECONDS + 3)
        assert time.monotonic() - began < SECONDS + 3
        for client in clients:
            client.socket.close()
