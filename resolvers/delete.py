"""Deleting: a task with all below it, a group with all its tasks. Each in one transaction, however many tasks.

Tasks are first taken out of their places (`take`): who would end them, claim them or hang others below them waits for us, and then
finds them gone. What was hung below them before that is looked for again until nothing is added; then their rows go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice

from db import delete as rows
from db.delete import Taken
from db.ending import descendants
from db.key import free_twins
from db.pool import Connection
from db.progress import fold_groups
from db.task import numbers_of_tasks
from resolvers import check
from resolvers.core import Core
from resolvers.errors import Conflict, NotFound
from resolvers.follow import After, recount
from resolvers.steer import PART, parts

_TRIES = 100


async def delete_task(core: Core, task_id: object) -> int:
    """How many tasks are gone: it and all below it, along the links that someone named."""
    uuid = check.uuid(task_id, ("id",), "id")

    async def work(connection: Connection) -> tuple[int, After]:
        after = After()
        found = await numbers_of_tasks(connection, core.ns, [uuid])
        if not found:
            raise NotFound(f"no task {uuid}: it never was, or is deleted already", ("id",))
        taken = await take(connection, core.ns, after, lambda: descendants(connection, core.ns, found))
        await delete_taken(connection, core.ns, after, taken)
        return len(taken), after

    deleted, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return deleted


async def delete_group(core: Core, group_id: object) -> int:
    """How many tasks are gone with it."""
    uuid = check.uuid(group_id, ("id",), "id")

    async def work(connection: Connection) -> tuple[int, After]:
        after = After()
        group_no = await rows.lock_group(connection, core.ns, uuid)
        if group_no is None:
            raise NotFound(f"no task group {uuid}: it never was, or is deleted already", ("id",))

        async def members() -> list[int]:
            return [row.no for row in await rows.numbers_of_groups(connection, core.ns, [group_no])]

        taken = await take(connection, core.ns, after, members)
        return await delete_groups_taken(connection, core.ns, [group_no], taken), after

    deleted, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return deleted


async def delete_groups_taken(connection: Connection, ns: int, group_nos: Sequence[int], taken: Taken) -> int:
    """Groups that are locked, with all their tasks, which were taken; how many those are."""
    await fold(connection, ns)
    counts: dict[tuple[int, int], rows.CountRow] = {}
    for part in _parts(taken):
        for row in await rows.delete_tasks(connection, ns, part, of_group=True):
            counts.setdefault((row.ref, row.state), rows.CountRow(row.ref, row.state, 0)).n += row.n
    await rows.delete_groups(connection, ns, list(group_nos), list(counts.values()))
    return len(taken)


async def take(connection: Connection, ns: int, after: After, look: Callable[[], Awaitable[list[int]]]) -> Taken:
    """Takes what `look` finds out of its places, until it finds nothing else; the twins that rode with it are ready again."""
    taken: Taken = {}
    for _ in range(_TRIES):
        left = [no for no in await look() if no not in taken]
        if not left:
            return taken
        await rows.lock_leases_of(connection, ns, left)
        for part in parts(left):
            found = await rows.take_tasks(connection, ns, part)
            for no, was, attempt in zip(found.nos or (), found.wases or (), found.attempts or (), strict=True):
                taken[no] = (was, attempt)
            if found.runners:
                after.places += await free_twins(connection, ns, found.runners)
    raise Conflict("these tasks change their places all the time: try again", ("id",))


async def delete_taken(connection: Connection, ns: int, after: After, taken: Taken) -> None:
    """Tasks of groups that stay. Joins that had adopted one of them go on when they wait for nobody else."""
    if not taken:
        return
    nos = list(taken)
    if await rows.weigh_otherwise(connection, ns, nos):
        await fold(connection, ns)
    joins = await rows.lock_joins_of(connection, ns, nos)
    for part in _parts(taken):
        await rows.delete_tasks(connection, ns, part, of_group=False)
    if joins:
        await recount(connection, ns, after, joins)


async def fold(connection: Connection, ns: int) -> None:
    """How far groups are is told by the fold alone for all that is locked here, and nobody else folds before we commit."""
    await rows.lock_fold(connection, ns)
    await fold_groups(connection, ns)


def _parts(taken: Taken) -> Iterator[Taken]:
    items = iter(taken.items())
    while part := dict(islice(items, PART)):
        yield part
