"""A worker: pools of slots, the keeper of their leases, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from crew_worker.api import Api
from crew_worker.climber import Climber, Transport
from crew_worker.counters import Counters
from crew_worker.errors import CrewError
from crew_worker.handler import Handler
from crew_worker.health import Health, serve_health
from crew_worker.lease_keeper import LeaseKeeper
from crew_worker.pool import COURIERS, Pool, Settings

log = logging.getLogger("crew_worker")

RUNGS = ("long-poll", "sse", "websocket")


@dataclass(frozen=True)
class Options:
    """How a worker works. `concurrency` is shared by the channels that name none of their own.

    lease_seconds     how long a lease lasts unless it is extended: how soon others take over when this worker dies
    wait_seconds      the longest long poll
    prefetch          tasks claimed beyond the free slots, to be at hand when one is free
    stop_seconds      how long handlers may go on after SIGTERM
    deliver_seconds   how long the last results may take to be delivered
    silence_seconds   how long an answer may be overdue before the call is sent again
    transport         auto climbs to streams when they hold; long-poll, websocket or sse stays with one
    health            (host, port) of an HTTP endpoint with /healthz and /metrics; None for none
    """

    worker_id: str | None = None
    concurrency: int = 10
    lease_seconds: float = 60.0
    wait_seconds: float = 20.0
    prefetch: int = 0
    stop_seconds: float = 30.0
    deliver_seconds: float = 10.0
    silence_seconds: float = 10.0
    transport: Transport = "auto"
    health: tuple[str, int] | None = None


def worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Worker:
    """Runs until `stop` is called. Lives in one event loop."""

    def __init__(self, api: Api, handlers: Iterable[Handler], options: Options, counters: Counters) -> None:
        self._api, self.options, self.counters = api, options, counters
        self.id = options.worker_id or worker_id()
        self._handlers = list(handlers)
        self._stopping = asyncio.Event()
        self._cancelling = asyncio.Event()
        self.pools: list[Pool] = []
        self._climbers: list[Climber] = []

    @property
    def transport(self) -> str:
        """How tasks come now; of several pools' transports the lowest."""
        return min((climber.now for climber in self._climbers), key=RUNGS.index, default="long-poll")

    @property
    def running(self) -> int:
        return sum(len(pool.running) for pool in self.pools)

    @property
    def undelivered(self) -> int:
        return sum(len(pool.outbox) for pool in self.pools)

    def stop(self) -> None:
        """Claim nothing more, finish what runs. Called again: cut that off too."""
        if self._stopping.is_set():
            self._cancelling.set()
        self._stopping.set()

    async def run(self) -> None:
        """Works until it is stopped. Raises Refused when the server will not have its claims."""
        if not self._handlers:
            raise CrewError("no task is registered: decorate a function with @crew.task(channel)")
        keeper = LeaseKeeper(self._api, self.options.lease_seconds)
        threads = ThreadPoolExecutor(sum(slots for _, slots in self._shares()), "crew-worker")
        self.pools = [self._pool(handlers, slots, keeper, threads) for handlers, slots in self._shares()]
        self._climbers = [Climber(pool, self.options.transport) for pool in self.pools]
        health = Health(self)
        async with serve_health(health, self.options.health):
            keeping = asyncio.create_task(keeper.run())
            couriers = [asyncio.create_task(pool.deliver()) for pool in self.pools for _ in range(COURIERS)]
            climbing = [asyncio.create_task(climber.run()) for climber in self._climbers]
            for pool in self.pools:
                pool.start_polling()
            log.info("worker %s takes %s", self.id, ", ".join(handler.channel for handler in self._handlers))
            try:
                error = await self._until_stopped([keeping, *couriers, *climbing])
                await end(climbing)
                await asyncio.gather(*(pool.stop() for pool in self.pools))
                await self._finish()
            finally:
                for pool in self.pools:
                    pool.stopping = True
                await end([keeping, *couriers, *climbing, *(pool.polling for pool in self.pools if pool.polling)])
                threads.shutdown(wait=False, cancel_futures=True)
        if error:
            raise error

    def _shares(self) -> list[tuple[list[Handler], int]]:
        """Channels with slots of their own, and those that share the worker's."""
        own = [([handler], handler.concurrency) for handler in self._handlers if handler.concurrency is not None]
        shared = [handler for handler in self._handlers if handler.concurrency is None]
        return [*own, *([(shared, self.options.concurrency)] if shared else [])]

    def _pool(self, handlers: list[Handler], slots: int, keeper: LeaseKeeper, threads: ThreadPoolExecutor) -> Pool:
        # A stream of a worker ends its older one, so each pool is a worker of its own to the server.
        name = self.id if len(self._shares()) == 1 else f"{self.id}/{'+'.join(h.channel for h in handlers)}"
        settings = Settings(self.options.lease_seconds, self.options.wait_seconds, self.options.prefetch)
        by_channel = {handler.channel: handler for handler in handlers}
        return Pool(name[:255], by_channel, slots, self._api, keeper, settings, self.counters, threads)

    async def _until_stopped(self, loops: list[asyncio.Task[None]]) -> BaseException | None:
        """Returns why the worker had to stop, None when it was told to."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not stopping.done():
                polls = [pool.polling for pool in self.pools if pool.polling and not pool.polling.done()]
                await asyncio.wait({stopping, *loops, *polls}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
                ended = [pool.poll_error() for pool in self.pools]
                ended += [loop.exception() for loop in loops if loop.done() and not loop.cancelled()]
                if error := next(filter(None, ended), None):
                    self._stopping.set()
                    return error
                loops = [loop for loop in loops if not loop.done()]
            return None
        finally:
            stopping.cancel()

    async def _finish(self) -> None:
        """Wait for handlers, then for their results to be delivered."""
        log.info("stopping: %d handlers run", self.running)
        cancelling = asyncio.create_task(self._cancelling.wait())
        all_done = asyncio.gather(*(pool.rest() for pool in self.pools))
        ends: set[asyncio.Future[Any]] = {all_done, cancelling}
        await asyncio.wait(ends, timeout=self.options.stop_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not all_done.done():
            log.warning("%d handlers are cut off", self.running)
            for pool in self.pools:
                pool.cancel()
            await asyncio.wait({all_done}, timeout=self.options.deliver_seconds)
        await end(ends)
        at_rest = [asyncio.create_task(pool.outbox.at_rest.wait()) for pool in self.pools]
        _, late = await asyncio.wait(at_rest, timeout=self.options.deliver_seconds)
        if late:
            log.error("%d results could not be delivered: their leases run out", self.undelivered)
        await end(late)


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def on_signals(worker: Worker) -> None:
    """SIGTERM and SIGINT stop it; a second one cuts it off."""
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(name, worker.stop)
        except NotImplementedError:  # Windows
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(worker.stop))
