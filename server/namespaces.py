"""The services of each namespace in this process: all that are there at the start, others when first asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from db.namespace import namespace_number, namespaces
from db.pool import Pool
from resolvers.access import Keyring
from schema.context import Services
from server.loops.run import pause

DEFAULT = "default"
_LOOK_EVERY = 30.0
"""Another server may have made one; its leases run out even when nobody asks here."""

Begin = Callable[[str, int], AbstractAsyncContextManager[Services]]
"""Name and number → the services, running until the end."""


class Namespaces:
    def __init__(self) -> None:
        self._services: dict[str, Services] = {}
        self._coming: dict[str, asyncio.Task[Services | None]] = {}
        self._stack = AsyncExitStack()
        self._pool: Pool | None = None
        self._begin: Begin | None = None

    async def open(self, pool: Pool, begin: Begin) -> None:
        self._pool, self._begin = pool, begin
        for name in [DEFAULT, *await namespaces(pool)]:
            await self.get(name)

    async def close(self) -> None:
        for task in list(self._coming.values()):
            task.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)
        await self._stack.aclose()
        self._services.clear()

    @property
    def default(self) -> Services:
        return self._services[DEFAULT]

    @property
    def keys(self) -> Keyring:
        """The same for all."""
        return self.default.keys

    def all(self) -> list[Services]:
        return list(self._services.values())

    def drain(self) -> None:
        for services in self.all():
            services.drain()

    async def get(self, name: str) -> Services | None:
        """None where there is no such namespace."""
        found = self._services.get(name)
        if found is not None:
            return found
        coming = self._coming.get(name)
        if coming is None:
            coming = self._coming[name] = asyncio.create_task(self._make(name))
            coming.add_done_callback(lambda _: self._coming.pop(name, None))
        return await asyncio.shield(coming)

    async def _make(self, name: str) -> Services | None:
        assert self._pool is not None
        assert self._begin is not None
        number = await namespace_number(self._pool, name)
        if number is None:
            return None
        services = await self._stack.enter_async_context(self._begin(name, number))
        self._services[name] = services
        return services

    async def look(self) -> None:
        """Begins what others have made. A loop's step."""
        assert self._pool is not None
        await pause(_LOOK_EVERY)
        for name in await namespaces(self._pool):
            await self.get(name)
