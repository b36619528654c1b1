"""Subscribers of the event log: each pulls what follows its cursor, so nothing is kept for one that does not.

What the log keeps is taken from there. Who comes from further back reads for itself, a few at a time, until it arrives; who has
arrived once and falls behind all that is kept is cut off with its cursor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from resolvers.cursor import Cursor
from resolvers.errors import TooSlow
from resolvers.event import Event, Filter, Piece
from resolvers.event_log import EventLog

BATCH = 500
FIRST_BATCH = 16
"""A stream begins with small batches, each twice the one before: on a line that breaks again and again, some get through."""
_LOOKED = 2000
"""Items that are filtered before others get their turn."""
_SHARED = 2000
"""Batches, and events in them, that are kept until the log goes on."""
_MOST = 20_000
"""Items that are filtered for one batch."""


@dataclass(slots=True)
class Batch:
    """Subscribers at the same place with the same filter get the same one."""

    events: list[Event]
    cursor: Cursor
    passed: int = 0
    """Items that were looked at for it."""
    shared: dict[object, Any] = field(default_factory=dict)
    """What was made of it once for all of them."""


async def poll(log: EventLog, cursor: Cursor, filter: Filter, limit: int, wait: float) -> Batch:
    """What follows, as soon as there is something; after `wait` seconds an empty batch. Raises CursorExpired."""
    give_up = time.monotonic() + wait
    with log.listening():
        subscriber = Subscriber(log, cursor, filter)
        # Who does not wait is answered with all that was committed before.
        await log.begun(None if wait else (await log.now()).place)
        await log.check(cursor)
        while True:
            batch = await subscriber.next(limit, give_up - time.monotonic())
            if batch.events or time.monotonic() >= give_up or log.draining:
                return batch


async def follow(log: EventLog, cursor: Cursor | None, filter: Filter) -> AsyncGenerator[Batch, None]:
    """Batch after batch: the first at once, and an empty one after each quiet spell. Ends when the server stops.

    Raises CursorExpired, and TooSlow when what follows is not kept any more.
    """
    with log.listening():
        await log.begun()
        if cursor is None:
            cursor = await log.now()
        else:
            await log.check(cursor)
        subscriber = Subscriber(log, cursor, filter)
        limit = FIRST_BATCH
        batch = await subscriber.next(limit, 0)
        while not log.draining:
            yield batch
            limit = min(2 * limit, BATCH)
            batch = await subscriber.next(limit, log.quiet)


class Subscriber:
    """One reader's place in the log."""

    def __init__(self, log: EventLog, cursor: Cursor, filter: Filter) -> None:
        self.cursor = cursor
        self._log = log
        self._filter = filter
        self._arrived = False

    async def next(self, limit: int, wait: float) -> Batch:
        """The next events, at most `limit`; none after `wait` seconds, or when so many have passed that none was for us."""
        give_up = time.monotonic() + wait
        passed = 0
        while True:
            advanced = self._log.advanced
            before = self.cursor
            batch = await self._batch(limit)
            self.cursor = batch.cursor
            passed += batch.passed
            left = give_up - time.monotonic()
            moved = self.cursor != before
            if batch.events or passed > _MOST or self._log.draining or (left <= 0 and not moved):
                return batch
            if not moved:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await advanced.wait()

    async def _batch(self, limit: int) -> Batch:
        """What follows: once for all who ask the same before the log goes on."""
        end = self._log.end
        self._arrived = self._arrived or (end is not None and self.cursor.place >= end.place)
        known, key = self._log.batches, (self.cursor, self._filter, limit)
        batch: Batch | None = known.get(key)
        if batch is None:
            pieces, is_kept = await self._following()
            batch = await self._take(pieces, limit)
            # Who is at the end has company there; who catches up is alone at each place.
            if is_kept and known is self._log.batches and batch.cursor == end and self._log.shared < _SHARED:
                known[key] = batch
                self._log.shared += 1 + len(batch.events)
        return batch

    async def _following(self) -> tuple[list[Piece], bool]:
        """And whether the log keeps it."""
        log = self._log
        kept = log.kept_after(self.cursor.place)
        if kept is not None:
            return kept, True
        if self._arrived:
            raise TooSlow(
                "this subscriber did not keep up with what happens: go on from its last cursor, or narrow the filter",
                (),
            )
        async with log.others_reading:
            return (await log.read(self.cursor))[0], False

    async def _take(self, pieces: list[Piece], limit: int) -> Batch:
        """What the filter lets through, with the cursor behind it."""
        events: list[Event] = []
        passed = looked = 0
        at = self.cursor
        for piece in pieces:
            for cursor, event in piece.events(at.place, self._filter):
                events.append(event)
                if len(events) == limit:
                    return Batch(events, cursor, passed)
            at = piece.end
            passed += piece.size
            looked += piece.size
            if looked > _LOOKED:
                if events:
                    break
                looked = 0
                await asyncio.sleep(0)
        return Batch(events, at, passed)
