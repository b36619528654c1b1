"""Crew and its peers in turn, on one PostgreSQL, in one run.

    QB=… python -m bench.beside_peers HARNESS_DIR [--rounds 3] [--peers graphile,pgqueuer]

HARNESS_DIR is a copy of the peer harness (its README says how to set it up; its PostgreSQL must be running). In each round
the peers run first, then Crew (bench.throughput) on a database of its own on the same server.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

PARTS = "enqueue1,enqueue10,drain1"
OURS = {
    "enqueue1": "create one by one, 1 client",
    "enqueue10": "create one by one, 10 clients",
    "bulk": "create, batches of 500",
    "drain1": "drain, batches of 500, 1 worker process with 2 loops",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("harness", type=Path)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--peers", default="graphile,pgqueuer")
    given = arguments.parse_args()
    home = Path(os.environ.get("QB", "/tmp/qb"))
    dsn = f"postgresql://postgres@127.0.0.1:{os.environ.get('PGPORT_', '55432')}/postgres"
    peers = given.peers.split(",")
    results = home / "results" / "peers.jsonl"
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n in range(given.rounds):
        seen = len(results.read_text().splitlines()) if results.exists() else 0
        command = f". ./env.sh && python bench.py round {' '.join(peers)} --rounds 1 --first {n} --parts {PARTS}"
        subprocess.run(["bash", "-c", command], cwd=given.harness, check=True, stdout=sys.stderr)
        for line in results.read_text().splitlines()[seen:]:
            found = json.loads(line)
            if "rate" in found:
                rates[found["part"]][found["peer"]].append(found["rate"])
        with tempfile.NamedTemporaryFile("r") as out:
            run = [sys.executable, "-m", "bench.throughput", "--rounds", "1", "--out", out.name]
            subprocess.run(run, env={**os.environ, "DATABASE_URL": dsn}, check=True, stdout=sys.stderr)
            figures = json.loads(out.read().splitlines()[-1])
        for part, ours in OURS.items():
            rates[part]["crew"].append(figures["http"][ours])
            if ours in figures["asyncpg"]:
                rates[part]["crew, asyncpg alone"].append(figures["asyncpg"][ours])
    names = ["crew", "crew, asyncpg alone", *peers]
    print("tasks/s, median of", given.rounds)
    print(f"{'':12}" + "".join(f"{name:>22}" for name in names) + "".join(f"{f'crew / {p}':>20}" for p in peers))
    for part in OURS:
        medians = {name: statistics.median(found) for name, found in rates[part].items() if found}
        cells = [f"{medians[name]:,.0f}" if name in medians else "–" for name in names]
        ratios = [f"{medians['crew'] / medians[p]:.2f}" if p in medians else "–" for p in peers]
        print(f"{part:12}" + "".join(f"{cell:>22}" for cell in cells) + "".join(f"{ratio:>20}" for ratio in ratios))


if __name__ == "__main__":
    main()
