"""Delivers one channel: claims as any worker does, posts what it got, and ends the leases by what the operator answered.

A lease is short and kept while its delivery lasts; so what a server that dies has under way is claimable again soon, by the rules
for any lost lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson
import strawberry
import structlog

from db.claim import ClaimedRow
from db.errors import OUTAGE, DatabaseUnavailable
from db.group import read_groups
from db.operator import runs_of_worker
from db.task import ParentResultRow, parent_results
from resolvers.dispatch import Claim
from resolvers.errors import BadInput, CrewError
from resolvers.follow import give_back
from resolvers.lease import BAD_INPUT, INVALID_CHILDREN, Refused
from schema.context import Services
from schema.given import Given
from schema.lease import CompleteTaskInput, FailTaskInput
from schema.root import schema
from schema.scalars import JSON
from server.delivery.answer import Done, Failed
from server.delivery.post import Poster, Target

log = structlog.get_logger("crew.delivery")

LEASE_SECONDS = 30.0
KEEP_EVERY = 10.0
_WAIT = 10.0
_AT_ONCE = 100
_MOST_PARENTS = 10_000
_STATES = ("BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED")
_given = Given(schema)

Pair = tuple[int, int]
"""Lease number and task number."""
Look = Callable[[int], Awaitable[Target | None]]
"""Where a channel is to be delivered now; None for nowhere."""


class Deliverer:
    """Claims from `start` until `stop`. What it claimed goes where `look` says then: whatever is changed at whatever server holds
    for all that is delivered after."""

    def __init__(self, services: Services, poster: Poster, target: Target, look: Look) -> None:
        self._services = services
        self._core = services.core
        self._poster = poster
        self._look = look
        self.target = target
        self.mine_until = 0.0
        """So long (monotonic) nobody else delivers the channel."""
        self.open: dict[Pair, asyncio.Task[None]] = {}
        self._others: set[Pair] = set()
        """Deliveries of a server that had the channel before: they count until their leases are over."""
        self._looked = 0.0
        self._changed = asyncio.Event()
        self._claiming: asyncio.Task[None] | None = None
        self._ending = False

    # -- its life -------------------------------------------------------------------------------------------------------

    @property
    def claims(self) -> bool:
        return self._claiming is not None and not self._claiming.done()

    def start(self) -> None:
        if not self.claims:
            self._looked = 0.0
            self._others = set()
            self._claiming = asyncio.create_task(self._claim(), name=f"deliver {self.target.name}")

    async def stop(self) -> None:
        """Claims nothing more. What is under way goes on."""
        if self._claiming is not None:
            claiming, self._claiming = self._claiming, None
            claiming.cancel()
            await asyncio.wait({claiming})

    async def end(self, seconds: float) -> None:
        """The server stops. Waits so long for what is under way, and lets the rest go: its leases run out. The dispatcher drains:
        a claim returns soon, and what it got is given back while there is a database."""
        self._ending = True
        self._changed.set()
        if self._claiming is not None:
            await asyncio.wait({self._claiming}, timeout=seconds)
        await self.stop()
        running = list(self.open.values())
        if running:
            await asyncio.wait(running, timeout=seconds)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def retarget(self, target: Target) -> None:
        self.target = target
        self._changed.set()

    # -- claiming -------------------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        while not self._ending:
            try:
                await self._round()
            except (DatabaseUnavailable, *OUTAGE) as error:
                log.warning("the database cannot be reached", channel=self.target.name, error=str(error))
                await asyncio.sleep(1)
            except Exception:
                log.exception("a delivery could not begin; it goes on", channel=self.target.name)
                await asyncio.sleep(1)

    async def _round(self) -> None:
        """One claim, as large as there is room; or a wait for room."""
        self._changed.clear()
        room = await self._room()
        if self._services.operators.draining or room <= 0 or time.monotonic() > self.mine_until:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the change.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._core.rhythm.floor):
                    await self._changed.wait()
            return
        target = self.target
        wait = min(_WAIT, self._core.limits.max_wait_seconds)
        limit = min(room, _AT_ONCE)
        claim = Claim(target.worker, (target.name,), limit, LEASE_SECONDS, wait, None, transport="webhook")
        granted = [row for row in await self._services.dispatcher.claim(claim) if isinstance(row, ClaimedRow)]
        if granted and self._ending:
            await give_back(self._core, [(row.lease_no, row.no) for row in granted])
        elif granted:
            await self._begin(granted)

    async def _room(self) -> int:
        """How many more may run."""
        now = time.monotonic()
        if now - self._looked >= self._core.rhythm.floor and (self._others or not self._looked):
            core = self._core
            number = (await core.workers.numbers([self.target.worker]))[self.target.worker]
            self._others = await runs_of_worker(core.pool, core.ns, number) - self.open.keys()
            self._looked = now
        return self.target.max_running - len(self.open) - len(self._others)

    async def _begin(self, granted: list[ClaimedRow]) -> None:
        core, nos = self._core, [row.no for row in granted]
        pairs = [(row.lease_no, row.no) for row in granted]
        try:
            target = await self._look(self.target.channel)
            if target is None:
                # Paused or deleted meanwhile; soon it is told so, and claims no more.
                await give_back(core, pairs)
                await asyncio.sleep(core.rhythm.floor)
                return
            groups = await read_groups(core.pool, core.ns, nos=sorted({row.group_no for row in granted}))
            results = await parent_results(core.pool, core.ns, nos, _MOST_PARENTS)
        except BaseException:
            # Not begun: nothing was sent.
            self._returning = asyncio.create_task(_return(self._services, pairs))
            raise
        ids = {group.group_no: str(group.id) for group in groups}
        parents: dict[int, list[dict[str, Any]]] = {}
        for result in results:
            parents.setdefault(result.no, []).append(_parent(result))
        for row in granted:
            body = {
                "taskId": str(row.id),
                "groupId": ids.get(row.group_no),
                "name": row.name,
                "channel": row.channel,
                "attempt": row.attempt,
                "input": _json(row.input),
                "parents": parents.get(row.no, []),
            }
            pair = (row.lease_no, row.no)
            self.open[pair] = asyncio.create_task(self._deliver(target, pair, row, body))

    # -- one delivery ---------------------------------------------------------------------------------------------------

    async def _deliver(self, target: Target, pair: Pair, row: ClaimedRow, body: dict[str, Any]) -> None:
        try:
            found = await self._poster.deliver(target, f"{row.id}.{row.attempt}", body)
            await self._report(pair, found)
        except (DatabaseUnavailable, *OUTAGE) as error:
            log.warning("what an operator answered is lost: its lease runs out", channel=target.name, error=str(error))
        except Exception:
            log.exception("a delivery failed in this server", channel=target.name, task=str(row.id))
        finally:
            self.open.pop(pair, None)
            self._changed.set()

    async def _report(self, pair: Pair, found: Done | Failed) -> None:
        """An answer whose lease does not stand any more counts for nothing."""
        lease = strawberry.ID(self._core.lease_ids.pack(*pair))
        if isinstance(found, Done):
            found = await self._complete(lease, found) or found
        if isinstance(found, Failed):
            failure = FailTaskInput(
                lease=lease,
                error=JSON(found.error),
                workgroup_delay_seconds=found.workgroup_delay,
                keep_attempt=found.keep_attempt,
            )
            outcome = await self._services.finisher.fail([failure])
            if any(refused.code == BAD_INPUT for refused in outcome.refused):
                failure.error = JSON(_why(outcome.refused[0]))
                failure.workgroup_delay_seconds = None
                await self._services.finisher.fail([failure])
        self._core.stir()

    async def _complete(self, lease: strawberry.ID, done: Done) -> Failed | None:
        """Why it could not be taken, where the lease stands all the same."""
        try:
            children = _given.tasks({"groupId": "", "tasks": done.children}).tasks if done.children else []
        except BadInput as error:
            where = ".".join(str(step) for step in ("children", *error.path[1:]))
            return Failed(f"the operator's answer cannot be taken: {error.message} (at {where})")
        result = CompleteTaskInput(
            lease=lease,
            output=JSON(done.output),
            children=children,
            children_delay_seconds=done.children_delay,
            workgroup_delay_seconds=done.workgroup_delay,
        )
        outcome = await self._services.finisher.complete([result])
        for refused in outcome.refused:
            if refused.code in (BAD_INPUT, INVALID_CHILDREN):
                return Failed(_why(refused))
        return None


async def keep(services: Services, deliverers: list[Deliverer]) -> None:
    """Extends the leases of all deliveries, and gives up those that stand no more."""
    held = [(deliverer, pair) for deliverer in deliverers for pair in deliverer.open]
    size = services.core.limits.max_batch
    for at in range(0, len(held), size):
        part = held[at : at + size]
        ids = [services.core.lease_ids.pack(*pair) for _, pair in part]
        try:
            _, _, refused = await services.finisher.extend(ids, LEASE_SECONDS, [], ("input",))
        except CrewError:
            log.exception("leases of deliveries could not be extended")
            continue
        for one in refused:
            deliverer, pair = part[one.index]
            task = deliverer.open.get(pair)
            if task is not None:
                # Its answer is not waited for: it would count for nothing.
                task.cancel()


async def _return(services: Services, pairs: list[Pair]) -> None:
    with suppress(DatabaseUnavailable, *OUTAGE):
        await give_back(services.core, pairs)


def _why(refused: Refused) -> str:
    where = f" (at {'.'.join(refused.path)})" if refused.path else ""
    return f"the operator's answer cannot be taken: {refused.message}{where}"


def _parent(row: ParentResultRow) -> dict[str, Any]:
    return {
        "taskId": str(row.task_id),
        "name": row.name,
        "channel": row.channel,
        "state": _STATES[row.state],
        "input": _json(row.input),
        "output": _json(row.output),
    }


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
