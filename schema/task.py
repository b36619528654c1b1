"""A task: what it is, and what it is linked to."""

from __future__ import annotations

import enum
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import strawberry

from db.task import EdgeRow, ErrorRow, TaskRow
from resolvers import check
from schema.context import Info, asks_for, page_size, prompt
from schema.scalars import JSON

if TYPE_CHECKING:
    from schema.group import TaskGroup

of = strawberry.field
_ID = frozenset({"id"})


@strawberry.enum(description="Where a task stands in its life.")
class TaskState(enum.Enum):
    BLOCKED = strawberry.enum_value(0, description="Waits for a parent.")
    SCHEDULED = strawberry.enum_value(
        1, description="Waits for its time: delayed by its creator, or backing off after an error."
    )
    READY = strawberry.enum_value(
        2, description="Can be claimed now (unless its group, workgroup or channel holds it back)."
    )
    RUNNING = strawberry.enum_value(3, description="Leased to a worker.")
    MERGED = strawberry.enum_value(
        4, description="Rides along with a running task of the same channel and key, and ends with it."
    )
    SUCCEEDED = strawberry.enum_value(5, description="Completed by a worker; its output is kept.")
    FAILED = strawberry.enum_value(
        6, description="Every attempt failed, or a worker discarded it. Stays until retried."
    )
    CANCELLED = strawberry.enum_value(7, description="Called off: no worker gets it.")


STATES: dict[int, TaskState] = {n: list(TaskState)[n] for n in range(8)}
"""By the numbers that rows carry (sql/README.md)."""
NUMBERS = {state: n for n, state in STATES.items()}


@strawberry.enum(description="What keeps a ready task from being handed out.")
class Hold(enum.Enum):
    TASK_PAUSED = strawberry.enum_value("TASK_PAUSED", description="It is paused itself.")
    GROUP_PAUSED = strawberry.enum_value("GROUP_PAUSED", description="Its group is paused.")
    CHANNEL_PAUSED = strawberry.enum_value("CHANNEL_PAUSED", description="Its channel is paused.")
    CHANNEL_LIMITED = strawberry.enum_value("CHANNEL_LIMITED", description="Its channel runs as many as it may.")
    WORKGROUP_SUSPENDED = strawberry.enum_value("WORKGROUP_SUSPENDED", description="Its workgroup is suspended.")
    WORKGROUP_LIMITED = strawberry.enum_value("WORKGROUP_LIMITED", description="Its workgroup is at its limit.")


HOLDS = (
    Hold.TASK_PAUSED,
    Hold.GROUP_PAUSED,
    Hold.CHANNEL_PAUSED,
    Hold.WORKGROUP_SUSPENDED,
    Hold.CHANNEL_LIMITED,
    Hold.WORKGROUP_LIMITED,
)
"""By bit."""
"""By the bits that rows carry, lowest first."""


@strawberry.enum(description="What a task does when a parent fails or is cancelled.")
class ParentFailurePolicy(enum.Enum):
    BLOCK = strawberry.enum_value(
        0,
        description=("Wait. A FAILED parent may be retried, a CANCELLED one reset, the child itself cancelled."),
    )
    CANCEL = strawberry.enum_value(
        1,
        description=(
            "Be cancelled as soon as one parent has FAILED or is CANCELLED, and so on down. A later retry of the parent does "
            "not bring it back; resetting the cancelled task itself does."
        ),
    )
    RUN = strawberry.enum_value(2, description="Run once every parent has ended, however it ended.")


POLICIES = list(ParentFailurePolicy)


@strawberry.enum(description="What the parent link waits for.")
class WaitFor(enum.Enum):
    TASK = strawberry.enum_value(0, description="The parent itself.")
    SUBTREE = strawberry.enum_value(
        1,
        description=(
            "The parent and everything it goes on to spawn, to any depth: the join of a tree that is still growing. Spawned "
            "means made in `completeTasks.children` of the parent or of a task so spawned, whatever parents it names. The "
            "join itself, what waits for it, and other joins of the same subtree never count; a join that has started is "
            "left alone."
        ),
    )


@strawberry.enum(description="What becomes of a task whose channel and key another task has.")
class DuplicatePolicy(enum.Enum):
    MERGE = strawberry.enum_value(
        0,
        description=(
            "Do the work once: while one task of the channel and key runs, its READY twins, held or not, in whatever group, "
            "are MERGED into it, and BLOCKED and SCHEDULED ones when they become READY (so that order always holds). All end "
            "with it: same output, and their own children follow. A failed attempt counts as an attempt of each, with one "
            "error entry each (keepAttempt and discard hold for each as well); then each goes on by its own retry policy, "
            "and whichever is claimed next carries the rest. If the runner is cancelled, deleted, reset or released, or "
            "loses its lease, its twins are READY as before. Continuations and childrenDelaySeconds are the runner's alone. "
            "A task made after its twin has ended is new work."
        ),
    )
    RETURN_EXISTING = strawberry.enum_value(
        1,
        description=(
            "Answer with the task of this channel and key that has not ended, whatever its group; create nothing. The oldest "
            "of several."
        ),
    )
    REJECT = strawberry.enum_value(
        2, description="Refuse with DUPLICATE_KEY while one of this channel and key has not ended."
    )
    ALLOW = strawberry.enum_value(3, description="Create it and run it all the same; it neither merges nor is merged.")


@strawberry.type(
    description=(
        "The delay after the n-th counted failure (since creation or the last retry by a person) is "
        "delaySeconds × backoff^(n−1), at most maxDelaySeconds, give or take 10 % so that retries do not come in step. "
        "A time-out is a failure like any other; a lost lease counts as an attempt and does not delay."
    )
)
class RetryPolicy:
    max_attempts: int = of(description="How many attempts there are in all, 1 to 1,000,000.")
    delay_seconds: float = of(description="Seconds before the second attempt.")
    backoff: float = of(description="1 keeps the delay fixed; 2 doubles it each time. 1 to 100.")
    max_delay_seconds: float = of(description="The longest delay, in seconds.")


@strawberry.type(description="What one failed attempt reported.")
class TaskError:
    attempt: int = of(description="Which attempt failed, counted from 1.")
    error: JSON = of(
        description="As the worker sent it: a string or an object. A lost lease and a time-out write one too."
    )
    worker_id: str | None = of(description="The worker that had the task.")
    started_at: datetime | None = of(description="When that attempt started.")
    at: datetime = of(description="When it failed.")

    @classmethod
    def of(cls, row: ErrorRow) -> TaskError:
        return cls(
            attempt=row.attempt,
            error=JSON(row.error),
            worker_id=row.worker_id,
            started_at=row.started_at,
            at=row.at,
        )


@strawberry.type(description="One piece of work. It is in exactly one group, and waits for its parents.")
class Task:
    no: strawberry.Private[int]
    group_no: strawberry.Private[int]
    spawned_by_no: strawberry.Private[int | None]
    merged_into_no: strawberry.Private[int | None]
    id: strawberry.ID = of(description="A UUID: the creator's, or made by the server.")
    name: str = of(description="What people call it; 1 to 1,000 characters.")
    channel: str = of(
        description=(
            "Which kind of work this is; workers claim by channel. Over several channels the highest priority goes first."
        )
    )
    workgroup: str | None = of(
        description="Tasks that share a rate limit share a workgroup: all of them can be suspended at once."
    )
    key: str | None = of(description="Tasks of one channel with the same key are the same work: it is done once.")
    state: TaskState = of(description="Where it stands in its life.")
    held_by: list[Hold] = of(
        description=(
            "What holds a task back that its state alone would let run: paused itself, in a paused group or channel, in a "
            "suspended workgroup, in a channel or workgroup that runs or starts as many as it may."
        )
    )
    priority: int = of(description="Higher goes first; within one priority, the oldest.")
    run_after: datetime | None = of(description="Its own earliest time, if it has one.")
    not_before: datetime | None = of(
        description=(
            "When it can be handed out at the earliest: its own time or the end of its workgroup's suspension, whichever "
            "is later; null when that is past or not set."
        )
    )
    input: JSON | None = of(description="What its creator gave it to work with.")
    output: JSON | None = of(description="What its worker produced.")
    attempt: int = of(
        description="How many attempts have been started and not given back. Goes on counting after a retry."
    )
    remaining_attempts: int = of(
        description="How many more attempts may be started; the running one no longer counts among them."
    )
    retry: RetryPolicy = of(description="How often and when it is tried again.")
    timeout_seconds: float | None = of(description="The longest one attempt may take, in seconds.")
    progress_weight: int = of(description="How much it counts in the progress of its group.")
    progress: float | None = of(description="0 to 1, as last reported by its worker.")
    progress_message: str | None = of(description="What its worker last said of its progress.")
    is_seed: bool = of(description="Seed tasks survive a reset of their group; the others are rebuilt by them.")
    on_parent_failure: ParentFailurePolicy = of(description="What it does when a parent fails or is cancelled.")
    metadata: JSON | None = of(description="Free labels; a trace context travels here too.")
    worker_id: str | None = of(description="The worker that runs it, or ran it last.")
    lease_expires_at: datetime | None = of(description="When its lease runs out, while RUNNING.")
    created_at: datetime = of(description="When it was created.")
    ready_at: datetime | None = of(description="When it last became READY, held or not; null in other states.")
    started_at: datetime | None = of(description="When its latest attempt started.")
    finished_at: datetime | None = of(description="When it ended.")

    has_parents: ClassVar[bool]

    @classmethod
    def of(cls, row: TaskRow) -> Task:
        """By way of its row: resolvers take either."""
        return cast(Task, RowTask(row))

    @strawberry.field(
        description="The group it belongs to.", graphql_type=Annotated["TaskGroup", strawberry.lazy("schema.group")]
    )
    @prompt
    def group(self, info: Info) -> Any:
        if asks_for(info, _ID) and (known := info.context.core.groups.ids.get(self.group_no)):
            return _groups().bare_group(known)
        return _group(info, self.group_no)

    @strawberry.field(
        description="What each failed attempt reported, oldest first. The first and the newest 99 are kept."
    )
    async def errors(
        self,
        info: Info,
        last: Annotated[int | None, strawberry.argument(description="At most so many, the newest; 0 to 100.")] = 100,
    ) -> list[TaskError]:
        n = check.whole(100 if last is None else last, ("last",), "last", 0, 100)
        rows = await info.context.loaders.errors.load(self.no)
        return [TaskError.of(row) for row in rows[max(0, len(rows) - n) :]]

    @strawberry.field(description="In the order they were named, then those adopted through a SUBTREE link.")
    async def parents(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 1000,
    ) -> list[Task]:
        return await _linked(info, await info.context.loaders.parents(page_size(first, 1000, info)).load(self.no))

    @strawberry.field(description="How many parents it has.")
    async def parent_count(self, info: Info) -> int:
        return (await info.context.loaders.link_counts.load(self.no)).parents

    @strawberry.field(description="Oldest first.")
    async def children(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 1000,
    ) -> list[Task]:
        return await _linked(info, await info.context.loaders.children(page_size(first, 1000, info)).load(self.no))

    @strawberry.field(description="How many children it has.")
    async def child_count(self, info: Info) -> int:
        return (await info.context.loaders.link_counts.load(self.no)).children

    @strawberry.field(description="The task whose completion made this one.")
    async def spawned_by(self, info: Info) -> Task | None:
        if self.spawned_by_no is None:
            return None
        row = await info.context.loaders.tasks.load(self.spawned_by_no)
        return None if row is None else Task.of(row)

    @strawberry.field(description="The task whose result this one takes, while MERGED and after.")
    async def merged_into(self, info: Info) -> Task | None:
        if self.merged_into_no is None:
            return None
        row = await info.context.loaders.tasks.load(self.merged_into_no)
        return None if row is None else Task.of(row)


_IN_ROWS = {
    "spawned_by_no": "spawned_by",
    "merged_into_no": "merged_into",
    "remaining_attempts": "remaining",
    "timeout_seconds": "timeout",
    "progress_weight": "weight",
}
"""Fields that are called otherwise in rows."""


class RowTask:
    """A Task as a statement read it. Its fields are made from the row when they are asked for: callers ask for few, and making
    all of them takes longer than all else that is done for a list in Python."""

    __slots__ = ("row",)

    has_parents = True
    """It may have some: only claims know better."""

    def __init__(self, row: Any) -> None:
        self.row = row

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, _IN_ROWS.get(name, name))

    @property
    def id(self) -> str:
        return str(self.row.id)

    @property
    def state(self) -> TaskState:
        return STATES[self.row.state]

    @property
    def held_by(self) -> list[Hold]:
        holds = self.row.holds
        return [hold for bit, hold in enumerate(HOLDS) if holds >> bit & 1] if holds else []

    @property
    def input(self) -> JSON | None:
        return json_or_none(self.row.input)

    @property
    def output(self) -> JSON | None:
        return json_or_none(self.row.output)

    @property
    def metadata(self) -> JSON | None:
        return json_or_none(self.row.metadata)

    @property
    def on_parent_failure(self) -> ParentFailurePolicy:
        found: ParentFailurePolicy = POLICIES[self.row.on_parent_failure]
        return found

    @property
    def retry(self) -> RetryPolicy:
        row = self.row
        return RetryPolicy(
            max_attempts=row.max_attempts,
            delay_seconds=row.retry_delay,
            backoff=row.backoff,
            max_delay_seconds=row.max_delay,
        )


def json_or_none(text: str | None) -> JSON | None:
    return None if text is None else JSON(text)


@cache
def _groups() -> Any:
    """That module imports this one; and an import statement in a field takes longer than the field."""
    return import_module("schema.group")


async def _group(info: Info, number: int) -> TaskGroup:
    row = await info.context.loaders.groups.load(number)
    if row is None:
        raise LookupError(f"there is no group {number}")
    group: TaskGroup = _groups().TaskGroup.of(row)
    return group


async def _linked(info: Info, nos: list[int]) -> list[Task]:
    return [Task.of(row) for row in await info.context.loaders.tasks.load_many(nos) if row is not None]


async def tasks_in_order(info: Info, nos: list[int]) -> list[Task]:
    """Tasks by number, in the order of the numbers; those deleted meanwhile are left out."""
    return await _linked(info, nos)


@strawberry.type(description="A link: the child waits for the parent.")
class TaskEdge:
    parent_id: strawberry.ID = of(description="The task that goes first.")
    child_id: strawberry.ID = of(description="The task that waits for it.")
    wait_for: WaitFor = of(description="What the child waits for.")
    is_adopted: bool = of(description="Not named by anyone: it came through a SUBTREE link.")

    @classmethod
    def of(cls, row: EdgeRow) -> TaskEdge:
        return cls(
            parent_id=strawberry.ID(str(row.parent_id)),
            child_id=strawberry.ID(str(row.child_id)),
            wait_for=WaitFor.SUBTREE if row.subtree else WaitFor.TASK,
            is_adopted=row.adopted,
        )


@strawberry.type(description="How many tasks stand in a state.")
class StateCount:
    state: TaskState = of(description="The state.")
    count: int = of(description="How many; never 0.")
