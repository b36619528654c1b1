"""Producing: a DAG built in Python, sent in one call, and waited for; or a group that many add to, task by task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from crew_worker import tracing
from crew_worker.adding import Adding
from crew_worker.api import Json, encode
from crew_worker.backoff import pause
from crew_worker.documents import CREATE_GROUP, CREATE_TASKS, EVENTS_POLL, FAILED_TASKS, GROUP, TASK
from crew_worker.draft import Draft
from crew_worker.errors import GroupStuck, Refused, TaskFailed
from crew_worker.ids import new_id

if TYPE_CHECKING:
    from crew_worker.client import Crew

Result = TypeVar("Result")
ENDED = frozenset(("SUCCEEDED", "FAILED", "CANCELLED"))
# In these something goes on by itself.
MOVING = frozenset(("SCHEDULED", "READY", "RUNNING", "MERGED"))
WAIT_SECONDS = 20.0
# How long each call may go without an answer.
ASK_SECONDS = 60.0
# So many tasks go in one call, or not at all.
MOST = 10_000
# More go in calls of so many, of which so many are on the way at once.
PIECE, AT_ONCE = 2_000, 3
# All wait for the first call, which makes the group.
FIRST = 200
ENDING = ["SUCCEEDED", "FAILED", "CANCELLED", "GROUP_FINISHED", "GROUP_DELETED", "DELETED"]


@dataclass(frozen=True)
class Ended:
    """A task that has ended."""

    name: str
    state: str
    output: Any
    errors: list[Any]


class Group:
    """One task group. `task` plans, `send` creates what is planned (in one call, safe to repeat), `finished` waits.

    `add` creates one task now: for groups that many callers of a program add to, for as long as they like.
    """

    def __init__(
        self, crew: Crew, name: str, *, id: str | None = None, metadata: Any = None, paused: bool = False
    ) -> None:
        self._crew, self.name, self.metadata, self.paused = crew, name, metadata, paused
        self.id = id or new_id()
        self.tasks: list[Draft[Any]] = []
        self._created = False
        self._sent = 0  # all before this one are
        self._adding = Adding(self._create_added)

    @overload
    def task(
        self, channel: str, input: Any = ..., *, returns: Callable[[Any], Result] | type[Result], **options: Any
    ) -> Draft[Result]: ...
    @overload
    def task(self, channel: str, input: Any = ..., **options: Any) -> Draft[Any]: ...
    def task(self, channel: str, input: Any = None, **options: Any) -> Draft[Any]:
        """Plan a task. Options: name, workgroup, key, on_duplicate, priority, run_after, delay, retry, timeout, weight,
        seed, on_parent_failure, metadata, and `returns`, which makes the result of its output."""
        planned: Draft[Any] = Draft(channel, input, group=self, **options)
        self.tasks.append(planned)
        return planned

    async def add(
        self,
        channel: str,
        input: Any = None,
        *,
        after: Iterable[Draft[Any] | str] = (),
        after_subtree: Iterable[Draft[Any] | str] = (),
        **options: Any,
    ) -> Draft[Any]:
        """Create a task now, and the group with what is planned if need be; takes the options of `task`, and what it waits for.

        Callers that add at the same time share calls, and each fares as if it had been alone. Raises Refused: then it was not
        created; Unavailable: then it may have been; TypeError or ValueError for what is no JSON. The group keeps nothing of it.
        """
        parents, roots = list(after), list(after_subtree)
        planned: Draft[Any] = Draft(channel, input, group=self, **options).after(*parents).after_subtree(*roots)
        made = tracing.with_trace(planned.as_input(), tracing.current())
        encode(made)  # What is no JSON is for its own caller to hear of.
        if any(isinstance(parent, Draft) and not parent.sent for parent in (*parents, *roots)):
            await self.send()
        await self._adding.add(made)
        planned.sent = True
        return planned

    async def send(self) -> Self:
        """Create the group with what is planned, or what was planned since. Raises Refused: then nothing was created.

        More than 10,000 tasks go in several calls, some of them at once, parents before their children: what was created before one
        is refused stays, and the next `send` goes on from there. Tasks that were on the way together may trade places in line.
        """
        unsent = self._unsent()
        if len(unsent) <= MOST:
            await self._create(unsent)
        else:
            await self._send_pieces(parents_first(unsent))
        return self

    async def _send_pieces(self, tasks: Sequence[Draft[Any]]) -> None:
        on_way: dict[asyncio.Task[None], set[str]] = {}

        async def answered(most: int) -> None:
            """Until no more than so many are on the way."""
            while len(on_way) > most:
                done, _ = await asyncio.wait(on_way, return_when=asyncio.FIRST_COMPLETED)
                for call in done:
                    del on_way[call]
                    call.result()

        try:
            start = 0
            while start < len(tasks):
                if not self._created:
                    await answered(0)
                piece = tasks[start : start + (PIECE if self._created else FIRST)]
                start += len(piece)
                parents = set().union(*(task.parent_ids for task in piece))
                waits = any(not parents.isdisjoint(ids) for ids in on_way.values())
                await answered(0 if waits else AT_ONCE - 1)
                on_way[asyncio.create_task(self._create(piece))] = {task.id for task in piece}
            await answered(0)
        except asyncio.CancelledError:
            for call in on_way:
                call.cancel()
            raise
        finally:
            await asyncio.gather(*on_way, return_exceptions=True)

    async def _create(self, unsent: Sequence[Draft[Any]]) -> None:
        here = tracing.current()
        tasks = [tracing.with_trace(task.as_input(), here) for task in unsent]
        if not self._created:
            group: Json = {"id": self.id, "name": self.name, "isPaused": self.paused, "tasks": tasks}
            if self.metadata is not None:
                group["metadata"] = self.metadata
            await self._ask(CREATE_GROUP, {"input": group})
            self._created = True
        elif tasks:
            await self._create_added(tasks)
        for task in unsent:
            task.sent = True

    async def _create_added(self, tasks: list[Json]) -> None:
        if not self._created:
            await self.send()
        await self._ask(CREATE_TASKS, {"input": {"groupId": self.id, "tasks": tasks}})

    async def finished(self, timeout: float | None = None) -> Self:
        """Sends what is unsent, and waits until every task has SUCCEEDED or is CANCELLED.

        Raises GroupStuck when nothing in it goes on by itself, TimeoutError after `timeout` seconds.
        """
        if not self._created or self._unsent():
            await self.send()
        async for group in self._looks(timeout):
            counts = {count["state"]: count["count"] for count in group["progress"]["counts"]}
            if group["finishedAt"] or not any(counts.values()):
                return self
            if (
                counts.get("FAILED")
                and not MOVING & {state for state, n in counts.items() if n}
                and not group["isPaused"]
            ):
                raise GroupStuck(self.name, await self._failed())
        raise AssertionError("unreachable")

    def _unsent(self) -> list[Draft[Any]]:
        """Looks at what may be unsent alone: a group that grows task by task is not gone through for each."""
        while self._sent < len(self.tasks) and self.tasks[self._sent].sent:
            self._sent += 1
        return [task for task in self.tasks[self._sent :] if not task.sent]

    async def _ask(self, document: str, variables: Json, *, wait: float = 0) -> Json:
        return await self._crew._api().ask(document, variables, wait=wait, patience=ASK_SECONDS)

    async def _failed(self) -> list[TaskFailed]:
        found = (await self._ask(FAILED_TASKS, {"id": self.id}))["tasks"]["nodes"]
        return [TaskFailed(task["name"], task["state"], errors_of(task)) for task in found]

    async def _looks(self, timeout: float | None) -> Any:
        """The group now, and again whenever something in it may have ended."""
        async for _ in self._news(timeout, self.id, None):
            found = (await self._ask(GROUP, {"id": self.id}))["taskGroup"]
            if found is None:
                raise Refused(f"no task group {self.id}", "NOT_FOUND", ("id",))
            yield found

    async def _ended(self, task: Draft[Any], timeout: float | None) -> Ended:
        if not task.sent:
            await self.send()
        async for _ in self._news(timeout, self.id, task.id):
            found = (await self._ask(TASK, {"id": task.id}))["task"]
            if found is None:
                raise Refused(f"no task {task.id}", "NOT_FOUND", ("id",))
            if found["state"] in ENDED:
                return Ended(found["name"], found["state"], found["output"], errors_of(found))
        raise AssertionError("unreachable")

    async def _output(self, task: Draft[Any], timeout: float | None) -> Any:
        ended = await self._ended(task, timeout)
        if ended.state != "SUCCEEDED":
            raise TaskFailed(ended.name, ended.state, ended.errors)
        return ended.output

    async def _news(self, timeout: float | None, group: str, task: str | None) -> Any:
        """Yields at once, and whenever it is time to look again: by the event log, or every so often without it."""
        give_up = None if timeout is None else time.monotonic() + timeout
        wanted: Json = {"groupId": group, "kinds": ENDING}
        if task:
            wanted["taskIds"] = [task]
        cursor: str | None = None
        looks, has_events = 0, True
        while True:
            left = WAIT_SECONDS if give_up is None else give_up - time.monotonic()
            if left <= 0 and looks:
                raise TimeoutError(f"{self.name} is not finished after {timeout:g} s")
            if has_events:
                try:
                    cursor = await self._events(cursor, wanted, min(WAIT_SECONDS, max(0.0, left)))
                except Refused as refused:
                    # CURSOR_EXPIRED says to read afresh; a server without the event log knows no such field.
                    has_events = refused.code == "CURSOR_EXPIRED"
                    cursor = None
            elif looks:
                await asyncio.sleep(min(pause(looks, first=0.1, longest=2.0), max(0.0, left)))
            looks += 1
            yield None

    async def _events(self, cursor: str | None, wanted: Json, wait: float) -> str:
        """Waits for an event after the cursor; the cursor to go on from."""
        asked = {"after": cursor, "filter": wanted, "waitSeconds": wait}
        batch = (await self._ask(EVENTS_POLL, asked, wait=wait))["taskEvents"]
        found: str = batch["cursor"]
        return found


def parents_first(tasks: Sequence[Draft[Any]]) -> list[Draft[Any]]:
    """In the order planned, but none before its parents. (What waits for itself is for the server to refuse.)"""
    if not any(task.parent_ids for task in tasks):
        return list(tasks)
    planned = {task.id: task for task in tasks}
    ordered: dict[str, Draft[Any]] = {}
    begun: set[str] = set()
    for task in tasks:
        line = [task]
        while line:
            last = line[-1]
            begun.add(last.id)
            before = [planned[id] for id in last.parent_ids if id in planned and id not in begun]
            if before:
                line += before
            else:
                ordered.setdefault(last.id, line.pop())
    return list(ordered.values())


def errors_of(task: Json) -> list[Any]:
    return [error["error"] for error in task["errors"]]
