"""What performance is aimed at, and how far it is reached: each aim says from which figure it is computed, and how.

    best("crew", "crew_ws").over("graphile")    the best of ours over the best of the others, of each round
    best("fault").less("calm")                  the difference, of each round
    best("fault")                               the value itself

The best is the highest where more is better, and else the lowest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from bench.harness import BARE, SHARED
from bench.results import Figure, Results


@dataclass(frozen=True)
class Reckoning:
    """How the values of an aim come from the series of its figure."""

    ours: tuple[str, ...]
    others: tuple[str, ...] = ()
    sign: str = ""

    def over(self, *others: str) -> Reckoning:
        return replace(self, others=others, sign="/")

    def less(self, *others: str) -> Reckoning:
        return replace(self, others=others, sign="−")

    def values(self, figure: Figure, more: bool) -> list[float]:
        """One for each round; of others, those that are there."""
        choose = max if more else min
        ours = _each_round(choose, [figure.series[who] for who in self.ours])
        if not self.others:
            return ours
        others = _each_round(choose, [figure.series[who] for who in self.others if who in figure.series])
        return [a / b if self.sign == "/" else a - b for a, b in zip(ours, others, strict=True)]


def _each_round(choose: Callable[[tuple[float, ...]], float], series: list[list[float]]) -> list[float]:
    return [choose(values) for values in zip(*series, strict=True)]


def best(*ours: str) -> Reckoning:
    return Reckoning(ours)


@dataclass(frozen=True)
class Judged:
    """What was measured of an aim: a value for each round, their median and spread, and whether that is enough."""

    values: list[float]
    met: bool
    bare: float | None = None
    """The median of what does the least that could be called the same (series `bare`), where that was measured beside it."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def lowest(self) -> float:
        return min(self.values)

    @property
    def highest(self) -> float:
        return max(self.values)


@dataclass(frozen=True)
class Aim:
    group: str
    """Its plot."""
    name: str
    source: str
    figure: str
    values: Reckoning
    bound: float
    more: bool = True
    """Whether more is better: the bound is then the least, else the most."""
    unit: str = "×"

    def judged(self, results: Mapping[str, Results]) -> Judged | None:
        """None where it was not measured."""
        kept = results.get(self.source)
        figure = next((f for f in kept.figures if f.name == self.figure), None) if kept else None
        if figure is None or not figure.series.keys() >= set(self.values.ours):
            return None
        found = self.values.values(figure, self.more)
        median = statistics.median(found)
        met = median >= self.bound if self.more else median <= self.bound
        barest = replace(self.values, ours=(BARE,))
        bare = statistics.median(barest.values(figure, self.more)) if BARE in figure.series else None
        return Judged(found, met, bare)


CREATION, DRAIN, LATENCY, GROWTH = "creation", "drain", "pick-up latency", "growth"
FAULTS, HTTP, FANOUT = "faults", "HTTP", "fan-out"
GROUPS = (CREATION, DRAIN, LATENCY, GROWTH, FAULTS, HTTP, FANOUT)
PEERS = ("graphile", "pgqueuer", "absurd", "pgboss")

_ours = best("crew", "crew_ws")
_faulty = best("fault").over("calm")
_suspended = "a workgroup of 100,000 ready tasks is suspended and resumed"
_idle_statements = 1 / 0.9 + 1 / 15
"""A second: the floor poll, a tenth early at most, and one upsert of all workers each 15 s."""


def _peers(group: str, name: str, figure: str, values: Reckoning, bound: float, more: bool = True) -> Aim:
    return Aim(group, name, "beside_peers", figure, values, bound, more)


def _at_most(group: str, name: str, source: str, figure: str, values: Reckoning, bound: float, unit: str = "×") -> Aim:
    return Aim(group, name, source, figure, values, bound, more=False, unit=unit)


def _pick_up(who: str, way: str) -> Iterator[Aim]:
    for quantile, peer, bound in (("p50", "graphile", 1.0), ("p99", "pgqueuer", 1.5)):
        name = f"pick-up {quantile} by {way}, over {peer}'s"
        yield _peers(LATENCY, name, f"pick-up, {quantile}", best(who).over(peer), bound, more=False)


def _idle(way: str) -> Iterator[Aim]:
    who = f"1,000 idle workers by {way}"
    core, statements = f"server with {who}, beside none", f"statements with {who}, beside none"
    yield _at_most(FAULTS, f"{who}: CPU of the server", "faults", core, best("fault"), 5, "% of a core")
    more = best("fault").less("calm")
    yield _at_most(FAULTS, f"{who}: statements more", "faults", statements, more, _idle_statements, "per s")


def _graph(name: str, shape: str) -> Iterator[Aim]:
    for what in ("created", "drained"):
        said = f"{name}, {what}: cost of a task, over independent ones"
        yield _at_most(GROWTH, said, "graphs", f"{what}, batches of 500", best(shape).over("independent"), 2)


def _logged(what: str) -> Aim:
    values = best("with events").over("without")
    return Aim(DRAIN, f"events on, over off: {what}", "events", f"{what}, through HTTP", values, 0.85)


AIMS = (
    _peers(
        DRAIN, "drain with 1 worker process, over the best peer", "drain, 1 worker process", _ours.over(*PEERS), 1.1
    ),
    _peers(
        CREATION, "create, 10 clients, over the best peer", "create one by one, 10 clients", _ours.over(*PEERS), 1.5
    ),
    _peers(
        CREATION,
        "create, 10 callers of one client, over the best peer",
        "create one by one, 10 clients",
        best(SHARED).over(*PEERS),
        1.5,
    ),
    _peers(CREATION, "create, 1 client, over pgqueuer", "create one by one, 1 client", _ours.over("pgqueuer"), 0.9),
    _peers(CREATION, "create in bulk, over the best peer", "create in bulk", _ours.over(*PEERS), 1.1),
    *_pick_up("crew", "long poll"),
    *_pick_up("crew_ws", "websocket"),
    Aim(
        DRAIN,
        "drain under an open snapshot: last tenth over the first",
        "faults",
        "last tenth of that drain over the first",
        best("fault"),
        0.95,
    ),
    _at_most(
        GROWTH,
        "claim with 1,000,000 tasks blocked, scheduled and suspended each, over none",
        "faults",
        "claim of 100 with 1,000,000 of each of these, median",
        _faulty,
        1.1,
    ),
    _at_most(
        GROWTH,
        "claim with 10,000,000 finished tasks kept, over none",
        "faults",
        "claim of 100 with 10,000,000 finished tasks kept, median",
        _faulty,
        1.2,
    ),
    *(
        _at_most(
            GROWTH,
            f"cost of a task, {what}: 1,000,000 tasks over 10,000",
            "growth",
            f"tasks, {what}",
            best("1,000,000 tasks").over("10,000 tasks"),
            1.2,
        )
        for what in ("create", "claim and complete")
    ),
    *_idle("long-poll"),
    *_idle("websocket"),
    _at_most(
        FAULTS,
        f"longest statement while {_suspended}",
        "faults",
        f"longest statement while {_suspended}",
        best("fault"),
        50,
        "ms",
    ),
    _at_most(
        FAULTS,
        f"pick-up p99 of others while {_suspended}, over before",
        "faults",
        f"pick-up in another channel while {_suspended}, p99",
        _faulty,
        1.2,
    ),
    *_graph("10,000 tasks in random layers", "DAG, 20 random layers"),
    *_graph("a join of 10,000 parents", "join of 9,999 parents"),
    *(
        Aim(HTTP, f"{what}, over a bare Starlette endpoint", "http", what, best("crew").over("bare Starlette"), bound)
        for what, bound in (
            ("a query of __typename", 0.8),
            ("a mutation of __typename", 0.8),
            ("100 tasks of 10 fields", 0.5),
        )
    ),
    *(
        _at_most(
            FANOUT,
            f"CPU of the server by {way}, for {figure}",
            "fanout",
            figure,
            best(way),
            10,
            "µs",
        )
        for figure in (
            "an event to each of 1,000 subscribers, tasks one at a time",
            "an event to each of 1,000 subscribers, tasks in batches of 50",
        )
        for way in ("websocket", "SSE")
    ),
    _logged("create one by one, 10 clients"),
    _logged("create, batches of 500"),
    _logged("claim + complete, batches of 500, 1 client"),
    _logged("drain, batches of 500, 1 worker process with 2 loops"),
)
