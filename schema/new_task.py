"""What a task is made from."""

from __future__ import annotations

from datetime import datetime

import strawberry

from schema.inputs import NullMeansDefault
from schema.scalars import JSON
from schema.task import DuplicatePolicy, ParentFailurePolicy, WaitFor

of = strawberry.field


@strawberry.input(description="Names a parent, by id or by ref.")
class ParentInput(NullMeansDefault):
    id: strawberry.ID | None = of(
        default=None,
        description="A task of the same group: one that exists, or one of this call that has an id of its own.",
    )
    ref: str | None = of(default=None, description="Or one made in this call.")
    wait_for: WaitFor | None = of(default=WaitFor.TASK, description="What to wait for.")


@strawberry.input(description="How often and when a task is tried again.")
class RetryInput(NullMeansDefault):
    max_attempts: int | None = of(default=5, description="How many attempts there are in all, 1 to 1,000,000.")
    delay_seconds: float | None = of(default=30.0, description="Seconds before the second attempt, 0 to a year.")
    backoff: float | None = of(default=1.0, description="1 keeps the delay fixed; 2 doubles it each time. 1 to 100.")
    max_delay_seconds: float | None = of(default=3600.0, description="The longest delay in seconds, 0 to a year.")


@strawberry.input(description="A task to be made.")
class NewTask(NullMeansDefault):
    name: str = of(description="What people call it; 1 to 1,000 characters.")
    channel: str = of(description="Which kind of work this is; 1 to 255 characters.")
    id: strawberry.ID | None = of(
        default=None,
        description=(
            "A UUID of the sender's own makes the call safe to repeat: a task that is already there is answered as it is, "
            "nothing changed, no link added; one in another group is a CONFLICT."
        ),
    )
    ref: str | None = of(default=None, description="A name for this task inside this call, for `parents` to point at.")
    parents: list[ParentInput] | None = of(default=None, description="The tasks that must succeed before it.")
    workgroup: str | None = of(default=None, description="The rate limit it shares; 1 to 255 characters.")
    key: str | None = of(
        default=None,
        description="Tasks of one channel with the same key are the same work: it is done once. 1 to 1,000 characters.",
    )
    on_duplicate: DuplicatePolicy | None = of(
        default=DuplicatePolicy.MERGE, description="What becomes of it while another has its channel and key."
    )
    input: JSON | None = of(default=None, description="What its worker needs; up to 1 MiB.")
    priority: int | None = of(default=0, description="Higher goes first; within one priority, the oldest.")
    run_after: datetime | None = of(default=None, description="Not before this instant.")
    delay_seconds: float | None = of(
        default=None, description="Instead of runAfter (not with it): counted from now by the server's clock."
    )
    retry: RetryInput | None = of(default=None, description="How often and when it is tried again.")
    timeout_seconds: float | None = of(
        default=None,
        description=(
            "The longest one attempt may take, whatever its lease: after it the attempt has failed. 0.001 seconds to a year."
        ),
    )
    progress_weight: int | None = of(
        default=1, description="How much it counts in the progress of its group, 0 to 1,000,000."
    )
    is_seed: bool | None = of(
        default=False, description="Survives a reset of its group; the others are rebuilt by the seeds."
    )
    on_parent_failure: ParentFailurePolicy | None = of(
        default=ParentFailurePolicy.BLOCK, description="What it does when a parent fails or is cancelled."
    )
    metadata: JSON | None = of(default=None, description="Free labels; up to 1 MiB.")
