"""What follows, in the same transaction, when tasks end, are given back or become ready; and what is told after its commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from db.claim import Place
from db.clock import Moved
from db.create import ParentRow, lock_parents
from db.delete import recount as count_afresh
from db.ending import doomed, settle_children
from db.key import free_twins, merge_ready
from db.lease import FreedRow, release_leases
from db.pool import Connection
from db.reset import block_again, parents_of
from db.reset import wait_again as still_ahead
from resolvers.core import Core
from resolvers.errors import Conflict

_TRIES = 100


@dataclass(slots=True)
class After:
    """Where tasks became ready, when the next thing is due, what makes room: told when the transaction is committed."""

    places: list[Place] = field(default_factory=list)
    """Of each channel the first is told alone: whoever looks there meets the others."""
    due: list[float] = field(default_factory=list)
    ended: bool = False
    """A person took a task from its lease: where a limit was reached there is room now."""

    def add(self, found: FreedRow) -> None:
        self.places += found.freed()
        if found.due_in is not None:
            self.due.append(found.due_in)

    def tell(self, core: Core) -> None:
        first: dict[int, Place] = {}
        for place in self.places:
            if (known := first.get(place[0])) is None or place < known:
                first[place[0]] = place
        core.wake(list(first.values()))
        if self.ended:
            core.ended([])
        if self.due:
            core.due(min(self.due))


async def move(core: Core, step: Callable[[Connection], Awaitable[Moved]]) -> Moved:
    """A loop's step that makes tasks ready, or moves ready tasks aside or back, in a transaction of its own."""

    async def work(connection: Connection) -> Moved:
        return await merge_moved(connection, core.ns, await step(connection))

    return await core.pool.run(work, transaction=True)


async def merge_moved(connection: Connection, ns: int, moved: Moved) -> Moved:
    """A runner that came while they moved may have found them in neither place."""
    if moved.merging:
        await merge_ready(connection, ns, moved.merging)
    return moved


async def end_children(
    connection: Connection, ns: int, after: After, *, joins: Sequence[int] = (), failed: Sequence[int] = ()
) -> None:
    """What waits for tasks that failed or were cancelled (CANCEL, RUN); and `joins`, once for each parent that succeeded."""
    if failed or joins:
        below = await _doomed(connection, ns, failed)
        await _settle(connection, ns, after, list(joins), [*failed, *below], below)


async def cancel_under(connection: Connection, ns: int, after: After, failed: Sequence[int]) -> None:
    """Tasks were hung under these, which have failed or are cancelled: those that go with their parents (CANCEL) do."""
    below = await _doomed(connection, ns, failed)
    if below:
        await _settle(connection, ns, after, [], below, below)


async def _settle(
    connection: Connection, ns: int, after: After, joins: list[int], failed: list[int], below: list[int]
) -> None:
    found = await settle_children(connection, ns, joins=joins, failed=failed, doomed=below)
    if found.merging:
        await merge_ready(connection, ns, found.merging)
    after.add(found)


async def _doomed(connection: Connection, ns: int, failed: Sequence[int]) -> list[int]:
    """All that is cancelled with these, locked: looked for until the locks show nothing that was hung below meanwhile."""
    below: list[int] = []
    while failed:
        found = await doomed(connection, ns, [*failed, *below])
        if len(found) == len(below):
            break
        below = found
    return below


async def recount(connection: Connection, ns: int, after: After, nos: list[int]) -> None:
    """Blocked tasks, locked by a statement before this one: those that wait for nobody any more go on."""
    found = await count_afresh(connection, ns, nos)
    if found.merging:
        await merge_ready(connection, ns, found.merging)
    after.add(found)


async def lock_all_parents(connection: Connection, ns: int, nos: list[int]) -> list[ParentRow]:
    """None of these ends, begins again or goes before we commit."""
    for _ in range(_TRIES if nos else 0):
        found = await lock_parents(connection, ns, nos=nos)
        if all(row.place != "moved" for row in found):
            return found
    if nos:
        raise Conflict("the parents of these tasks change their places all the time: try again", ("ids",))
    return []


async def wait_again(connection: Connection, ns: int, after: After, nos: list[int]) -> None:
    """Tasks that came back to be tried again: those of which a parent was reset while they ran, or had failed, wait for it."""
    ahead = await still_ahead(connection, ns, nos) if nos else []
    if not ahead:
        return
    parents = await parents_of(connection, ns, ahead, without=[], unsucceeded=True)
    lost = [row.no for row in await lock_all_parents(connection, ns, parents) if row.place in ("failed", "cancelled")]
    found = await block_again(connection, ns, ahead)
    if found.blocked:
        await recount(connection, ns, after, found.blocked)
        await cancel_under(connection, ns, after, lost)


async def give_back(core: Core, leases: list[tuple[int, int]], *, waits: bool = True) -> set[int]:
    """Release leases, untouched. Answers which (by place in `leases`) stood; `waits`: as db.lease.complete_tasks has it."""
    if not leases:
        return set()

    async def work(connection: Connection) -> tuple[set[int], After]:
        found = await release_leases(connection, core.ns, leases, waits=waits)
        after = After([(f.channel, f.rank, f.no) for f in found])
        runners = [f.no for f in found if f.keyed]
        if runners:
            after.places += await free_twins(connection, core.ns, runners)
        await wait_again(connection, core.ns, after, [f.no for f in found])
        return {f.ord - 1 for f in found}, after

    stood, after = await core.pool.run(work, transaction=True)
    after.tell(core)
    return stood
