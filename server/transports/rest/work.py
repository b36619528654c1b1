"""What workers do: acquire and release. They know no leases: a release finds the lease by task and worker."""

from __future__ import annotations

from typing import Any

import strawberry

from db.lease import standing_with
from resolvers import check
from resolvers.dispatch import Claim, Standing
from resolvers.errors import BadInput, Conflict
from resolvers.lease import BAD_INPUT, INVALID_CHILDREN, Outcome
from schema.lease import CompleteTaskInput, FailTaskInput
from schema.scalars import JSON
from server.transports.rest import documents, making
from server.transports.rest.call import Call
from server.transports.rest.reading import Fields

NO_REASON = "the worker reported an error of null"
_SUCCEEDED, _CANCELLED = 5, 7


async def acquire(call: Call) -> dict[str, Any]:
    """A task with what its parents did, or none. Those workers never extend: the lease is long."""
    channel = check.text(call.params["channel"], ("channel",), "channel")
    call.context.caller.may_work_on([channel], ("channel",))
    worker = check.text(call.body.needed("workerId"), ("workerId",), "workerId")
    seconds = min(call.lease_seconds, call.core.limits.max_lease_seconds)
    granted = await call.services.dispatcher.claim(Claim(worker, (channel,), 1, seconds, 0.0, None))
    for row in granted:
        no = row.row.no if isinstance(row, Standing) else row.no
        for task in await documents.tasks(call.context, [no]):
            return {"task": task, "parents": await documents.parents(call.context, no)}
    return {"task": None}


async def release(call: Call) -> dict[str, Any]:
    """The task as it is after. That `error` is there makes it a failure, whatever it is."""
    core, body = call.core, call.body
    worker = check.text(body.needed("workerId"), ("workerId",), "workerId")
    row = await call.task()
    call.context.caller.may_work_on([row.channel], ("id",))
    number = (await core.workers.numbers([worker]))[worker]
    stands = await standing_with(core.pool, core.ns, row.no, number)
    if stands.lease_no is not None:
        lease = strawberry.ID(core.lease_ids.pack(stands.lease_no, row.no))
        await _end(call, lease, body)
    elif row.state != _SUCCEEDED and not stands.failed:
        raise _not_yours(row.state, worker)
    return await call.task_document(row.no)


async def _end(call: Call, lease: strawberry.ID, body: Fields) -> None:
    delay = body.number("workgroupDelayInSeconds") or None
    finisher = call.services.finisher
    if body.has("error"):
        error = NO_REASON if body.raw("error") is None else body.raw("error")
        failure = FailTaskInput(lease=lease, error=JSON(error), workgroup_delay_seconds=delay)
        _refuse(await finisher.fail([failure]))
        return
    done = CompleteTaskInput(
        lease=lease,
        output=body.raw("output"),
        children=making.children(body),
        children_delay_seconds=body.number("childrenDelayInSeconds") or None,
        workgroup_delay_seconds=delay,
    )
    _refuse(await finisher.complete([done]))


def _refuse(outcome: Outcome) -> None:
    for refused in outcome.refused:
        path = tuple(refused.path or ())
        if refused.code in (BAD_INPUT, INVALID_CHILDREN):
            where = f" (at {'.'.join(path)})" if path else ""
            raise BadInput(f"{refused.message}{where}; the task is still yours", path)
        raise Conflict(refused.message)


def _not_yours(state: int, worker: str) -> Exception:
    if state == _CANCELLED:
        return Conflict("the task was cancelled: what you send for it counts for nothing")
    return Conflict(
        f"the task is not assigned to worker {check.shown(worker)}: its lease ran out, or it never had it; "
        "what you send for it counts for nothing"
    )
