"""One look at a group, and how it is drawn: its progress, its counts, and its DAG as far as that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from server.terminal.dag import LINE_STYLE, Row, lines, rows, without_lanes
from server.terminal.text import Json, counts, percent, printable

SETTLED = ("SUCCEEDED", "CANCELLED")
MOVING = ("SCHEDULED", "READY", "RUNNING", "MERGED")
_OPEN_AT = 2
"""How many lines above the first open task stay in a drawing that is cut."""
_FIXED = 5
"""Lines around the drawing: rule, bar, counts, a note, and the one for the cursor."""


@dataclass(frozen=True)
class View:
    """One look. A group too big to draw has no nodes, and some of what runs in `running`."""

    now: str
    group: dict[str, Any]
    running: Sequence[Json] = field(default=())

    @property
    def is_truncated(self) -> bool:
        return bool(self.group["graph"]["truncated"])

    def count(self, *states: str) -> int:
        return sum(each["count"] for each in self.group["progress"]["counts"] if each["state"] in states)

    def is_finished(self) -> bool:
        """Every task is settled."""
        return self.group["finishedAt"] is not None

    def is_at_rest(self) -> bool:
        """Nothing in it goes on by itself: it has finished, or waits for a retry of what failed."""
        return self.is_finished() or (self.group["progress"]["total"] > 0 and not self.count(*MOVING))


def heading(group: Json) -> Group:
    """A group's name, and the bar of its progress."""
    fraction = group["progress"]["fraction"]
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right", width=4)
    line.add_row(bar(fraction), percent(fraction))
    return Group(Rule(Text(printable(group["name"]), "bold"), align="left", style=LINE_STYLE), line)


def bar(fraction: float, width: int | None = None) -> ProgressBar:
    """In colours that a terminal of 16 tells apart too."""
    return ProgressBar(
        total=1, completed=fraction, width=width, style=LINE_STYLE, complete_style="blue", finished_style="green"
    )


def picture(view: View, *, width: int, height: int | None = None, note: str = "") -> RenderableType:
    """All of it; the drawing is cut to `height`, and has no lanes where these would leave no room for names."""
    total = view.group["progress"]["total"]
    held = Text("  ‖ paused", "yellow") if view.group["isPaused"] else Text()
    counted = counts(view.group["progress"]["counts"], words=True) if total else Text("no tasks yet")
    parts: list[RenderableType] = [heading(view.group), counted + held]
    if view.is_truncated:
        some = f" {len(view.running)} of the {view.count('RUNNING'):,} that run:" if view.running else ""
        parts.append(Text(f"{total:,} tasks are too many to draw.{some}", LINE_STYLE))
        parts += lines([Row("", node) for node in view.running], view.now)
    else:
        parts += _drawing(view, width, height)
    if note:
        parts.append(Text(note, "yellow", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _drawing(view: View, width: int, height: int | None) -> list[Text]:
    graph = view.group["graph"]
    drawn = rows(graph["nodes"], graph["edges"])
    if any(len(row.lanes) > width // 2 for row in drawn):
        drawn = without_lanes(drawn)
    told = lines(drawn, view.now)
    room = len(told) if height is None else max(3, height - _FIXED)
    if len(told) <= room:
        return told
    start, stop = window(drawn, room)
    seen = told[start:stop]
    if start:
        seen[0] = Text(f"… {start + 1} lines above", LINE_STYLE)
    if stop < len(told):
        seen[-1] = Text(f"… {len(told) - stop + 1} lines below", LINE_STYLE)
    return seen


def window(drawn: Sequence[Row], room: int) -> tuple[int, int]:
    """From just above the first task that is not settled, so many lines."""
    is_open = (n for n, row in enumerate(drawn) if row.node and row.node["state"] not in SETTLED)
    start = max(0, min(next(is_open, len(drawn)) - _OPEN_AT, len(drawn) - room))
    return start, start + room
