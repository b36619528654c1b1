"""Five hundred websocket subscribers whose connections all drop at once, every two seconds, while others work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import uvloop

from bench.faults.load import Load
from bench.faults.socket import Socket
from bench.faults.stage import LOST, Pair, counts, quantile, served
from tests.support.process import ServerProcess

SOCKETS = 500
EVERY = 2.0


async def subscribed(server: ServerProcess, n: int) -> Socket:
    """Waits for work in channels where there is none; tries until it stands."""
    while True:
        try:
            given = {"workerId": f"s{n}", "channels": [f"quiet-{n % 10}"]}
            return await Socket.subscribed("127.0.0.1", server.port, given)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)


class Crowd:
    """All the subscribers, whose pings are answered while nothing drops."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._sockets: list[Socket] = []
        self._reading: list[asyncio.Task[object]] = []

    async def stand(self) -> float:
        """Connects all at once; the seconds until the last one stands."""
        start = time.perf_counter()
        self._sockets = await asyncio.gather(*(subscribed(self._server, n) for n in range(SOCKETS)))
        self._reading = [asyncio.create_task(self._read(socket)) for socket in self._sockets]
        return time.perf_counter() - start

    async def drop(self) -> None:
        ended = [n for n, reading in enumerate(self._reading) if reading.done()]
        if ended:
            raise RuntimeError(f"{len(ended)} subscriptions had ended by themselves")
        for reading in self._reading:
            reading.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        for socket in self._sockets:
            socket.cut()

    async def _read(self, socket: Socket) -> None:
        while True:
            await socket.next("next")


async def timed(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    start = time.perf_counter()
    await work()
    return start, time.perf_counter()


async def under_load(server: ServerProcess, seconds: float) -> list[Pair]:
    load, crowd = Load(server), Crowd(server)
    alone = await crowd.stand()
    times: list[float] = []

    async def dropping() -> None:
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            await crowd.drop()
            times.append(await crowd.stand())
            await asyncio.sleep(begun + EVERY - time.perf_counter())

    await load.start()
    await asyncio.sleep(2)
    calm = await timed(lambda: asyncio.sleep(seconds))
    fault = await timed(dropping)
    await crowd.drop()
    await load.stop()
    wrong = load.wrong + (await counts(server, load.group) != {"SUCCEEDED": len(load.made)})
    while_dropped = f"while {SOCKETS} websockets drop every {EVERY:g} s"
    return [
        Pair(f"steady work {while_dropped}", "tasks/s", load.rate(*calm), load.rate(*fault)),
        Pair(f"time of a call {while_dropped}, p99", "ms", load.p99(*calm), load.p99(*fault)),
        Pair(
            f"until all {SOCKETS} stand again under load, median; calm: without load", "s", alone, quantile(times, 0.5)
        ),
        Pair(f"until all {SOCKETS} stand again under load, longest; calm: without load", "s", alone, max(times)),
        Pair(f"tasks lost or run twice {while_dropped}", LOST, None, wrong),
    ]


def measure(quick: bool) -> list[Pair]:
    with served() as server:
        return uvloop.run(under_load(server, 6 if quick else 20))
