"""What workers do with their leases: complete, fail, extend, release. Concurrent calls share one transaction; an item that
cannot be taken is answered by an error of its own, and the others go through."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from db import lease as rows
from db.clock import suspend_workgroups
from db.key import bring_twins, merge_ready
from db.pool import Connection
from resolvers import check
from resolvers.call import Call
from resolvers.core import Core
from resolvers.create import APART, FAILED, READY, SCHEDULED, Creator, Moved
from resolvers.draft import Draft, drafts, new_id
from resolvers.errors import BadInput, Conflict, CrewError, InvalidChildren, Path, TooLarge
from resolvers.follow import After, end_children, give_back, wait_again
from resolvers.gather import Gather

LOST, CANCELLED, UNKNOWN, INVALID_CHILDREN, BAD_INPUT = "LOST", "CANCELLED", "UNKNOWN", "INVALID_CHILDREN", "BAD_INPUT"
_OVER = {LOST, CANCELLED}
_TRIES = 100

_LOST_TEXT = (
    "this lease is no longer yours: it ran out, was released or reset, or ended the other way; stop working on it"
)
_CANCELLED_TEXT = "the task was cancelled or deleted: stop working on it"
_UNKNOWN_TEXT = "no such lease was ever given: send the id as claimTasks answered it"


@dataclass(slots=True)
class Refused:
    """One item that was not taken."""

    index: int
    lease: str
    code: str
    message: str
    path: list[str] | None = None


BUSY = Refused(-1, "", "BUSY", "")
"""Not an answer yet: it stands, and somebody else has it in hand."""


@dataclass(slots=True)
class Outcome:
    """What came of a call: the task numbers taken, in the order sent, and what was refused."""

    taken: list[int]
    refused: list[Refused]


@dataclass(slots=True)
class Item(rows.Completion):
    """One result of one worker; answered by None (it counts) or a Refused."""

    index: int = 0
    lease_id: str = ""
    children: list[Draft] | None = None
    workgroup_delay: float | None = None
    failure: rows.Failure | None = None

    def refuse(self, code: str, message: str, path: Path | None = None) -> Refused:
        return Refused(self.index, self.lease_id, code, message, None if path is None else [str(p) for p in path])


Answer = Refused | None
Attempt = Callable[[list[Item], bool], Awaitable[list[Answer]]]
"""Items, and whether others who have them in hand are waited for; else these are BUSY."""
Flush = Callable[[list[list[Item]], bool], Awaitable[Sequence[list[Answer] | BaseException]]]


@dataclass
class Finisher:
    """Completes, fails, extends and releases."""

    core: Core
    creator: Creator
    completions: Gather[list[Item], list[Answer]] = field(init=False)
    failures: Gather[list[Item], list[Answer]] = field(init=False)
    _apart: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(APART))

    def __post_init__(self) -> None:
        self.completions = Gather(self._flush_completions, weigh=len)
        self.failures = Gather(self._flush_failures, weigh=len)

    # -- complete ---------------------------------------------------------------------------------------------------

    async def complete(self, results: Sequence[Any]) -> Outcome:
        items, refused = self._items(results, "results", self._completion)
        answers = await self._until_free(items, self._gathered(self.completions, self._flush_completions))
        return self._outcome(items, answers, refused)

    def _completion(self, item: Item, result: Any) -> None:
        if result.output is not None:
            item.output = check.json_text(result.output, ("output",), "output", self.core.limits.max_input_bytes)
        if result.children_delay_seconds is not None:
            item.child_delay = check.seconds(
                result.children_delay_seconds, ("childrenDelaySeconds",), "childrenDelaySeconds"
            )
        if result.workgroup_delay_seconds is not None:
            item.workgroup_delay = check.seconds(
                result.workgroup_delay_seconds, ("workgroupDelaySeconds",), "workgroupDelaySeconds"
            )
        if result.children:
            item.makes = True
            try:
                limits = self.core.limits
                item.children = drafts(result.children, ("children",), limits.max_batch, limits.max_input_bytes)
            except CrewError as error:
                raise InvalidChildren(error.message, error.path) from error

    async def _flush_completions(
        self, batch: list[list[Item]], waits: bool = False
    ) -> Sequence[list[Answer] | BaseException]:
        plain = [i for items in batch for i in items if not i.children and i.workgroup_delay is None]
        rich = [i for items in batch for i in items if i.children or i.workgroup_delay is not None]
        if not rich:
            found = iter(await self._complete_plain(plain, waits))
            return [[next(found) for _ in items] for items in batch]
        answers: dict[int, Answer | BaseException] = {}
        if plain:
            await self._answer(answers, plain, lambda: self._complete_plain(plain, waits))
        try:
            answers.update((id(i), a) for i, a in zip(rich, await self._complete_rich(rich, waits), strict=True))
        except (CrewError, asyncpg.UniqueViolationError) as error:
            if len(rich) == 1:
                answers[id(rich[0])] = _refuse_children(rich[0], error)
            else:
                for item in rich:
                    await self._answer(answers, [item], lambda one=item: self._complete_one(one, waits))  # type: ignore[misc]
        except Exception as error:
            answers.update((id(i), error) for i in rich)
        return [_together([answers[id(i)] for i in items]) for items in batch]

    async def _answer(
        self,
        answers: dict[int, Answer | BaseException],
        items: list[Item],
        work: Callable[[], Awaitable[list[Answer]]],
    ) -> None:
        try:
            answers.update((id(i), a) for i, a in zip(items, await work(), strict=True))
        except Exception as error:
            answers.update((id(i), error) for i in items)

    async def _complete_one(self, item: Item, waits: bool) -> list[Answer]:
        try:
            return await self._complete_rich([item], waits)
        except (CrewError, asyncpg.UniqueViolationError) as error:
            return [_refuse_children(item, error)]

    async def _complete_plain(self, items: list[Item], waits: bool) -> list[Answer]:
        """One statement, one commit; and a transaction for those that have to do with keys."""

        async def work(left: list[Item], waits: bool) -> set[int]:
            found = await self.core.pool.run(lambda c: rows.complete_tasks(c, self.core.ns, left, waits=waits))
            merging = found.merging
            if merging:
                await self.core.pool.run(lambda c: merge_ready(c, self.core.ns, merging))
            after = After()
            after.add(found)
            after.tell(self.core)
            taken = {id(left[o - 1]) for o in found.ords or ()}
            if found.keyed:
                taken |= await self._complete_together([left[o - 1] for o in found.keyed], waits, keyed=True)
            return taken

        return await self._settle(items, "completed", work, waits)

    async def _complete_rich(self, items: list[Item], waits: bool) -> list[Answer]:
        """Completions that make tasks or suspend workgroups: one transaction; a refusal undoes all of it."""

        async def work(left: list[Item], waits: bool) -> set[int]:
            try:
                return await self._complete_together(left, waits, keyed=False)
            except _Keyed:
                return await self._complete_together(left, waits, keyed=True)

        return await self._settle(items, "completed", work, waits)

    async def _complete_together(self, items: list[Item], waits: bool, *, keyed: bool) -> set[int]:
        """In one transaction; answers the ids of those taken. Raises _Keyed when some have to do with keys."""
        try:
            taken, after = await self.core.pool.run(
                lambda c: self._complete_within(c, items, waits, keyed=keyed), transaction=True
            )
        except Moved:
            return set()
        after.tell(self.core)
        return {id(i) for i in taken}

    async def _free(self, connection: Connection, items: list[Item], waits: bool) -> list[Item]:
        """Those whose leases nobody else has in hand; all, where others are waited for."""
        if waits:
            return items
        free = await rows.free_leases(connection, self.core.ns, (i.lease_no for i in items))
        return [i for i in items if (i.lease_no, i.no) in free]

    async def _complete_within(
        self, connection: Connection, items: list[Item], waits: bool, *, keyed: bool
    ) -> tuple[list[Item], After]:
        ns, after = self.core.ns, After()
        items = await self._free(connection, items, waits)
        if not items:
            return [], after
        if keyed:
            await bring_twins(connection, ns, [(i.lease_no, i.no) for i in items], succeed=True)
        found = await rows.complete_tasks(connection, ns, items, keyed=keyed)
        if found.again:
            raise Moved
        if found.keyed:
            raise _Keyed
        after.add(found)
        if found.merging:
            await merge_ready(connection, ns, found.merging)
        hit = [(items[o - 1], group) for o, group in zip(found.ords or (), found.groups or (), strict=True)]
        feeds = list(zip(found.feeders or (), found.fed or (), strict=True))
        calls = [
            Call(
                _NO_GROUP,
                i.children,
                (),
                group_no=group,
                spawned_by=i.no,
                parent_delay=i.child_delay,
                joins=sorted({join for no, join in feeds if no == i.no}),
            )
            for i, group in hit
            if i.children
        ]
        if calls:
            await self.creator.make_within(connection, calls, after)
        await end_children(connection, ns, after, joins=found.joins or ())
        after.due += await self._suspend(connection, [(i.no, i.workgroup_delay) for i, _ in hit if i.workgroup_delay])
        return [item for item, _ in hit], after

    async def _suspend(self, connection: Connection, delays: list[tuple[int, float]]) -> list[float]:
        if not delays:
            return []
        workgroups = await rows.workgroups_of(connection, self.core.ns, [no for no, _ in delays])
        asked = [(workgroups[no], seconds, None) for no, seconds in delays if no in workgroups]
        return [r.due_in for r in await suspend_workgroups(connection, self.core.ns, list(asked))]

    # -- fail -------------------------------------------------------------------------------------------------------

    async def fail(self, failures: Sequence[Any]) -> Outcome:
        items, refused = self._items(failures, "failures", self._failure)
        answers = await self._until_free(items, self._gathered(self.failures, self._flush_failures))
        return self._outcome(items, answers, refused)

    def _failure(self, item: Item, failure: Any) -> None:
        if failure.keep_attempt and failure.discard:
            raise BadInput("keepAttempt and discard exclude each other: send one", ("discard",))
        if failure.error is None:
            raise BadInput("error is null; it must be a string or an object that says what went wrong", ("error",))
        item.failure = rows.Failure(
            item.lease_no,
            item.no,
            check.json_text(failure.error, ("error",), "error", self.core.limits.max_input_bytes),
            check.seconds(failure.retry_delay_seconds, ("retryDelaySeconds",), "retryDelaySeconds"),
            check.seconds(failure.workgroup_delay_seconds, ("workgroupDelaySeconds",), "workgroupDelaySeconds"),
            bool(failure.keep_attempt),
            bool(failure.discard),
        )

    async def _flush_failures(
        self, batch: list[list[Item]], waits: bool = False
    ) -> Sequence[list[Answer] | BaseException]:
        items = [i for part in batch for i in part]

        async def work(left: list[Item], waits: bool) -> set[int]:
            taken, after = await self.core.pool.run(lambda c: self._fail_within(c, left, waits), transaction=True)
            after.tell(self.core)
            return {id(i) for i in taken}

        answers = iter(await self._settle(items, "failed", work, waits))
        return [[next(answers) for _ in part] for part in batch]

    async def _fail_within(self, connection: Connection, items: list[Item], waits: bool) -> tuple[list[Item], After]:
        ns, after = self.core.ns, After()
        items = await self._free(connection, items, waits)
        if not items:
            return [], after
        found = await rows.fail_tasks(connection, ns, [i.failure for i in items if i.failure is not None])
        keyed = [items[f.ord - 1] for f in found if not f.state]
        taken = [items[f.ord - 1] for f in found if f.state]
        if keyed:
            await bring_twins(connection, ns, [(i.lease_no, i.no) for i in keyed], succeed=False)
            more = await rows.fail_tasks(
                connection, ns, [i.failure for i in keyed if i.failure is not None], keyed=True
            )
            taken += [keyed[f.ord - 1] for f in more if not f.is_twin]
            found = [f for f in found if f.state] + more
        after.places = [(f.channel, f.rank, f.no) for f in found if f.state == READY]
        after.due = [f.due_in for f in found if f.state == SCHEDULED]
        await wait_again(connection, ns, after, [f.no for f in found if f.state != FAILED])
        await end_children(connection, ns, after, failed=[f.no for f in found if f.state == FAILED])
        asked = [
            (f.workgroup, f.workgroup_delay, None) for f in found if f.workgroup and f.workgroup_delay and not f.is_twin
        ]
        if asked:
            after.due += [h.due_in for h in await suspend_workgroups(connection, ns, list(asked))]
        return taken, after

    # -- extend and release -----------------------------------------------------------------------------------------

    async def extend(
        self, lease_ids: Sequence[str], seconds: float, progress: Sequence[Any], path: Path
    ) -> tuple[datetime | None, list[str], list[Refused]]:
        """The end of those that stand, which of them are suspended, and what does not stand."""
        seconds = check.number(seconds, (*path, "leaseSeconds"), "leaseSeconds", 1, self.core.limits.max_lease_seconds)
        reports = self._reports(progress, path)
        items, refused = self._items(lease_ids, "leases", lambda item, _: None)
        if not items:
            return None, [], refused
        until: list[datetime] = []
        suspended: set[int] = set()

        async def work(left: list[Item], waits: bool) -> set[int]:
            pairs = [(i.lease_no, i.no) for i in left]
            found = await self.core.pool.run(lambda c: rows.extend_leases(c, self.core.ns, pairs, seconds, waits=waits))
            if found.until is not None:
                until.append(found.until)
            suspended.update(left[o - 1].index for o in found.suspended or ())
            return {id(left[o - 1]) for o in found.ords or ()}

        answers = await self._until_free(items, lambda left, waits: self._settle(left, "", work, waits))
        if reports:
            await self.core.pool.run(lambda c: rows.report_progress(c, self.core.ns, reports))
        refused = sorted([*refused, *(a for a in answers if a is not None)], key=lambda r: r.index)
        return min(until, default=None), [i.lease_id for i in items if i.index in suspended], refused

    def _reports(self, progress: Sequence[Any], path: Path) -> list[tuple[int, float | None, str | None, int]]:
        reports: dict[int, tuple[int, float | None, str | None, int]] = {}
        for n, report in enumerate(progress):
            here = (*path, "progress", n)
            fraction = report.fraction
            if fraction is not None:
                fraction = check.number(fraction, (*here, "fraction"), "fraction", 0, 1)
            message = report.message
            if message is not None:
                message = check.characters(message, (*here, "message"), "message")[:2000]
            lease = self.core.lease_ids.read(report.lease)
            if lease is not None:
                reports[lease[1]] = (lease[1], fraction, message, lease[0])
        return list(reports.values())

    async def release(self, lease_ids: Sequence[str]) -> Outcome:
        items, refused = self._items(lease_ids, "leases", lambda item, _: None)
        if not items:
            return Outcome([], refused)

        async def work(left: list[Item], waits: bool) -> set[int]:
            stood = await give_back(self.core, [(i.lease_no, i.no) for i in left], waits=waits)
            return {id(left[at]) for at in stood}

        answers = await self._until_free(items, lambda left, waits: self._settle(left, "", work, waits))
        return self._outcome(items, answers, refused)

    # -- items ------------------------------------------------------------------------------------------------------

    def _items(
        self, given: Sequence[Any], what: str, read: Callable[[Item, Any], None]
    ) -> tuple[list[Item], list[Refused]]:
        """The items that can be tried, and those refused at once."""
        if len(given) > self.core.limits.max_batch:
            raise TooLarge(
                f"{len(given)} {what} in one call; at most {self.core.limits.max_batch} are allowed: send them in several",
                ("input", what),
            )
        items: list[Item] = []
        refused: list[Refused] = []
        seen: set[tuple[int, int]] = set()
        for index, one in enumerate(given):
            lease_id = one if isinstance(one, str) else one.lease
            pair = self.core.lease_ids.read(lease_id)
            if pair is None:
                refused.append(Refused(index, lease_id, UNKNOWN, _UNKNOWN_TEXT))
                continue
            if pair in seen:
                refused.append(Refused(index, lease_id, BAD_INPUT, "this lease is named twice in the call", ["lease"]))
                continue
            seen.add(pair)
            item = Item(*pair, index=index, lease_id=lease_id)
            try:
                read(item, one)
            except InvalidChildren as error:
                refused.append(item.refuse(INVALID_CHILDREN, error.message, error.path))
            except CrewError as error:
                refused.append(item.refuse(BAD_INPUT, error.message, error.path))
            else:
                items.append(item)
        return items, refused

    def _outcome(self, items: list[Item], answers: list[Answer], refused: list[Refused]) -> Outcome:
        over = [(i.lease_no, i.no) for i, a in zip(items, answers, strict=True) if a is None or a.code in _OVER]
        self.core.ended(over)
        taken = [i.no for i, a in zip(items, answers, strict=True) if a is None]
        return Outcome(taken, sorted([*refused, *(a for a in answers if a is not None)], key=lambda r: r.index))

    async def _until_free(self, items: list[Item], attempt: Attempt) -> list[Answer]:
        """What is busy is tried again apart, so that nobody else waits for whoever has it in hand, as who deletes a large group."""
        answers = await attempt(items, False) if items else []
        if BUSY not in answers:
            return answers
        left = [n for n, answer in enumerate(answers) if answer is BUSY]
        async with self._apart:
            found = await attempt([items[n] for n in left], True)
        for n, answer in zip(left, found, strict=True):
            answers[n] = answer
        return answers

    def _gathered(self, gather: Gather[list[Item], list[Answer]], flush: Flush) -> Attempt:
        """With what other calls bring, unless others are waited for."""

        async def attempt(items: list[Item], waits: bool) -> list[Answer]:
            if not waits:
                return await gather.add(items)
            (found,) = await flush([items], True)
            if isinstance(found, BaseException):
                raise found
            return found

        return attempt

    async def _settle(
        self, items: list[Item], ended_as: str, work: Callable[[list[Item], bool], Awaitable[set[int]]], waits: bool
    ) -> list[Answer]:
        """Let `work` take items (it answers the ids of those taken) until each counts or is known not to stand; where it does not
        wait, once: what stands then is BUSY.

        None for what counts, now or by an earlier call under the same lease; else why not.
        """
        answers: dict[int, Answer] = {}
        left = items
        for _ in range(_TRIES):
            # Two calls may have brought the same lease: the first counts, the others are told so by _explain.
            # In the order sent, in which their continuations are made.
            if len({(i.lease_no, i.no) for i in left}) < len(left):
                left = list({(i.lease_no, i.no): i for i in reversed(left)}.values())[::-1]
            taken = await work(left, waits)
            if len(taken) == len(items):
                return [None] * len(items)
            answers.update(dict.fromkeys(taken))
            left = [i for i in items if id(i) not in answers]
            if left:
                left = await self._explain(left, ended_as, answers)
            if left and waits:
                await asyncio.sleep(0)
                continue
            return [answers.get(id(i), BUSY) for i in items]
        raise Conflict("these leases are being changed by other calls all the time: try again")

    async def _explain(self, items: list[Item], ended_as: str, answers: dict[int, Answer]) -> list[Item]:
        """Answer items that were not found; those that stand all the same are returned, to be tried again."""
        pairs = [(i.lease_no, i.no) for i in items]
        again = []
        for row in await self.core.pool.run(lambda c: rows.ended_items(c, self.core.ns, pairs)):
            item = items[row.ord - 1]
            if row.stands:
                again.append(item)
            elif (ended_as == "completed" and row.completed) or (ended_as == "failed" and row.failed):
                answers[id(item)] = None
            elif row.cancelled:
                answers[id(item)] = item.refuse(CANCELLED, _CANCELLED_TEXT)
            else:
                answers[id(item)] = item.refuse(LOST, _LOST_TEXT)
        return again


_NO_GROUP = new_id()


class _Keyed(Exception):
    """Some of these have to do with keys: run the transaction again, with keys."""


def _refuse_children(item: Item, error: Exception) -> Refused:
    if isinstance(error, CrewError):
        return item.refuse(INVALID_CHILDREN, error.message, error.path)
    return item.refuse(
        INVALID_CHILDREN, "the id of one of these tasks is being taken by another call: try again", ("children",)
    )


def _together(answers: list[Answer | BaseException]) -> list[Answer] | BaseException:
    for answer in answers:
        if isinstance(answer, BaseException):
            return answer
    return [a for a in answers if not isinstance(a, BaseException)]
