"""A proxy in front of a Crew server that does to requests what bad networks do, as told beforehand.

It runs in a thread of its own and is told over HTTP, so that tests in any language can use it: POST to `control` a list of faults
and get the URL of a port that has them. A fault applies to the first requests that hold the text `when`:

    drop         the connection is closed before the server sees the request (after `seconds`)
    lose answer  the server does it; the connection is closed before a byte of the answer
    truncate     the server does it; the answer breaks off after `bytes`
    stall        nothing comes back, and nothing is closed
    twice        the server gets it twice; the second answer comes back
    status       the server does not see it; `status`, `body` and `retryAfter` come back
    cut          a stream (websocket, SSE) is closed after `bytes` of it
    silence      a stream goes silent after `bytes` of it, and is not closed
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
STREAM_FAULTS = ("cut", "silence")


@dataclass
class Fault:
    kind: str
    when: bytes
    times: int
    skip: int
    given: dict[str, Any]

    @classmethod
    def of(cls, given: dict[str, Any]) -> Fault:
        return cls(given["fault"], given.get("when", "").encode(), given.get("times", 1), given.get("skip", 0), given)

    def takes(self, request: bytes) -> bool:
        if not self.times or self.when not in request:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Hurdle:
    """One port with its faults."""

    def __init__(self, host: str, port: int, faults: list[Fault]) -> None:
        self._host, self._port, self._faults = host, port, faults
        self._here: set[asyncio.Task[None]] = set()

    async def serve(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._here.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._port, limit=1 << 26)
            with contextlib.closing(up_writer):
                while await self._exchange(reader, writer, up_reader, up_writer):
                    pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._here.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: Reader, writer: Writer, up_reader: Reader, up_writer: Writer) -> bool:
        """One request and its answer; whether the connection goes on."""
        request = await message(reader)
        fault = next((fault for fault in self._faults if fault.takes(request)), None)
        kind = fault.kind if fault else ""
        if fault and kind == "drop":
            await asyncio.sleep(fault.given.get("seconds", 0))
            return False
        if kind == "stall":
            await asyncio.Event().wait()
        if fault and kind == "status":
            writer.write(made_up(fault.given))
            await writer.drain()
            return True
        up_writer.write(request)
        head = await up_reader.readuntil(b"\r\n\r\n")
        if is_stream(head):
            await self._stream(head, reader, writer, up_reader, up_writer, fault)
            return False
        answer = head + await body(head, up_reader)
        if kind == "twice":
            up_writer.write(request)
            answer = await message(up_reader)
        if kind == "lose answer":
            return False
        if fault and kind == "truncate":
            writer.write(answer[: fault.given["bytes"]])
            await writer.drain()
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def _stream(
        self, head: bytes, reader: Reader, writer: Writer, up_reader: Reader, up_writer: Writer, fault: Fault | None
    ) -> None:
        left = fault.given["bytes"] if fault and fault.kind in STREAM_FAULTS else None
        upwards = asyncio.ensure_future(pump(reader, up_writer))
        writer.write(head)
        try:
            while data := await up_reader.read(1 << 16):
                if left is not None and fault and len(data) > left:
                    writer.write(data[:left])
                    await writer.drain()
                    if fault.kind == "silence":
                        await asyncio.Event().wait()
                    return
                left = left if left is None else left - len(data)
                writer.write(data)
                await writer.drain()
        finally:
            upwards.cancel()

    def close(self) -> None:
        for task in list(self._here):
            task.cancel()


async def message(reader: Reader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await body(head, reader)


async def body(head: bytes, reader: Reader) -> bytes:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line.partition(b":")[2]))
    if b"transfer-encoding: chunked" in head.lower():
        parts = []
        while True:
            size = await reader.readuntil(b"\r\n")
            parts += [size, await reader.readexactly(int(size, 16) + 2)]
            if int(size, 16) == 0:
                return b"".join(parts)
    return b""


def is_stream(head: bytes) -> bool:
    return head.startswith(b"HTTP/1.1 101") or b"text/event-stream" in head.lower()


def made_up(given: dict[str, Any]) -> bytes:
    text = given.get("body", "").encode()
    more = f"retry-after: {given['retryAfter']}\r\n" if "retryAfter" in given else ""
    more += "connection: close\r\n" if given.get("closes") else ""
    return f"HTTP/1.1 {given['status']} -\r\n{more}content-length: {len(text)}\r\n\r\n".encode() + text


async def pump(reader: Reader, writer: Writer) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


class FaultProxy:
    """`control` is where faults are asked for; `port_with` asks from this process."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname or "", parts.port or 0
        self._loop = asyncio.new_event_loop()
        self._hurdles: list[tuple[Hurdle, asyncio.Server]] = []
        self.control = ""

    def port_with(self, faults: list[dict[str, Any]]) -> str:
        """The URL of a port with these faults."""
        return asyncio.run_coroutine_threadsafe(self._open(faults), self._loop).result(10)

    async def _open(self, faults: list[dict[str, Any]]) -> str:
        hurdle = Hurdle(*self._target, [Fault.of(given) for given in faults])
        server = await asyncio.start_server(hurdle.serve, "127.0.0.1", 0, limit=1 << 26)
        self._hurdles.append((hurdle, server))
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _told(self, reader: Reader, writer: Writer) -> None:
        request = await message(reader)
        text = json.dumps({"url": await self._open(json.loads(request.partition(b"\r\n\r\n")[2]))})
        # Said, not only done: a client might send its next request on a connection that is about to close.
        writer.write(made_up({"status": 200, "body": text, "closes": True}))
        await writer.drain()
        writer.close()

    async def _serve(self, up: threading.Event, down: asyncio.Event) -> None:
        async with self._controlled() as self.control:
            up.set()
            await down.wait()

    @contextlib.asynccontextmanager
    async def _controlled(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._told, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for hurdle, port in self._hurdles:
                port.close()
                hurdle.close()
            await asyncio.sleep(0)


@contextlib.contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """In front of the server at the URL `target`."""
    proxy = FaultProxy(target)
    up, down = threading.Event(), asyncio.Event()
    thread = threading.Thread(target=lambda: proxy._loop.run_until_complete(proxy._serve(up, down)), daemon=True)
    thread.start()
    assert up.wait(10)
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(down.set)
        thread.join(10)
        proxy._loop.close()
