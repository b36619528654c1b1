"""Retention: groups that finished long ago go, and settled tasks of groups that go on; in batches, each a transaction of its own.

Whether something is old is looked for without locks, in what the fold of the event log tells, and decided from locked rows. Every
server may do this at any time: what another has locked is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from db import retention as rows
from db.delete import numbers_of_groups
from db.pool import Connection
from db.retention import OldGroupRow
from resolvers import check
from resolvers.core import Core
from resolvers.delete import delete_groups_taken, delete_taken, fold, take
from resolvers.follow import After

GROUPS, TASKS = 500, 5000
"""In one batch, at most; a group with more tasks is a batch of its own."""
_DAY = 86_400.0
_MOST_DAYS = 36_600.0
_RUNNING = (3, 4)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def delete_expired_groups(core: Core, days: float, *, unfinished: bool) -> int:
    """How many tasks went with groups finished so long ago, and `unfinished` ones made so long ago of which nothing runs."""
    seconds = check.number(days, ("olderThanDays",), "olderThanDays", 0, _MOST_DAYS) * _DAY
    await core.pool.run(lambda connection: fold(connection, core.ns), transaction=True)
    deleted, kept = 0, list[int]()
    while found := await rows.expired_groups(core.pool, core.ns, seconds, kept, GROUPS):
        for batch in batches(found):
            gone, left = await _delete_expired(core, batch, seconds)
            deleted += gone
            kept += left
    last = 0
    while unfinished and (found := await rows.stale_groups(core.pool, core.ns, seconds, last, GROUPS)):
        last = found[-1].group_no
        for batch in batches(found):
            deleted += await _delete_stale(core, batch)
    return deleted


def batches(found: Sequence[OldGroupRow]) -> Iterator[list[int]]:
    """Their numbers, with at most so many tasks in each batch as one transaction takes."""
    batch: list[int] = []
    tasks = 0
    for row in found:
        if batch and tasks + row.total > TASKS:
            yield batch
            batch, tasks = [], 0
        batch.append(row.group_no)
        tasks += row.total
    if batch:
        yield batch


async def _delete_expired(core: Core, group_nos: list[int], seconds: float) -> tuple[int, list[int]]:
    """How many tasks are gone, and which groups stay: something in them was reset, or somebody else has them."""

    async def work(connection: Connection) -> tuple[int, list[int], After]:
        after = After()
        locked = await rows.lock_groups(connection, core.ns, group_nos)
        settled = await rows.lock_settled_of(connection, core.ns, locked, seconds)
        old = [row.group_no for row in settled if row.is_settled and row.is_old]
        deleted = await _delete(connection, core.ns, after, old) if old else 0
        return deleted, sorted({*group_nos} - {*old}), after

    deleted, left, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return deleted, left


async def _delete_stale(core: Core, group_nos: list[int]) -> int:
    """How many tasks are gone. Groups are tried one by one when something in one of them has begun to run."""

    async def work(connection: Connection) -> tuple[int, After]:
        after = After()
        locked = await rows.lock_groups(connection, core.ns, group_nos)
        running = set(await rows.running_groups(connection, core.ns, locked))
        # Finished since the fold, or before it began: that is for the others to say.
        settled = {row.group_no for row in await rows.lock_settled_of(connection, core.ns, locked, 0) if row.is_settled}
        idle = [no for no in locked if no not in running and no not in settled]
        return (await _delete(connection, core.ns, after, idle, without=_RUNNING) if idle else 0), after

    try:
        deleted, after = await core.pool.run(work, transaction=True, planned=True)
    except _Runs:
        if len(group_nos) == 1:
            return 0
        return sum([await _delete_stale(core, [no]) for no in group_nos])
    after.tell(core)
    return deleted


class _Runs(Exception):
    """A task of a group that nothing ran in was claimed just now."""


async def _delete(
    connection: Connection, ns: int, after: After, group_nos: list[int], without: Sequence[int] = ()
) -> int:
    async def members() -> list[int]:
        return [row.no for row in await numbers_of_groups(connection, ns, group_nos)]

    taken = await take(connection, ns, after, members)
    if any(was in without for was, _ in taken.values()):
        raise _Runs
    return await delete_groups_taken(connection, ns, group_nos, taken)


async def delete_old_tasks(core: Core, days: float) -> int:
    """How many are gone: settled so long ago, in groups that are not finished, with nobody left who asks for them."""
    seconds, deleted, last = days * _DAY, 0, (_EPOCH, 0)
    while found := await rows.old_settled(core.pool, core.ns, seconds, last, TASKS):
        last = (found[-1].at, found[-1].no)
        nos = [row.no for row in found if row.may_go]
        if nos:
            deleted += await _delete_old(core, nos, seconds)
    return deleted


async def _delete_old(core: Core, nos: list[int], seconds: float) -> int:
    async def work(connection: Connection) -> tuple[int, After]:
        after = After()
        locked = await rows.lock_settled(connection, core.ns, nos, seconds)
        going = await rows.needless(connection, core.ns, locked)

        async def look() -> list[int]:
            return going

        taken = await take(connection, core.ns, after, look)
        await delete_taken(connection, core.ns, after, taken)
        return len(taken), after

    deleted, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return deleted
