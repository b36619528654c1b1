"""Writes docs/performance.md and its plots from what measurements kept (`--save`) in docs/performance/.

    python -m bench.performance

The aims first (bench/aims.py), then limits.md, written by hand: where the time goes; then each source: medians, spread, ratios and
plots (bench/panels.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.aims import AIMS, GROUPS, Aim
from bench.panels import SOURCES, Panel, Source
from bench.results import HOME, Figure, Results, load, spread

PAGE = HOME.parent / "performance.md"
LIMITS = HOME / "limits.md"


def page(results: Mapping[str, Results], limits: str) -> str:
    """The whole of it."""
    parts = [introduction(results), aims(results)]
    if limits:
        parts.append(f"## Where the time goes\n\n{limits.strip()}")
    for name in [*SOURCES, *(name for name in results if name not in SOURCES)]:
        if name in results:
            parts.append(section(SOURCES.get(name, Source(name)), results[name]))
    return "\n\n".join(parts) + "\n"


def introduction(results: Mapping[str, Results]) -> str:
    commands = "\n".join(f"    {kept.command} --save" for kept in results.values())
    return (
        "# Performance\n\n"
        "Generated: do not edit. [bench/README.md](../bench/README.md) tells what is measured, and how. Server, clients, workers "
        "and PostgreSQL share one machine, so **only ratios inside one run mean something**; given are medians of the rounds' "
        "ratios, and in brackets the lowest and the highest.\n\n"
        f"{commands}\n    make performance"
    )


def aims(results: Mapping[str, Results]) -> str:
    lines = [
        "## Aims",
        "",
        "*Bare* is what the least that could be called the same reaches in the same run: a queue of three narrow tables behind "
        "HTTP (`bench/bare_queue.py`), a loop that writes the same bytes (`bench/fanout.py`).",
        "",
        "| | aim | measured | bare | met |",
        "|---|---:|---:|---:|---|",
    ]
    for group in GROUPS:
        lines.append(f"| **{group}** | | | | |")
        lines += [aim_row(aim, results) for aim in AIMS if aim.group == group]
    return "\n".join(lines)


def aim_row(aim: Aim, results: Mapping[str, Results]) -> str:
    judged = aim.judged(results)
    bound = f"{'≥' if aim.more else '≤'} {with_unit(f'{aim.bound:.3g}', aim.unit)}"
    if judged is None:
        return f"| {aim.name} | {bound} | – | – | not measured |"
    bare = "" if judged.bare is None else with_unit(f"{judged.bare:.2f}", aim.unit)
    measured = with_unit(spread(judged.values), aim.unit)
    return f"| {aim.name} | {bound} | {measured} | {bare} | {'yes' if judged.met else '**no**'} |"


def with_unit(number: str, unit: str) -> str:
    return f"× {number}" if unit == "×" else f"{number} {unit}"


def section(source: Source, kept: Results) -> str:
    lines = [f"## {source.title}", "", f"`{kept.command}`, {kept.measured_at}, on {kept.machine}.", ""]
    lines += [f"| | | median (lowest – highest) | over {source.said} |", "|---|---|---:|---:|"]
    for figure in kept.figures:
        lines += rows(source, figure)
    lines += ["", *(image(plot.name) for plot in source.plots if plot.panels(source, kept))]
    return "\n".join(lines).rstrip()


def rows(source: Source, figure: Figure) -> Iterator[str]:
    ratios = source.ratios(figure)
    name = f"{figure.name}, {figure.unit}"
    for who, values in figure.series.items():
        digits = 0 if figure.median(who) >= 100 else 2
        ratio = spread(ratios[who]) if who in ratios else ""
        yield f"| {name} | {who} | {spread(values, digits)} | {ratio} |"
        name = ""


def image(name: str) -> str:
    return f"![{name}](performance/{name}.svg)"


def plots(results: Mapping[str, Results]) -> dict[str, list[Panel]]:
    return {
        plot.name: panels
        for name, source in SOURCES.items()
        if name in results
        for plot in source.plots
        if (panels := plot.panels(source, results[name]))
    }


def kept_page() -> str:
    """Of what is kept here."""
    return page(load(), LIMITS.read_text() if LIMITS.exists() else "")


def main() -> None:
    from bench import plot  # Needs matplotlib, which the text does not.

    PAGE.write_text(kept_page())
    for name, panels in plots(load()).items():
        plot.write(HOME / f"{name}.svg", panels)


if __name__ == "__main__":
    main()
