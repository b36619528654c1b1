"""Identical queries at once: those that come while one runs are answered together by the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Reads(Generic[Answer]):
    """Of one key, one runs and at most one is next. Nobody is answered by what began before it came: an answer shows all that was
    committed before it was asked for. Who meets nobody runs at once, by itself."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[None]] = {}
        self._next: dict[Hashable, asyncio.Task[Answer]] = {}

    async def answer(self, key: Hashable, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `read` answers or raises, or another of the same key that began since this call. Who is cancelled leaves alone."""
        if key not in self._running and key not in self._next:
            return await self._run(key, read)
        if key not in self._next:
            self._next[key] = asyncio.create_task(self._run_next(key, self._running[key], read))
        return await asyncio.shield(self._next[key])

    async def _run(self, key: Hashable, read: Callable[[], Awaitable[Answer]]) -> Answer:
        ended = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            return await read()
        finally:
            del self._running[key]
            ended.set_result(None)

    async def _run_next(
        self, key: Hashable, before: asyncio.Future[None], read: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        try:
            await asyncio.wait([before])
        finally:
            del self._next[key]
        return await self._run(key, read)
