"""Upkeep: folds counts, moves aside what is suspended or paused, writes down workers, forgets what says nothing any more."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from db.clock import fold_events, forget_claims, park_held
from db.inbox import forget_refused
from db.key import forget_ended_keys
from db.live import forget_events, forget_ticks
from db.pause import forget_ended_pauses, park_front
from db.progress import fold_groups, forget_pace
from db.reset import forget_ended_ahead
from resolvers import pace as pacing
from resolvers import retention
from resolvers.core import Core
from resolvers.follow import move
from resolvers.workgroup import STEP, gently, release_rest
from schema.context import Services
from server.loops.run import pause

_FORGET_EVERY = 300.0
_FORGET_BATCH = 5000
_FORGET_LOG_EVERY = 60.0
_RETAIN_EVERY = 300.0
_MANY = 500
_FRONT = 1000
_REST = 3.0
"""Claims pass over what is held by themselves: moving it aside is not urgent."""


async def fold(services: Services) -> None:
    """Sooner again when much has changed: what is not folded yet is added up by every reader. Tells of groups that are finished, so
    sooner too while somebody listens."""
    core, log = services.core, services.log
    await fold_events(core.pool, core.ns)
    groups = await fold_groups(core.pool, core.ns)
    if groups:
        core.stir()
    if random.random() < core.rhythm.floor / _FORGET_EVERY:
        await forget_pace(core.pool, core.ns, pacing.KEPT)
    await pause(core.rhythm.floor / 5 if groups >= _MANY or log.listeners else core.rhythm.floor)


async def park(core: Core) -> None:
    if not await gently(_park_some(core), _REST):
        await pause(core.rhythm.floor / 2)


async def _park_some(core: Core) -> bool:
    """Whether more may be left."""
    held = await move(core, lambda connection: park_held(connection, core.ns, STEP))
    paused = await move(core, lambda connection: park_front(connection, core.ns, _FRONT))
    return held.count == STEP or paused.count == _FRONT


async def unpark(core: Core) -> None:
    core.freed.clear()
    if not await release_rest(core):
        with suppress(TimeoutError):
            async with asyncio.timeout(core.rhythm.floor):
                await core.freed.wait()


async def workers(services: Services) -> None:
    await pause(services.core.rhythm.ping)
    await services.write_down_workers()


async def keys(services: Services) -> None:
    """When each was last used."""
    await pause(services.core.rhythm.ping)
    await services.keys.write_down_uses()


async def forget_log(core: Core, seconds: float) -> None:
    """Events are kept for so long, in the order of their ticks."""
    while await forget_ticks(core.pool, core.ns, seconds, _FORGET_BATCH) == _FORGET_BATCH:
        pass
    while await forget_events(core.pool, core.ns, _FORGET_BATCH, seconds) >= _FORGET_BATCH:
        pass
    while await forget_refused(core.pool, core.ns, _FORGET_BATCH, seconds) == _FORGET_BATCH:
        pass
    await pause(_FORGET_LOG_EVERY)


async def retain(core: Core, group_days: float | None, task_days: float | None) -> None:
    """What is older goes, where retention is switched on."""
    if group_days is not None:
        await retention.delete_expired_groups(core, group_days, unfinished=False)
    if task_days is not None:
        await retention.delete_old_tasks(core, task_days)
    await pause(_RETAIN_EVERY)


async def forget(core: Core) -> None:
    await forget_claims(core.pool, core.ns)
    await forget_ended_pauses(core.pool, core.ns)
    await forget_ended_ahead(core.pool, core.ns)
    while await forget_ended_keys(core.pool, core.ns, _FORGET_BATCH) == _FORGET_BATCH:
        pass
    await pause(_FORGET_EVERY)
