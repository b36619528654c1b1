"""Where the CPU of a task goes: to the client or worker (Python SDK), to the server, and to PostgreSQL.

    python -m bench.shares [--rounds 3] [--tasks 30000] [--save]

Creating in bulk and draining, as in bench.beside_peers: microseconds of CPU a task, as the kernel counts them for each process. On
a machine with n cores nothing is faster than n × 1,000,000 / their sum.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench.results import Round, each_round, parser, save, spread
from bench.throughput import NOOP, PAYLOAD
from crew_worker import Crew
from tests.support.process import server_process

TICKS = os.sysconf("SC_CLK_TCK")
CHUNK = 2000


def processes() -> Iterator[tuple[int, str, float]]:
    """Number, name and seconds of CPU of every process."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            before, _, after = place.read_text().rpartition(")")
        except OSError:
            continue
        fields = after.split()
        yield int(place.parent.name), before.partition("(")[2], (int(fields[11]) + int(fields[12])) / TICKS


def spent(server: int) -> dict[str, float]:
    """Seconds of CPU so far. (What a connection of PostgreSQL that has ended took is not in it: the pool keeps its own.)"""
    found = {"client": time.process_time(), "server": 0.0, "PostgreSQL": 0.0}
    for number, name, seconds in processes():
        if number == server:
            found["server"] += seconds
        elif name.startswith("postgres"):
            found["PostgreSQL"] += seconds
    return found


async def created(crew: Crew, tasks: int) -> None:
    group = crew.group("bench")
    for _ in range(tasks):
        group.task(NOOP, PAYLOAD)
    await group.send()


async def drained(url: str, tasks: int) -> None:
    crew, done = Crew(url, concurrency=1000, transport="long-poll"), 0

    @crew.task(NOOP)
    async def noop(task: object) -> None:
        nonlocal done
        done += 1
        if done == tasks:
            crew.stop()

    await crew.work()
    await crew.close()


async def measured(url: str, server: int, tasks: int) -> Round:
    found: Round = {}
    async with Crew(url) as crew:
        await created(crew, CHUNK)
        await drained(url, CHUNK)
        for what, work in (("create in bulk", created(crew, tasks)), ("drain", drained(url, tasks))):
            before, began = spent(server), time.perf_counter()
            await work
            after = spent(server)
            shares = {who: (after[who] - before[who]) / tasks * 1e6 for who in before}
            found[f"CPU of a task, {what}", "µs"] = {**shares, "all": sum(shares.values())}
            found[f"cores that were busy, {what}", "cores"] = {
                "all": sum(shares.values()) * tasks / 1e6 / (time.perf_counter() - began)
            }
    return found


def one_round(tasks: int) -> Round:
    with server_process() as server:
        server.start()
        return uvloop.run(measured(server.url, server.process.pid, tasks))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tasks", type=int, default=30_000)
    given = arguments.parse_args()
    found = each_round(given.rounds, lambda _: one_round(given.tasks))
    for figure in found:
        for who, values in figure.series.items():
            print(f"{figure.name:40} {who:12} {spread(values, 1)} {figure.unit}")
    if given.save:
        save("shares", found)


if __name__ == "__main__":
    main()
