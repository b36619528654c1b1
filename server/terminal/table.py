"""Tables that fit: cells are cut, then columns left out, before an id is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_GAP = 2


@dataclass(frozen=True)
class Column:
    """`least` is how far it may be cut (None: never); of several, that with the highest `spare` is left out first (0: never)."""

    title: str
    least: int | None = None
    spare: int = 0
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[RenderableType]], console: Console) -> RenderableType:
    """The rows under their titles. Columns that may be left out are, when they are empty or there is no room for them."""
    shown = [n for n, column in enumerate(columns) if not column.spare or any(_holds(row[n]) for row in rows)]
    wanted = {n: _width(columns[n], [row[n] for row in rows], console) for n in shown}
    dropped: list[str] = []
    while (widths := fitted([wanted[n] for n in shown], _least(columns, wanted, shown), _room(console, shown))) is None:
        least_needed = max(shown, key=lambda n: columns[n].spare)
        if not columns[least_needed].spare:
            widths = [wanted[n] for n in shown]
            break
        shown.remove(least_needed)
        dropped.append(columns[least_needed].title)
    drawn = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for n, width in zip(shown, widths, strict=True):
        justify: Literal["left", "right"] = "right" if columns[n].right else "left"
        drawn.add_column(columns[n].title, width=width, no_wrap=True, overflow="ellipsis", justify=justify)
    for row in rows:
        drawn.add_row(*(row[n] for n in shown))
    if not dropped:
        return drawn
    note = f"Too narrow for: {', '.join(dropped)}. --json has all."
    return Group(drawn, Text(note, "bright_black"))


def fitted(widths: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """The widths, cut at the widest first until they fit; None when they cannot."""
    found = list(widths)
    while sum(found) > room:
        able = [n for n in range(len(found)) if found[n] > least[n]]
        if not able:
            return None
        found[max(able, key=lambda n: found[n])] -= 1
    return found


def _room(console: Console, shown: Sequence[int]) -> int:
    return console.width - _GAP * (len(shown) - 1)


def _least(columns: Sequence[Column], wanted: dict[int, int], shown: Sequence[int]) -> list[int]:
    return [wanted[n] if (least := columns[n].least) is None else min(least, wanted[n]) for n in shown]


def _width(column: Column, cells: Sequence[RenderableType], console: Console) -> int:
    measured = [Measurement.get(console, console.options, cell).maximum for cell in cells]
    return max([len(column.title), *measured])


def _holds(cell: RenderableType) -> bool:
    return bool(cell)
