"""The slots of some channels: what runs in them, what fetches their tasks, and what hands in their results.

Loops of two kinds, so that no result ever waits behind a long poll:

    couriers  send what has ended and, in the same document, claim for the slots that are free now (without waiting); there
              are two, so that in a large pool one half works while the other half's results are on their way
    poller    waits for tasks with a long poll while there are free slots and nothing to send; a stream takes its place
              while one holds (climber.py). The poll that is out then is left to end by itself: cut off, it might be
              claimed for by a proxy that has not noticed

Handlers run in lanes: an asyncio task that does one attempt after another for as long as handlers end without waiting. Where
one waits, the next lane goes on: so a handler that waits has an asyncio task to itself, and one that does not costs none.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from crew_worker import outbox, tracing, verdict
from crew_worker.api import KEY_CODES, Answer, Api, Json, encode, request_body
from crew_worker.backoff import pause
from crew_worker.counters import Counters
from crew_worker.documents import mutation
from crew_worker.errors import CrewError, RateLimited, Refused
from crew_worker.handler import Handler
from crew_worker.ids import new_id
from crew_worker.lease_keeper import GONE, LeaseKeeper
from crew_worker.outbox import Outbox, Result
from crew_worker.task import Cancelled, Task

log = logging.getLogger("crew_worker")

COURIERS = 2
# What a courier leaves to the other: no fewer results than these are worth a request of their own.
SMALL_BATCH = 50
# How long a claim that was cut off may take to tell what came of it.
COLLECT_SECONDS = 5.0


@dataclass(frozen=True)
class Settings:
    """What all pools of a worker share."""

    lease_seconds: float = 60.0
    wait_seconds: float = 20.0
    prefetch: int = 0


@dataclass(eq=False, slots=True)
class Run:
    """A lease in hand, and what is done about it."""

    pool: Pool
    task: Task
    due: float
    started: bool = False
    """It has a slot."""
    lane: asyncio.Task[None] | None = None
    """Where its handler runs."""
    lost: str | None = None
    stopped: bool = False

    def give_up(self, code: str) -> None:
        self.pool.lose(self, code)

    def give_back(self) -> None:
        self.pool.give_back(self)


class Pool:
    def __init__(
        self,
        worker_id: str,
        handlers: Mapping[str, Handler],
        slots: int,
        api: Api,
        keeper: LeaseKeeper,
        settings: Settings,
        counters: Counters,
        threads: Executor | None = None,
    ) -> None:
        self.worker_id, self.handlers, self.slots = worker_id, handlers, slots
        self.api, self._keeper, self.settings, self._counters, self._threads = api, keeper, settings, counters, threads
        self.channels = list(handlers)
        self._share = max(SMALL_BATCH, -(-(slots + settings.prefetch) // COURIERS))
        self.outbox = Outbox(min(1000, self._share))
        self.running: dict[str, Run] = {}
        self._waiting: deque[Run] = deque()
        self._begun: deque[Run] = deque()
        """They have slots, and no lane has come to them yet."""
        self._lanes: set[asyncio.Task[None]] = set()
        self._next_lane: asyncio.Task[None] | None = None
        """Made, and not begun."""
        self._reserved = 0
        self._changed = asyncio.Event()
        self._context = contextvars.copy_context()
        self.streaming = False
        self.stopping = False
        self.in_hand: set[str] = set()
        """The leases that came, their results not yet answered."""
        self.polling: asyncio.Task[None] | None = None
        self.polled = asyncio.Event()
        """A poll was answered: the server is there."""

    # -- slots

    @property
    def free(self) -> int:
        """Slots that nothing runs in, waits for or was claimed for."""
        if self.stopping or self.outbox.full:
            return 0
        return self.slots + self.settings.prefetch - len(self.running) - len(self._waiting) - self._reserved

    def take(self, leases: Sequence[Json], *, pushed: bool = False) -> None:
        """Start the leases that came. Those for which there is no room go back untouched."""
        due, traced = self._keeper.due_for(pushed=pushed), tracing.is_on()
        for lease in leases:
            if self._keeper.holds(lease["id"]):
                continue
            run = Run(self, Task(lease, self.worker_id, self._keeper.progressed, traced), due)
            self.in_hand.add(run.task.lease_id)
            self._keeper.keep(run)
            if self.stopping:
                self.give_back(run)
            elif len(self.running) < self.slots:
                self._start(run)
            elif pushed or len(self._waiting) < self.settings.prefetch:
                self._waiting.append(run)
            else:
                self.give_back(run)

    def _start(self, run: Run) -> None:
        run.started = True
        self.running[run.task.lease_id] = run
        self._begun.append(run)
        self._open_lane()

    def lose(self, run: Run, code: str) -> None:
        """Its result would count for nothing: stop the handler."""
        run.lost = code
        self._keeper.drop(run.task.lease_id)
        self.in_hand.discard(run.task.lease_id)
        run.task._is_cancelled = True
        if run.lane:
            run.task.log.warning("the lease is %s: the handler is stopped", code)
            run.lane.cancel()
        elif self._withdraw(run):
            self._note(run, "lost")
            self._turn()

    def _withdraw(self, run: Run) -> bool:
        """Out of the lines of what has not begun, if it is in one."""
        for line in (self._waiting, self._begun):
            if run in line:
                line.remove(run)
                self.running.pop(run.task.lease_id, None)
                return True
        return False

    def give_back(self, run: Run) -> None:
        """Unstarted, so nothing happened to it."""
        self._withdraw(run)
        self._keeper.drop(run.task.lease_id)
        self._note(run, "released")
        self.outbox.put(outbox.released(run.task.lease_id))
        self._turn()

    def _turn(self) -> None:
        """A slot was freed: the next in line, and whoever waits for a change."""
        while self._waiting and len(self.running) < self.slots and not self.stopping:
            self._start(self._waiting.popleft())
        self._changed.set()

    # -- handlers

    def _open_lane(self) -> None:
        """One more, where there is something to do and none that is about to."""
        if self._begun and self._next_lane is None:
            self._next_lane = asyncio.create_task(self._lane(), context=self._context.copy())
            self._lanes.add(self._next_lane)
            self._next_lane.add_done_callback(self._lanes.discard)

    async def _lane(self) -> None:
        lane, self._next_lane = self._next_lane, None
        assert lane is not None
        try:
            # What a handler leaves behind, context variables or a cancellation, is not for the next one.
            while self._begun and contextvars.copy_context() == self._context and not lane.cancelling():
                run = self._begun.popleft()
                self._open_lane()
                run.lane = lane
                await self._work(run)
        finally:
            self._open_lane()

    async def _work(self, run: Run) -> None:
        """One attempt; its result goes to the outbox, unless the lease is lost."""
        task, began, result = run.task, time.monotonic(), None
        try:
            returned = await self.handlers[task.channel](task, self._threads)
            result, outcome = outbox.completed(task.lease_id, verdict.completion(task, returned)), "completed"
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if not run.lost and run.stopped and isinstance(error, (asyncio.CancelledError, Cancelled)):
                result, outcome = outbox.failed(verdict.stopped(task)), "stopped"
            elif not run.lost:
                result, outcome = self._failed(task, error), "failed"
        finally:
            self._keeper.drop(task.lease_id)
            self.running.pop(task.lease_id, None)
            self._counters.spent(task.channel, time.monotonic() - began)
            self._turn()
        if run.lost:
            result, outcome = None, "lost"
        self._note(run, outcome)
        if result is not None:
            self.outbox.put(result)

    def _failed(self, task: Task, error: BaseException) -> Result:
        if isinstance(error, RateLimited):
            task.log.info("rate limited for %g s", error.seconds)
            self._shut_out(task.workgroup)
        else:
            task.log.warning("failed: %s", verdict.brief(error))
            task.log.debug("failed so", exc_info=error)
        return outbox.failed(verdict.failure(task, error))

    def _shut_out(self, workgroup: str | None) -> None:
        """What waits here for a workgroup that is rate-limited goes back."""
        for run in [run for run in self._waiting if workgroup and run.task.workgroup == workgroup]:
            self.give_back(run)

    def _note(self, run: Run, outcome: str) -> None:
        self._counters.ended(run.task.channel, outcome)

    # -- claims

    def _claim(self, limit: int, wait: float) -> Json:
        return {
            "workerId": self.worker_id,
            "channels": self.channels,
            "limit": limit,
            "leaseSeconds": self.settings.lease_seconds,
            "waitSeconds": wait,
            "claimId": new_id(),
        }

    async def poll(self) -> None:
        """The poller."""
        while not (self.stopping or self.streaming):
            await self._until(lambda: self.streaming or (self.free > 0 and self.outbox.at_rest.is_set()))
            if self.stopping or self.streaming:
                return
            limit = self.free
            self._reserved += limit
            try:
                # The first one only asks whether the server is there.
                wait = self.settings.wait_seconds if self.polled.is_set() else 0
                leases = await self._claimed(self._claim(limit, wait))
            finally:
                self._reserved -= limit
            self.polled.set()
            self.take(leases)
            # Handlers first: what those that do not wait return is handed in, and more claimed, by one request.
            await asyncio.sleep(0)

    async def _claimed(self, claim: Json) -> list[Json]:
        """The leases of a claim. Cut off while it waits, it asks once more what came of it, and takes that."""
        try:
            return await self._send_claim(claim)
        except asyncio.CancelledError:
            self.take(await self._send_claim({**claim, "waitSeconds": 0}, patience=COLLECT_SECONDS))
            raise

    async def _send_claim(self, claim: Json, patience: float | None = None) -> list[Json]:
        body = request_body(mutation("claimTasks"), {"claimTasks": encode(claim)})
        return leases_of(await self.api.call(body, wait=claim["waitSeconds"], patience=patience))

    async def _until(self, check: Callable[[], bool]) -> None:
        while not (self.stopping or check()):
            self._changed.clear()
            await self._changed.wait()

    # -- results

    async def deliver(self) -> None:
        """One courier."""
        while True:
            await self.outbox.arrival()
            results = self.outbox.take()
            if not results:
                continue
            limit = 0 if self.streaming else max(0, min(self.free, self._share))
            self._reserved += limit
            try:
                await self._exchange(results, self._claim(limit, 0) if limit else None)
            finally:
                self._reserved -= limit
            self.outbox.answered()
            self._changed.set()

    async def _exchange(self, results: Sequence[Result], claim: Json | None = None) -> None:
        """Hand in results and, in the same document, claim. What is refused as a whole goes in halves, at last alone."""
        variables = outbox.variables(results)
        if claim:
            variables["claimTasks"] = encode(claim)
        tries = 0
        while True:
            answer = await self.api.call(request_body(mutation(*variables), variables))
            refused = [r for r in (answer.whole, *answer.refused.values()) if r and r.code in KEY_CODES]
            if not refused:
                break
            log.error("results are kept until the server takes the key: %s", refused[0])
            await asyncio.sleep(pause(tries, first=1.0, longest=30.0))
            tries += 1
        for field in outbox.LIST_NAMES:
            sent = [result for result in results if result.field == field]
            if sent:
                await self._read(sent, field, answer, alone=len(results) == 1 and claim is None)
        if claim and not answer.whole:
            self.take(leases_of(answer))

    async def _read(self, sent: Sequence[Result], field: str, answer: Answer, *, alone: bool) -> None:
        """What the server said to the results of one field."""
        refused = answer.whole or answer.refused.get(field)
        if refused and (alone or (len(sent) == 1 and not answer.whole)):
            self._refused(sent[0], refused)
        elif refused:
            half = (len(sent) + 1) // 2
            for part in (sent[:half], sent[half:]):
                if part:
                    await self._exchange(part)
        else:
            by_lease = {error["lease"]: error for error in answer.data[field]["errors"]}
            for result in sent:
                error = by_lease.get(result.lease)
                if error is None or error["code"] in GONE:
                    self._answered(result, error)
                else:
                    self._refused(result, Refused(error["message"], error["code"], error["path"] or ()))

    def _answered(self, result: Result, error: Json | None) -> None:
        self.in_hand.discard(result.lease)
        if error is not None and result.field != "releaseLeases":
            log.warning("the result of lease %s came too late (%s): %s", result.lease, error["code"], error["message"])

    def _refused(self, result: Result, refused: Refused) -> None:
        """The lease still stands: the attempt fails with the server's own words."""
        log.error("%s of lease %s was refused: %s", result.field, result.lease, refused)
        if result.field == "releaseLeases" or (result.fallback and result.field == "failTasks"):
            self.in_hand.discard(result.lease)
            return
        told = {"code": refused.code, "message": refused.message, "path": [str(step) for step in refused.path]}
        self.outbox.put(outbox.failed({"lease": result.lease, "error": told}, fallback=True))

    # -- streams

    def stream_stands(self) -> None:
        """Tasks come by a stream from now on."""
        self.streaming = True
        self._changed.set()

    def stream_ended(self) -> None:
        self.streaming = False
        self.start_polling()

    # -- the end

    def start_polling(self) -> None:
        if not self.stopping and (self.polling is None or self.polling.done()):
            self.polling = asyncio.create_task(self.poll())

    async def stop_polling(self) -> None:
        if self.polling is None:
            return
        self.polling.cancel()
        await asyncio.wait({self.polling})
        error = None if self.polling.cancelled() else self.polling.exception()
        if isinstance(error, CrewError):
            log.warning("what the last claim got is unknown: %s", error)

    def poll_error(self) -> BaseException | None:
        """Why the poller ended, if it did not end well."""
        done = self.polling is not None and self.polling.done() and not self.polling.cancelled()
        return self.polling.exception() if done and self.polling else None

    async def stop(self) -> None:
        """No more claims; what has not started goes back."""
        self.stopping = True
        self._changed.set()
        await self.stop_polling()
        for run in list(self._waiting):
            self.give_back(run)

    async def rest(self) -> None:
        """Until no handler runs."""
        while self.running:
            self._changed.clear()
            await self._changed.wait()

    def cancel(self) -> None:
        """Cut the handlers off; what has not begun goes back."""
        for run in list(self.running.values()):
            run.stopped = True
            if run.lane is None:
                self.give_back(run)
            else:
                run.task._is_cancelled = True
                run.lane.cancel()


def leases_of(answer: Answer) -> list[Json]:
    """Raises Refused."""
    leases: list[Json] = answer.get("claimTasks")["leases"]
    return leases
