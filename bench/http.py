"""GraphQL over HTTP beside a bare Starlette endpoint: requests/s of operations that do nothing, and of 100 tasks with 10 fields.

    python -m bench.http [--rounds 5] [--seconds 3] [--save]

The endpoint runs in a process of its own on the same uvicorn, with the same loop, parser and settings (bench/bare.py): it reads a
body of JSON, and answers a small object, or the very bytes that Crew answered. Both are asked over 16 kept-alive connections, in
turn within a round, by a client that sends ready bytes and counts what comes back. Ratios inside one round count.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import httpx
import orjson
import uvloop

from bench.client import Client
from bench.results import Figure, Round, each_round, parser, save, spread
from bench.throughput import GROUP, crew, fresh_database, new_task
from db.migrate import migrate
from server.cli import _free_port

CONNECTIONS = 16
FIELDS = "id name channel workgroup state priority attempt remainingAttempts createdAt input"
LIST = "100 tasks of 10 fields"
OPERATIONS = {
    "a query of __typename": ("{ __typename }", "/json"),
    "a mutation of __typename": ("mutation { __typename }", "/json"),
    LIST: (f"{{ tasks(first: 100) {{ nodes {{ {FIELDS} }} }} }}", "/bytes"),
}
CREW, BARE = "crew", "bare Starlette"


class Asking(asyncio.Protocol):
    """One connection that asks again as soon as it has an answer; each is as long as the first."""

    def __init__(self, request: bytes, length: int) -> None:
        self._request, self._length = request, length
        self._got = 0
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got += len(data)
        if self._got >= self._length:
            self._got -= self._length
            self.answered += 1
            self.transport.write(self._request)


def request(port: int, path: str, query: str) -> bytes:
    body = orjson.dumps({"query": query})
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return b"%bcontent-length: %d\r\n\r\n%b" % (head.encode(), len(body), body)


async def whole_answer(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
    writer.close()
    if not head.startswith(b"HTTP/1.1 200") or b'"errors"' in body:
        raise RuntimeError((head + body).decode())
    return head + body


async def rate(port: int, sent: bytes, seconds: float) -> float:
    """Requests/s, after a tenth of that time to warm up."""
    answer = await whole_answer(port, sent)
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Asking(sent, len(answer)), "127.0.0.1", port) for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(seconds / 10)
    start, before = time.perf_counter(), sum(asking.answered for _, asking in made)
    await asyncio.sleep(seconds)
    found = (sum(asking.answered for _, asking in made) - before) / (time.perf_counter() - start)
    for transport, _ in made:
        transport.abort()
    if not found:
        raise RuntimeError("no request was answered")
    return found


@contextmanager
def bare(body: bytes) -> Iterator[int]:
    """The endpoint's process; its port."""
    port = _free_port()
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        process = subprocess.Popen([sys.executable, "-m", "bench.bare", str(port), file.name])
        try:
            give_up = time.monotonic() + 30
            while True:
                try:
                    httpx.post(f"http://127.0.0.1:{port}/json", json={}, timeout=2).raise_for_status()
                    break
                except httpx.TransportError:
                    if time.monotonic() > give_up or process.poll() is not None:
                        raise
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(30)


async def hundred_tasks(port: int) -> bytes:
    """Creates them; the body of the list."""
    async with Client("127.0.0.1", port) as client:
        await client.ask(GROUP, {"input": {"name": "bench", "tasks": [new_task()] * 100}})
    answer = await whole_answer(port, request(port, "/graphql", OPERATIONS[LIST][0]))
    return answer.partition(b"\r\n\r\n")[2]


async def one_round(crew_port: int, bare_port: int, seconds: float, bare_first: bool) -> Round:
    found: Round = {}
    for name, (query, path) in OPERATIONS.items():
        asked = {CREW: (crew_port, "/graphql"), BARE: (bare_port, path)}
        values = found[name, "requests/s"] = {}
        for who in reversed(asked) if bare_first else asked:
            port, at = asked[who]
            values[who] = await rate(port, request(port, at, query), seconds)
    return found


def show(figures: list[Figure]) -> None:
    print(f"{'requests/s, median (lowest – highest)':40} {CREW:>26} {BARE:>26}  ratio")
    for figure in figures:
        cells = [spread(figure.series[who], 0) for who in (CREW, BARE)]
        print(f"{figure.name:40} {cells[0]:>26} {cells[1]:>26}  {spread(figure.ratio(CREW, BARE))}")


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--seconds", type=float, default=3)
    given = arguments.parse_args()
    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        with crew(dsn) as (_, port), bare(uvloop.run(hundred_tasks(port))) as other:
            kept = each_round(
                given.rounds, lambda n: uvloop.run(one_round(port, other, given.seconds, bare_first=bool(n % 2)))
            )
    show(kept)
    if given.save:
        save("http", kept)


if __name__ == "__main__":
    main()
