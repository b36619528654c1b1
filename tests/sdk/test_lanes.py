"""Handlers that end without waiting share an asyncio task: none of them notices the one before."""

from __future__ import annotations

import asyncio
import contextvars
import json
from typing import Any

import pytest

from crew_worker import Crew, Task
from crew_worker.pool import Run
from crew_worker.testing import Memory, in_memory

LEFT: contextvars.ContextVar[int] = contextvars.ContextVar("LEFT", default=0)


async def worked(crew: Crew, inputs: list[str], **options: int) -> tuple[Memory, dict[str, str]]:
    """The server, and how each of these tasks ended."""
    async with in_memory(crew, **options) as memory:
        group = crew.group("lanes")
        for name in inputs:
            group.task("work", name, name=name, retry=1)
        await group.send()
        while any(task.state not in ("SUCCEEDED", "FAILED", "CANCELLED") for task in memory.tasks.values()):
            await asyncio.sleep(0)
        return memory, {task.name: task.state for task in memory.tasks.values()}


@pytest.mark.parametrize("waits", [False, True])
async def test_a_context_variable_is_not_left_to_the_next_handler(waits: bool):
    crew, seen = Crew("http://nobody.invalid"), []

    @crew.task("work")
    async def work(task: Task) -> None:
        seen.append(LEFT.get())
        LEFT.set(LEFT.get() + 1)
        if waits:
            await asyncio.sleep(0)

    await worked(crew, [str(n) for n in range(50)])
    assert seen == [0] * 50


async def test_a_handler_that_cancels_itself_and_ends_leaves_the_next_alone():
    crew = Crew("http://nobody.invalid")

    @crew.task("work")
    async def work(task: Task) -> None:
        if task.input == "self":
            here = asyncio.current_task()
            assert here
            here.cancel()
        else:
            await asyncio.sleep(0)

    _, ended = await worked(crew, ["a", "self", "b", "c"])
    assert ended == {"a": "SUCCEEDED", "self": "SUCCEEDED", "b": "SUCCEEDED", "c": "SUCCEEDED"}


async def test_handlers_that_wait_run_at_once_and_hold_nobody_up():
    crew = Crew("http://nobody.invalid")
    gate, waiting, quick = asyncio.Event(), [], []

    @crew.task("work")
    async def work(task: Task) -> None:
        (waiting if task.input.startswith("wait") else quick).append(task.input)
        if (len(waiting), len(quick)) == (3, 20):
            gate.set()
        if task.input.startswith("wait"):
            await gate.wait()

    names = [*(f"quick {n}" for n in range(10)), "wait 1", "wait 2", *(f"quick {n}" for n in range(10, 20)), "wait 3"]
    async with asyncio.timeout(10):
        _, ended = await worked(crew, names, concurrency=30)
    assert set(ended.values()) == {"SUCCEEDED"}


async def test_no_more_than_the_slots_run_at_once():
    crew, now, most = Crew("http://nobody.invalid"), 0, 0

    @crew.task("work")
    async def work(task: Task) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(20):
            await asyncio.sleep(0)
        now -= 1

    await worked(crew, [str(n) for n in range(40)], concurrency=4)
    assert most == 4


async def test_what_has_not_begun_is_never_begun_once_it_is_cancelled():
    crew, begun = Crew("http://nobody.invalid"), []

    @crew.task("work")
    async def work(task: Task) -> None:
        begun.append(task.input)
        others = others_of(crew, task)
        memory = crew._apis[asyncio.get_running_loop()]
        assert isinstance(memory, Memory)
        memory.cancel(*(run.task.id for run in others))
        for run in others:
            run.give_up("CANCELLED")

    _, ended = await worked(crew, ["a", "b", "c"])
    assert (begun, ended) == (["a"], {"a": "SUCCEEDED", "b": "CANCELLED", "c": "CANCELLED"})
    assert (crew.counters.total("completed"), crew.counters.total("lost")) == (1, 2)


async def test_what_has_not_begun_goes_back_untouched_when_it_is_cut_off():
    crew, begun = Crew("http://nobody.invalid"), []

    @crew.task("work")
    async def work(task: Task) -> None:
        begun.append(task.input)
        if len(begun) == 1:
            others_of(crew, task)[0].pool.cancel()
            await asyncio.sleep(60)

    memory, ended = await worked(crew, ["a", "b", "c"])
    assert (sorted(begun), set(ended.values())) == (["a", "a", "b", "c"], {"SUCCEEDED"})
    assert (crew.counters.total("stopped"), crew.counters.total("released")) == (1, 2)
    assert [memory.task(name).attempt for name in "abc"] == [2, 1, 1]


def others_of(crew: Crew, task: Task) -> list[Run]:
    """The rest of the batch that a task came in, which no lane has come to yet."""
    assert crew.worker
    (pool,) = crew.worker.pools
    assert len(pool.running) == 3
    return [run for run in pool.running.values() if run.task is not task]


async def test_what_ends_at_once_is_handed_in_before_the_next_poll(monkeypatch: pytest.MonkeyPatch):
    crew, call = Crew("http://nobody.invalid"), Memory.call
    said: list[tuple[set[str], bool]] = []

    async def noted(memory: Memory, body: bytes, **given: Any) -> Any:
        said.append((set(json.loads(body)["variables"]), False))
        place, answer = len(said) - 1, await call(memory, body, **given)
        said[place] = said[place][0], bool(answer.data and answer.data.get("claimTasks", {}).get("leases"))
        return answer

    @crew.task("work")
    async def work(task: Task) -> None:
        pass

    monkeypatch.setattr(Memory, "call", noted)
    await worked(crew, ["a"])
    (got,) = [place for place, (_, leases) in enumerate(said) if leases]
    assert said[got][0] == {"claimTasks"}
    assert said[got + 1][0] == {"completeTasks", "claimTasks"}
