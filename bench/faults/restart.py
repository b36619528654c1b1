"""PostgreSQL stops under steady load, by a fast shutdown and by kill -9; the server that owns it starts it again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import uvloop

from bench.faults.load import Load
from bench.faults.stage import LOST, Pair, counts, served
from tests.support.process import ServerProcess

WAYS = {"a fast restart": signal.SIGINT, "a kill -9": signal.SIGKILL}


async def under_load(server: ServerProcess, way: str, seconds: float) -> list[Pair]:
    load = Load(server)
    await load.start()
    await asyncio.sleep(2)
    before = time.perf_counter()
    await asyncio.sleep(seconds)
    stopped = time.perf_counter()
    os.kill(server.postmaster, WAYS[way])
    await asyncio.sleep(seconds)
    after = time.perf_counter()
    await asyncio.sleep(seconds)
    end = time.perf_counter()
    await load.stop()
    made = {"SUCCEEDED": len(load.made)}
    ended = await counts(server, load.group)
    rate = load.rate(before, stopped)
    return [
        Pair(f"rate in the {seconds:g} s from {way} of PostgreSQL on", "tasks/s", rate, load.rate(stopped, after)),
        Pair(f"rate in the {seconds:g} s after that", "tasks/s", rate, load.rate(after, end)),
        Pair(
            f"longest time without an answer, {way}",
            "ms",
            load.longest_gap(before, stopped),
            load.longest_gap(stopped, after),
        ),
        Pair(f"time of a call, p99, {way}", "ms", load.p99(before, stopped), load.p99(stopped, after)),
        Pair(f"tasks lost or run twice, {way}", LOST, None, load.wrong + (ended != made)),
    ]


def measure(quick: bool) -> list[Pair]:
    found = []
    for way in WAYS:
        with served() as server:
            found += uvloop.run(under_load(server, way, 4 if quick else 10))
    return found
