"""A function that does the tasks of one channel; plain functions run in threads."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crew_worker import tracing
from crew_worker.task import Task

Function = Callable[[Task], Any]


@dataclass(frozen=True)
class Handler:
    """`concurrency`: at most so many at once in this worker; None shares the worker's own number with other channels."""

    channel: str
    function: Function
    concurrency: int | None = None

    @cached_property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(
            getattr(self.function, "__call__", None)  # noqa: B004
        )

    def __call__(self, task: Task, threads: Executor | None = None) -> Awaitable[Any]:
        task._inherited = tracing.carried(task.metadata)
        return self._traced(task, threads) if tracing.concerns(task) else self._run(task, threads)

    async def _traced(self, task: Task, threads: Executor | None) -> Any:
        with tracing.attempt(task):
            return await self._run(task, threads)

    def _run(self, task: Task, threads: Executor | None) -> Awaitable[Any]:
        if self.is_async:
            found: Awaitable[Any] = self.function(task)
            return found
        call = functools.partial(contextvars.copy_context().run, self.function, task)
        return asyncio.get_running_loop().run_in_executor(threads, call)
