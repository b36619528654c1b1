"""Work pushed to workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import strawberry

from resolvers import access
from resolvers import claim as checking
from schema.context import Info
from schema.inputs import NullMeansDefault
from schema.lease import ClaimTasksPayload, leases_of

of = strawberry.field


@strawberry.input(description="What a worker wants to be sent.")
class ClaimedTasksInput(NullMeansDefault):
    worker_id: str = of(description="The worker's name for itself; 1 to 255 characters.")
    channels: list[str] = of(description="The kinds of work that it takes; 1 to 1,000 of them.")
    limit: int | None = of(default=1, description="At most so many leases open at once, 1 to 10,000.")
    lease_seconds: float | None = of(
        default=60.0, description="How long a lease lasts from its confirmation by this stream, 1 to 86,400 seconds."
    )
    holding: list[strawberry.ID] | None = of(
        default=None,
        description="The pushed leases that the worker still has, after a reconnect. Null is none; at most 10,000.",
    )


@strawberry.type
class LeaseSubscription:
    @strawberry.subscription(
        description=(
            "Work pushed to a worker: leases as they come, never more than `limit` open at once, those of `holding` among them; a "
            "completed, failed or released lease makes room for the next, whichever server takes it. Each begins as an offer of "
            "10 s; any call that names it confirms it (extend it at once); an offer that lapses is a release (no attempt, no "
            "error). After a reconnect `holding` names the pushed leases that the worker still has: they stand, and those that "
            "never reached it (not confirmed, not named) are sent again at once; a confirmed one that is not named stands until it "
            "expires. A new stream of a worker ends its old one. The first payload comes at once, even if empty; quiet spells "
            "carry empty ones too (after 10 s)."
        )
    )
    async def claimed_tasks(
        self, info: Info, input: Annotated[ClaimedTasksInput, strawberry.argument(description="Which work.")]
    ) -> AsyncGenerator[ClaimTasksPayload, None]:
        caller = info.context.caller
        caller.may_work_on(input.channels, ("input", "channels"))
        await access.check_leases(info.context.core, caller, input.holding or [], ("input", "holding"))
        claim = checking.checked_stream(input, info.context.core.limits)
        stream = info.context.services.push.stream(claim, input.holding or [], info.context.transport)
        async with aclosing(stream):
            async for granted in stream:
                yield ClaimTasksPayload(leases=await leases_of(info, granted, input.worker_id))
