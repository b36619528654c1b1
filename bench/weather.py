"""Workers and subscribers in bad weather: what each fault costs on each transport, and whether anything is lost.

    python -m bench.weather [--seconds 20] [--seed 1] [--write]

A server process with its defaults on a fresh database; for each fault a worker and a subscriber of each transport, each behind
a rough line of its own (tests/support/weather), while graphs of tasks come in for --seconds. --write puts the tables into
docs/weather.md, between its marks. Minutes; the last fault needs root and TUN devices.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from bench.throughput import crew, fresh_database
from db.migrate import migrate
from tests.support.weather.clients import Patience
from tests.support.weather.line import FAULTS
from tests.support.weather.packets import Link, behind, why_not
from tests.support.weather.run import Cell, run

PACKETS = "packets"
GRACE = 60.0
PAGE = Path(__file__).parents[1] / "docs" / "weather.md"
BEGIN, END = "<!-- begin: python -m bench.weather --write -->", "<!-- end -->"


def quantile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def table(cells: list[Cell], role: str) -> str:
    lag, wrong = ("pick-up", "lost | doubled") if role == "worker" else ("event", "missed | repeated")
    unit = "tasks" if role == "worker" else "events"
    lines = [
        f"| fault | transport | {unit} | faults | {lag} p50 | p99 | back after, p50 | longest | {wrong} |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in cells:
        if cell.role == role:
            a, b = (cell.lost, cell.doubled) if role == "worker" else (cell.missed, cell.repeated)
            times = [
                quantile(cell.lags, 0.5),
                quantile(cell.lags, 0.99),
                quantile(cell.recoveries, 0.5),
                quantile(cell.recoveries, 1),
            ]
            shown = " | ".join(span(t) for t in times)
            lines.append(
                f"| {cell.fault} | {cell.transport} | {len(cell.lags):,} | {cell.faults} | {shown} | {a} | {b} |"
            )
    return "\n".join(lines)


def measured(seconds: float, seed: int) -> list[Cell]:
    cells: list[Cell] = []
    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        with crew(dsn) as (host, port):
            for fault in FAULTS:
                cells += asyncio.run(run(f"http://{host}:{port}/graphql", fault, seed, seconds, Patience(), GRACE))
                print(f"{fault}: {'nothing lost' if all(c.whole for c in cells) else 'NOT WHOLE'}", file=sys.stderr)
        if reason := why_not():
            print(f"{PACKETS}: left out, {reason}", file=sys.stderr)
        else:
            cells += asyncio.run(over_packets(dsn, seconds, seed))
    return cells


async def over_packets(dsn: str, seconds: float, seed: int) -> list[Cell]:
    link = Link()
    async with behind(link, dsn, seed) as (url, _):
        cells = await run(url, "none", seed, seconds, Patience(answer=5, ping=5), GRACE)
    for cell in cells:
        cell.fault, cell.faults = PACKETS, link.dropped
    return cells


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=20)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    cells = measured(given.seconds, given.seed)
    text = f"### Workers\n\n{table(cells, 'worker')}\n\n### Subscribers\n\n{table(cells, 'subscriber')}"
    print(text)
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    sys.exit(not all(cell.whole for cell in cells))


if __name__ == "__main__":
    main()
