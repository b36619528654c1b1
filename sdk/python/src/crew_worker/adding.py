"""Tasks that many callers add to one group, each for itself: those that come while calls are on the way share the next."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from crew_worker.api import Json
from crew_worker.errors import Refused

# So many calls are on the way at once, each of so many tasks at most.
AT_ONCE, MOST = 2, 200


@dataclass(frozen=True)
class Added:
    """A NewTask, and whoever waits until it is created."""

    task: Json
    created: asyncio.Future[None]


class Adding:
    """A task is sent at once while fewer than two calls are on the way. Each fares as if it had been sent alone."""

    def __init__(self, create: Callable[[list[Json]], Awaitable[object]]) -> None:
        self._create = create
        self._waiting: list[Added] = []
        self._couriers: set[asyncio.Task[None]] = set()

    async def add(self, task: Json) -> None:
        """Until it is created. Raises what its call raises. Whoever is cancelled meanwhile may have created it."""
        added = Added(task, asyncio.get_running_loop().create_future())
        self._waiting.append(added)
        # Those of an event loop that was closed are done.
        self._couriers = {courier for courier in self._couriers if not courier.done()}
        if len(self._couriers) < AT_ONCE:
            self._couriers.add(asyncio.create_task(self._carry()))
        await added.created

    async def _carry(self) -> None:
        while self._waiting:
            piece, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            wanted = [added for added in piece if not added.created.done()]
            if wanted:
                await self._send(wanted)
            # Those who were answered may add the next before more is sent.
            await asyncio.sleep(0)

    async def _send(self, piece: list[Added]) -> None:
        pieces = [piece]
        while pieces:
            piece = pieces.pop()
            try:
                await self._create([added.task for added in piece])
            except asyncio.CancelledError:
                for added in itertools.chain(piece, *pieces):
                    added.created.cancel()
                raise
            except Refused as refused:
                pieces += (parts := _apart(piece, refused))
                if not parts:
                    _tell(piece, refused)
            except Exception as error:
                _tell(piece, error)
            else:
                _tell(piece, None)


def _apart(piece: list[Added], refused: Refused) -> list[list[Added]]:
    """A call creates all or nothing. What to send instead of a call that was refused, the last first: the task that the refusal
    names by itself, after the others; or halves."""
    if len(piece) == 1:
        return []
    after = refused.path[refused.path.index("tasks") + 1 :] if "tasks" in refused.path else ()
    if after and isinstance(n := after[0], int) and n < len(piece):
        return [[piece[n]], piece[:n] + piece[n + 1 :]]
    if refused.code == "TOO_LARGE":
        half = len(piece) // 2
        return [piece[half:], piece[:half]]
    return []


def _tell(piece: list[Added], error: Exception | None) -> None:
    for added in piece:
        if added.created.done():
            continue
        if error is None:
            added.created.set_result(None)
        else:
            # Each caller has one of its own to raise: tracebacks and notes are kept in it.
            own = copy.copy(error)
            own.__cause__ = error.__cause__
            added.created.set_exception(own)
