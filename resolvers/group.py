"""Lists of groups, a page at a time by keyset."""

from __future__ import annotations

from dataclasses import dataclass, replace

from db.group import GroupFilter, GroupPageRow, GroupRow, count_groups, page_of_groups, read_groups
from db.task import TOTAL_COUNT_STOPS_AT, Filter
from resolvers import check
from resolvers.core import Core
from resolvers.errors import BadInput
from resolvers.task import read_place, write_place

__all__ = ["TOTAL_COUNT_STOPS_AT", "GroupFilter", "GroupPage", "page", "total", "within"]


@dataclass(slots=True)
class GroupPage:
    rows: list[GroupRow]
    cursors: list[str]
    has_next: bool
    has_previous: bool


async def page(core: Core, narrowed: GroupFilter, order: int, after: str | None, first: int) -> GroupPage:
    """At most `first` groups after a cursor of the same order (1 newest, 2 oldest, 3 latest end first, 4 by name)."""
    place = read_place(after, f"groups{order}")
    start = None if place is None else GroupPageRow(place[0], place[1] or "")
    found = await page_of_groups(core.pool, core.ns, narrowed, order, start, first + 1)
    shown = found[:first]
    rows = {row.group_no: row for row in await read_groups(core.pool, core.ns, nos=[r.group_no for r in shown])}
    shown = [r for r in shown if r.group_no in rows]
    return GroupPage(
        rows=[rows[r.group_no] for r in shown],
        cursors=[write_place(f"groups{order}", r.group_no, r.sort_key) for r in shown],
        has_next=len(found) > first,
        has_previous=after is not None,
    )


async def total(core: Core, narrowed: GroupFilter) -> int:
    """How many there are; past TOTAL_COUNT_STOPS_AT one more than that."""
    return await count_groups(core.pool, core.ns, narrowed)


def within(narrowed: Filter | None, group_id: str) -> Filter:
    """A filter of tasks, inside one group."""
    uuid = check.uuid(group_id, ("id",), "id")
    if narrowed is None:
        return Filter(group_id=uuid)
    if narrowed.group_id not in (None, uuid):
        raise BadInput(
            "groupId names another group than the one whose tasks are listed: leave it out", ("filter", "groupId")
        )
    return replace(narrowed, group_id=uuid)
