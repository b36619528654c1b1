"""What writing the event log costs: the throughput with it, beside the same statements that write no event.

    python -m bench.events [--rounds 3] [--tasks 10000]

Both run through HTTP and straight through asyncpg, one after the other in each round, on fresh databases. The figure is the median
over the rounds of what is left of the throughput: 0.9 is a tenth lost. (Without events, nothing is counted either: the rows that
are folded into counts are those of the log.)
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys

from bench.throughput import Figures, one_round
from db import statements

_WRITES = re.compile(r"insert into event \([^)]*\)\s*")
MUTE = "from bench.events import mute; mute(); from server.cli import main; main()"


def mute() -> None:
    """No statement of this process writes an event: what would be written becomes a part that nothing reads."""
    load = statements.load.__wrapped__

    def muted(noun: str) -> dict[str, str]:
        return {name: _WRITES.sub("", text) for name, text in load(noun).items()}

    statements.load = muted  # type: ignore[assignment]
    statements.statement.cache_clear()


def loud() -> None:
    statements.load = LOAD
    statements.statement.cache_clear()


LOAD = statements.load


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--tasks", type=int, default=10_000)
    given = arguments.parse_args()
    ratios: dict[str, dict[str, list[float]]] = {}
    for n in range(given.rounds):
        found: dict[bool, dict[str, Figures]] = {}
        for silent in (True, False) if n % 2 else (False, True):
            (mute if silent else loud)()
            found[silent] = one_round(given.tasks, ["-c", MUTE] if silent else None)
        loud()
        for way, figures in found[False].items():
            for what, rate in figures.items():
                ratios.setdefault(what, {}).setdefault(way, []).append(rate / found[True][way][what])
        print(f"round {n + 1} of {given.rounds}", file=sys.stderr)
    print("| with events / without | through HTTP | asyncpg alone |\n|---|---:|---:|")
    for what, ways in ratios.items():
        print(f"| {what} | {shown(ways.get('http'))} | {shown(ways.get('asyncpg'))} |")


def shown(found: list[float] | None) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else "–"


if __name__ == "__main__":
    main()
