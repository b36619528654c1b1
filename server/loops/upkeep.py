"""Upkeep: folds counts, moves tasks of suspended workgroups aside, writes down workers, forgets old claim ids."""

from __future__ import annotations

from db.clock import fold_events, forget_claims, park_held
from resolvers.core import Core
from resolvers.workgroup import BATCH
from schema.context import Services
from server.loops.run import pause

_CLAIMS_EVERY = 300.0


async def fold(core: Core) -> None:
    await fold_events(core.pool, core.ns)
    await pause(core.rhythm.floor)


async def park(core: Core) -> None:
    moved = await park_held(core.pool, core.ns, BATCH)
    await pause(core.rhythm.floor / 2 if moved < BATCH else 0.01)


async def workers(services: Services) -> None:
    await pause(services.core.rhythm.ping)
    await services.write_down_workers()


async def claims(core: Core) -> None:
    await forget_claims(core.pool, core.ns)
    await pause(_CLAIMS_EVERY)
