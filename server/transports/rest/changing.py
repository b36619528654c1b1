"""Updates, resets, deletions and plucked tasks."""

from __future__ import annotations

from typing import Any

from db.group import group_numbers
from db.task import TaskRow
from resolvers import delete, pluck, reset, steer, update
from server.transports.rest import documents
from server.transports.rest.call import Call
from server.transports.rest.reading import Fields

Document = dict[str, Any]
_RUNNING, _FAILED = 3, 6


async def update_group(call: Call) -> Document:
    """Its name. Whether it is paused is not changed by this, as there."""
    name = call.body.text("name")
    await update.update_group(call.core, call.params["id"], {} if name is None else {"name": name})
    return documents.group(await call.group())


async def update_task(call: Call) -> Document:
    """What is sent of the fields that a task is made with, be it a whole document as it was read; the others are passed over."""
    row = await call.task()
    body = call.body
    await update.update_task(call.core, call.params["id"], _changes(row, body))
    attempts = body.whole("remainingAttempts", 0)
    if row.state == _FAILED and attempts > 0:
        await steer.retry(call.core, [row.no], attempts)
    return await call.task_document(row.no)


def _changes(row: TaskRow, body: Fields) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name in ("name", "channel"):
        if body.has(name):
            changes[name] = body.needed(name)
    for name in ("workgroup", "key"):
        if body.has(name):
            changes[name] = body.name(name)
    if body.has("input"):
        changes["input"] = body.raw("input")
    if body.has("priority"):
        changes["priority"] = body.whole("priority", 0)
    if body.has("progressWeight"):
        changes["progress_weight"] = body.whole("progressWeight", 1)
    if body.has("isSeed"):
        changes["is_seed"] = body.flag("isSeed", default=False)
    # As it was shown it may be the end of a suspension, which is no time of the task's own.
    if body.has("runAfter") and documents.instant(body.instant("runAfter")) != documents.instant(row.not_before):
        changes["run_after"] = body.instant("runAfter")
    retry = _retry(row, body)
    return {**changes, "retry": retry} if retry else changes


def _retry(row: TaskRow, body: Fields) -> dict[str, Any]:
    """There the attempts that remain are set; here, how many there are in all."""
    retry: dict[str, Any] = {}
    delay = body.number("errorDelayInSeconds")
    if delay is not None and delay != row.retry_delay:
        retry = {"delay_seconds": delay, "max_delay_seconds": max(row.max_delay, delay)}
    remaining = row.remaining + (row.state == _RUNNING)
    attempts = body.whole("remainingAttempts", remaining)
    if attempts not in (remaining, 0):
        retry["max_attempts"] = max(row.max_attempts + attempts - remaining, 1)
    return retry


async def reset_group(call: Call) -> Document:
    await reset.reset_group(call.core, call.params["id"])
    return documents.group(await call.group())


async def reset_task(call: Call) -> Document:
    row = await call.task()
    await reset.reset_tasks(call.core, [row.no])
    return await call.task_document(row.no)


async def delete_group(call: Call) -> Document:
    await delete.delete_group(call.core, call.params["id"])
    return _deleted(1)


async def delete_task(call: Call) -> Document:
    """With all below it, as there."""
    await delete.delete_task(call.core, call.params["id"])
    return _deleted(1)


def _deleted(count: int) -> Document:
    """As MongoDB answers."""
    return {"acknowledged": True, "deletedCount": count}


async def pluck_task(call: Call) -> Document:
    """The copy."""
    uuid = await pluck.pluck(call.services.creator, call.params["id"])
    call.params = {"id": str(uuid)}
    group = await call.group()
    (no,) = await group_numbers(call.core.pool, call.core.ns, group.group_no, 1)
    return await call.task_document(no)
