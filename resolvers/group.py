"""Lists of groups, a page at a time by keyset.

How far a group is, is folded from events; what changed since the fold stands apart (`changed`), is told exactly, and is put in
its place among what an index on the fold tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from db import progress as rows
from db.group import GroupRow, read_groups
from db.progress import ChangedRow, GroupFilter
from db.task import TOTAL_COUNT_STOPS_AT, Filter
from db.walk import Direction, Span
from resolvers import check
from resolvers.core import Core
from resolvers.drive import SLACK, SMALL, rest_of
from resolvers.errors import BadInput, TooBroad
from resolvers.task import read_place, write_place
from resolvers.walk import BUDGET, LOOKED_UP, TAKEN, Part, Place, Read, Section, Total, part, walk, whole

__all__ = ["GroupFilter", "GroupPage", "page", "total", "within"]

OPEN, FINISHED, FAILING, PAUSED = range(1, 5)
_LATEST = 1 << 52
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHANGED = 5000


@dataclass(slots=True)
class GroupPage:
    rows: list[GroupRow]
    cursors: list[str]
    has_next: bool
    has_previous: bool


async def page(core: Core, narrowed: GroupFilter, order: str, after: str | None, first: int) -> GroupPage:
    """At most `first` groups after a cursor of the same order: created_desc, created_asc, finished_desc or name_asc.

    Raises TooBroad when they lie too far apart to be found.
    """
    place = read_place(after, f"groups_{order}")
    numeric = order != "name_asc"
    start: Place | None = place and (int(place[1] or 0) if numeric else place[1] or "", place[0])
    if narrowed.states == []:
        return GroupPage([], [], False, after is not None)
    sections, begin = await _sections(core, narrowed, order, start)
    # For a total alone it is not worth looking far.
    walked = await walk(sections, begin, first + 1, BUDGET if first else BUDGET // 10)
    if not walked.complete and first:
        raise TooBroad(
            f"too few of the groups that can be looked at in this order ({order.upper()}) match the filter to fill the page: "
            "name other states, a shorter time (createdAfter, createdBefore), or ask for less with `first`",
            ("filter",),
        )
    shown = walked.places[:first]
    groups = {row.group_no: row for row in await read_groups(core.pool, core.ns, nos=[no for _, no in shown])}
    shown = [item for item in shown if item[1] in groups]
    return GroupPage(
        rows=[groups[no] for _, no in shown],
        cursors=[write_place(f"groups_{order}", no, str(key)) for key, no in shown],
        has_next=len(walked.places) > first or not walked.complete,
        has_previous=after is not None,
    )


async def total(core: Core, narrowed: GroupFilter) -> Total:
    """How many there are, up to TOTAL_COUNT_STOPS_AT; where they lie too far apart, how many were found, not exact."""
    if narrowed.states == []:
        return Total.of(0)
    if narrowed.states is not None and narrowed == GroupFilter(states=narrowed.states):
        return Total.of(await _folded(core, narrowed.states))
    sections, _ = await _sections(core, narrowed, "created_desc", None)
    walked = await walk(sections, None, TOTAL_COUNT_STOPS_AT + 1, BUDGET)
    return Total.of(len(walked.places)) if walked.complete else Total(len(walked.places), False)


async def _folded(core: Core, states: list[int]) -> int:
    """Groups in these states, counted by the index on the fold, and one by one where they have changed since."""
    changed = {row.group_no for row in await Drive(core, GroupFilter(), Span()).changed()}
    most = TOTAL_COUNT_STOPS_AT + 1 + len(changed)
    found = set(await rows.walk_standing(core.pool, core.ns, "asc", Span(), most, states))
    now = await _matching(core, GroupFilter(states=states), sorted(changed)) if changed else set()
    return len(found - changed) + len(now)


async def _sections(
    core: Core, narrowed: GroupFilter, order: str, start: Place | None
) -> tuple[list[Section], Place | None]:
    """What the list is walked by, and the place in the first section to go on from."""
    drive = Drive(core, narrowed, await _span(core, narrowed))
    if order == "name_asc":
        return [await drive.by_name()], start
    if order == "finished_desc":
        return await drive.by_end(start)
    return [await drive.by_creation("asc" if order == "created_asc" else "desc")], start


async def _span(core: Core, narrowed: GroupFilter) -> Span:
    """Numbers go nearly by time: outside the span nothing was created in the time asked for."""
    span = Span()
    if narrowed.created_after is not None:
        turn = await rows.turn_of_group_time(core.pool, core.ns, narrowed.created_after - SLACK)
        span.low = span.low if turn is None else turn.low
    if narrowed.created_before is not None:
        turn = await rows.turn_of_group_time(core.pool, core.ns, narrowed.created_before + SLACK)
        span.high = span.high if turn is None else turn.high
    return span


@dataclass
class Drive:
    core: Core
    narrowed: GroupFilter
    span: Span

    def section(self, read: Read, states: list[int] | None) -> Section:
        """Candidates, of which the filter lets some through."""
        narrowed = replace(self.narrowed, states=states)
        if all(given is None for given in narrowed.args()):
            return Section(read, TAKEN)
        return Section(read, LOOKED_UP if states is None else 2 * LOOKED_UP, partial(_matching, self.core, narrowed))

    async def by_creation(self, way: Direction) -> Section:
        states = self.narrowed.states
        if states is None:
            return self.section(self._created(way, partial(rows.walk_groups, self.core.pool, self.core.ns)), None)
        changed = [row.group_no for row in await self.changed()]
        return self.section(self._created(way, self._standing(states), extra=changed), states)

    async def by_name(self) -> Section:
        """All of them, or those in the states asked for when they are few."""
        core, states = self.core, self.narrowed.states
        if states is not None:
            changed = [row.group_no for row in await self.changed()]
            few = await self.few_standing(states, changed)
            if few is not None:
                named = await rows.names_of_groups(core.pool, core.ns, few)
                return self.section(whole([(row.name, row.group_no) for row in named], lambda place: place), states)

        async def read(at: Place | None, size: int) -> Part:
            name, no = ("", -1) if at is None else at
            return part(await rows.walk_names(core.pool, core.ns, name, no, size), size)

        return self.section(read, states)

    async def by_end(self, start: Place | None) -> tuple[list[Section], Place | None]:
        """Those finished, latest end first; then the others, newest first."""
        core, states = self.core, self.narrowed.states
        changed = await self.changed()
        named = {row.group_no for row in changed}
        late = [(row.ended, row.group_no) for row in changed if row.ended >= 0]

        async def read(at: Place | None, size: int) -> Part:
            end, no = (_LATEST, 0) if at is None else at
            folded = await rows.walk_finished(core.pool, core.ns, end, no, size)
            last = folded[-1] if len(folded) >= size else None
            found = [place for place in folded if place[1] not in named]
            found += [place for place in late if place < (end, no) and (last is None or place >= last)]
            return Part(sorted(found, reverse=True), last, len(found))

        few = None if states is None else await self.few_standing(states, sorted(named))
        if few is not None:
            progress = await rows.group_progress(core.pool, core.ns, few)
            ended = [(-1 if row.finished_at is None else micros(row.finished_at), row.group_no) for row in progress]
            return [self.section(whole(ended, lambda place: (-place[0], -place[1])), states)], start
        sections = []
        if (start is None or start[0] >= 0) and (states is None or FINISHED in states or PAUSED in states):
            sections.append(self.section(read, states))
        begin = start if sections or start is None or start[0] < 0 else None
        if states != [FINISHED]:
            failing = states is not None and set(states) <= {FINISHED, FAILING}
            standing = self._standing([FAILING] if failing else [OPEN])
            others = [row.group_no for row in changed if row.ended < 0]
            read_others = self._created("desc", standing, key=-1, without=named, extra=others)
            sections.append(self.section(read_others, states))
        return sections, begin

    def _standing(self, states: list[int]) -> Numbers:
        return partial(_standing, self.core, states)

    def _created(
        self,
        way: Direction,
        numbers: Numbers,
        key: int = 0,
        without: Collection[int] = (),
        extra: Collection[int] = (),
    ) -> Read:
        """By number; without some, and with others put in their places."""

        async def read(at: Place | None, size: int) -> Part:
            span = replace(rest_of(self.span, at, way))
            nos = await numbers(way, span, size)
            last = nos[-1] if len(nos) >= size else None
            if last is not None and way == "asc":
                span.high = last + 1
            elif last is not None:
                span.low = last - 1
            found = {no for no in nos if no not in without} | {no for no in extra if span.low < no < span.high}
            places = [(key, no) for no in sorted(found, reverse=way == "desc")]
            return Part(places, None if last is None else (key, last), len(places))

        return read

    # -- small sets -----------------------------------------------------------------------------------------------------

    async def few_standing(self, states: list[int], changed: list[int]) -> list[int] | None:
        found = await self._standing(states)("asc", self.span, SMALL + 1)
        return None if len(found) > SMALL else sorted({*changed, *found})

    async def changed(self) -> list[ChangedRow]:
        """Those that changed since the fold. Read before what the fold tells: what is folded between is then in both."""
        core = self.core
        for _ in range(3):
            found = await rows.changed_groups(core.pool, core.ns, _CHANGED + 1)
            if len(found) <= _CHANGED:
                return found
            await rows.fold_groups(core.pool, core.ns)
        raise TooBroad(
            f"over {_CHANGED} groups have changed since they were last counted: ask again in a second, or without states",
            ("filter", "states"),
        )


def micros(at: datetime) -> int:
    """Since 1970, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


Numbers = Callable[[Direction, Span, int], Awaitable[list[int]]]


async def _standing(core: Core, states: list[int], way: Direction, span: Span, limit: int) -> list[int]:
    return await rows.walk_standing(core.pool, core.ns, way, span, limit, states)


async def _matching(core: Core, narrowed: GroupFilter, nos: list[int]) -> set[int]:
    return await rows.matching_groups(core.pool, core.ns, nos, narrowed)


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
