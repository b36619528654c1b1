"""What is shown of the kept results, and beside what: the base of each source's ratios, and the panels of its plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.aims import AIMS, PEERS, best
from bench.harness import BARE
from bench.results import WITHOUT, Figure, Results

LESS_IS_BETTER = ("s", "ms", "µs", "µs/task")


@dataclass(frozen=True)
class Panel:
    """One set of axes: a bar, or a point of a line, for each series."""

    title: str
    unit: str
    series: dict[str, list[float]]
    line: float | None = None
    """Drawn across: what the values are held against."""
    curve: bool = False


@dataclass(frozen=True)
class Plot:
    """One SVG file: of a source, the figures that it wants."""

    name: str
    wanted: Callable[[Figure], bool] = lambda figure: True
    ratios: bool = False
    """One panel of all ratios, instead of one for each figure."""
    curve: bool = False
    without: str = ""
    """A series that would make the others' bars too small to compare."""

    def panels(self, source: Source, results: Results) -> list[Panel]:
        figures = [f for f in results.figures if self.wanted(f)]
        if not self.ratios:
            return [Panel(f.name, f.unit, self._shown(f), _limit(results.source, f), self.curve) for f in figures]
        ratios = {
            f.name if len(f.series) < 3 else f"{f.name}: {who}": values
            for f in figures
            for who, values in source.ratios(f).items()
        }
        return [Panel(f"over {source.said}", "×", ratios, line=1.0)] if ratios else []

    def _shown(self, figure: Figure) -> dict[str, list[float]]:
        return {who: values for who, values in figure.series.items() if who != self.without}


@dataclass(frozen=True)
class Source:
    """How a source of results is presented."""

    title: str
    base: tuple[str, ...] = ()
    """Ratios are over the best of these series; over a figure's first series where there are none."""
    said: str = "the first"
    """What the ratios are over, in words."""
    plots: tuple[Plot, ...] = field(default=())

    def ratios(self, figure: Figure) -> dict[str, list[float]]:
        """Series → one for each round. Nothing where the figure has nothing to compare with."""
        base = [who for who in self.base or list(figure.series)[:1] if who in figure.series]
        others = [who for who in figure.series if who not in base or len(base) > 1]
        if not base or len(figure.series) < 2 or any(0 in figure.series[who] for who in base):
            return {}
        more = figure.unit not in LESS_IS_BETTER
        return {who: best(who).over(*base).values(figure, more) for who in others}


def _limit(source: str, figure: Figure) -> float | None:
    """The bound of an aim that is about the very values of this figure."""
    bounds = {a.bound for a in AIMS if (a.source, a.figure) == (source, figure.name) and not a.values.others}
    return bounds.pop() if len(bounds) == 1 else None


SOURCES: Mapping[str, Source] = {
    "beside_peers": Source(
        "Beside the peers",
        PEERS,
        "the best of the peers",
        (
            Plot("creation", lambda figure: figure.name.startswith("create"), without=BARE),
            Plot("drain", lambda figure: "drain" in figure.name or "tenth" in figure.name, without=BARE),
            Plot("latency", lambda figure: figure.name.startswith("pick-up")),
        ),
    ),
    "throughput": Source(
        "Through HTTP, beside the statements alone", ("asyncpg alone",), "asyncpg alone", (Plot("throughput"),)
    ),
    "growth": Source("As a database grows", (), "the first of each", (Plot("growth", curve=True),)),
    "graphs": Source("Graphs and keys", ("independent",), "independent tasks", (Plot("graphs", ratios=True),)),
    "faults": Source("Faults, beside the calm", ("calm",), "the calm", (Plot("faults", ratios=True),)),
    "http": Source("GraphQL over HTTP, beside a bare endpoint", ("bare Starlette",), "bare Starlette", (Plot("http"),)),
    "fanout": Source("Events to many subscribers", (), "the first", (Plot("fanout"),)),
    "events": Source("The event log, on and off", ("without",), "without events", (Plot("events", ratios=True),)),
    "processes": Source("More server processes", ("1 process",), "one process", (Plot("processes", ratios=True),)),
    "ablation": Source(
        "What each lever gives: with it, and without",
        (WITHOUT,),
        "without",
        (
            Plot("ablation_costs", lambda figure: figure.unit in LESS_IS_BETTER, ratios=True),
            Plot("ablation_rates", lambda figure: figure.unit not in LESS_IS_BETTER, ratios=True),
        ),
    ),
    "levers": Source(
        "What all of it gave: then and now",
        ("before",),
        "before",
        (
            Plot("levers_costs", lambda figure: figure.unit in LESS_IS_BETTER, ratios=True),
            Plot("levers_rates", lambda figure: figure.unit not in LESS_IS_BETTER, ratios=True),
        ),
    ),
    "shares": Source("Where the CPU of a task goes", (), "the client's"),
    "sdk": Source("The SDKs", ("the server's ceiling",), "the server's ceiling", (Plot("sdk"),)),
}
