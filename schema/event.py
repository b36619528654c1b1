"""Events: what happened, as it was logged, by long poll and by subscription."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any

import strawberry

from resolvers import check
from resolvers import subscribe as deciding
from resolvers.cursor import read_cursor
from resolvers.event import Event, Filter
from schema.context import Info
from schema.inputs import NullMeansDefault
from schema.scalars import Cursor
from schema.task import STATES, Task, TaskState

of = strawberry.field
_MOST_NAMED = 1000
_MOST_EVENTS = 5000


@strawberry.enum(description="What happened.")
class TaskEventKind(enum.Enum):
    CREATED = strawberry.enum_value("CREATED", description="A task was made.")
    SCHEDULED = strawberry.enum_value("SCHEDULED", description="Its time is set: a delay, or a back-off.")
    READY = strawberry.enum_value("READY", description="It can be claimed, unless something holds it.")
    STARTED = strawberry.enum_value("STARTED", description="A worker claimed it.")
    PROGRESSED = strawberry.enum_value("PROGRESSED", description="Its worker said how far it is.")
    SUCCEEDED = strawberry.enum_value("SUCCEEDED", description="It was completed.")
    RETRYING = strawberry.enum_value("RETRYING", description="An attempt failed; the task will be tried again.")
    FAILED = strawberry.enum_value("FAILED", description="The last attempt failed, or a worker discarded it.")
    CANCELLED = strawberry.enum_value("CANCELLED", description="It was cancelled.")
    MERGED = strawberry.enum_value("MERGED", description="It rides with a running task of its channel and key.")
    LEASE_EXPIRED = strawberry.enum_value(
        "LEASE_EXPIRED", description="Its worker neither finished it nor extended the lease."
    )
    GIVEN_BACK = strawberry.enum_value("GIVEN_BACK", description="Its lease was released, or an offer of it lapsed.")
    RESET = strawberry.enum_value("RESET", description="It is as if it had never run.")
    UPDATED = strawberry.enum_value("UPDATED", description="Its fields or its links changed.")
    DELETED = strawberry.enum_value("DELETED", description="It is gone.")
    HELD = strawberry.enum_value(
        "HELD",
        description="A task, group, channel or workgroup is held: `until` says for how long, where that is known.",
    )
    UNHELD = strawberry.enum_value("UNHELD", description="It is not held any more.")
    GROUP_CREATED = strawberry.enum_value("GROUP_CREATED", description="A group was made.")
    GROUP_UPDATED = strawberry.enum_value("GROUP_UPDATED", description="A group's name or metadata changed.")
    GROUP_FINISHED = strawberry.enum_value(
        "GROUP_FINISHED", description="The last task of a group was settled; told within a second of it."
    )
    GROUP_DELETED = strawberry.enum_value("GROUP_DELETED", description="A group is gone, with all its tasks.")
    REFUSED = strawberry.enum_value(
        "REFUSED",
        description=(
            "What a schedule or an application's own transaction (crew.create_tasks) wanted was refused, and nothing was made: "
            "`Schedule.lastError` or the view crew.refused says why."
        ),
    )


_KINDS = list(TaskEventKind)
_NUMBER = {kind: n for n, kind in enumerate(_KINDS, 1)}


@strawberry.input(description="Which events. A field left out narrows nothing; each list names 1 to 1,000.")
class TaskEventFilter(NullMeansDefault):
    group_id: strawberry.ID | None = of(
        default=None, description="Of this group; and those of channels and workgroups, which concern each group."
    )
    channels: list[str] | None = of(default=None, description="Of these channels.")
    workgroups: list[str] | None = of(default=None, description="Of these workgroups.")
    kinds: list[TaskEventKind] | None = of(default=None, description="Of these kinds.")
    task_ids: list[strawberry.ID] | None = of(default=None, description="Of these tasks.")

    def checked(self) -> Filter:
        """Raises BadInput with the path of the bad field."""
        path = ("filter",)
        for name, given in (
            ("channels", self.channels),
            ("workgroups", self.workgroups),
            ("kinds", self.kinds),
            ("taskIds", self.task_ids),
        ):
            if given is not None:
                check.whole(len(given), (*path, name), f"the length of {name}", 1, _MOST_NAMED)
        return Filter(
            group_id=None if self.group_id is None else str(check.uuid(self.group_id, (*path, "groupId"), "groupId")),
            channels=_words(self.channels, (*path, "channels"), "channel"),
            workgroups=_words(self.workgroups, (*path, "workgroups"), "workgroup"),
            kinds=None if self.kinds is None else frozenset(_NUMBER[kind] for kind in self.kinds),
            task_ids=None
            if self.task_ids is None
            else frozenset(
                str(check.uuid(id, (*path, "taskIds", n), "a task id")) for n, id in enumerate(self.task_ids)
            ),
        )


def _words(given: list[str] | None, path: tuple[str | int, ...], name: str) -> frozenset[str] | None:
    return None if given is None else frozenset(check.text(word, (*path, n), name) for n, word in enumerate(given))


@strawberry.type(
    description=(
        "What happened, as it was logged, so that a live view needs no further read. A verb on a group, channel or workgroup "
        "writes one event for the whole of it, with null for what it does not name; tasks have events of their own where their "
        "state changes. A filter by group passes the events of channels and workgroups too."
    )
)
class TaskEvent:
    no: strawberry.Private[int | None]
    kind: TaskEventKind = of(description="What happened.")
    at: datetime = of(description="When, by PostgreSQL's clock: when its transaction began.")
    task_id: strawberry.ID | None = of(
        description="To which task; null where it happened to a group, channel or workgroup."
    )
    group_id: strawberry.ID | None = of(description="In which group.")
    channel: str | None = of(description="The task's channel, or the one that it happened to.")
    workgroup: str | None = of(description="The task's workgroup, or the one that it happened to.")
    state: TaskState | None = of(description="The task's state from then on.")
    attempt: int | None = of(description="The attempt that it happened in; how many there were, where none runs.")
    worker_id: str | None = of(description="The worker that did it.")
    progress: float | None = of(description="0 to 1, as the worker said.")
    until: datetime | None = of(description="When the hold or the delay ends, where that is known; of many, the first.")

    @classmethod
    def of(cls, event: Event) -> TaskEvent:
        return cls(
            no=event.no,
            kind=_KINDS[event.kind - 1],
            at=event.at,
            task_id=None if event.task_id is None else strawberry.ID(event.task_id),
            group_id=None if event.group_id is None else strawberry.ID(event.group_id),
            channel=event.channel,
            workgroup=event.workgroup,
            state=None if event.state is None or event.no is None else STATES[event.state],
            attempt=event.attempt,
            worker_id=event.worker_id,
            progress=event.progress,
            until=event.until,
        )

    @strawberry.field(description="The task as it is now; null once deleted, and where no task is named.")
    async def task(self, info: Info) -> Task | None:
        row = None if self.no is None else await info.context.loaders.tasks.load(self.no)
        return None if row is None else Task.of(row)


@strawberry.type(description="Events that follow each other.")
class TaskEventBatch:
    events: list[TaskEvent] = of(description="In the order of the log, which is the same for all.")
    cursor: Cursor = of(
        description="Where to go on from. Keep it: the next call or subscription starts here. It moves on without events, too."
    )

    shared: strawberry.Private[dict[object, Any]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, batch: deciding.Batch) -> TaskEventBatch:
        """The same for all who were given the same batch."""
        made: TaskEventBatch | None = batch.shared.get(cls)
        if made is None:
            events = [TaskEvent.of(event) for event in batch.events]
            made = batch.shared[cls] = cls(events=events, cursor=Cursor(str(batch.cursor)), shared=batch.shared)
        return made


_After = Annotated[
    Cursor | None,
    strawberry.argument(
        description="What came after this; null for what happens from now on. CURSOR_EXPIRED when it is too old."
    ),
]
_Filter = Annotated[TaskEventFilter | None, strawberry.argument(description="Which events.")]


@strawberry.type
class EventQuery:
    @strawberry.field(
        description=(
            "The long-poll form of the subscription of the same name: answers at once when there are events after the cursor, "
            "else waits up to `waitSeconds` (cut to the server's limit). Without a cursor it answers at once, with no events and "
            "the cursor of now. Events are kept for 7 days (a setting)."
        )
    )
    async def task_events(
        self,
        info: Info,
        after: _After = None,
        filter: _Filter = None,
        limit: Annotated[int | None, strawberry.argument(description="At most so many events, 1 to 5,000.")] = 500,
        wait_seconds: Annotated[float | None, strawberry.argument(description="How long to wait for the first.")] = 0.0,
    ) -> TaskEventBatch | None:
        log = info.context.services.log
        asked = Filter() if filter is None else filter.checked()
        most = check.whole(500 if limit is None else limit, ("limit",), "limit", 1, _MOST_EVENTS)
        wait = check.number(wait_seconds or 0.0, ("waitSeconds",), "waitSeconds", 0, 1e9)
        if after is None:
            return TaskEventBatch(events=[], cursor=Cursor(str(await log.now())))
        wait = min(wait, info.context.core.limits.max_wait_seconds)
        return TaskEventBatch.of(await deciding.poll(log, read_cursor(after, ("after",)), asked, most, wait))


@strawberry.type
class EventSubscription:
    @strawberry.subscription(
        description=(
            "Every change, from `after` (or from now): first what was missed, then what happens. The first batch comes at once, "
            "with a cursor, even if empty; quiet spells carry empty batches too (after 10 s), so that the cursor moves on and a "
            "dead line is noticed. At most 500 events in a batch. Who does not keep up is cut off with TOO_SLOW, to go on "
            "from the last cursor."
        )
    )
    async def task_events(
        self, info: Info, after: _After = None, filter: _Filter = None
    ) -> AsyncGenerator[TaskEventBatch, None]:
        asked = Filter() if filter is None else filter.checked()
        begin = info.context.last_event_id or after
        cursor = None if begin is None else read_cursor(begin, ("after",))
        async with aclosing(deciding.follow(info.context.services.log, cursor, asked)) as batches:
            async for batch in batches:
                yield TaskEventBatch.of(batch)
