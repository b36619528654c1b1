"""The heartbeat: says that leases can be extended; after an outage it prolongs every lease that stood when it began."""

from __future__ import annotations

import structlog

from db.clock import beat
from db.live import settle_logs
from resolvers.core import Core
from server.loops.run import pause

log = structlog.get_logger("crew.loop")


async def once(core: Core) -> None:
    found = await beat(core.pool, core.ns, core.rhythm.longest_silence, core.rhythm.grace)
    if found.silence > core.rhythm.longest_silence:
        if await core.pool.run(settle_logs, transaction=True):
            log.warning("the database came from another cluster: its event log begins anew, and cursors are expired")
        log.info("after an outage, leases prolonged", seconds=round(found.silence, 1), leases=found.prolonged)


async def step(core: Core) -> None:
    await once(core)
    await pause(core.rhythm.beat)
