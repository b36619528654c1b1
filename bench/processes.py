"""What more server processes give: 1, 2 and 4 of them on one port and one database, which share nothing but that.

    python -m bench.processes [--rounds 3] [--tasks 40000] [--save]

Creating by 10 clients one by one, creating in batches of 500 and draining in batches of 500 by 8 clients: tasks a second. Clients,
servers and PostgreSQL share the machine, so on two cores there is little to gain; the figure is what sharing costs, or gives.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict

import uvloop

from bench.results import Figure, Round, each_round, parser, save, spread
from bench.throughput import created_in_bulk, created_one_by_one, crew, drained, fresh_database
from db.migrate import migrate

PROCESSES = (1, 2, 4)
ONE = "1 process"
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


def one_round(n: int, tasks: int) -> Round:
    found: Round = defaultdict(dict)
    for count in PROCESSES if n % 2 == 0 else PROCESSES[::-1]:
        for what, rate in with_processes(count, tasks).items():
            found[what, "tasks/s"][f"{count} process{'es' * (count > 1)}"] = rate
    return found


def show(figures: list[Figure]) -> None:
    for figure in figures:
        print(figure.name)
        for who, rates in figure.series.items():
            print(f"  {who:12} {spread(rates, 0):>26}  × {spread(figure.ratio(who, ONE))}")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tasks", type=int, default=40_000)
    given = arguments.parse_args()
    kept = each_round(given.rounds, lambda n: one_round(n, given.tasks))
    show(kept)
    if given.save:
        save("processes", kept)


if __name__ == "__main__":
    main()
