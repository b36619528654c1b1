"""Lists of tasks, a page at a time by keyset."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from db.task import (
    TOTAL_COUNT_STOPS_AT,
    Filter,
    PageRow,
    TaskRow,
    count_tasks,
    page_of_tasks,
    read_tasks,
)
from resolvers import check
from resolvers.core import Core
from resolvers.errors import BadInput

__all__ = ["TOTAL_COUNT_STOPS_AT", "Filter", "Page", "page", "read_place", "total", "write_place"]


@dataclass(slots=True)
class Page:
    rows: list[TaskRow]
    cursors: list[str]
    has_next: bool
    has_previous: bool


async def page(core: Core, order: str, narrowed: Filter, after: str | None, first: int) -> Page:
    """At most `first` tasks after a cursor of the same order."""
    place = read_place(after, order)
    start = None if place is None else PageRow(place[0], place[1])
    found = await page_of_tasks(core.pool, core.ns, order, narrowed, start, first + 1)
    shown = found[:first]
    rows = {row.no: row for row in await read_tasks(core.pool, core.ns, nos=[r.no for r in shown])} if shown else {}
    shown = [r for r in shown if r.no in rows]
    return Page(
        rows=[rows[r.no] for r in shown],
        cursors=[write_place(order, r.no, r.sort_key) for r in shown],
        has_next=len(found) > first,
        has_previous=after is not None,
    )


async def total(core: Core, narrowed: Filter) -> int:
    """How many there are; past TOTAL_COUNT_STOPS_AT one more than that."""
    return await count_tasks(core.pool, core.ns, narrowed)


_KEY_WIDTH = {"priority_desc": 1 << 31, "finished_desc": 1 << 62}
"""Orders whose sort key is a number, and how wide."""


def write_place(order: str, no: int, key: str | None) -> str:
    """A keyset cursor: the order, the number and the sort key there."""
    return base64.urlsafe_b64encode(json.dumps([order, no, key]).encode()).decode()


def read_place(cursor: str | None, order: str) -> tuple[int, str | None] | None:
    if cursor is None:
        return None
    try:
        made_for, no, key = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if made_for == order and isinstance(no, int) and 0 <= no < 1 << 63:
            widest = _KEY_WIDTH.get(order)
            if widest is None or -widest < int(key) < widest:
                return no, None if key is None else check.characters(str(key), ("after",), "after")
    except (binascii.Error, ValueError, TypeError):
        pass
    raise BadInput(
        f"after is {check.shown(cursor)}, which is no cursor of this list in this order: give the endCursor of its last page",
        ("after",),
    )
