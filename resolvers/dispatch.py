"""The dispatcher: who waits for tasks in this process, and one claim for all who wait for the same channels.

A claim waits here, not in the database: a thousand idle workers make no query. A round is one statement for one set of
channels; it runs when somebody asks who has not been tried, when tasks become ready (`wake`), and, as the floor, when a
poll finds something ready that no hint told of. Rounds of sets that have no channel in common run side by side: a channel in
which much must be passed over holds none of the others up.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from uuid import UUID

import asyncpg

from db.claim import (
    ClaimedBefore,
    ClaimedRow,
    ClaimRequest,
    Place,
    claimed_before,
)
from db.lease import StandingRow, standing_leases
from db.task import TaskRow, read_tasks
from resolvers.core import Core, MakeAndLease
from resolvers.errors import Conflict
from resolvers.follow import give_back
from resolvers.take import ROUND, Taker

_AT_END = ((1 << 31) - 1, 0)
"""No task stands there: nothing new is ready, but look."""
_AT_ONCE = 4
"""Rounds; more would take the connections from what workers hand in."""
_AHEAD = 64
"""Among so many sets, in the order in which they came, the next round is looked for."""
OFFER_SECONDS = 10.0
"""How long a pushed lease waits for a call that confirms it."""
Channels = tuple[str, ...]


@dataclass(slots=True)
class Claim:
    """What one worker asked for."""

    worker: str
    channels: Channels
    limit: int
    seconds: float
    wait: float
    claim_id: UUID | None
    offer: float | None = None
    """It is pushed: the leases last for `seconds` until they are confirmed, and for so long then."""
    transport: str | None = None
    """How the worker is shown to be connected, where it does not poll."""

    @property
    def asked(self) -> str:
        """What a repeat of the same claim id must ask for, too."""
        return f"{self.limit} of {self.channels!r}"


@dataclass(slots=True)
class Standing:
    """A lease that an earlier copy of the same claim got."""

    row: StandingRow
    task: TaskRow


Granted = Sequence[ClaimedRow] | Sequence[Standing]


@dataclass(slots=True, eq=False)
class _Waiter:
    claim: Claim
    worker: int
    answer: asyncio.Future[Granted]
    timer: asyncio.TimerHandle | None = None
    over: bool = False
    """Its wait is over: it is answered after the round it is in."""
    askers: int = 1
    """How many copies of the claim wait for the answer; at 0 nobody does."""
    known: bool = False
    """Its claim id has been looked up: from then on only a copy at another server can take it."""


@dataclass
class Dispatcher:
    core: Core
    _waiting: dict[Channels, dict[_Waiter, None]] = field(default_factory=dict)
    """By channels, in order."""
    _by_claim_id: dict[UUID, _Waiter] = field(default_factory=dict)
    _dirty: dict[Channels, None] = field(default_factory=dict)
    """Sets of channels for which a round is to run, in order."""
    _dry: dict[Channels, float] = field(default_factory=dict)
    """Since when a set of channels is known to hold nothing."""
    _wakes: int = 0
    _rounds: dict[Channels, asyncio.Future[None]] = field(default_factory=dict)
    """Those that run."""
    _draining: bool = False

    def __post_init__(self) -> None:
        self._taker = Taker(self.core, self.room)

    # -- asking -----------------------------------------------------------------------------------------------------

    async def claim(self, claim: Claim) -> Granted:
        """Leases, as soon as there is one, or nothing after `claim.wait` seconds.

        A caller that is cancelled while it waits is dropped; what a round took for it meanwhile is released, unless it
        has a claim id to ask for it again.
        """
        if self._draining:
            claim = replace(claim, wait=0.0)
        number = self.core.workers.number.get(claim.worker)
        if number is None:
            number = (await self.core.workers.numbers([claim.worker]))[claim.worker]
        if claim.offer is None:
            self.core.seen[number] = (
                list(claim.channels),
                claim.transport or ("long-poll" if claim.wait else "poll"),
            )
        twin = self._by_claim_id.get(claim.claim_id) if claim.claim_id else None
        if twin is not None:
            return await self._copy(twin, claim)
        waiter = self._enter(claim, number)
        try:
            return await asyncio.shield(waiter.answer)
        except asyncio.CancelledError:
            self._asker_gone(waiter)
            raise

    async def _copy(self, waiter: _Waiter, claim: Claim) -> Granted:
        """Another copy of a claim that waits here already: the same answer, but no longer than this copy may wait. One that
        may not wait ends the claim: its worker stops, and a proxy may still keep up the copy that the worker cut off."""
        _refuse_other(waiter.claim.asked, claim)
        waiter.askers += 1
        self._set_timer(waiter, claim.wait)
        try:
            await asyncio.wait([waiter.answer], timeout=claim.wait)
            # What is in a round just now may yet get something.
            while not waiter.answer.done() and waiter not in self._queue(waiter):
                running = self._rounds.get(waiter.claim.channels)
                if running is None:
                    break
                ends: list[asyncio.Future[Any]] = [waiter.answer, running]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not waiter.answer.done() and not claim.wait:
                self._give_up(waiter)
            if waiter.answer.done():
                return waiter.answer.result()
        except asyncio.CancelledError:
            self._asker_gone(waiter)
            raise
        self._asker_gone(waiter)
        return []

    def _queue(self, waiter: _Waiter) -> dict[_Waiter, None]:
        return self._waiting.get(waiter.claim.channels, {})

    def _asker_gone(self, waiter: _Waiter) -> None:
        waiter.askers -= 1
        if waiter.askers == 0:
            self._leave(waiter)

    def _set_timer(self, waiter: _Waiter, wait: float) -> None:
        """The wait of a claim ends with the longest wait of its copies."""
        loop = asyncio.get_running_loop()
        if waiter.timer is not None and waiter.timer.when() >= loop.time() + wait:
            return
        if waiter.timer is not None:
            waiter.timer.cancel()
        waiter.timer = loop.call_later(wait, self._give_up, waiter)

    def _enter(self, claim: Claim, worker: int) -> _Waiter:
        waiter = _Waiter(claim, worker, asyncio.get_running_loop().create_future())
        if claim.wait:
            self._set_timer(waiter, claim.wait)
        self._waiting.setdefault(claim.channels, {})[waiter] = None
        if claim.claim_id is not None:
            self._by_claim_id[claim.claim_id] = waiter
        if not claim.wait or not self._is_fresh(self._dry.get(claim.channels, -1e9)):
            self._kick([claim.channels])
        return waiter

    def _is_fresh(self, since: float) -> bool:
        """What was known then still holds: the floor poll would have found out, or does so now. (It may be late itself.)"""
        return time.monotonic() - since < self.core.rhythm.floor * 5

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._queue(waiter):
            self._remove(waiter)
        elif waiter.claim.claim_id is None:
            waiter.answer.add_done_callback(self._give_back)

    def _give_back(self, answer: asyncio.Future[Granted]) -> None:
        if answer.cancelled() or answer.exception() or not answer.result():
            return
        pairs = [(r.lease_no, r.no) for r in answer.result() if isinstance(r, ClaimedRow)]
        self._returning = asyncio.create_task(give_back(self.core, pairs))

    def _give_up(self, waiter: _Waiter) -> None:
        """Its wait is over; one that is in a round is answered after that."""
        waiter.over = True
        if waiter in self._queue(waiter):
            self._answer(waiter, [])

    def _answer(self, waiter: _Waiter, granted: Granted) -> None:
        self._remove(waiter)
        if not waiter.answer.done():
            waiter.answer.set_result(granted)

    def _remove(self, waiter: _Waiter) -> None:
        if waiter.timer is not None:
            waiter.timer.cancel()
        self._leave_queue(waiter)
        if waiter.claim.claim_id is not None and self._by_claim_id.get(waiter.claim.claim_id) is waiter:
            del self._by_claim_id[waiter.claim.claim_id]

    def _leave_queue(self, waiter: _Waiter) -> None:
        waiters = self._queue(waiter)
        if waiter in waiters:
            del waiters[waiter]
            if not waiters:
                del self._waiting[waiter.claim.channels]

    # -- waking -----------------------------------------------------------------------------------------------------

    def wake(self, places: list[Place]) -> None:
        """Tasks became ready at these places."""
        if not places:
            return
        self._wakes += 1
        self._taker.told(places)
        names = {self.core.channels.name.get(channel) for channel, _, _ in places}
        woken = [c for c in (*self._waiting, *self._rounds) if not names.isdisjoint(c) or None in names]
        for channels in [c for c in self._dry if not names.isdisjoint(c) or None in names]:
            del self._dry[channels]
        self._kick(woken)

    def sweep(self) -> None:
        """Hints may have been lost: all who wait look, from the start of each channel."""
        self._taker.sweep()
        self._dry.clear()
        self._kick([*self._waiting, *self._rounds])

    def _kick(self, sets: Iterable[Channels]) -> None:
        self._dirty.update(dict.fromkeys(sets))
        self._begin()

    def drain(self) -> None:
        """The server stops: those who wait are answered now, and nobody waits any more."""
        self._draining = True
        for waiters in list(self._waiting.values()):
            for waiter in list(waiters):
                self._give_up(waiter)

    @property
    def waiting(self) -> int:
        """How many claims wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def idle(self) -> bool:
        """No round runs."""
        return not self._rounds

    async def floor(self) -> None:
        """One poll under all hints."""
        await asyncio.sleep(self.core.rhythm.floor * random.uniform(0.9, 1.1))
        if not self._waiting:
            return
        numbers = await self.core.channels.known({name for channels in self._waiting for name in channels})
        asking = self._asking(w for waiters in self._waiting.values() for w in waiters)
        wakes = self._wakes
        ready, taken = await self._taker.ready(sorted(numbers.values()), list(asking))
        names = {name for name, number in numbers.items() if number in ready}
        now = time.monotonic()
        self._taker.forget_best()
        self._dry = {channels: since for channels, since in self._dry.items() if self._is_fresh(since)}
        for channels in self._waiting:
            if names.isdisjoint(channels) and wakes == self._wakes:
                self._dry[channels] = now
        await self._answer_again(asking, taken)
        self._kick([c for c in self._waiting if not names.isdisjoint(c)])

    # -- handing over -----------------------------------------------------------------------------------------------

    async def hand_over(self, channel: str, make: MakeAndLease) -> None:
        """A task that is about to be made goes to a claim that waits, where nothing else is ready for it: `make` makes and leases
        it by one statement. Where no claim waits so, `make` is not called. Raises what `make` raises."""
        waiter = self._next_idle(channel)
        if waiter is None:
            return
        channels = waiter.claim.channels
        self._leave_queue(waiter)
        self._rounds[channels] = over = asyncio.get_running_loop().create_future()
        try:
            row = await make(_request(waiter))
            if row is None:
                self._settle(channels, [waiter], short=False)
            else:
                self._answer(waiter, [row])
                self.core.stir()
                self.core.due(row.seconds)
        except BaseException:
            # It may have been made all the same, and the answer been lost: the claim id tells.
            waiter.known = False
            self._waiting[channels] = {waiter: None, **self._waiting.get(channels, {})}
            self._dirty[channels] = None
            raise
        finally:
            over.set_result(None)
            del self._rounds[channels]
            self._begin()

    def _next_idle(self, channel: str) -> _Waiter | None:
        """Who is next among those who wait for channels in which nothing is ready, this one among them."""
        if len(self._rounds) == _AT_ONCE:
            return None
        for channels, waiters in self._waiting.items():
            if channel in channels and not (channels in self._rounds or channels in self._dirty):
                waiter = next(iter(waiters))
                if waiter.claim.wait and self._is_fresh(self._dry.get(channels, -1e9)):
                    return waiter
        return None

    # -- rounds -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """The rounds that can: none overtakes one that came before it and has a channel in common with it."""
        before = {channel for channels in self._rounds for channel in channels}
        for channels in list(islice(self._dirty, _AHEAD)):
            if len(self._rounds) == _AT_ONCE:
                return
            if before.isdisjoint(channels):
                del self._dirty[channels]
                waiters = self._take(channels)
                if not waiters:
                    continue
                self._rounds[channels] = asyncio.create_task(self._run(channels, waiters))
            before.update(channels)

    async def _run(self, channels: Channels, waiters: list[_Waiter]) -> None:
        try:
            await self._round(channels, waiters)
        except Exception as error:
            for waiter in waiters:
                self._remove(waiter)
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
        finally:
            del self._rounds[channels]
            self._begin()

    def _take(self, channels: Channels) -> list[_Waiter]:
        """The waiters of one round. They stay listed in `_by_claim_id`, so that a copy that comes now finds its twin."""
        waiters = list(self._waiting.pop(channels, ()))
        total = n = 0
        while n < len(waiters) and (n == 0 or total + waiters[n].claim.limit <= ROUND):
            total += waiters[n].claim.limit
            n += 1
        if waiters[n:]:
            self._waiting[channels] = dict.fromkeys(waiters[n:])
            self._dirty[channels] = None
        return waiters[:n]

    async def _round(self, channels: Channels, waiters: list[_Waiter]) -> None:
        numbers = sorted((await self.core.channels.known(channels)).values())
        wanted = sum(w.claim.limit for w in waiters)
        hungry, claimed = await self._deal(numbers, waiters)
        leaving = [w for w in hungry if not w.claim.wait]
        if leaving and (await self.core.admit() or self._taker.forget(numbers)):
            # Another server may have made something ready before the remembered key: look from the start. Those who wait hear of
            # it by a hint, or by the floor poll.
            still, more = await self._deal(numbers, leaving)
            hungry = [w for w in hungry if w.claim.wait] + still
            claimed += more
        await self._look_up(w for w in hungry if not w.known)
        self._settle(channels, hungry, short=claimed < wanted)

    async def _deal(self, numbers: list[int], waiters: list[_Waiter]) -> tuple[list[_Waiter], int]:
        """One claim, dealt out; who got nothing, and how many were claimed."""
        while True:
            try:
                requests = [_request(w) for w in waiters]
                claimed = await self._taker.take(numbers, requests) if numbers and waiters else []
                break
            except asyncpg.UniqueViolationError:
                # Another server took one of these claim ids meanwhile, and nothing was taken here.
                await self._look_up(waiters)
                waiters = [w for w in waiters if not w.answer.done()]
        shares: list[list[ClaimedRow]] = [[] for _ in waiters]
        for row in claimed:
            shares[row.ord - 1].append(row)
        hungry = []
        for waiter, share in zip(waiters, shares, strict=True):
            if share:
                self._answer(waiter, share)
            else:
                hungry.append(waiter)
        return hungry, len(claimed)

    def _settle(self, channels: Channels, hungry: list[_Waiter], *, short: bool) -> None:
        """Those who got nothing wait on, or are told so."""
        if short and channels not in self._dirty:
            self._dry[channels] = time.monotonic()
        stay = []
        for waiter in hungry:
            if waiter.answer.done():
                self._remove(waiter)
            elif waiter.over or self._draining or not waiter.claim.wait or not waiter.askers:
                self._answer(waiter, [])
            else:
                stay.append(waiter)
        if stay:
            self._waiting[channels] = dict.fromkeys(stay) | self._waiting.get(channels, {})

    def room(self, channels: Collection[int] | None = None) -> list[Place]:
        """There may be room under limits again: those who wait for what is limited look. What to tell other servers."""
        limited = self._taker.limited if channels is None else channels
        if limited:
            names = {self.core.channels.name.get(channel) for channel in limited}
            self._dry = {c: since for c, since in self._dry.items() if names.isdisjoint(c)}
            self._kick([c for c in (*self._waiting, *self._rounds) if not names.isdisjoint(c)])
        return [(channel, *_AT_END) for channel in limited]

    async def _look_up(self, hungry: Iterable[_Waiter]) -> None:
        """Answer those whose claim id was taken by an earlier copy with what still stands of it."""
        asking = {w.claim.claim_id: w for w in hungry if w.claim.claim_id is not None}
        if asking:
            ids = list(asking)
            await self._answer_again(asking, await self.core.pool.run(lambda c: claimed_before(c, self.core.ns, ids)))

    def _asking(self, waiters: Iterable[_Waiter]) -> dict[UUID, _Waiter]:
        """Those whose claim id may have been taken, as far as is known here."""
        others = self.core.others
        return {w.claim.claim_id: w for w in waiters if w.claim.claim_id is not None and (others or not w.known)}

    async def _answer_again(self, asking: dict[UUID, _Waiter], taken: list[ClaimedBefore]) -> None:
        for waiter in asking.values():
            waiter.known = True
        for before in taken:
            waiter = asking[before.claim_id]
            try:
                self._answer(waiter, await self._standing(before, waiter.claim))
            except Conflict as error:
                self._remove(waiter)
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)

    async def _standing(self, before: ClaimedBefore, claim: Claim) -> list[Standing]:
        _refuse_other(before.asked, claim)
        leases = await self.core.pool.run(lambda c: standing_leases(c, self.core.ns, [before.lease_no]))
        tasks = {t.no: t for t in await read_tasks(self.core.pool, self.core.ns, nos=[row.no for row in leases])}
        return [Standing(row, tasks[row.no]) for row in leases if row.no in tasks]


def _request(waiter: _Waiter) -> ClaimRequest:
    c = waiter.claim
    return ClaimRequest(waiter.worker, c.limit, c.seconds, c.claim_id, c.asked, c.offer)


def _refuse_other(asked: str, claim: Claim) -> None:
    if asked != claim.asked:
        raise Conflict(
            f"claimId {claim.claim_id} was used to ask for {asked}, now for {claim.asked}: "
            "repeat a claim as it was, or make a new claimId",
            ("input", "claimId"),
        )
