"""Beginning again: tasks as if they had never run. What they spawned is deleted, with all below it.

All in one transaction. Tasks are taken out of their places, as for a deletion; their parents are locked, as for whoever hangs a
task under them; then they are made ready, scheduled or blocked like new ones. Who waits for them waits again; who runs or has
failed goes on, and waits before it is tried anew (follow.wait_again).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from db import reset as rows
from db.create import ParentRow
from db.delete import Taken, lock_group, numbers_of_groups
from db.join import feed, link_adopted, subtree_links, subtree_members, waiting_for
from db.key import merge_ready, remember_keys
from db.pool import Connection
from resolvers import check
from resolvers.core import Core
from resolvers.delete import delete_taken, take
from resolvers.errors import Conflict, NotFound
from resolvers.follow import After, cancel_under, lock_all_parents, recount
from resolvers.steer import parts

_TRIES = 100
_RESET = 13
Scope = tuple[set[int], set[int]]
"""What begins again, and what goes."""


async def reset_tasks(core: Core, nos: list[int]) -> list[int]:
    """The numbers of those that begin again: without those that another of them had spawned, which are deleted."""

    async def work(connection: Connection) -> tuple[list[int], After]:
        after = After()

        async def look() -> Scope:
            gone = set(await rows.spawned_below(connection, core.ns, nos))
            return set(await rows.still_there(connection, core.ns, nos)) - gone, gone

        return await _start_over(connection, core.ns, after, look), after

    if not nos:
        return []
    again, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return again


async def reset_group(core: Core, group_id: object) -> tuple[UUID, int]:
    """Its id, and how many of its tasks begin again: the seeds, or without seeds all that nobody spawned."""
    uuid = check.uuid(group_id, ("id",), "id")

    async def work(connection: Connection) -> tuple[int, After]:
        after = After()
        group_no = await lock_group(connection, core.ns, uuid)
        if group_no is None:
            raise NotFound(f"no task group {uuid}", ("id",))

        async def look() -> Scope:
            members = await numbers_of_groups(connection, core.ns, [group_no])
            every = {row.no for row in members}
            seeds = {row.no for row in members if row.is_seed}
            gone = every - seeds if seeds else set(await rows.spawned_below(connection, core.ns, list(every)))
            return every - gone, gone

        await rows.tell_of_group(connection, core.ns, group_no, _RESET)
        return len(await _start_over(connection, core.ns, after, look)), after

    affected, after = await core.pool.run(work, transaction=True, planned=True)
    after.tell(core)
    return uuid, affected


async def _start_over(connection: Connection, ns: int, after: After, look: Callable[[], Awaitable[Scope]]) -> list[int]:
    again: set[int] = set()
    gone: set[int] = set()

    async def both() -> list[int]:
        nonlocal again, gone
        again, gone = await look()
        return sorted(again | gone)

    taken = await take(connection, ns, after, both)
    begins = {no: taken[no] for no in sorted(again)}
    if not begins:
        await delete_taken(connection, ns, after, taken)
        return []
    await rows.lock_keys_of(connection, ns, list(begins))
    parents = await lock_all_parents(
        connection, ns, await rows.parents_of(connection, ns, list(begins), without=list(taken))
    )
    await delete_taken(connection, ns, after, {no: taken[no] for no in sorted(gone)})
    parents += await _adopt_missed(connection, ns, begins)
    for part in parts(list(begins)):
        found = await rows.begin_again(connection, ns, {no: begins[no] for no in part})
        await remember_keys(connection, ns, part)
        if found.merging:
            await merge_ready(connection, ns, found.merging)
        after.add(found)
    await _block_children(connection, ns, after, begins)
    lost = [row.no for row in parents if row.place in ("failed", "cancelled")]
    await cancel_under(connection, ns, after, lost)
    return list(begins)


async def _adopt_missed(connection: Connection, ns: int, begins: Taken) -> list[ParentRow]:
    """What was spawned after joins had started is theirs too, now that they never have. Locked, as parents."""
    locked: list[ParentRow] = []
    for join, roots in (await subtree_links(connection, ns, list(begins))).items():
        members = await subtree_members(connection, ns, roots)
        for _ in range(_TRIES):
            found = await lock_all_parents(connection, ns, sorted({m.no for m in members} - begins.keys()))
            again = await subtree_members(connection, ns, roots)
            if len(again) == len(members):
                break
            members = again
        else:
            raise Conflict("what these tasks wait for grows all the time: try again", ("ids",))
        nos = sorted({m.no for m in members})
        # The join itself is among those that wait for it.
        others = {no for _, no in await waiting_for(connection, ns, [join], nos)}
        others.update(await rows.parents_of(connection, ns, [join], without=[]))
        adopted = {m.no for m in members if not m.joins} - others
        feeding = {m.no for m in members} - adopted - others
        await link_adopted(connection, ns, [(no, join) for no in sorted(adopted)])
        await feed(connection, ns, [(no, join) for no in sorted(feeding)])
        locked += found
    return locked


async def _block_children(connection: Connection, ns: int, after: After, begins: Taken) -> None:
    nos = list(begins)
    for _ in range(_TRIES):
        children = await rows.children_of(connection, ns, nos, without=nos)
        if not children:
            return
        # Under RUN one that has not started may wait for nobody though a parent is yet to end again.
        parents = await rows.parents_of(connection, ns, children, without=nos, unsucceeded=True)
        await lock_all_parents(connection, ns, parents)
        found = await rows.block_again(connection, ns, children)
        if found.blocked:
            await recount(connection, ns, after, found.blocked)
        if not found.moved:
            return
    raise Conflict("what waits for these tasks changes its place all the time: try again", ("ids",))
