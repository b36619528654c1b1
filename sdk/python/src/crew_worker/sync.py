"""The same, for programs without an event loop: `from crew_worker.sync import Crew`.

Everything that is awaited elsewhere blocks here. Handlers may be plain or async functions in both.

    from crew_worker.sync import Crew

    with Crew("http://127.0.0.1:8000") as crew:
        group = crew.group("hello")
        greeting = group.task("greet", {"name": "you"})
        group.finished(timeout=60)
        print(greeting.result())
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, Self, TypeVar

from crew_worker import client, draft, group
from crew_worker.api import Json

Result = TypeVar("Result")


class Portal:
    """An event loop in a thread of its own, started when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="crew-loop", daemon=True)
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._loop is None:
            return
        self.call(last())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None


class Draft(Generic[Result]):
    """A planned task."""

    def __init__(self, portal: Portal, planned: draft.Draft[Result]) -> None:
        self._portal, self.planned, self.id, self.name = portal, planned, planned.id, planned.name

    def after(self, *parents: Draft[Any] | str) -> Self:
        """Wait for these tasks."""
        self.planned.after(*map(inner, parents))
        return self

    def after_subtree(self, *parents: Draft[Any] | str) -> Self:
        """Wait for these tasks and all that they go on to spawn."""
        self.planned.after_subtree(*map(inner, parents))
        return self

    def finished(self, timeout: float | None = None) -> str:
        """The state in which the task has ended. Raises TimeoutError."""
        return self._portal.call(self.planned.finished(timeout))

    def result(self, timeout: float | None = None) -> Result:
        """Its output once it has succeeded. Raises TaskFailed, TimeoutError."""
        return self._portal.call(self.planned.result(timeout))


class Group:
    """One task group."""

    def __init__(self, portal: Portal, planned: group.Group) -> None:
        self._portal, self.planned, self.id, self.name = portal, planned, planned.id, planned.name

    def task(self, channel: str, input: Any = None, **options: Any) -> Draft[Any]:
        """Plan a task; takes what the async one takes."""
        return Draft(self._portal, self.planned.task(channel, input, **options))

    def add(
        self,
        channel: str,
        input: Any = None,
        *,
        after: Iterable[Draft[Any] | str] = (),
        after_subtree: Iterable[Draft[Any] | str] = (),
        **options: Any,
    ) -> Draft[Any]:
        """Create a task now; threads that add at the same time share calls. Raises Refused, Unavailable."""
        parents, roots = map(inner, after), map(inner, after_subtree)
        added = self.planned.add(channel, input, after=parents, after_subtree=roots, **options)
        return Draft(self._portal, self._portal.call(added))

    def send(self) -> Self:
        """Create what is planned, in one call."""
        self._portal.call(self.planned.send())
        return self

    def finished(self, timeout: float | None = None) -> Self:
        """Wait for all of it. Raises GroupStuck, TimeoutError."""
        self._portal.call(self.planned.finished(timeout))
        return self


class Crew(client.Crew):
    """A Crew server, without async."""

    def __init__(self, url: str | None = None, **options: Any) -> None:
        super().__init__(url, **options)
        self._portal = Portal()

    def group(self, name: str, **options: Any) -> Group:  # type: ignore[override]
        """Plan a task group."""
        return Group(self._portal, super().group(name, **options))

    def ask(self, document: str, variables: Json | None = None, **options: Any) -> Json:  # type: ignore[override]
        """The data of any GraphQL operation."""
        return self._portal.call(client.Crew.ask(self, document, variables, **options))

    def close(self) -> None:  # type: ignore[override]
        """Closes the connections."""
        self._portal.close(lambda: client.Crew.close(self))

    async def _run(self, options: Json) -> None:
        try:
            await self.work(signals=True, **options)
        finally:
            await client.Crew.close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def inner(parent: Draft[Any] | str) -> draft.Draft[Any] | str:
    return parent.planned if isinstance(parent, Draft) else parent
