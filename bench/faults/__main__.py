"""Throughput and latency in bad weather, each fault beside the calm in one run.

    python -m bench.faults [--quick] [--only NAME …] [--rounds 3] [--save]

    snapshot    another transaction holds a snapshot while tasks are drained
    restart     PostgreSQL is restarted, and killed, under load
    workers     a worker process is killed each second
    waiting     a million tasks are blocked, scheduled, suspended, and all of these
    finished    ten million finished tasks are kept
    idle        a thousand workers wait, by long poll and by websocket
    reconnects  five hundred websockets are dropped at once, again and again
    suspend     a workgroup of 100,000 ready tasks is suspended and resumed

Each part has servers of its own, each with a fresh embedded PostgreSQL (fsync on). Only ratios inside one run mean something:
clients, servers and PostgreSQL share the machine. Ends with 1 when a task was lost or ended twice.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys

from bench.faults import crowds, idle, reconnects, restart, snapshot, suspend, workers
from bench.faults.stage import LOST, Pair, Part, each_round
from bench.results import Figure, add_argument, save

PARTS: dict[str, Part] = {
    "snapshot": each_round(snapshot.measure),
    "restart": each_round(restart.measure),
    "workers": each_round(workers.measure),
    "waiting": crowds.waiting,
    "finished": crowds.finished,
    "idle": each_round(idle.measure),
    "reconnects": each_round(reconnects.measure),
    "suspend": each_round(suspend.measure),
}


def figures(rounds: list[list[Pair]]) -> list[Figure]:
    """Of all rounds, each of which has the same pairs in the same order."""
    found = []
    for pairs in zip(*rounds, strict=True):
        series = {"calm": [p.calm for p in pairs if p.calm is not None], "fault": [p.fault for p in pairs]}
        found.append(Figure(pairs[0].name, pairs[0].unit, {who: values for who, values in series.items() if values}))
    return found


def table(name: str, found: list[Figure]) -> str:
    width = max(len(f.name) for f in found)
    lines = [f"\n{name:{width + 2}} {'calm':>10} {'fault':>10} {'':10} {'ratio':>6}"]
    for f in found:
        calm = f"{f.median('calm'):,.2f}" if "calm" in f.series else "–"
        ratios = f.ratio("fault", "calm") if "calm" in f.series else []
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        lines.append(f"  {f.name:{width}} {calm:>10} {f.median('fault'):>10,.2f} {f.unit:10} {ratio:>6}")
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m bench.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--quick", action="store_true", help="A tenth or less of everything, for a look.")
    arguments.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME")
    arguments.add_argument("--rounds", type=int, default=3)
    add_argument(arguments)
    given = arguments.parse_args()
    kept: list[Figure] = []
    for name in given.only or PARTS:
        print(f"{name} …", file=sys.stderr, flush=True)
        with contextlib.closing(PARTS[name](given.quick)) as rounds:
            found = figures(list(itertools.islice(rounds, given.rounds)))
        print(table(name, found), flush=True)
        kept += found
    if given.save:
        save("faults", kept, [word for word in sys.argv[1:] if word != "--save"])
    sys.exit(any(f.unit == LOST and sum(f.series["fault"]) for f in kept))


if __name__ == "__main__":
    main()
