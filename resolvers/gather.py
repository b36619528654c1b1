"""Concurrent calls into one transaction: a flush starts when the last one returns, so an idle server adds no delay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gather(Generic[Item, Answer]):
    """`flush` gets what came in since the last flush began, and answers each item or gives its exception.

    `weigh` counts what an item brings; one flush takes items until their weight passes `heaviest`.
    `width` flushes may run at once, where as much as `beside` waits: two hide the time that a commit takes, but of little each
    costs as much as one of all.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], Awaitable[Sequence[Answer | BaseException]]],
        *,
        weigh: Callable[[Item], int] = lambda _: 1,
        heaviest: int = 5000,
        width: int = 1,
        beside: int = 0,
    ) -> None:
        self._flush = flush
        self._weigh = weigh
        self._heaviest = heaviest
        self._waiting: list[tuple[Item, int, asyncio.Future[Answer]]] = []
        self._weight = 0
        """Of what waits."""
        self._width = width
        self._beside = beside
        self._running: set[asyncio.Task[None]] = set()

    async def add(self, item: Item) -> Answer:
        """The answer for `item`. A caller that is cancelled does not undo it: once taken, it is done."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        weight = self._weigh(item)
        self._waiting.append((item, weight, future))
        self._weight += weight
        if not self._running or (len(self._running) < self._width and self._weight >= self._beside):
            self._running.add(asyncio.create_task(self._run()))
        return await future

    async def idle(self) -> None:
        """Wait until nothing is in hand (for a server that stops)."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                try:
                    answers = await self._flush([item for item, _, _ in batch])
                except Exception as error:
                    answers = [error] * len(batch)
                for (_, _, future), answer in zip(batch, answers, strict=True):
                    if future.done():
                        continue
                    if isinstance(answer, BaseException):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            # Here, and not in a callback that runs later: what comes in between would wait for ever.
            self._running.discard(asyncio.current_task())

    def _take(self) -> list[tuple[Item, int, asyncio.Future[Answer]]]:
        weight, n = 0, 0
        while n < len(self._waiting) and (n == 0 or weight <= self._heaviest):
            weight += self._waiting[n][1]
            n += 1
        batch, self._waiting = self._waiting[:n], self._waiting[n:]
        self._weight -= weight
        return batch
