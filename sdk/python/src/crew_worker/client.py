"""`Crew`: one server, the handlers that work for it, and the groups that are sent to it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from crew_worker import logs
from crew_worker.api import Api, Json
from crew_worker.counters import Counters
from crew_worker.errors import CrewError
from crew_worker.group import Group
from crew_worker.handler import Handler
from crew_worker.worker import Options, Worker, on_signals

Function = TypeVar("Function", bound=Callable[..., Any])
DEFAULT_URL = "http://127.0.0.1:8000"


class Crew:
    """A Crew server. Nothing is sent before `run`, `send` or `ask`.

    `url` and `key` default to CREW_URL and CREW_KEY. `options` are the fields of `Options`.

        crew = Crew("http://127.0.0.1:8000", concurrency=20)

        @crew.task("greet")
        async def greet(task):
            return f"hello {task.input['name']}"

        crew.run()
    """

    def __init__(
        self, url: str | None = None, *, key: str | None = None, namespace: str | None = None, **options: Any
    ) -> None:
        self.url = url or os.environ.get("CREW_URL") or DEFAULT_URL
        self.key = key or os.environ.get("CREW_KEY") or None
        self.namespace = namespace
        self.options = Options(**options)
        self.handlers: dict[str, Handler] = {}
        self.counters = Counters()
        self.worker: Worker | None = None
        self._apis: dict[asyncio.AbstractEventLoop, Api] = {}

    # -- working

    def task(self, channel: str, *, concurrency: int | None = None) -> Callable[[Function], Function]:
        """Registers a function, plain or async, for a channel. It takes a `Task`; what it returns is the task's output.

        `concurrency`: at most so many at once in this worker. Without it the channel shares the worker's own number.
        """

        def register(function: Function) -> Function:
            if channel in self.handlers:
                raise CrewError(f"channel {channel!r} has a handler already: {self.handlers[channel].function!r}")
            if concurrency is not None and concurrency < 1:
                raise CrewError(f"concurrency of channel {channel!r} is {concurrency}: it must be 1 or more")
            self.handlers[channel] = Handler(channel, function, concurrency)
            return function

        return register

    def run(self, **options: Any) -> None:
        """Works until SIGTERM or SIGINT, and returns when what ran has finished and is delivered."""
        if not logging.getLogger().handlers:
            logs.configure()
        asyncio.run(self._run(options))

    async def _run(self, options: Json) -> None:
        try:
            await self.work(signals=True, **options)
        finally:
            await self.close()

    async def work(self, *, signals: bool = False, **options: Any) -> None:
        """Works until `stop` is called, in the running event loop."""
        chosen = replace(self.options, **options)
        self.worker = Worker(self._api(), self.handlers.values(), chosen, self.counters)
        if signals:
            on_signals(self.worker)
        await self.worker.run()

    def stop(self) -> None:
        """Stops the worker as SIGTERM does; called again, as a second one does."""
        if self.worker:
            self.worker.stop()

    @property
    def transport(self) -> str:
        """How tasks come now: long-poll, sse or websocket."""
        return self.worker.transport if self.worker else "long-poll"

    # -- producing

    def group(self, name: str, *, id: str | None = None, metadata: Any = None, paused: bool = False) -> Group:
        """Plan a task group."""
        return Group(self, name, id=id, metadata=metadata, paused=paused)

    async def ask(
        self, document: str, variables: Json | None = None, *, wait: float = 0, patience: float | None = 60
    ) -> Json:
        """The data of any GraphQL operation. Repeated until it is answered, for up to `patience` seconds, so a mutation
        should carry ids of its own. Raises Refused, Unavailable, NotCrew."""
        return await self._api().ask(document, variables or {}, wait=wait, patience=patience)

    # -- the connection

    def _api(self) -> Api:
        loop = asyncio.get_running_loop()
        if loop not in self._apis:
            self._apis = {known: api for known, api in self._apis.items() if not known.is_closed()}
            self._apis[loop] = Api(
                self.url, key=self.key, namespace=self.namespace, silence=self.options.silence_seconds
            )
        return self._apis[loop]

    async def close(self) -> None:
        """Closes the connections of the running event loop."""
        if api := self._apis.pop(asyncio.get_running_loop(), None):
            await api.close()

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
