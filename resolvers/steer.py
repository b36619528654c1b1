"""What people do to many tasks at once, to groups and to channels: cancel, retry, pause, resume. Each in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

from db import pause as rows
from db.clock import Moved
from db.ending import cancel_tasks, descendants, failed_of_group, retry_tasks, unsettled_of_group
from db.group import GroupRow, read_groups
from db.key import free_twins, merge_ready
from db.pool import Connection
from db.reset import tell_of_group
from db.task import Filter, matching_tasks, numbers_of_tasks
from resolvers import check
from resolvers.core import Core
from resolvers.errors import BadInput, Conflict, NotFound, TooLarge
from resolvers.follow import After, end_children, merge_moved, wait_again

UNSETTLED = (0, 1, 2, 3, 4, 6)
FAILED = (6,)
PART = 100_000
_TRIES = 100
_FIRST = -(1 << 31)
_READY, _CANCELLED = 3, 9
"""Kinds of events."""


async def chosen(core: Core, ids: list[UUID] | None, narrowed: Filter | None, states: tuple[int, ...]) -> list[int]:
    """The numbers of tasks named by their ids, or by a filter, there only of those in `states`."""
    if (ids is None) == (narrowed is None):
        raise BadInput("name the tasks by ids or by a filter: give just one", ("ids",))
    if ids is not None:
        if not ids:
            raise BadInput("ids is empty: name at least one task", ("ids",))
        if len(ids) > core.limits.max_batch:
            raise TooLarge(f"{len(ids)} ids in one call; at most {core.limits.max_batch} are allowed", ("ids",))
        return await numbers_of_tasks(core.pool, core.ns, ids)
    if narrowed is None or narrowed.names_nothing:
        raise BadInput("the filter names nothing, which would be every task: name at least one thing", ("filter",))
    asked = states if narrowed.states is None else [s for s in narrowed.states if s in states]
    return await matching_tasks(core.pool, core.ns, replace(narrowed, states=list(asked)))


async def cancel(core: Core, nos: list[int], *, with_descendants: bool) -> list[int]:
    """The numbers of those that were not settled, and now are CANCELLED."""

    async def work(connection: Connection) -> tuple[list[int], After]:
        after = After()

        async def look() -> list[int]:
            return await descendants(connection, core.ns, nos)

        return await _cancel(connection, core.ns, after, nos, look if with_descendants else None), after

    if not nos:
        return []
    cancelled, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return cancelled


async def cancel_group(core: Core, group_id: object) -> tuple[UUID, int]:
    """Its id, and how many of its tasks were not settled, and now are CANCELLED."""

    async def work(connection: Connection) -> tuple[int, After]:
        after = After()

        async def look() -> list[int]:
            return await unsettled_of_group(connection, core.ns, group.group_no)

        await tell_of_group(connection, core.ns, group.group_no, _CANCELLED)
        return len(await _cancel(connection, core.ns, after, await look(), look)), after

    group = await _group(core, group_id)
    affected, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return group.id, affected


async def _cancel(
    connection: Connection, ns: int, after: After, nos: list[int], look: Callable[[], Awaitable[list[int]]] | None
) -> list[int]:
    """These, and what `look` finds after each round: the locks show what was made meanwhile."""
    cancelled = set[int]()
    left = nos
    for _ in range(_TRIES):
        if look is not None:
            left = [no for no in await look() if no not in cancelled]
        if not left:
            break
        before, moved = len(cancelled), list[int]()
        for part in parts(left):
            found = await cancel_tasks(connection, ns, part)
            cancelled.update(found.cancelled or ())
            moved += found.moved or ()
            if found.runners:
                after.places += await free_twins(connection, ns, found.runners)
            await end_children(connection, ns, after, failed=found.ended or ())
        left = moved
        if not left and not (look is not None and len(cancelled) > before):
            break
    else:
        raise Conflict("these tasks change their places all the time: try again", ("ids",))
    return sorted(cancelled)


def parts(nos: list[int]) -> list[list[int]]:
    """So many as one statement moves well within its time-out."""
    return [nos[at : at + PART] for at in range(0, len(nos), PART)]


async def retry(core: Core, nos: list[int], attempts: int) -> list[int]:
    """The numbers of the failed tasks among these, which are now ready."""
    check.whole(attempts, ("attempts",), "attempts", 1, 1_000_000)

    async def work(connection: Connection) -> tuple[list[int], After]:
        return await _retry(connection, core.ns, nos, attempts)

    if not nos:
        return []
    retried, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return retried


async def retry_group(core: Core, group_id: object, attempts: int) -> tuple[UUID, int]:
    """Its id, and how many of its tasks had failed, and may run again."""
    check.whole(attempts, ("attempts",), "attempts", 1, 1_000_000)

    async def work(connection: Connection) -> tuple[int, After]:
        await tell_of_group(connection, core.ns, group.group_no, _READY)
        nos = await failed_of_group(connection, core.ns, group.group_no)
        retried, after = await _retry(connection, core.ns, nos, attempts)
        return len(retried), after

    group = await _group(core, group_id)
    affected, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return group.id, affected


async def _retry(connection: Connection, ns: int, nos: list[int], attempts: int) -> tuple[list[int], After]:
    found = [row for part in parts(nos) for row in await retry_tasks(connection, ns, part, attempts)]
    after = After([(row.channel, row.rank, row.no) for row in found])
    merging = [row.no for row in found if row.merges]
    if merging:
        await merge_ready(connection, ns, merging)
    await wait_again(connection, ns, after, [row.no for row in found])
    return [row.no for row in found], after


async def pause_tasks(core: Core, nos: list[int]) -> list[int]:
    """The numbers of those that had not ended and were not paused."""

    async def work(connection: Connection) -> list[int]:
        paused = await rows.pause_tasks(connection, core.ns, nos)
        await merge_moved(connection, core.ns, await rows.park_paused(connection, core.ns, tasks=paused, groups=[]))
        return paused

    return await core.pool.run(work, transaction=True, planned=True)


async def resume_tasks(core: Core, nos: list[int]) -> list[int]:
    """The numbers of those that were paused."""

    async def work(connection: Connection) -> tuple[list[int], Moved]:
        resumed = await rows.resume_tasks(connection, core.ns, nos)
        moved = await rows.unpark_paused(connection, core.ns, tasks=resumed, groups=[])
        return resumed, await merge_moved(connection, core.ns, moved)

    resumed, moved = await core.pool.run(work, transaction=True, planned=True)
    await _wake(core, moved)
    return resumed


async def pause_group(core: Core, group_id: object) -> tuple[GroupRow, int]:
    """The group, and how many of its tasks are ready and held by this."""

    async def work(connection: Connection) -> int:
        paused = await rows.pause_groups(connection, core.ns, [group.group_no])
        moved = await rows.park_paused(connection, core.ns, tasks=[], groups=[group.group_no])
        await merge_moved(connection, core.ns, moved)
        return await rows.count_held(connection, core.ns, group.group_no) if paused else 0

    group = await _group(core, group_id)
    affected = await core.pool.run(work, transaction=True, planned=True)
    return replace(group, is_paused=True), affected


async def resume_group(core: Core, group_id: object) -> tuple[GroupRow, int]:
    """The group, and how many of its tasks are ready and freed by this."""

    async def work(connection: Connection) -> tuple[int, Moved]:
        resumed = await rows.resume_group(connection, core.ns, group.group_no)
        moved = await rows.unpark_paused(connection, core.ns, tasks=[], groups=[group.group_no])
        await merge_moved(connection, core.ns, moved)
        return await rows.count_held(connection, core.ns, group.group_no) if resumed else 0, moved

    group = await _group(core, group_id)
    affected, moved = await core.pool.run(work, transaction=True, planned=True)
    await _wake(core, moved)
    return replace(group, is_paused=False), affected


async def _group(core: Core, group_id: object) -> GroupRow:
    found = await read_groups(core.pool, core.ns, ids=[check.uuid(group_id, ("id",), "id")])
    if not found:
        raise NotFound(f"no task group {group_id}: it never was, or is deleted", ("id",))
    return found[0]


async def pause_channel(core: Core, name: str) -> None:
    """No task of the channel is handed out; makes the channel when no task has named it yet."""
    word = check.text(name, ("name",), "name")
    number = (await core.channels.numbers([word]))[word]
    await core.pool.run(lambda c: rows.pause_channel(c, core.ns, number))


async def resume_channel(core: Core, name: str) -> None:
    word = check.text(name, ("name",), "name")
    number = (await core.channels.known([word])).get(word)
    if number is None:
        raise NotFound(f"no channel {check.shown(name)}: none of its tasks was ever created", ("name",))
    await core.pool.run(lambda c: rows.resume_channel(c, core.ns, number))
    core.wake([(number, _FIRST, 0)])


async def _wake(core: Core, moved: Moved) -> None:
    """Ready tasks that were never moved aside are not told of: those who wait look from the start of each channel."""
    core.wake(moved.places)
    core.wake([(channel, _FIRST, 0) for channel in core.channels.name])
