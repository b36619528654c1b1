"""Five hundred websocket subscribers whose connections all drop at once, again and again, while others work.

Two seconds of calm, in which all stand; then two from the drop on, or as long as it takes until all stand again.
"""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.faults.load import Load, Spell
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


async def under_load(server: ServerProcess, drops: int) -> list[Pair]:
    load, crowd = Load(server), Crowd(server)
    alone = await crowd.stand()
    times: list[float] = []

    calm: list[Spell] = []
    fault: list[Spell] = []
    await load.start()
    await asyncio.sleep(2)
    for _ in range(drops):
        begin = time.perf_counter()
        await asyncio.sleep(EVERY)
        dropped = time.perf_counter()
        await crowd.drop()
        times.append(await crowd.stand())
        await asyncio.sleep(max(0.0, dropped + EVERY - time.perf_counter()))
        calm.append((begin, dropped))
        fault.append((dropped, time.perf_counter()))
    await crowd.drop()
    await load.stop()
    wrong = load.wrong + (await counts(server, load.group) != {"SUCCEEDED": len(load.made)})
    while_dropped = f"while {SOCKETS} dropped websockets come back"
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
        return uvloop.run(under_load(server, 5 if quick else 15))
