"""Plots as SVG files, the same bytes for the same values. The one module that needs matplotlib."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from textwrap import fill

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.panels import Panel

OURS, OTHERS, LINE, WHISKER = "#1f6feb", "#9aa4b2", "#c2410c", "#333333"
_DOCTYPE = re.compile(r"<!DOCTYPE.*?>\n", re.DOTALL)
matplotlib.use("svg")
matplotlib.rcParams.update(
    {
        "svg.hashsalt": "crew",
        "svg.fonttype": "none",
        "font.family": ["DejaVu Sans", "sans-serif"],
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "figure.facecolor": "white",
    }
)


def write(path: Path, panels: Sequence[Panel]) -> None:
    """One under the other."""
    heights = [2.2 if panel.curve else 0.7 + 0.27 * len(panel.series) for panel in panels]
    figure = Figure(figsize=(9, sum(heights) + 0.2), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for (ax,), panel in zip(axes, panels, strict=True):
        ax.set_title(f"{panel.title} ({panel.unit})")
        (_curve if panel.curve else _bars)(ax, panel)
    written = StringIO()
    figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    path.write_text(_DOCTYPE.sub("", written.getvalue()))


def _bars(ax: Axes, panel: Panel) -> None:
    places = range(len(panel.series))
    medians = [statistics.median(values) for values in panel.series.values()]
    ax.barh(places, medians, color=[_colour(name) for name in panel.series], height=0.7)
    ax.errorbar(medians, places, xerr=_whiskers(panel, medians), fmt="none", ecolor=WHISKER, elinewidth=1, capsize=2)
    for y, (median, values) in enumerate(zip(medians, panel.series.values(), strict=True)):
        ax.annotate(_shown(median), (max(values), y), (5, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(places, [fill(name, 75) for name in panel.series])
    ax.invert_yaxis()
    ax.margins(x=0.12, y=0.02)
    ax.tick_params(left=False)
    if panel.line is not None:
        ax.axvline(panel.line, color=LINE, linewidth=1, linestyle="--")


def _curve(ax: Axes, panel: Panel) -> None:
    places = range(len(panel.series))
    medians = [statistics.median(values) for values in panel.series.values()]
    ax.errorbar(
        places, medians, yerr=_whiskers(panel, medians), color=OURS, ecolor=WHISKER, marker="o", elinewidth=1, capsize=2
    )
    for x, (median, values) in enumerate(zip(medians, panel.series.values(), strict=True)):
        ax.annotate(_shown(median), (x, max(values)), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    ax.set_xticks(places, [fill(name, 100 // len(places)) for name in panel.series])
    ax.set_ylim(0, max(max(values) for values in panel.series.values()) * 1.25)
    ax.margins(x=0.08)


def _whiskers(panel: Panel, medians: Sequence[float]) -> list[list[float]]:
    values = panel.series.values()
    return [
        [median - min(v) for median, v in zip(medians, values, strict=True)],
        [max(v) - median for median, v in zip(medians, values, strict=True)],
    ]


def _colour(name: str) -> str:
    others = ("bare", "asyncpg", "calm", "graphile", "pgqueuer", "absurd", "pgboss", "the server's")
    return OTHERS if name.startswith(others) else OURS


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
