"""Keeps leases for as long as their handlers run, and hears which are lost and which may go back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol

from crew_worker.api import KEY_CODES, Api, Json, encode, request_body
from crew_worker.documents import mutation
from crew_worker.errors import CrewError, Refused
from crew_worker.task import Progress, Task

log = logging.getLogger("crew_worker")

# A beat comes when a third of the lease is over; those due soon after go along.
BEAT = 1 / 3
ALONG = 1 / 6
# A pushed lease is an offer until a call names it.
CONFIRM_SECONDS = 1.0
PROGRESS_SECONDS = 0.5
BATCH = 1000
GONE = frozenset(("LOST", "CANCELLED", "UNKNOWN"))


class Held(Protocol):
    """A lease in hand: `give_up` is called when it is lost, `give_back` when it is unstarted and may go."""

    task: Task
    due: float
    started: bool

    def give_up(self, code: str) -> None: ...

    def give_back(self) -> None: ...


class LeaseKeeper:
    def __init__(self, api: Api, lease_seconds: float) -> None:
        self._api, self._seconds = api, lease_seconds
        self._held: dict[str, Held] = {}
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def keep(self, held: Held) -> None:
        self._held[held.task.lease_id] = held
        self._woken.set()

    def drop(self, lease: str) -> None:
        self._held.pop(lease, None)

    def holds(self, lease: str) -> bool:
        return lease in self._held

    def due_for(self, *, pushed: bool) -> float:
        return time.monotonic() + (min(CONFIRM_SECONDS, self._seconds * BEAT) if pushed else self._seconds * BEAT)

    def progressed(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        last = 0.0
        while True:
            now = time.monotonic()
            news = any(held.task.last_progress.news for held in self._held.values())
            dues = [held.due for held in self._held.values()]
            due = min(dues, default=now + 3600)
            if news:
                due = min(due, last + PROGRESS_SECONDS)
            if due > now:
                await self._rest(due - now)
                continue
            last = now
            until = now + self._seconds * ALONG
            beat = [held for held in self._held.values() if held.due <= until or held.task.last_progress.news]
            for start in range(0, len(beat), BATCH):
                await self._extend(beat[start : start + BATCH])

    async def _rest(self, seconds: float) -> None:
        self._woken.clear()
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            return

    async def _extend(self, beat: list[Held], *, progress: bool = True) -> None:
        told = {held.task.lease_id: held.task.last_progress for held in beat if held.task.last_progress.news}
        wanted: Json = {"leases": [held.task.lease_id for held in beat], "leaseSeconds": self._seconds}
        if told and progress:
            wanted["progress"] = [as_input(lease, said) for lease, said in told.items()]
        body = request_body(mutation("extendLeases"), {"extendLeases": encode(wanted)})
        try:
            answer = (await self._api.call(body, patience=self._seconds * BEAT)).get("extendLeases")
        except Refused as refused:
            await self._refused(beat, refused, progress=progress)
            return
        except CrewError as error:
            log.warning("leases could not be extended: %s", error)
            return
        self._beaten(beat, told)
        for lost in answer["errors"]:
            if lost["code"] in GONE and (held := self._held.get(lost["lease"])):
                held.give_up(lost["code"])
        for lease in answer["suspended"]:
            if (held := self._held.get(lease)) and not held.started:
                held.give_back()

    async def _refused(self, beat: list[Held], refused: Refused, *, progress: bool) -> None:
        """Refused as a whole: sent again in halves, at last one by one and without what it says."""
        if refused.code in KEY_CODES or (len(beat) == 1 and not progress):
            log.error("leases were not extended: %s", refused)
            self._beaten(beat, {})
        elif len(beat) == 1:
            beat[0].task.last_progress.news = False
            await self._extend(beat, progress=False)
        else:
            half = len(beat) // 2
            await self._extend(beat[:half], progress=progress)
            await self._extend(beat[half:], progress=progress)

    def _beaten(self, beat: Iterable[Held], told: dict[str, Progress]) -> None:
        due = time.monotonic() + self._seconds * BEAT
        for held in beat:
            held.due = due
            if held.task.last_progress is told.get(held.task.lease_id):
                held.task.last_progress.news = False


def as_input(lease: str, said: Progress) -> Json:
    item: dict[str, Any] = {"lease": lease}
    if said.fraction is not None:
        item["fraction"] = said.fraction
    if said.message is not None:
        item["message"] = said.message
    return item
