"""Leases: what workers claim, hold and give back."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, cast

import strawberry

from db.claim import ClaimedRow
from db.lease import StandingRow
from db.task import ParentResultRow
from resolvers import access, claim
from resolvers.dispatch import Standing
from resolvers.lease import Outcome, Refused
from schema.context import Info, asks_beyond, asks_only, page_size, prompt
from schema.inputs import NullMeansDefault
from schema.new_task import NewTask
from schema.scalars import JSON
from schema.task import (
    STATES,
    RowTask,
    Task,
    TaskState,
    json_or_none,
    tasks_in_order,
)

of = strawberry.field


@strawberry.type(description="What one parent of a leased task produced.")
class ParentResult:
    task_id: strawberry.ID = of(description="The parent's id.")
    name: str = of(description="The parent's name.")
    channel: str = of(description="The parent's channel.")
    state: TaskState = of(description="How the parent stands.")
    input: JSON | None = of(description="What the parent was given.")
    output: JSON | None = of(description="What the parent produced.")

    @classmethod
    def of(cls, row: ParentResultRow) -> ParentResult:
        return cls(
            task_id=strawberry.ID(str(row.task_id)),
            name=row.name,
            channel=row.channel,
            state=STATES[row.state],
            input=json_or_none(row.input),
            output=json_or_none(row.output),
        )


@strawberry.type(
    description=(
        "The right to work on one task: all that a worker needs to keep. It ends when the server takes it back, never "
        "before `expiresAt`; what comes in before that counts. Time in which no server could take an extend does not run "
        "against it."
    )
)
class Lease:
    id: strawberry.ID = of(
        description="Names the task and this very claim of it; a later claim has another id, and this one is then LOST."
    )
    task: Task = of(description="The task to work on.")
    attempt: int = of(description="Which attempt this is, counted from 1.")
    expires_at: datetime = of(description="When the server may take it back: extend it before then.")

    @strawberry.field(
        description="What the parents produced, in the order they were named, then the adopted ones.",
        graphql_type=list[ParentResult],
    )
    @prompt
    def parents(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 1000,
    ) -> Any:
        most = page_size(first, 1000, info)
        return _parents(info, self.task.no, most) if self.task.has_parents else []

    @strawberry.field(description="How many parents the task has.")
    async def parent_count(self, info: Info) -> int:
        counts = await info.context.loaders.link_counts.load(self.task.no)
        return counts.parents + counts.results


async def _parents(info: Info, no: int, most: int) -> list[ParentResult]:
    return [ParentResult.of(row) for row in await info.context.loaders.parent_results(most).load(no)]


async def leases_of(info: Info, granted: Sequence[ClaimedRow] | Sequence[Standing], worker: str) -> list[Lease]:
    """A task that is asked for more than its claim read is read again; one that was deleted meanwhile is left out."""
    pairs: list[tuple[StandingRow | ClaimedRow, Task]] = []
    claimed = [lease for lease in granted if isinstance(lease, ClaimedRow)]
    if not claimed:
        pairs = [(lease.row, Task.of(lease.task)) for lease in granted if isinstance(lease, Standing)]
    elif asks_beyond(info, ("leases", "task"), ClaimedTask.FIELDS):
        rows = await info.context.loaders.tasks.load_many([lease.no for lease in claimed])
        pairs = [(lease, Task.of(row)) for lease, row in zip(claimed, rows, strict=True) if row is not None]
    else:
        # Task's fields by another way; its resolvers take either.
        pairs = [(lease, cast(Task, ClaimedTask(lease, worker))) for lease in claimed]
    pack = info.context.core.lease_ids.pack
    return [
        Lease(
            id=strawberry.ID(pack(lease.lease_no, lease.no)), task=task, attempt=lease.attempt, expires_at=lease.until
        )
        for lease, task in pairs
    ]


class ClaimedTask(RowTask):
    """A Task as its claim read it: RUNNING, and no more than FIELDS of it."""

    __slots__ = ("channel", "group_no", "has_parents", "key", "name", "no", "worker_id", "workgroup")

    FIELDS = frozenset(
        {
            *(
                "__typename",
                "id",
                "name",
                "channel",
                "workgroup",
                "key",
                "priority",
                "input",
                "metadata",
                "state",
                "attempt",
            ),
            *("remainingAttempts", "timeoutSeconds", "workerId", "leaseExpiresAt", "startedAt", "group", "errors"),
            *("parents", "parentCount", "children", "childCount"),
        }
    )
    state = TaskState.RUNNING

    def __init__(self, row: ClaimedRow, worker: str) -> None:
        self.row, self.worker_id = row, worker
        self.no, self.group_no, self.has_parents = row.no, row.group_no, row.has_parents
        self.name, self.channel, self.workgroup, self.key = row.name, row.channel, row.workgroup, row.key

    @property
    def priority(self) -> int:
        found: int = -self.row.rank
        return found

    @property
    def remaining_attempts(self) -> int:
        found: int = self.row.remaining
        return found

    @property
    def timeout_seconds(self) -> float | None:
        found: float | None = self.row.timeout
        return found

    @property
    def lease_expires_at(self) -> datetime:
        found: datetime = self.row.until
        return found


@strawberry.enum(description="Why one item of a call was not taken.")
class LeaseErrorCode(enum.Enum):
    LOST = strawberry.enum_value(
        "LOST",
        description=(
            "No longer yours: expired, timed out, released, reset, or already ended the other way (completed, then "
            "failed; failed, then completed or extended). Stop working on it; what you send for it counts for nothing."
        ),
    )
    CANCELLED = strawberry.enum_value("CANCELLED", description="Its task was cancelled or deleted: stop.")
    UNKNOWN = strawberry.enum_value("UNKNOWN", description="No such lease was ever given (an id of any shape).")
    INVALID_CHILDREN = strawberry.enum_value(
        "INVALID_CHILDREN",
        description=(
            "The children are not a valid continuation (a cycle, an unknown ref, a bad field, a key that REJECT refuses); "
            "the lease still stands."
        ),
    )
    BAD_INPUT = strawberry.enum_value(
        "BAD_INPUT",
        description=(
            "The item itself cannot be taken (too large, a negative delay, two that exclude each other, a lease named "
            "twice); the lease still stands."
        ),
    )


@strawberry.type(description="One item of a call that was not taken; the others were.")
class LeaseError:
    index: int = of(description="Where in the input it stands.")
    lease: strawberry.ID = of(description="The lease, as it was sent.")
    code: LeaseErrorCode = of(description="Why.")
    message: str = of(description="What was given, what is allowed, and what to do.")
    path: list[str] | None = of(description="The bad field, from the item down; null where none is to blame.")

    @classmethod
    def of(cls, refused: Refused) -> LeaseError:
        return cls(
            index=refused.index,
            lease=strawberry.ID(refused.lease),
            code=LeaseErrorCode(refused.code),
            message=refused.message,
            path=refused.path,
        )


@strawberry.input(description="What a worker asks for.")
class ClaimTasksInput(NullMeansDefault):
    worker_id: str = of(description="The worker's name for itself; 1 to 255 characters.")
    channels: list[str] = of(description="The kinds of work that it takes; 1 to 1,000 of them.")
    limit: int | None = of(default=1, description="At most so many tasks, 1 to 10,000.")
    lease_seconds: float | None = of(default=60.0, description="How long the leases last, 1 to 86,400 seconds.")
    wait_seconds: float | None = of(
        default=0.0,
        description=(
            "Long poll: how long the call may wait for the first task (it answers as soon as there is one). 0 answers at "
            "once; cut to the server's limit of 25."
        ),
    )
    claim_id: strawberry.ID | None = of(
        default=None,
        description=(
            "A UUID of the worker's own makes the call safe to repeat, at any server, also while both copies wait: one of "
            "them claims, and a repeat answers those of its leases that still stand, and never adds new ones. A claim that "
            "got nothing leaves no trace: a repeat looks again. Kept for an hour after its last lease ended; with other "
            "channels or another limit it is a CONFLICT."
        ),
    )


@strawberry.type(description="What was claimed.")
class ClaimTasksPayload:
    leases: list[Lease] = of(description="One for each task.")


@strawberry.input(description="One task done.")
class CompleteTaskInput(NullMeansDefault):
    lease: strawberry.ID = of(description="The lease's id.")
    output: JSON | None = of(default=None, description="What the task produced; up to 1 MiB.")
    children: list[NewTask] | None = of(
        default=None,
        description=(
            "Continuations, in any order, made in this task's group together with its completion or not at all. One that "
            "names no parent becomes a child of this task; the others hang from the refs and ids they name."
        ),
    )
    children_delay_seconds: float | None = of(
        default=None,
        description="Every direct child of this task, new or already there, waits at least this long.",
    )
    workgroup_delay_seconds: float | None = of(
        default=None,
        description="Suspend this task's workgroup for so long; it has no effect on a task without one.",
    )


@strawberry.input(description="Tasks done.")
class CompleteTasksInput:
    results: list[CompleteTaskInput] = of(description="At most 10,000; each is taken or refused by itself.")


@strawberry.type(description="What came of it.")
class CompleteTasksPayload:
    completed: int = of(
        description=(
            "How many of the leases now count as completed. The first complete of a lease counts; later ones count as "
            "completed too, whatever they carry, and change nothing."
        )
    )
    errors: list[LeaseError] = of(description="The items that were not taken.")
    tasks: list[Task] = of(description="The tasks that count as completed, in the order sent.")


@strawberry.input(description="One attempt that failed.")
class FailTaskInput(NullMeansDefault):
    lease: strawberry.ID = of(description="The lease's id.")
    error: JSON = of(description="A string or an object that says what went wrong; up to 1 MiB.")
    retry_delay_seconds: float | None = of(default=None, description="Instead of the task's own retry delay.")
    workgroup_delay_seconds: float | None = of(
        default=None,
        description=(
            "Suspend this task's workgroup for so long: the answer to a rate limit. Without a workgroup it delays this "
            "task by at least so long."
        ),
    )
    keep_attempt: bool | None = of(
        default=False,
        description=(
            "Do not count this attempt: it was the weather, not the task. The error is still noted; `remainingAttempts` "
            "does not fall."
        ),
    )
    discard: bool | None = of(default=False, description="No further attempts, whatever remains. Excludes keepAttempt.")


@strawberry.input(description="Attempts that failed.")
class FailTasksInput:
    failures: list[FailTaskInput] = of(description="At most 10,000; each is taken or refused by itself.")


@strawberry.type(description="A repeated fail of the same lease counts as failed and changes nothing.")
class FailTasksPayload:
    failed: int = of(description="How many of the leases now count as failed.")
    errors: list[LeaseError] = of(description="The items that were not taken.")
    tasks: list[Task] = of(description="The tasks that count as failed, in the order sent.")


@strawberry.input(description="How far one task is.")
class LeaseProgressInput:
    lease: strawberry.ID = of(description="The lease's id.")
    fraction: float | None = of(default=None, description="0 to 1; null keeps what was said before.")
    message: str | None = of(default=None, description="Cut to 2,000 characters; null keeps what was said before.")


@strawberry.input(description="Leases to keep.")
class ExtendLeasesInput(NullMeansDefault):
    leases: list[strawberry.ID] = of(description="At most 10,000.")
    lease_seconds: float | None = of(
        default=60.0, description="How long from now, 1 to 86,400 seconds; never shortens."
    )
    progress: list[LeaseProgressInput] | None = of(default=None, description="How far their tasks are.")


@strawberry.type(description="What stands.")
class ExtendLeasesPayload:
    expires_at: datetime | None = of(
        description="Of those that stand (a time-out may end one sooner); null if none does."
    )
    suspended: list[strawberry.ID] = of(
        description="Leases whose workgroup is suspended now: give back those that you have not started."
    )
    errors: list[LeaseError] = of(description="The leases to stop working on, and why.")


@strawberry.input(description="Give leases back untouched: no attempt is counted, the tasks are ready at once.")
class ReleaseLeasesInput:
    leases: list[strawberry.ID] = of(description="At most 10,000.")


@strawberry.type(description="What was given back.")
class ReleaseLeasesPayload:
    released: int = of(description="How many.")
    errors: list[LeaseError] = of(description="The leases that do not stand.")


@strawberry.type
class LeaseMutation:
    @strawberry.mutation(description="Take tasks to work on. Each comes with a lease.")
    async def claim_tasks(
        self, info: Info, input: Annotated[ClaimTasksInput, strawberry.argument(description="What for.")]
    ) -> ClaimTasksPayload | None:
        services = info.context.services
        info.context.caller.may_work_on(input.channels, ("input", "channels"))
        granted = await services.dispatcher.claim(claim.checked(input, services.core.limits))
        return ClaimTasksPayload(leases=await leases_of(info, granted, input.worker_id))

    @strawberry.mutation(
        description=(
            "Finish tasks: output, continuations and the readiness of every child in one transaction. When the call "
            "returns, every child that can run can be claimed."
        )
    )
    async def complete_tasks(
        self, info: Info, input: Annotated[CompleteTasksInput, strawberry.argument(description="What was done.")]
    ) -> CompleteTasksPayload | None:
        await _may_finish(info, [r.lease for r in input.results], "results", "lease")
        done = await info.context.services.finisher.complete(input.results)
        return CompleteTasksPayload(
            completed=len(done.taken),
            errors=[LeaseError.of(r) for r in done.refused],
            tasks=await _tasks(info, done),
        )

    @strawberry.mutation(description="Report failed attempts: each task is tried again later, or is FAILED.")
    async def fail_tasks(
        self, info: Info, input: Annotated[FailTasksInput, strawberry.argument(description="What failed.")]
    ) -> FailTasksPayload | None:
        await _may_finish(info, [f.lease for f in input.failures], "failures", "lease")
        done = await info.context.services.finisher.fail(input.failures)
        return FailTasksPayload(
            failed=len(done.taken),
            errors=[LeaseError.of(r) for r in done.refused],
            tasks=await _tasks(info, done),
        )

    @strawberry.mutation(description="Keep leases for longer, and say how far their tasks are.")
    async def extend_leases(
        self, info: Info, input: Annotated[ExtendLeasesInput, strawberry.argument(description="Which leases.")]
    ) -> ExtendLeasesPayload | None:
        await _may_finish(info, input.leases, "leases")
        until, suspended, refused = await info.context.services.finisher.extend(
            input.leases, 60.0 if input.lease_seconds is None else input.lease_seconds, input.progress or [], ("input",)
        )
        return ExtendLeasesPayload(
            expires_at=until,
            suspended=[strawberry.ID(i) for i in suspended],
            errors=[LeaseError.of(r) for r in refused],
        )

    @strawberry.mutation(description="Give leases back untouched.")
    async def release_leases(
        self, info: Info, input: Annotated[ReleaseLeasesInput, strawberry.argument(description="Which leases.")]
    ) -> ReleaseLeasesPayload | None:
        await _may_finish(info, input.leases, "leases")
        done = await info.context.services.finisher.release(input.leases)
        return ReleaseLeasesPayload(released=len(done.taken), errors=[LeaseError.of(r) for r in done.refused])


async def _may_finish(info: Info, leases: list[strawberry.ID], *path: str) -> None:
    """Raises Forbidden for a lease of a channel that the caller's key does not allow."""
    if info.context.caller.channels is not None:
        where, *below = path
        await access.check_leases(info.context.core, info.context.caller, leases, ("input", where), tuple(below))


async def _tasks(info: Info, done: Outcome) -> list[Task]:
    """Read only where a caller asks for them."""
    if asks_only(info, "tasks", frozenset()):
        return []
    return await tasks_in_order(info, done.taken)
