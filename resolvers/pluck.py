"""Plucking: one task copied alone into a paused group, with its parents' results, to be run again and again while debugging.

The results are kept with the copy as they are now: neither a reset of the copy nor what becomes of the parents changes them. It
never merges, and nobody finds it by its key.
"""

from __future__ import annotations

from uuid import UUID

from db.create import NewGroupRow
from db.pluck import keep_results
from db.pool import Connection
from db.task import TaskRow, read_tasks
from resolvers import check
from resolvers.call import Call
from resolvers.create import Creator
from resolvers.draft import ALLOW, Draft, new_id
from resolvers.errors import NotFound
from resolvers.follow import After


async def pluck(creator: Creator, task_id: object) -> UUID:
    """The new group's id."""
    core = creator.core
    uuid = check.uuid(task_id, ("id",), "id")
    found = await read_tasks(core.pool, core.ns, ids=[uuid])
    if not found:
        raise _no_task(uuid)
    (original,) = found
    group = NewGroupRow(new_id(), original.name, None)
    call = Call(group.id, [_copy(original)], ("id",), new_group=group, is_paused=True)

    async def work(connection: Connection) -> After:
        after = After()
        (made,) = await creator.make_within(connection, [call], after)
        if not await keep_results(connection, core.ns, made.tasks[0][0], original.no):
            raise _no_task(uuid)
        return after

    after = await core.pool.run(work, transaction=True)
    after.tell(core)
    return group.id


def _no_task(uuid: UUID) -> NotFound:
    return NotFound(f"no task {uuid}: it never was, or is deleted", ("id",))


def _copy(task: TaskRow) -> Draft:
    """Without its own time, which is past or would only hold it back. A seed, so that it is what a reset of its group leaves."""
    return Draft(
        path=("id",),
        id=new_id(),
        name=task.name,
        channel_name=task.channel,
        workgroup_name=task.workgroup,
        rank=-task.priority,
        input=task.input,
        metadata=task.metadata,
        max_attempts=task.max_attempts,
        retry_delay=task.retry_delay,
        backoff=task.backoff,
        max_delay=task.max_delay,
        weight=task.weight,
        is_seed=True,
        key=task.key,
        on_duplicate=ALLOW,
        timeout=task.timeout,
        on_parent_failure=task.on_parent_failure,
    )
