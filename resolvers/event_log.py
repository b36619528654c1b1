"""The event log as one process reads it: put in order by ticks, read once for all subscribers, and kept for a while.

Every server makes a tick (sql/queries/live.sql) when it has written something and somebody listens, here or elsewhere; without
listeners one a second, so that none holds too much. While somebody listens here, one reader follows the ticks and keeps what it
read last: a subscriber that comes back with its cursor costs no query.
"""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from db.live import CHANNEL, GROUP, TASK, WORKER, WORKGROUP, PieceRow, make_tick, name_events, read_ticks, tick_stands
from resolvers.core import Core
from resolvers.cursor import Cursor, Place
from resolvers.errors import CursorExpired, Unavailable
from resolvers.event import Names, Piece
from resolvers.gather import Gather

_KEEP = 20_000
"""Items that are kept."""
_WARM = 30.0
"""So long after its last listener the reader goes on: a long poll comes back."""
_GAP = 0.01
"""Between two ticks of one server, at least: the first is made at once, what comes meanwhile goes together."""
_TICKS, _PIECES, _ITEMS = 20, 500, 500
"""What one statement reads, at most; and the items of a piece."""
_NAMES = 100_000
_OTHERS = 2
"""Subscribers that read for themselves at the same time, because they come from before what is kept."""
_PATIENCE = 10.0


class EventLog:
    """Ticks, and the reader."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.quiet = core.rhythm.quiet
        self._listeners = 0
        self._warm_until = 0.0
        self._stirred = asyncio.Event()
        self._unticked = False
        """Something was written here since the last tick."""
        self._kept: list[Piece] = []
        self._items = 0
        self._from = Place(0)
        """Where what is kept begins."""
        self._marks: dict[int, int] = {}
        """Tick → mark, of the ticks that are kept."""
        self.end: Cursor | None = None
        """As far as the reader has read; None while it does not read."""
        self.advanced = asyncio.Event()
        """Set, and replaced, when the reader has read on."""
        self.batches: dict[object, Any] = {}
        """What subscribers took of what is kept, for others at the same place; replaced then, too."""
        self.shared = 0
        """How much that is."""
        self._names: OrderedDict[tuple[int, int], str] = OrderedDict()
        self._now: Gather[None, Cursor] = Gather(self._flush_now)
        self.others_reading = asyncio.Semaphore(_OTHERS)
        self.others_read = False
        """Some other server has listeners: it is to hear of ticks."""
        self.told: Callable[[], None] = lambda: None
        """A tick was made: tell the others."""
        self.draining = False

    # -- ticks ------------------------------------------------------------------------------------------------------

    def stir(self) -> None:
        """Something was written to the log here."""
        self._unticked = True
        if self.reads or self.others_read:
            self._stirred.set()

    def heard(self) -> None:
        """Another server made a tick."""
        if self.reads:
            self._stirred.set()

    async def now(self) -> Cursor:
        """After all that was committed before this was asked."""
        return await self._now.add(None)

    async def _flush_now(self, asked: list[None]) -> list[Cursor | BaseException]:
        tick: Cursor | BaseException = await self._tick()
        return [tick] * len(asked)

    async def _tick(self) -> Cursor:
        self._unticked = False
        while True:
            row = await make_tick(self._core.pool, self._core.ns)
            if row.made and self.others_read:
                self.told()
            if row.made or not row.wanted:
                return Cursor(Place(row.tick), row.mark)

    # -- the reader -------------------------------------------------------------------------------------------------

    @property
    def listeners(self) -> int:
        return self._listeners

    @property
    def reads(self) -> bool:
        """Somebody listens, or did just now."""
        return self._listeners > 0 or time.monotonic() < self._warm_until

    @contextmanager
    def listening(self) -> Iterator[None]:
        self._listeners += 1
        if self.end is None:
            self._stirred.set()
        try:
            yield
        finally:
            self._listeners -= 1
            self._warm_until = time.monotonic() + _WARM

    async def begun(self, upto: Place | None = None) -> None:
        """Returns when the reader reads, and has read so far. Raises Unavailable when it cannot."""
        while self.end is None or (upto is not None and self.end.place < upto):
            if upto is not None:
                self._stirred.set()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self.advanced.wait()
            except TimeoutError:
                raise Unavailable("the event log cannot be read: the database does not answer; try again") from None

    def drain(self) -> None:
        """The server stops: whoever waits is answered now."""
        self.draining = True
        self._advance()

    async def step(self) -> None:
        try:
            async with asyncio.timeout(self._core.rhythm.floor * random.uniform(0.9, 1.1)):
                await self._stirred.wait()
            at_floor = False
        except TimeoutError:
            at_floor = True
        self._stirred.clear()
        if self._unticked or (at_floor and self.reads):
            await self._tick()
        if self.reads:
            await self._read_on()
        elif self.end is not None:
            self._kept, self._marks, self._items, self.end = [], {}, 0, None
            self.batches, self.shared = {}, 0
        if not at_floor:
            await asyncio.sleep(_GAP)

    async def _read_on(self) -> None:
        """All that follows, up to the last tick."""
        if self.end is None:
            self.end = await self._tick()
            self._from = self.end.place
            self._marks[self._from.tick] = self.end.mark
            self._advance()
        more = True
        while more:
            pieces, more = await self.read(self.end)
            if pieces:
                self._keep(pieces)
                self.end = pieces[-1].end
                self._advance()

    def _advance(self) -> None:
        advanced, self.advanced = self.advanced, asyncio.Event()
        self.batches, self.shared = {}, 0
        advanced.set()

    def _keep(self, pieces: list[Piece]) -> None:
        self._kept += pieces
        self._items += sum(1 + p.size for p in pieces)
        self._marks.update((p.end.place.tick, p.end.mark) for p in pieces)
        drop = 0
        while self._items > _KEEP and drop < len(self._kept) - 1:
            self._items -= 1 + self._kept[drop].size
            drop += 1
        if drop:
            self._from = self._kept[drop - 1].end.place
            del self._kept[:drop]
            self._marks = {tick: mark for tick, mark in self._marks.items() if tick >= self._from.tick}

    async def read(self, after: Cursor) -> tuple[list[Piece], bool]:
        """What one statement finds after a place, and whether there may be more."""
        rows = await read_ticks(self._core.pool, self._core.ns, after.place, ticks=_TICKS, pieces=_PIECES, items=_ITEMS)
        names = await self._names_of(rows)
        full = len(rows) == _PIECES
        pieces: list[Piece] = []
        for n, row in enumerate(rows):
            if row.seq is not None:
                pieces.append(Piece.of(row, names))
            is_last = rows[n + 1].tick != row.tick if n + 1 < len(rows) else not full or row.seq is None
            if is_last:
                pieces.append(Piece.end_of_tick(row))
        return pieces, full or len({row.tick for row in rows}) == _TICKS

    async def _names_of(self, rows: list[PieceRow]) -> Names:
        """What the numbers in these rows stand for. Remembered: neither ever changes."""
        wanted: set[tuple[int, int]] = set()
        for row in rows:
            for kind, numbers in (
                (TASK, row.nos),
                (GROUP, row.groups),
                (CHANNEL, row.channels),
                (WORKGROUP, row.workgroups),
                (WORKER, [row.worker]),
            ):
                wanted.update((kind, n) for n in numbers or () if n)
        known = {key: self._names[key] for key in wanted if key in self._names}
        missing = wanted - known.keys()
        if missing:
            asked: dict[int, list[int]] = {}
            for kind, number in missing:
                asked.setdefault(kind, []).append(number)
            found = await name_events(self._core.pool, self._core.ns, asked)
            known.update(found)
            self._names.update(found)
            while len(self._names) > _NAMES:
                self._names.popitem(last=False)
        return known

    # -- what is kept -----------------------------------------------------------------------------------------------

    async def check(self, cursor: Cursor) -> None:
        """Raises CursorExpired when the log does not go on from there."""
        tick = cursor.place.tick
        mark = self._marks.get(tick)
        stands = (
            await tick_stands(self._core.pool, self._core.ns, tick, cursor.mark)
            if mark is None
            else mark == cursor.mark
        )
        if not stands:
            raise CursorExpired(
                "the event log does not go on from this cursor: it is older than what is kept, or the database was restored; "
                "read afresh what you need, and begin without a cursor",
                ("after",),
            )

    def kept_after(self, place: Place) -> list[Piece] | None:
        """What is kept after a place; None when it lies before what is kept."""
        if self.end is None or place < self._from:
            return None
        return self._kept[bisect_right(self._kept, place, key=lambda p: p.end.place) :]
