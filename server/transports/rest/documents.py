"""Tasks and groups as the second Crew wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from db.group import GroupRow
from db.pause import paused_tasks
from db.task import TaskRow, read_tasks
from schema.context import Context

BLOCKED, RUNNING, SUCCEEDED = 0, 3, 5
_MOST_PARENTS = 10_000


async def tasks(context: Context, nos: Sequence[int]) -> list[dict[str, Any]]:
    """Documents of these tasks, in this order; those that are gone are left out."""
    core, loaders = context.core, context.loaders
    rows = {row.no: row for row in await read_tasks(core.pool, core.ns, nos=list(nos))}
    found = [rows[no] for no in nos if no in rows]
    there = [row.no for row in found]
    paused = await paused_tasks(core.pool, core.ns, there)
    groups = await loaders.groups.load_many([row.group_no for row in found])
    errors = await loaders.errors.load_many(there)
    parents = await loaders.parents(_MOST_PARENTS).load_many(there)
    ids = await _ids(context, sorted({no for some in parents for no in some}))
    return [
        _task(
            row,
            is_paused=row.no in paused or (group is not None and group.is_paused),
            errors=[orjson.loads(error.error) for error in failed],
            parents=[ids[no] for no in above if no in ids],
        )
        for row, group, failed, above in zip(found, groups, errors, parents, strict=True)
    ]


async def _ids(context: Context, nos: list[int]) -> dict[int, str]:
    rows = await context.loaders.tasks.load_many(nos)
    return {row.no: str(row.id) for row in rows if row is not None}


def _task(row: TaskRow, *, is_paused: bool, errors: list[Any], parents: list[str]) -> dict[str, Any]:
    runs = row.state == RUNNING
    return {
        "_id": str(row.id),
        "taskGroupId": str(row.group_id),
        "name": row.name,
        "channel": row.channel,
        "workgroup": row.workgroup,
        "key": row.key,
        # There an attempt was counted when it had failed; here when it starts.
        "remainingAttempts": 0 if row.state == SUCCEEDED else row.remaining + runs,
        "isPaused": is_paused,
        "parentsComplete": row.state != BLOCKED,
        "isComplete": row.state == SUCCEEDED,
        "priority": row.priority,
        "runAfter": instant(row.not_before),
        "progressWeight": row.weight,
        "isSeed": row.is_seed,
        "errorDelayInSeconds": int(row.retry_delay) if row.retry_delay.is_integer() else row.retry_delay,
        "input": _json(row.input),
        "output": _json(row.output),
        "errors": errors,
        "createdAt": instant(row.created_at),
        "parentIds": parents,
        "assignedTo": row.worker_id if runs else None,
        "assignedAt": instant(row.started_at) if runs else None,
    }


def group(row: GroupRow) -> dict[str, Any]:
    return {
        "_id": str(row.id),
        "name": row.name,
        "isPaused": row.is_paused,
        "createdAt": instant(row.created_at),
    }


async def parents(context: Context, no: int) -> list[dict[str, Any]]:
    """What a task's parents were given and produced."""
    rows = await context.loaders.parent_results(_MOST_PARENTS).load(no)
    return [
        {"_id": str(row.task_id), "channel": row.channel, "input": _json(row.input), "output": _json(row.output)}
        for row in rows
    ]


def instant(at: datetime | None) -> str | None:
    """As JavaScript writes a date."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)
