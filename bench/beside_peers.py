"""Crew and its peers in turn, on one PostgreSQL, in one run, each through its own public API and SDK.

    QB=… python -m bench.beside_peers HARNESS_DIR [--rounds 3] [--peers graphile,pgqueuer,absurd,pgboss] [--snapshot]
      [--only PART …] [--save]

HARNESS_DIR is a copy of the peer harness: its README says how to set it up; its PostgreSQL must be running, and the peers'
templates made by its `bench.py setup`. What is measured, and how, it says, too; Crew is two peers of it: `crew` works by long
poll, `crew_ws` by websocket; where ten create, `crew_shared` is ten callers in one program, which share a client. `bare` is none:
the least that a queue behind HTTP can do (bench/bare_queue.py), for what can be reached at all. Part by part, and in each round of
it all take turns in random order, within a minute: the machine is not the same for an hour.
`--snapshot`: a drain while another transaction holds a snapshot.
Prints medians, and Crew over the best of the others as the median of each round's ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.harness import BARE, OURS, SHARED
from bench.results import Figure, add_argument, save, spread

ROUND = {
    "create one by one, 1 client": ("enqueue1", "rate", "tasks/s"),
    "create one by one, 10 clients": ("enqueue10", "rate", "tasks/s"),
    "create in bulk": ("bulk", "rate", "tasks/s"),
    "drain, 1 worker process": ("drain1", "rate", "tasks/s"),
    "drain, 2 worker processes": ("drain2", "rate", "tasks/s"),
    "pick-up, p50": ("latency", "p50", "ms"),
    "pick-up, p99": ("latency", "p99", "ms"),
}
SNAPSHOT = {
    "drain under an open snapshot": ("longtx", "rate", "tasks/s"),
    "last tenth of it over the first": ("longtx", "ratio", "times"),
}
Values = dict[str, dict[str, dict[int, float]]]
"""Figure → peer → round → value."""


PARTS = ("enqueue1", "enqueue10", "drain1", "drain2", "latency")


def measured(home: Path, peers: list[str], rounds: int, snapshot: bool, parts: Sequence[str]) -> Values:
    results = Path(os.environ.get("QB", "/tmp/qb"), "results", "peers.jsonl")
    seen = len(results.read_text().splitlines()) if results.exists() else 0

    def harness(*given: str) -> None:
        command = '. ./env.sh && exec python -P "$@"'  # -P: bench/http.py is not the library's http.
        script = str(Path(__file__).with_name("harness.py"))
        run = ["bash", "-c", command, "bash", script, str(home), sys.executable, *given]
        subprocess.run(run, cwd=home, check=True, stdout=sys.stderr)

    harness("setup", *OURS, SHARED, BARE)
    everyone = [*OURS, BARE, *peers]
    for part in parts:
        shared = [SHARED] * (part == "enqueue10")
        harness("round", *everyone, *shared, "--rounds", str(rounds), "--parts", part)
    if snapshot:
        harness("longtx", *everyone, "--rounds", "1", "--jobs", "100000", "--cap", "40")
    found: Values = defaultdict(lambda: defaultdict(dict))
    for line in results.read_text().splitlines()[seen:]:
        told = json.loads(line)
        for figure, (part, field, _) in {**ROUND, **SNAPSHOT}.items():
            if told["part"] == part and field in told:
                found[figure][told["peer"]][told["round"]] = told[field]
        if "error" in told:
            print(told["peer"], told["part"], told["error"], file=sys.stderr)
    return found


def kept(found: Values, peers: list[str]) -> list[Figure]:
    """Of each figure the rounds in which everyone who ever gave a value gave one."""
    figures = []
    for name, by_peer in found.items():
        rounds = sorted(set.intersection(*(set(values) for values in by_peer.values())))
        series = {who: [by_peer[who][n] for n in rounds] for who in (*OURS, SHARED, BARE, *peers) if who in by_peer}
        figures.append(Figure(name, (ROUND | SNAPSHOT)[name][2], series))
    return figures


def table(found: Values, peers: list[str]) -> list[str]:
    everyone = [*OURS, SHARED, BARE, *peers]
    lines = [
        f"| | {' | '.join(everyone)} | best of ours / best of the others |",
        f"|---|{'---:|' * (len(everyone) + 1)}",
    ]
    for figure, by_peer in found.items():
        unit = (ROUND | SNAPSHOT)[figure][2]
        best = min if unit == "ms" else max
        rounds = {n for values in by_peer.values() for n in values}
        ratios = []
        for n in rounds:
            ours = [by_peer[name][n] for name in OURS if n in by_peer[name]]
            others = [by_peer[name][n] for name in peers if n in by_peer[name]]
            if ours and others:
                ratios.append(best(ours) / best(others))
        cells = [f"{statistics.median(v):,.4g}" if (v := list(by_peer[name].values())) else "–" for name in everyone]
        lines.append(f"| {figure}, {unit} | {' | '.join(cells)} | {spread(ratios)} |")
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("harness", type=Path)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--peers", default="graphile,pgqueuer,absurd,pgboss")
    arguments.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    arguments.add_argument("--snapshot", action="store_true")
    add_argument(arguments)
    given = arguments.parse_args()
    peers = given.peers.split(",")
    found = measured(given.harness, peers, given.rounds, given.snapshot, given.only)
    print("\n".join(table(found, peers)))
    if given.save:
        options = [f"--rounds {given.rounds}", f"--peers {given.peers}", *["--snapshot"] * given.snapshot]
        options += ["--only"] * (given.only != PARTS)
        save("beside_peers", kept(found, peers), ["HARNESS_DIR", *options])


if __name__ == "__main__":
    main()
