"""New tasks as the second Crew's callers describe them, as this one's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import strawberry

from resolvers.call import Made
from resolvers.errors import BadInput
from schema.context import Context
from schema.group import CreateTaskGroupInput
from schema.new_task import NewTask, ParentInput, RetryInput
from server.transports.rest.reading import Fields

_ATTEMPTS = 5
_ERROR_DELAY = 30.0


def group(given: Fields) -> CreateTaskGroupInput:
    return CreateTaskGroupInput(name=given.needed("name"), is_paused=given.flag("isPaused", default=False))


def task(given: Fields) -> NewTask:
    parents = [ParentInput(id=strawberry.ID(one)) for one in given.texts("parentIds") or ()]
    return _task(given, parents=parents)


def children(given: Fields) -> list[NewTask]:
    """What a released task goes on with: each hangs from the siblings that it names, or else from the task."""
    some = given.objects("children")
    names = {one.raw("_child_id") for one in some if isinstance(one.raw("_child_id"), str | int)}
    known = {str(name) for name in names}
    return [_child(one, known) for one in some]


def _child(given: Fields, siblings: set[str]) -> NewTask:
    name = given.raw("_child_id")
    parents = [
        ParentInput(ref=one) if one in siblings else ParentInput(id=strawberry.ID(one))
        for one in given.texts("_parent_ids") or ()
    ]
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise BadInput("_child_id must be a string", ("_child_id",))
    return _task(given, ref=None if name is None else str(name), parents=parents)


def _task(given: Fields, **more: Any) -> NewTask:
    delay = given.number("errorDelayInSeconds")
    return NewTask(
        name=given.needed("name"),
        channel=given.needed("channel"),
        workgroup=given.name("workgroup"),
        key=given.name("key"),
        input=given.raw("input"),
        priority=given.whole("priority", 0),
        run_after=given.instant("runAfter"),
        # There the delay between attempts was fixed, however long.
        retry=RetryInput(
            max_attempts=given.whole("remainingAttempts", _ATTEMPTS),
            delay_seconds=_ERROR_DELAY if delay is None else delay,
            max_delay_seconds=max(3600.0, delay or 0.0),
        ),
        progress_weight=given.whole("progressWeight", 1),
        is_seed=given.flag("isSeed", default=False),
        **more,
    )


async def make_group(context: Context, given: Fields) -> Made:
    (made,) = await context.services.creator.groups([group(given)], (), many=False)
    return made


async def make_tasks(context: Context, group_id: str, given: Sequence[Fields]) -> Made:
    return await context.services.creator.tasks(group_id, [task(one) for one in given], ())
