"""Takes tasks out of the database for claims: where to look from in each channel, and by which statement.

A claim starts where the last one ended (the remembered key), lean as long as no key, pause or limit is met, else in full, and where
limits are met in turn with all other claims.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from uuid import UUID

from db.cap import take_turn
from db.claim import (
    IN_FULL,
    NEEDS_TURN,
    WITH_TURN,
    Claimed,
    ClaimedBefore,
    ClaimedRow,
    ClaimRequest,
    Place,
    best_places,
    claim_tasks,
    claim_tasks_full,
)
from db.clock import ready_channels
from db.key import take_in
from db.pool import Connection
from resolvers.core import Core

ROUND = 5000
"""At most so many tasks are claimed at once."""
_FROM_START = (-(1 << 31), 0)
_IN_FULL = 10.0
_LATE = 0.002
"""Later than a rate limit opens."""
_FEW = 4
"""Of so many channels a claim may lock the whole limit in each; of more it asks first how many to take from which."""
_AHEAD = 10
"""For so many claims like this one."""
_LATE_FLOORS = 2
"""So many floor polls late, a claim looks from the start itself."""
_LOOK_SHARE = 100
"""Looking from the start of the channels takes one part in so many of the time."""


@dataclass
class Taker:
    core: Core
    room: Callable[[Collection[int]], object]
    """Called when there may be room under limits in these channels again."""
    _front: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The remembered key: where to look from in each channel. Rows before it are dead, or told of by `wake`."""
    _told: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The first place of each channel that was told of since the last claim there began, which may not have seen it."""
    _best: dict[tuple[int, ...], list[Place]] = field(default_factory=dict)
    """Many channels → where the best of their tasks stand that no claim was sent for, the best first."""
    _in_full: float = 0.0
    """Until when claims are made in full: there are keys or pauses."""
    limited: dict[int, float] = field(default_factory=dict)
    """Channels in which limits were met: until when claims take the turn at once."""
    _next_look: float = 0.0
    """When to look from the start of the channels again, whatever is remembered."""

    def told(self, places: list[Place]) -> None:
        """Tasks became ready at these places."""
        for channel, rank, no in places:
            front = self._front.get(channel)
            if front is not None and (rank, no) <= front:
                self._front[channel] = (rank, no - 1)
            self._told[channel] = min((rank, no), self._told.get(channel, (rank, no)))
        first = min((rank, no) for _, rank, no in places)
        self._best = {channels: best for channels, best in self._best.items() if best and best[-1][1:] < first}

    def sweep(self) -> None:
        """Hints may have been lost: from the start of each channel."""
        self._front.clear()
        self._best.clear()

    def forget_best(self) -> None:
        """Which of many channels have the best tasks may have changed elsewhere."""
        self._best.clear()

    def forget(self, numbers: list[int]) -> bool:
        """Whether a key was remembered for one of these channels; none is now."""
        forgotten = [self._front.pop(n, None) for n in numbers]
        return any(forgotten)

    async def take(self, numbers: list[int], requests: list[ClaimRequest]) -> list[ClaimedRow]:
        """What is claimed in these channels. Raises asyncpg.UniqueViolationError, and takes nothing, when another server took one
        of the claim ids meanwhile."""
        looking, start = self._starts(numbers, self.core.rhythm.floor * _LATE_FLOORS)
        for number in numbers:
            self._told.pop(number, None)
        limits: list[int] | None = None
        if len(start) > _FEW:
            share = await self._share(start, sum(r.limit for r in requests))
            start = [place for place in start if place[0] in share] or start[:1]
            limits = [share.get(place[0], 1) for place in start]
        rows = await self._take_tasks(start, requests, limits)
        if looking is not None:
            self._looked(looking)
        if limits is not None and len(rows) < sum(limits):
            # Somebody else took some, or they are held now.
            self._best.pop(tuple(numbers), None)
        runners = [row.no for row in rows if row.merges]
        if runners:
            await self.core.pool.run(lambda c: take_in(c, self.core.ns, runners))
        if self.limited.keys().isdisjoint(numbers):
            self._remember(rows)
        if rows:
            self.core.stir()
            self.core.due(min(row.seconds for row in rows))
        return rows

    async def _take_tasks(
        self, start: list[Place], requests: list[ClaimRequest], limits: list[int] | None
    ) -> list[ClaimedRow]:
        """By the statement that knows all that is met: lean as long as nothing is, else in full, and with the turn under limits."""
        pool, ns, channels = self.core.pool, self.core.ns, {place[0] for place in start}
        now = time.monotonic()
        found = Claimed([], IN_FULL, None)
        turn = any(self.limited.get(channel, 0.0) > now for channel in channels)
        if not turn and now > self._in_full:
            found = await pool.run(lambda c: claim_tasks(c, ns, start, requests, limits))
            if found.again == IN_FULL:
                self._in_full = now + _IN_FULL
            turn = found.again == WITH_TURN
        while found.again and not found.rows:
            turn = turn or found.again == NEEDS_TURN
            if turn:
                # What has no room now is passed over, and looked at again.
                self.limited.update(dict.fromkeys(channels, now + _IN_FULL))
                self.forget(list(channels))

            async def claim(c: Connection, turn: bool = turn) -> Claimed:
                if turn:
                    await take_turn(c, ns)
                return await claim_tasks_full(c, ns, start, requests, limits, turn=turn)

            found = await pool.run(claim, transaction=turn)
        if turn:
            self._reopen(channels, found.opens_in, more=bool(found.rows))
        return found.rows

    def _reopen(self, channels: set[int], opens_in: float | None, *, more: bool) -> None:
        """Under limits: look again when a rate lets more through; at once when some were taken, for others may still fit."""
        if more:
            self.room(channels)
        elif opens_in is not None:
            asyncio.get_running_loop().call_later(max(opens_in, 0.0) + _LATE, self.room, channels)

    async def _share(self, start: list[Place], wanted: int) -> Counter[int]:
        """Of the best tasks of many channels, how many each has. Asked for some claims ahead: it costs a look into each channel."""
        channels = tuple(place[0] for place in start)
        best = self._best.get(channels, [])
        if len(best) < wanted:
            ahead = max(wanted, min(wanted * _AHEAD, ROUND))
            best = await self.core.pool.run(lambda c: best_places(c, self.core.ns, start, ahead))
        self._best[channels] = best[wanted:]
        return Counter(place[0] for place in best[:wanted])

    async def ready(self, numbers: list[int], claim_ids: list[UUID]) -> tuple[set[int], list[ClaimedBefore]]:
        """The floor poll: which of these channels hold something that could be claimed, and which of these claims took something
        elsewhere. It is this that looks from their start as a rule: a claim that does keeps others waiting."""
        if not (numbers or claim_ids):
            return set(), []
        looking, start = self._starts(numbers, 0.0)
        found, taken = await ready_channels(self.core.pool, self.core.ns, start, claim_ids)
        for channel, rank, no in found:
            if channel in self._front:
                self._front[channel] = min(self._front[channel], (rank, no - 1))
        if looking is not None:
            self._looked(looking, numbers)
        return {channel for channel, _, _ in found}, taken

    def _starts(self, numbers: list[int], late: float) -> tuple[float | None, list[Place]]:
        """Where to look from in each channel. From the start once in a while (unless that is less than `late` overdue), in case
        a hint was lost: that passes over all rows that died since the oldest snapshot in the database, so it may take at most
        a small share of the time. And when that began."""
        now = time.monotonic()
        if now < self._next_look + late:
            return None, [(n, *self._front.get(n, _FROM_START)) for n in numbers]
        return now, [(n, *_FROM_START) for n in numbers]

    def _looked(self, began: float, numbers: Collection[int] = ()) -> None:
        """Where this look did not look, the next claim does."""
        self._front = {n: place for n, place in self._front.items() if n in numbers}
        ended = time.monotonic()
        self._next_look = ended + max(self.core.rhythm.floor, (ended - began) * _LOOK_SHARE)

    def _remember(self, rows: list[ClaimedRow]) -> None:
        for row in rows:
            key = (row.rank, row.no)
            told = self._told.get(row.channel_no)
            if told is not None and told <= key:
                key = (told[0], told[1] - 1)
            if key > self._front.get(row.channel_no, _FROM_START):
                self._front[row.channel_no] = key
