"""What time brings about: leases run out, delays end."""

from __future__ import annotations

from db.clock import expire_leases, overdue_leases, promote_scheduled
from db.key import bring_twins, free_twins
from db.pool import Connection
from resolvers.core import Core
from resolvers.create import FAILED, READY, SCHEDULED
from resolvers.follow import After, end_children, move, wait_again


async def expire(core: Core, limit: int, back: float) -> int:
    """Take back leases that ran out within the last `back` seconds, at most `limit`; answers how many."""

    async def work(connection: Connection) -> tuple[int, After]:
        after = After()
        overdue = await overdue_leases(connection, core.ns, core.rhythm.longest_silence, limit, back)
        if not overdue:
            return 0, after
        # A time-out is a failure, which twins share; a lost lease is the runner's alone.
        failing = [(row.lease_no, no) for row in overdue if row.timed_out for no in row.keyed or ()]
        if failing:
            await bring_twins(connection, core.ns, failing, succeed=False)
        found = await expire_leases(connection, core.ns, [row.lease_no for row in overdue])
        after.places = [(f.channel, f.rank, f.no) for f in found if f.state == READY]
        after.due = [f.due_in for f in found if f.state == SCHEDULED]
        lost = [no for row in overdue if not row.timed_out for no in row.keyed or ()]
        if lost:
            after.places += await free_twins(connection, core.ns, lost)
        await wait_again(connection, core.ns, after, [f.no for f in found if f.state != FAILED])
        await end_children(connection, core.ns, after, failed=[f.no for f in found if f.state == FAILED])
        return len(overdue), after

    count, after = await core.pool.run(work, transaction=True)
    after.tell(core)
    return count


async def promote(core: Core, limit: int, back: float) -> int:
    """Make ready what was delayed until now or at most `back` seconds ago, at most `limit`; answers how many."""
    moved = await move(core, lambda connection: promote_scheduled(connection, core.ns, limit, back))
    core.wake(moved.places)
    return moved.count
