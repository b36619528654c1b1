"""Lists: candidates are walked in the order of the list, and those that the filter lets through are kept.

What a list may look at is bounded. A section is a run of candidates that follow each other in the list's order, read a
part at a time: an index, or a small set read whole and sorted. Sections stand one after the other. When the page is full or
the last section ends, the page is right; when the budget ends first, there is no page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from db.task import TOTAL_COUNT_STOPS_AT

BUDGET = 20_000
"""Points that one list may spend; one is about half a microsecond (bench/reading.py)."""
SCANNED, TAKEN, LOOKED_UP, PLACED = 2, 2, 8, 32
"""What a candidate costs: looked at among its neighbours; taken as it is; looked up; and with the place where it stands."""
STEP, SCAN_STEP = 4096, 8192
"""The most candidates of one statement."""

Place = tuple[Any, int]
"""Sort key and number: where an item stands in its list."""


@dataclass
class Part:
    places: Sequence[Place]
    end: Place | None
    """The place to go on from; None: there are no more."""
    looked: int
    """So many were looked at for these."""


Read = Callable[[Place | None, int], Awaitable[Part]]
"""So many that follow a place, or the first ones."""
Match = Callable[[list[int]], Awaitable[set[int]]]


@dataclass
class Section:
    read: Read
    cost: int
    """Points for each candidate looked at."""
    match: Match | None = None
    """Those of these numbers that belong in the list; None: all of them."""
    match_cost: int = 0
    """And for each of those that are matched, if that is not all that is looked at."""
    step: int = STEP


@dataclass
class Walked:
    places: list[Place]
    complete: bool
    """False: the budget ended first."""


@dataclass
class Total:
    """How many items a list has."""

    n: int
    is_exact: bool

    @staticmethod
    def of(n: int) -> Total:
        return Total(min(n, TOTAL_COUNT_STOPS_AT), n <= TOTAL_COUNT_STOPS_AT)


async def walk(sections: Sequence[Section], start: Place | None, want: int, budget: int) -> Walked:
    """The first `want` items, or all there are. `start` is a place in the first section."""
    found: list[Place] = []
    for section in sections:
        at, start, size = start, None, max(want + 1, 100)
        while len(found) < want:
            size = min(size, section.step, budget // section.cost)
            if size <= 0:
                return Walked(found, False)
            got = await section.read(at, size)
            budget -= max(got.looked, 1) * section.cost + len(got.places) * section.match_cost
            kept = await section.match([no for _, no in got.places]) if section.match and got.places else None
            found += got.places if kept is None else [place for place in got.places if place[1] in kept]
            at, size = got.end, size * 4
            if at is None:
                break
    return Walked(found[:want], True)


def part(places: Sequence[Place], size: int) -> Part:
    """So many were asked for."""
    return Part(places, places[-1] if len(places) >= size else None, len(places))


def whole(items: Sequence[Place], order: Callable[[Place], Any]) -> Read:
    """A set that is small enough to be sorted."""
    ordered = sorted(items, key=order)

    async def read(at: Place | None, size: int) -> Part:
        left = ordered if at is None else [item for item in ordered if order(item) > order(at)]
        return part(left[:size], size)

    return read
