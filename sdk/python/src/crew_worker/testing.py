"""Tests of handlers, and of whole DAGs, without a server: a double of it runs in memory, by the same rules.

from crew_worker.testing import in_memory, run_task

async def test_greet():
    done = await run_task(crew, "greet", {"name": "you"})
    assert (done.state, done.output) == ("SUCCEEDED", "hello you")

async def test_campaign():
    async with in_memory(crew) as memory:
        group = crew.group("campaign")
        group.task("create_ad", {"name": "first"})
        await group.finished()
        assert memory.task("create_ad").attempt == 2

Delays and back-offs take no time there: when nothing runs and only time could help, the clock is put forward.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from crew_worker.client import Crew
from crew_worker.memory import Memory, Stored

__all__ = ["Memory", "Stored", "in_memory", "run_task"]

STOP_SECONDS = 1.0


@contextlib.asynccontextmanager
async def in_memory(crew: Crew, *, skip_delays: bool = True, **options: Any) -> AsyncIterator[Memory]:
    """Inside, `crew` speaks to a server in memory, and its worker runs. `options` are those of `Crew.work`."""
    memory = Memory(skip_delays=skip_delays)
    loop = asyncio.get_running_loop()
    before = crew._apis.get(loop)
    crew._apis[loop] = memory
    options = {"transport": "long-poll", "health": None, "stop_seconds": STOP_SECONDS, **options}
    work = asyncio.create_task(crew.work(**options)) if crew.handlers else None
    try:
        await asyncio.sleep(0)
        yield memory
    finally:
        crew.stop()
        if work:
            await asyncio.gather(work, return_exceptions=True)
        del crew._apis[loop]
        if before:
            crew._apis[loop] = before


async def run_task(
    crew: Crew, channel: str, input: Any = None, *, timeout: float | None = 10, **options: Any
) -> Stored:
    """Runs one task to its end, through all its attempts, and returns it. `options` are those of `Group.task`.

    Raises TimeoutError after `timeout` seconds, real ones.
    """
    async with in_memory(crew) as memory:
        task = crew.group("test").task(channel, input, **options)
        await task.finished(timeout)
        return memory.tasks[task.id]
