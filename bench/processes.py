"""What more server processes give: 1, 2 and 4 of them on one port and one database, which share nothing but that.

    python -m bench.processes [--rounds 3] [--tasks 40000] [--save]

Creating by 10 clients one by one, creating in batches of 500 and draining in batches of 500 by 8 clients: tasks a second. Clients,
servers and PostgreSQL share the machine, so on two cores there is little to gain; the figure is what sharing costs, or gives.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from collections import defaultdict

import uvloop

from bench.results import Figure, add_argument, save
from bench.throughput import created_in_bulk, created_one_by_one, crew, drained, fresh_database
from db.migrate import migrate

PROCESSES = (1, 2, 4)
CLIENTS, BATCH = 8, 500


async def measured(host: str, port: int, tasks: int) -> dict[str, float]:
    one_by_one = await created_one_by_one(host, port, 10, 2.5)
    await drained(host, port, 1 << 60, BATCH, CLIENTS)
    shares = [created_in_bulk(host, port, tasks // CLIENTS, BATCH) for _ in range(CLIENTS)]
    return {
        "create one by one, 10 clients": one_by_one,
        "create, batches of 500, 8 clients": sum(await asyncio.gather(*shares)),
        "drain, batches of 500, 8 clients": await drained(host, port, tasks, BATCH, CLIENTS),
    }


def with_processes(count: int, tasks: int) -> dict[str, float]:
    os.environ["CREW_WORKERS"] = str(count)
    try:
        with fresh_database() as dsn:
            asyncio.run(migrate(dsn))
            with crew(dsn) as (host, port):
                return uvloop.run(measured(host, port, tasks))
    finally:
        del os.environ["CREW_WORKERS"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--tasks", type=int, default=40_000)
    add_argument(arguments)
    given = arguments.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n in range(given.rounds):
        for count in PROCESSES if n % 2 == 0 else PROCESSES[::-1]:
            print(f"round {n + 1} of {given.rounds}: {count} …", file=sys.stderr, flush=True)
            for what, rate in with_processes(count, given.tasks).items():
                found[what][f"{count} process{'es' * (count > 1)}"].append(rate)
    figures = [Figure(what, "tasks/s", dict(series)) for what, series in found.items()]
    for figure in figures:
        print(figure.name)
        for who, rates in figure.series.items():
            ratio = statistics.median(figure.ratio(who, "1 process"))
            print(f"  {who:12} {statistics.median(rates):8,.0f} ({min(rates):,.0f} – {max(rates):,.0f})  × {ratio:.2f}")
    if given.save:
        save("processes", figures, [f"--rounds {given.rounds}"])


if __name__ == "__main__":
    main()
