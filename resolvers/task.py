"""Lists of tasks, a page at a time by keyset, and how many they hold."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from db.group import counts_by_state, read_channels, read_groups
from db.progress import group_progress
from db.task import TOTAL_COUNT_STOPS_AT, Filter, TaskRow, read_tasks
from db.walk import Narrowed, known_worker, leased_to
from resolvers import check
from resolvers.core import Core
from resolvers.drive import ways
from resolvers.errors import BadInput, TooBroad
from resolvers.walk import BUDGET, Place, Total, walk

__all__ = ["Filter", "Page", "page", "read_place", "total", "write_place"]


@dataclass(slots=True)
class Page:
    order: str
    rows: list[TaskRow]
    places: list[Place]
    has_next: bool
    has_previous: bool

    def cursor(self, n: int) -> str:
        """Of the nth row."""
        key, no = self.places[n]
        return write_place(self.order, no, None if self.order.startswith("created") else str(key))


async def page(core: Core, order: str, narrowed: Filter, after: str | None, first: int, *, lean: bool = False) -> Page:
    """At most `first` tasks after a cursor of the same order. Raises TooBroad when they lie too far apart to be found. `lean`: as
    read_tasks has it."""
    place = read_place(after, order)
    found: list[Place] = []
    try:
        found = await _found(core, order, narrowed, place and (int(place[1] or 0), place[0]), first + 1)
    except TooBroad:
        if first:
            raise
        # Asked for its total alone, most likely: there may be more.
        found = [(0, 0)]
    shown = found[:first]
    rows = await read_tasks(core.pool, core.ns, nos=[no for _, no in shown], lean=lean) if shown else []
    tasks = {row.no: row for row in rows}
    shown = [item for item in shown if item[1] in tasks]
    return Page(
        order=order,
        rows=[tasks[no] for _, no in shown],
        places=shown,
        has_next=len(found) > first,
        has_previous=after is not None,
    )


async def _found(core: Core, order: str, narrowed: Filter, start: Place | None, want: int) -> list[Place]:
    wanted = await _numbered(core, narrowed)
    if wanted is None:
        return []
    choice = await ways(core, wanted, order, start)
    for sections, begin in choice:
        # For a total alone it is not worth looking far.
        walked = await walk(sections, begin, want, BUDGET // len(choice) // (10 if want == 1 else 1))
        if walked.complete:
            return walked.places
        if start is None and len(walked.places) == await _folded(core, narrowed):
            return walked.places
    raise TooBroad(
        f"{_told(narrowed)} matches too few of the tasks that can be looked at in this order ({order.upper()}) to fill the "
        "page: name a group, a key, fewer states or a shorter time (createdAfter, "
        "createdBefore), or ask for less with `first`",
        ("filter",),
    )


def _told(narrowed: Filter) -> str:
    given = [name for name, value in _given(narrowed).items() if value is not None]
    return f"the filter ({', '.join(given)})" if given else "no filter"


def _given(narrowed: Filter) -> dict[str, Any]:
    return {
        "states": narrowed.states,
        "channels": narrowed.channels,
        "workgroups": narrowed.workgroups,
        "groupId": narrowed.group_id,
        "workerId": narrowed.worker_id,
        "nameContains": narrowed.name_contains,
        "createdAfter": narrowed.created_after,
        "createdBefore": narrowed.created_before,
        "key": narrowed.key,
    }


async def total(core: Core, narrowed: Filter) -> Total:
    """How many there are, up to TOTAL_COUNT_STOPS_AT; where they lie too far apart, how many were found, not exact."""
    folded = await _folded(core, narrowed)
    if folded is not None:
        return Total.of(folded)
    wanted = await _numbered(core, narrowed)
    if wanted is None:
        return Total.of(0)
    most = 0
    choice = await ways(core, wanted, "created_desc", None)
    for sections, _ in choice:
        walked = await walk(sections, None, TOTAL_COUNT_STOPS_AT + 1, BUDGET // len(choice))
        if walked.complete:
            return Total.of(len(walked.places))
        most = max(most, len(walked.places))
    return Total(most, False)


async def _folded(core: Core, narrowed: Filter) -> int | None:
    """What is counted all the time: everything, some channels, some workgroups or a group, and there the states."""
    named = {name for name, value in _given(narrowed).items() if value is not None} - {"states"}
    states = set(range(8) if narrowed.states is None else narrowed.states)
    if named == {"groupId"} and narrowed.group_id is not None:
        groups = await read_groups(core.pool, core.ns, ids=[narrowed.group_id])
        counted = await group_progress(core.pool, core.ns, [group.group_no for group in groups])
        return sum(group.counts[state] for group in counted for state in states)
    if not named:
        channels = await read_channels(core.pool, core.ns, None, None, core.limits.max_page + 1)
        if len(channels) > core.limits.max_page:
            return None
        numbers = [row.number for row in channels]
    elif named == {"channels"}:
        numbers = list((await core.channels.known(narrowed.channels or ())).values())
    elif named == {"workgroups"}:
        numbers = list((await core.workgroups.known(narrowed.workgroups or ())).values())
    else:
        return None
    return sum(row.n for row in await counts_by_state(core.pool, core.ns, numbers) if row.state in states)


async def _numbered(core: Core, narrowed: Filter) -> Narrowed | None:
    """The filter by numbers; None when nothing can match."""
    found = Narrowed(
        name_contains=narrowed.name_contains or None,
        created_after=narrowed.created_after,
        created_before=narrowed.created_before,
        key=narrowed.key,
    )
    if narrowed.states is not None and len(set(narrowed.states)) < 8:
        found.states = sorted(set(narrowed.states))
    if narrowed.channels is not None:
        found.channels = sorted((await core.channels.known(narrowed.channels)).values())
    if narrowed.workgroups is not None:
        found.workgroups = sorted((await core.workgroups.known(narrowed.workgroups)).values())
    if [] in (found.states, found.channels, found.workgroups):
        return None
    if narrowed.group_id is not None:
        groups = await read_groups(core.pool, core.ns, ids=[narrowed.group_id])
        if not groups:
            return None
        found.group_no = groups[0].group_no
    if narrowed.worker_id is not None:
        found.worker = await known_worker(core.pool, core.ns, narrowed.worker_id)
        if found.worker is None:
            return None
        found.runs = await leased_to(core.pool, core.ns, found.worker)
    return found


_KEY_WIDTH = {"priority_desc": 1 << 31, "finished_desc": 1 << 52, "groups_finished_desc": 1 << 52}
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
