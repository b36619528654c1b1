"""An alarm: sleeps until the first thing is due."""

from __future__ import annotations

import asyncio
import contextlib
import time

_SHORTEST = 0.001


class Alarm:
    """`due` sets it: something is due in so many seconds. It never sleeps longer than the floor, for what others set."""

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._set = asyncio.Event()
        self._next = float("inf")

    def due(self, seconds: float) -> None:
        at = time.monotonic() + max(seconds, 0.0)
        if at < self._next:
            self._next = at
            self._set.set()

    async def sleep(self, first: float | None) -> None:
        """Until the first thing is due, as the database says and as `due` has said since."""
        floor = time.monotonic() + self._floor
        wake_at = min(floor, float("inf") if first is None else time.monotonic() + max(first, _SHORTEST))
        while True:
            wake_at = min(wake_at, self._next)
            self._set.clear()
            left = wake_at - time.monotonic()
            if left <= 0:
                self._next = float("inf")
                return
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._set.wait()
