"""PostgreSQL stops under steady load, by a fast shutdown and by kill -9; the server that owns it starts it again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import uvloop

from bench.faults.load import Load, Spell
from bench.faults.stage import LOST, Pair, counts, served
from tests.support.process import ServerProcess

WAYS = {"a fast restart": signal.SIGINT, "a kill -9": signal.SIGKILL}


async def spell(seconds: float) -> Spell:
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    return begin, time.perf_counter()


async def under_load(server: ServerProcess, way: str, seconds: float) -> list[Pair]:
    load = Load(server)
    await load.start()
    await asyncio.sleep(2)
    calm = await spell(seconds)
    os.kill(server.postmaster, WAYS[way])
    fault = await spell(seconds)
    after = await spell(seconds)
    await load.stop()
    made = {"SUCCEEDED": len(load.made)}
    ended = await counts(server, load.group)
    return [
        Pair(f"rate in the {seconds:g} s from {way} of PostgreSQL on", "tasks/s", load.rate(calm), load.rate(fault)),
        Pair(f"rate in the {seconds:g} s after that, {way}", "tasks/s", load.rate(calm), load.rate(after)),
        Pair(
            f"longest time without an answer, {way}",
            "ms",
            load.longest_gap(calm),
            load.longest_gap(fault),
        ),
        Pair(f"time of a call, p99, {way}", "ms", load.p99(calm), load.p99(fault)),
        Pair(f"tasks lost or run twice, {way}", LOST, None, load.wrong + (ended != made)),
    ]


def measure(quick: bool) -> list[Pair]:
    found = []
    for way in WAYS:
        with served() as server:
            found += uvloop.run(under_load(server, way, 4 if quick else 10))
    return found
