"""What writing the event log costs: the throughput with it, beside the same statements that write no event.

    python -m bench.events [--rounds 3] [--tasks 10000] [--save]

Both run through HTTP and straight through asyncpg, one after the other in each round, on fresh databases. The figure is the median
over the rounds of what is left of the throughput: 0.9 is a tenth lost. (Without events, nothing is counted either: the rows that
are folded into counts are those of the log.)
"""

from __future__ import annotations

import re

from bench.results import Figure, Round, each_round, parser, save, spread
from bench.throughput import WAYS, Figures, one_round
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
WITH, WITHOUT = "with events", "without"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tasks", type=int, default=10_000)
    given = arguments.parse_args()
    kept = each_round(given.rounds, lambda n: measured(given.tasks, silent_first=bool(n % 2)))
    show(kept)
    if given.save:
        save("events", kept)


def measured(tasks: int, silent_first: bool) -> Round:
    found: dict[bool, dict[str, Figures]] = {}
    for silent in (True, False) if silent_first else (False, True):
        (mute if silent else loud)()
        found[silent] = one_round(tasks, ["-c", MUTE] if silent else None)
    loud()
    return {
        (f"{what}, {WAYS[way]}", "tasks/s"): {WITH: rate, WITHOUT: found[True][way][what]}
        for way, rates in found[False].items()
        for what, rate in rates.items()
    }


def show(figures: list[Figure]) -> None:
    print("| with events / without | |\n|---|---:|")
    for figure in figures:
        print(f"| {figure.name} | {spread(figure.ratio(WITH, WITHOUT))} |")


if __name__ == "__main__":
    main()
