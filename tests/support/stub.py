"""A stub of an operator: an HTTP server that keeps what it is sent, and answers as a test says, down to the byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Cut(bytes):
    """After it the connection is closed."""


Reply = bytes | Callable[[Received], Awaitable[bytes]]


def reply(status: int = 200, body: Any = b"{}", kind: str = "application/json", **headers: str) -> bytes:
    """An HTTP response. What is not bytes is sent as JSON; underscores in names of headers are hyphens."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(content)}"]
    lines += [f"content-type: {kind}"] if kind else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@dataclass
class Stub:
    port: int
    received: list[Received] = field(default_factory=list)
    replies: deque[Reply] = field(default_factory=deque)
    """Given in turn; the default when there is none left."""
    default: Reply = field(default_factory=reply)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in head[1:] if line)}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                got = Received(method, path, headers, raw)
                self.received.append(got)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    answer = self.replies.popleft() if self.replies else self.default
                    content = answer if isinstance(answer, bytes) else await answer(got)
                finally:
                    self.at_once -= 1
                writer.write(content)
                await writer.drain()
                if isinstance(content, Cut):
                    break
        writer.close()


@contextlib.asynccontextmanager
async def stub() -> AsyncIterator[Stub]:
    serving: set[asyncio.Task[None]] = set()
    made = Stub(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await made._serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
