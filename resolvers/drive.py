"""What a list of tasks is walked by: the ways to find its candidates in its order.

By the key, by the group, by the places of the states asked for; else all tasks in the order asked for. A set without an index
in that order is read whole and sorted when it is small. docs/adr/0009 says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from db import walk as rows
from db.walk import HIGHEST, Direction, LaneRow, Narrowed, Span
from resolvers.core import Core
from resolvers.walk import LOOKED_UP, PLACED, SCAN_STEP, SCANNED, STEP, TAKEN, Part, Place, Read, Section, part, whole

BLOCKED, SCHEDULED, READY, RUNNING, MERGED, SUCCEEDED, FAILED, CANCELLED = range(8)
SMALL = 1000
"""A set of so many is read whole and sorted."""
LANES = 64
"""Ready tasks of so many channels and priorities are walked side by side."""
LEASED = 20_000
"""So many running tasks are looked through."""
SLACK = timedelta(seconds=120)
"""A task's number is drawn so long after its transaction began at most: no statement may take longer than 30 s."""
_LATEST = 1 << 52
_LOWEST_RANK, _HIGHEST_RANK = -(1 << 31), (1 << 31) - 1

Numbers = Callable[[Direction, Span, int], Awaitable[list[int]]]
"""So many numbers inside a span, from one end."""
Way = tuple[list[Section], Place | None]
"""Sections, and the place in the first of them to go on from."""


async def ways(core: Core, wanted: Narrowed, order: str, start: Place | None) -> list[Way]:
    """To be tried in turn until one is complete."""
    drive = Drive(core, wanted)
    await drive.bound_by_time()
    if order.startswith("created"):
        found = await drive.narrow()
        way: Direction = "asc" if order == "created_asc" else "desc"
        return [([drive.created(numbers, way)], start) for numbers in found] or [([drive.scanned(way)], start)]
    small = await drive.small(order)
    if small is not None:
        return [([small], start)]
    if order == "finished_desc":
        return [await drive.by_end(start)]
    return [await drive.by_lanes(start) or drive.by_priority(start)]


@dataclass
class Drive:
    core: Core
    wanted: Narrowed
    span: Span = field(default_factory=Span)

    async def bound_by_time(self) -> None:
        """Numbers go nearly by time: outside the span nothing was created in the time asked for."""
        pool, ns, wanted = self.core.pool, self.core.ns, self.wanted
        if wanted.created_after is not None:
            turn = await rows.turn_of_time(pool, ns, wanted.created_after - SLACK)
            self.span.low = self.span.low if turn is None else turn.low
        if wanted.created_before is not None:
            turn = await rows.turn_of_time(pool, ns, wanted.created_before + SLACK)
            self.span.high = self.span.high if turn is None else turn.high

    async def all_tasks(self, way: Direction, span: Span, limit: int) -> list[int]:
        return await rows.walk_created(self.core.pool, self.core.ns, way, span, limit)

    async def narrow(self) -> list[Numbers]:
        """Sets that hold all that is wanted, narrower than all tasks."""
        wanted, found = self.wanted, list[Numbers]()
        if wanted.key is not None:
            found.append(partial(_of_key, self.core, wanted.key))
        if wanted.group_no is not None:
            found.append(partial(_of_group, self.core, wanted.group_no))
        if wanted.worker is not None and wanted.states == [RUNNING]:
            found.append(partial(_of, wanted.runs or []))
        places = None if wanted.states is None else await self.places(wanted.states)
        if places is not None:
            found.append(places)
        return found

    async def places(self, states: list[int]) -> Numbers | None:
        """Tasks in these states by their places; None where that cannot be walked."""
        pool, ns, lanes = self.core.pool, self.core.ns, list[LaneRow]()
        if RUNNING in states:
            running = await rows.running_count(pool, ns, LEASED)
            if running.leases >= LEASED or running.tasks > LEASED:
                return None
        if READY in states:
            lanes = await rows.ready_lanes(pool, ns, self.wanted.channels, LANES + 1)
            if len(lanes) > LANES:
                return None

        async def numbers(way: Direction, span: Span, limit: int) -> list[int]:
            return await rows.walk_places(pool, ns, way, span, limit, states, lanes)

        return numbers

    # -- sections -------------------------------------------------------------------------------------------------------

    def section(self, read: Read, **narrower: object) -> Section:
        """Candidates, of which the filter lets some through."""
        core, wanted = self.core, replace(self.wanted, **narrower)  # type: ignore[arg-type]
        if _deep(wanted):
            return Section(read, PLACED, partial(_matching, core, wanted))
        if any(given is not None for given in wanted.own()):
            return Section(read, LOOKED_UP, partial(_matching, core, wanted))
        return Section(read, TAKEN)

    def created(self, numbers: Numbers, way: Direction, key: int = 0, **narrower: object) -> Section:
        async def read(at: Place | None, size: int) -> Part:
            return part([(key, no) for no in await numbers(way, rest_of(self.span, at, way), size)], size)

        return self.section(read, **narrower)

    def scanned(self, way: Direction, **narrower: object) -> Section:
        """All tasks, which have their numbers' order: what the filter asks of a task's own row is asked on the way."""
        core, wanted = self.core, replace(self.wanted, **narrower)  # type: ignore[arg-type]

        async def read(at: Place | None, size: int) -> Part:
            found = await rows.scan_created(core.pool, core.ns, way, rest_of(self.span, at, way), size, wanted)
            end = None if found.last is None or found.looked < size else (0, found.last)
            return Part([(0, no) for no in found.nos or ()], end, found.looked)

        if _deep(wanted):
            return Section(read, SCANNED, partial(_matching, core, wanted), match_cost=PLACED, step=STEP // 2)
        return Section(read, SCANNED, step=SCAN_STEP)

    async def small(self, order: str) -> Section | None:
        """A narrow set, sorted, if one is small."""
        found = await self.narrow()
        if self.wanted.created_after is not None:
            found.append(self.all_tasks)
        for numbers in found:
            nos = await numbers("asc", self.span, SMALL + 1)
            if len(nos) > SMALL:
                continue
            keys = await rows.keys_of_tasks(self.core.pool, self.core.ns, nos)
            if order == "finished_desc":
                return self.section(whole([(k.ended, k.no) for k in keys], lambda place: (-place[0], -place[1])))
            return self.section(whole([(k.priority, k.no) for k in keys], lambda place: (-place[0], place[1])))
        return None

    async def by_end(self, start: Place | None) -> Way:
        """What has ended, then the rest, newest first."""
        pool, ns = self.core.pool, self.core.ns
        states = set(range(8) if self.wanted.states is None else self.wanted.states)
        ended, rest = sorted(states & {SUCCEEDED, FAILED, CANCELLED}), sorted(states - {SUCCEEDED, FAILED, CANCELLED})

        async def read(at: Place | None, size: int) -> Part:
            micros, no = (_LATEST, 0) if at is None else at
            return part(await rows.walk_ended(pool, ns, micros, no, size, ended), size)

        sections = [self.section(read)] if ended and (start is None or start[0] >= 0) else []
        begin = start if sections or start is None or start[0] < 0 else None
        if rest:
            sections.append(self.created(await self.places(rest) or self.all_tasks, "desc", key=-1, states=rest))
        return sections, begin

    def by_priority(self, start: Place | None) -> Way:
        """High priorities, then those of 0, then the rest."""
        at = None if start is None else start[0]
        sections = [self.ranked(_LOWEST_RANK, 0)] if at is None or at > 0 else []
        if at is None or at >= 0:
            sections.append(self.scanned("asc", rank=0))
        sections.append(self.ranked(0, _HIGHEST_RANK))
        return sections, start

    def ranked(self, above: int, below: int) -> Section:
        pool, ns = self.core.pool, self.core.ns

        async def read(at: Place | None, size: int) -> Part:
            rank, no = (above, HIGHEST) if at is None else (-at[0], at[1])
            return part(await rows.walk_ranked(pool, ns, rank, no, below, size), size)

        return self.section(read)

    async def by_lanes(self, start: Place | None) -> Way | None:
        """READY tasks alone, a priority at a time."""
        pool, ns = self.core.pool, self.core.ns
        if self.wanted.states != [READY]:
            return None
        lanes = await rows.ready_lanes(pool, ns, self.wanted.channels, LANES + 1)
        aside = await rows.parked_ranks(pool, ns, LANES + 1)
        if len(lanes) > LANES or len(aside) > LANES:
            return None
        channels: defaultdict[int, list[int]] = defaultdict(list)
        for lane in lanes:
            channels[lane.rank].append(lane.channel)

        def of_rank(rank: int) -> Section:
            async def numbers(_: Direction, span: Span, limit: int) -> list[int]:
                return await rows.walk_rank(pool, ns, span, limit, rank, channels[rank])

            return self.created(numbers, "asc", key=-rank)

        ranks = sorted(rank for rank in {*channels, *aside} if start is None or rank >= -start[0])
        begin = start if start is not None and ranks and ranks[0] == -start[0] else None
        return [of_rank(rank) for rank in ranks], begin


def rest_of(span: Span, at: Place | None, way: Direction) -> Span:
    """What is left of a span."""
    if at is None:
        return span
    return replace(span, low=max(span.low, at[1])) if way == "asc" else replace(span, high=min(span.high, at[1]))


def _deep(wanted: Narrowed) -> bool:
    """Whether other rows than a task's own must be looked at."""
    return wanted.states is not None or wanted.worker is not None


async def _of(nos: list[int], way: Direction, span: Span, limit: int) -> list[int]:
    return sorted((no for no in nos if span.low < no < span.high), reverse=way == "desc")[:limit]


async def _of_key(core: Core, key: str, way: Direction, span: Span, limit: int) -> list[int]:
    return await rows.walk_key(core.pool, core.ns, way, span, limit, key)


async def _of_group(core: Core, group_no: int, way: Direction, span: Span, limit: int) -> list[int]:
    return await rows.walk_group(core.pool, core.ns, way, span, limit, group_no)


async def _matching(core: Core, wanted: Narrowed, nos: list[int]) -> set[int]:
    return await rows.matching_numbers(core.pool, core.ns, nos, wanted)
