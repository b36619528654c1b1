"""Operators: which channels are delivered by this server, where to, and that their leases are kept while they last."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from urllib.parse import quote
from uuid import UUID, uuid4

import structlog

from db.errors import OUTAGE, DatabaseUnavailable
from db.group import read_channels
from db.operator import OperatorRow, leave_deliveries, read_operators, seal_headers_again, take_deliveries
from resolvers.vault import Sealed
from schema.context import Services
from server.delivery.deliverer import KEEP_EVERY, Deliverer, keep
from server.delivery.post import Poster, Target
from server.loops.run import pause
from server.settings import Settings

log = structlog.get_logger("crew.delivery")

_MINE_SECONDS = 10.0
"""A server that has not been heard of for so long delivers no more: another takes its channels."""
_SAFE_SECONDS = 8.0
"""So long after it was heard of it claims."""
_END_SECONDS = 5.0
_MOST_CHANNELS = 1000
_WARN_EVERY = 60.0


class OperatorLoop:
    def __init__(self, services: Services, settings: Settings) -> None:
        self._services = services
        self._core = services.core
        self._settings = settings
        self._server = uuid4()
        self._poster = Poster(
            allow_private=settings.operator_private_targets, most=settings.max_body_bytes, version=services.version
        )
        self._deliverers: dict[int, Deliverer] = {}
        """By channel: those that claim, and those that have deliveries under way."""
        self._took = False
        """Channels were taken: what becomes of it is to be left when the server stops."""
        self._changed = asyncio.Event()
        self._warned: dict[UUID, float] = {}
        services.operators.changed = self._changed.set

    async def step(self) -> None:
        """One look at the operators; the next after a second, or when one is changed here."""
        self._changed.clear()
        targets = {} if self._services.operators.draining else await self._targets()
        mine = await self._take(sorted(targets))
        for channel in [c for c in self._deliverers if c not in mine]:
            deliverer = self._deliverers[channel]
            await deliverer.stop()
            if not deliverer.open:
                del self._deliverers[channel]
        for channel in sorted(mine):
            self._deliver(targets[channel])
        with suppress(TimeoutError):
            async with asyncio.timeout(self._core.rhythm.floor):
                await self._changed.wait()

    async def keep(self) -> None:
        await pause(KEEP_EVERY)
        await keep(self._services, list(self._deliverers.values()))

    async def end(self) -> None:
        """The server stops. What is under way has a few seconds; the rest is retried when its leases have run out."""
        self._services.operators.draining = True
        self._services.dispatcher.drain()
        await asyncio.gather(*(d.end(_END_SECONDS) for d in self._deliverers.values()))
        with suppress(TimeoutError, DatabaseUnavailable, *OUTAGE):
            if self._took:
                await asyncio.wait_for(leave_deliveries(self._core.pool, self._core.ns, self._server, []), 1)
        await self._poster.close()

    async def _take(self, channels: list[int]) -> set[int]:
        """Those that are this server's to deliver."""
        if not channels and not self._deliverers:
            return set()
        pool, ns = self._core.pool, self._core.ns
        began = time.monotonic()
        self._took = True
        mine = await take_deliveries(pool, ns, self._server, channels, _MINE_SECONDS) if channels else set()
        if any(c not in mine or c not in channels for c in self._deliverers):
            await leave_deliveries(pool, ns, self._server, channels)
        for channel in mine & self._deliverers.keys():
            self._deliverers[channel].mine_until = began + _SAFE_SECONDS
        return mine

    def _deliver(self, target: Target) -> None:
        deliverer = self._deliverers.get(target.channel)
        if deliverer is None:
            deliverer = self._deliverers[target.channel] = Deliverer(self._services, self._poster, target, self._look)
            deliverer.mine_until = time.monotonic() + _SAFE_SECONDS
        deliverer.retarget(target)
        deliverer.start()

    # -- where to -------------------------------------------------------------------------------------------------------

    async def _targets(self) -> dict[int, Target]:
        """What is to be delivered, by channel. A paused operator keeps its channel from the base URL."""
        core, settings = self._core, self._settings
        rows = await read_operators(core.pool, core.ns)
        found = [await self._target(row) for row in rows if not row.is_paused]
        targets = {target.channel: target for target in found if target is not None}
        if settings.operator_base_url is not None:
            stored = {row.channel for row in rows}
            for channel in await read_channels(core.pool, core.ns, None, None, _MOST_CHANNELS):
                if channel.number not in stored:
                    targets[channel.number] = self._based(channel.number, channel.name)
        return targets

    async def _look(self, channel: int) -> Target | None:
        """As it is now."""
        core, settings = self._core, self._settings
        for row in await read_operators(core.pool, core.ns, channels=[channel]):
            return None if row.is_paused else await self._target(row)
        if settings.operator_base_url is None:
            return None
        return self._based(channel, self._deliverers[channel].target.name)

    async def _target(self, row: OperatorRow) -> Target | None:
        """None where its headers cannot be opened: without them its tasks wait rather than fail."""
        operators = self._services.operators
        try:
            headers = operators.headers(row)
        except Sealed as error:
            if time.monotonic() - self._warned.get(row.id, -_WARN_EVERY) >= _WARN_EVERY:
                self._warned[row.id] = time.monotonic()
                log.error("an operator stands still: its headers are sealed", operator=str(row.id), reason=str(error))
            return None
        if row.headers is not None and not operators.vault.is_current(row.headers):
            again = operators.vault.seal_again(row.headers)
            await seal_headers_again(self._core.pool, self._core.ns, row.id, row.headers, again)
        return Target(
            channel=row.channel,
            name=row.name,
            worker=f"operator {row.id}",
            url=row.url,
            max_running=row.max_running,
            timeout=row.timeout,
            headers=headers,
            secret=operators.signing_secret(row.id),
        )

    def _based(self, channel: int, name: str) -> Target:
        settings = self._settings
        token = None if settings.operator_token is None else settings.operator_token.get_secret_value()
        return Target(
            channel=channel,
            name=name,
            worker=f"base-url {name}"[:255],
            url=f"{(settings.operator_base_url or '').rstrip('/')}/{quote(name, safe='')}",
            max_running=settings.operator_max_running,
            timeout=settings.operator_timeout_seconds,
            headers=[] if token is None else [("authorization", f"Bearer {token}")],
            secret=None if token is None else token.encode(),
        )
