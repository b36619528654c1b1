"""Chooses the transport by the weather: from long polls up to a stream, back down when it breaks, and up again later.

A pool starts with long polls. Once they are answered the climber opens a websocket, or else server-sent events, while
polling goes on; when the stream stands it takes over, and when it breaks polling goes on at once. A stream that held is
opened again soon; one that broke early or never opened is tried again after 5 s, 10 s, 20 s … up to 5 minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

from crew_worker import stream
from crew_worker.backoff import pause
from crew_worker.documents import CLAIMED_TASKS
from crew_worker.errors import Refused
from crew_worker.pool import Pool

log = logging.getLogger("crew_worker")

Transport = Literal["auto", "long-poll", "websocket", "sse"]
OPENERS: dict[str, stream.Open] = {"websocket": stream.websocket, "sse": stream.sse}
RUNGS: dict[str, tuple[str, ...]] = {
    "auto": ("websocket", "sse"),
    "long-poll": (),
    "websocket": ("websocket",),
    "sse": ("sse",),
}
FIRST_TRY_SECONDS = 1.0
AGAIN_SECONDS, AGAIN_LONGEST = 5.0, 300.0
# A stream that stood so long has held.
HELD_SECONDS = 30.0


class Climber:
    def __init__(self, pool: Pool, transport: Transport = "auto") -> None:
        self._pool, self._rungs = pool, RUNGS[transport]
        self.now = "long-poll"

    async def run(self) -> None:
        if not self._rungs:
            return
        await self._pool.polled.wait()
        failures = 0
        await asyncio.sleep(pause(0, first=FIRST_TRY_SECONDS))
        while True:
            for rung in self._rungs:
                began = time.monotonic()
                await self._stand_on(rung)
                if time.monotonic() - began >= HELD_SECONDS:
                    failures = -1
                    break
            failures += 1
            first = AGAIN_SECONDS if failures else FIRST_TRY_SECONDS
            await asyncio.sleep(pause(max(0, failures - 1), first=first, longest=AGAIN_LONGEST))

    async def _stand_on(self, rung: str) -> None:
        """Returns when the stream has broken, or has not opened."""
        pool = self._pool
        wanted = {
            "workerId": pool.worker_id,
            "channels": pool.channels,
            "limit": pool.slots + pool.settings.prefetch,
            "leaseSeconds": pool.settings.lease_seconds,
            "holding": sorted(pool.in_hand),
        }
        try:
            async with OPENERS[rung](pool.api, CLAIMED_TASKS, {"input": wanted}) as data:
                async for said in data:
                    if not pool.streaming:
                        # The first payload comes at once: a proxy that holds streams back would not let it through.
                        pool.stream_stands()
                        self.now = rung
                        log.info("tasks come by %s", rung)
                    pool.take(said["claimedTasks"]["leases"], pushed=True)
        except (stream.Broken, Refused) as why:
            log.log(logging.INFO if pool.streaming else logging.DEBUG, "tasks come by long poll (%s)", why)
        finally:
            self.now = "long-poll"
            pool.stream_ended()
