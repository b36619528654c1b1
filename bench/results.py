"""What was measured, as files: each measurement writes one, and bench.performance makes tables and plots of them.

    {"source": "graphs", "command": "python -m bench.graphs", "measured_at": "2026-11-27", "machine": "…", "figures": [
      {"name": "drain, 1 worker process", "unit": "tasks/s", "series": {"crew": [51000, 50210], "graphile": [64690, 63012]}}]}

A series holds one value for each round; values of one round stand at the same place in every series of a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

WITH, WITHOUT = "with it", "without"
"""The series of what is measured with a lever, and without."""
HOME = Path(__file__).resolve().parent.parent / "docs" / "performance"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured. `series`: who, or under what → a value for each round."""

    name: str
    unit: str
    series: dict[str, list[float]]

    def median(self, who: str) -> float:
        return statistics.median(self.series[who])

    def ratio(self, of: str, over: str) -> list[float]:
        """Of each round; their median is the figure that counts."""
        return [a / b for a, b in zip(self.series[of], self.series[over], strict=True) if b]


Round = dict[tuple[str, str], dict[str, float]]
"""What one round gives: a figure's name and unit → series → value."""


@dataclass(frozen=True)
class Results:
    source: str
    command: str
    measured_at: str
    machine: str
    figures: list[Figure]

    def figure(self, name: str) -> Figure:
        return next(f for f in self.figures if f.name == name)


def add_argument(arguments: argparse.ArgumentParser) -> None:
    arguments.add_argument("--save", action="store_true", help="Keep the figures in docs/performance/.")


def figures(rounds: Iterable[Round]) -> list[Figure]:
    """Of all rounds, each of which has the same figures and series."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for measured in rounds:
        for figure, values in measured.items():
            for who, value in values.items():
                found[figure][who].append(value)
    return [Figure(name, unit, dict(series)) for (name, unit), series in found.items()]


def parser(doc: str | None, rounds: int = 3) -> argparse.ArgumentParser:
    """With `--rounds` and `--save`."""
    arguments = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=rounds)
    add_argument(arguments)
    return arguments


def each_round(count: int, measure: Callable[[int], Round]) -> list[Figure]:
    """The figures of so many rounds. `measure` takes the round's number, from 0: what is compared takes turns by it."""
    rounds = []
    for n in range(count):
        print(f"round {n + 1} of {count} …", file=sys.stderr, flush=True)
        rounds.append(measure(n))
    return figures(rounds)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median (lowest – highest); of one round, what it gave."""
    if len(values) < 2:
        return f"{values[0]:,.{digits}f}" if values else "–"
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} – {max(values):,.{digits}f})"


def save(source: str, figures: Iterable[Figure], options: Sequence[str] | None = None, home: Path = HOME) -> Path:
    """Writes `home`/<source>.json. With `--only`, figures that were measured before and not now stay. `options`: where they are not
    those of this process."""
    given = [word for word in sys.argv[1:] if word != "--save"] if options is None else options
    made, before = list(figures), load(home).get(source)
    if "--only" in given and before:
        new = {figure.name for figure in made}
        made = [figure for figure in before.figures if figure.name not in new] + made
        given = [*given[: given.index("--only")], "--only …"]
    command = " ".join([f"python -m bench.{source}", *given])
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"
    found = Results(source, command, datetime.now(UTC).date().isoformat(), machine, made)
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{source}.json"
    path.write_text(json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n")
    return path


def load(home: Path = HOME) -> dict[str, Results]:
    """Source → what was last measured of it."""
    read = [json.loads(path.read_text()) for path in sorted(home.glob("*.json"))]
    return {r["source"]: Results(**{**r, "figures": [Figure(**f) for f in r["figures"]]}) for r in read}
