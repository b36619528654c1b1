"""Leases pushed to workers: a stream asks the dispatcher for what it has room for, again and again.

A pushed lease is an offer of ten seconds until some call names it, so one that went into a dead socket comes back soon, uncounted.
What a stream has open is known from the calls that end leases here and, as the floor, by one look a second at all the open leases
of all streams of this process: a lease may be ended at another server. A worker has one stream, the newest, wherever it is; a
server that is alone need not look for that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from db.claim import ClaimedRow
from db.lease import StandingRow
from db.stream import OfferRow, enter_streams, leave_streams, renew_offers, watch_streams
from db.task import read_tasks
from resolvers.core import Core
from resolvers.dispatch import OFFER_SECONDS, Claim, Dispatcher, Granted, Standing
from resolvers.gather import Gather
from resolvers.lease import Finisher
from resolvers.wait import result_of


@dataclass(slots=True, eq=False)
class Stream:
    """One worker's. `open` are the leases that count against its limit."""

    claim: Claim
    worker: int
    transport: str
    id: UUID = field(default_factory=uuid4)
    open: set[tuple[int, int]] = field(default_factory=set)
    entered: bool = False
    """It is known to be its worker's newest."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """A newer stream of the worker has taken its place, or the server stops."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """There may be more room, or it is over."""
    claiming: asyncio.Task[Granted] | None = None
    """What it waits for, where it has room."""

    @property
    def room(self) -> int:
        return self.claim.limit - len(self.open)

    def end(self) -> None:
        self.over.set()
        self.changed.set()
        if self.claiming is not None:
            self.claiming.cancel()


class Push:
    """The streams of this process."""

    def __init__(self, core: Core, dispatcher: Dispatcher, finisher: Finisher) -> None:
        self._core = core
        self._dispatcher = dispatcher
        self._finisher = finisher
        self._streams: dict[int, Stream] = {}
        """By worker."""
        self._entries: Gather[Stream, list[OfferRow]] = Gather(self._flush_entries)
        self._leaving: list[Stream] = []

    @property
    def open(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    async def stream(self, claim: Claim, holding: Sequence[str], transport: str) -> AsyncGenerator[Granted, None]:
        """Leases as they come: first what was offered before and never confirmed, and nothing after each quiet spell."""
        worker = (await self._core.workers.numbers([claim.worker]))[claim.worker]
        stream = Stream(claim, worker, transport)
        older = self._streams.get(worker)
        if older is not None:
            older.end()
        self._streams[worker] = stream
        try:
            yield await self._begin(stream, holding)
            while not stream.over.is_set():
                granted = await self._next(stream)
                if stream.over.is_set() and not granted:
                    return
                stream.open.update(_pair(lease) for lease in granted)
                yield granted
        finally:
            if self._streams.get(worker) is stream:
                del self._streams[worker]
                self._leaving.append(stream)

    async def _begin(self, stream: Stream, holding: Sequence[str]) -> list[Standing]:
        """Takes the place of the worker's older streams. What it holds is confirmed; what never reached it is sent again."""
        if holding:
            done = await self._finisher.extend(holding, stream.claim.offer or OFFER_SECONDS, [], ("input",))
            refused = {r.index for r in done[2]}
            read = self._core.lease_ids.read
            stream.open.update(
                pair for n, id in enumerate(holding) if n not in refused and (pair := read(id)) is not None
            )
        offers = await self._entries.add(stream)
        stream.entered = True
        if not offers:
            self._beat([stream])
            return []
        tasks = {t.no: t for t in await read_tasks(self._core.pool, self._core.ns, nos=[o.no for o in offers])}
        again = [
            Standing(StandingRow(o.lease_no, o.until, o.no, o.attempt), tasks[o.no]) for o in offers if o.no in tasks
        ]
        stream.open.update(_pair(lease) for lease in again)
        self._beat([stream])
        return again

    async def _flush_entries(self, streams: list[Stream]) -> list[list[OfferRow] | BaseException]:
        newest = {s.worker: s for s in streams}
        pool, ns = self._core.pool, self._core.ns
        await enter_streams(pool, ns, sorted((s.worker, s.id) for s in newest.values()))
        offers = await renew_offers(pool, ns, sorted(newest), OFFER_SECONDS)
        return [[o for o in offers if o.worker == s.worker] if newest[s.worker] is s else [] for s in streams]

    async def _next(self, stream: Stream) -> Granted:
        """What the dispatcher has for it; nothing when it is quiet for long, or when the stream is over."""
        loop = asyncio.get_running_loop()
        quiet_at = loop.time() + self._core.rhythm.quiet
        while not stream.over.is_set() and (left := quiet_at - loop.time()) > 0:
            stream.changed.clear()
            if stream.room <= 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await stream.changed.wait()
            elif granted := await self._claim(stream, left):
                return granted
        return []

    async def _claim(self, stream: Stream, wait: float) -> Granted:
        claim = replace(stream.claim, limit=stream.room, wait=wait)
        stream.claiming = asyncio.create_task(self._dispatcher.claim(claim))
        try:
            # What a round takes for it meanwhile the dispatcher gives back.
            return await result_of(stream.claiming) or []
        finally:
            stream.claiming = None

    # -- what ends leases and streams ---------------------------------------------------------------------------------

    def ended(self, leases: list[tuple[int, int]]) -> None:
        """These leases have ended here."""
        if not self._streams:
            return
        over = set(leases)
        for stream in self._streams.values():
            if not stream.open.isdisjoint(over):
                stream.open -= over
                stream.changed.set()

    async def step(self) -> None:
        """One look at all streams and their open leases."""
        await asyncio.sleep(self._core.rhythm.floor * random.uniform(0.9, 1.1))
        core = self._core
        leaving, self._leaving = self._leaving, []
        if leaving:
            await leave_streams(core.pool, core.ns, [(s.worker, s.id) for s in leaving])
        streams = [s for s in self._streams.values() if s.entered]
        if not streams:
            return
        self._beat(streams)
        leases = [(s, pair) for s in streams for pair in s.open]
        if not leases and not core.others:
            return
        found = await watch_streams(
            core.pool, core.ns, [(s.worker, s.id) for s in streams], [pair for _, pair in leases]
        )
        standing = set(found.standing)
        self.ended([pair for n, (_, pair) in enumerate(leases, 1) if n not in standing])
        newest = set(found.workers)
        for stream in streams:
            if stream.worker not in newest:
                stream.end()

    def _beat(self, streams: list[Stream]) -> None:
        for stream in streams:
            self._core.seen[stream.worker] = (list(stream.claim.channels), stream.transport)

    def drain(self) -> None:
        for stream in self._streams.values():
            stream.end()


def _pair(lease: ClaimedRow | Standing) -> tuple[int, int]:
    row = lease.row if isinstance(lease, Standing) else lease
    return row.lease_no, row.no
