"""The double of crew_worker.testing: the cases of sdk/conformance.json that need no network, and what it is for."""

from __future__ import annotations

import time

import pytest

from crew_worker import Crew, RetryPolicy, Task, TaskError
from crew_worker.testing import in_memory, run_task
from tests.sdk.case import CASES, Json, RunInMemory

NETWORK = {"faults", "sendOn", "transport"}


@pytest.mark.parametrize("case", [case for case in CASES if NETWORK.isdisjoint(case)], ids=lambda case: case["name"])
async def test_the_double_conforms(case: Json):
    await RunInMemory(case).run()


def flaky() -> Crew:
    crew = Crew("http://nobody.invalid")

    @crew.task("work")
    async def work(task: Task) -> str:
        if task.attempt < 3:
            raise TaskError(f"no {task.attempt}")
        return f"done {task.input}"

    return crew


async def test_run_task_goes_through_all_attempts_and_takes_no_time():
    began = time.monotonic()
    done = await run_task(flaky(), "work", 7, retry=RetryPolicy(attempts=5, delay=3600))
    assert (done.state, done.output, done.attempt) == ("SUCCEEDED", "done 7", 3)
    assert [error["error"] for error in done.errors] == ["no 1", "no 2"]
    assert time.monotonic() - began < 5


async def test_tasks_with_one_key_are_done_once():
    async with in_memory(crew := flaky()) as memory:
        group = crew.group("twins")
        for name in ("a", "b"):
            group.task("work", 1, name=name, key="same")
        await group.finished(10)
        assert [memory.task(name).output for name in ("a", "b")] == ["done 1", "done 1"]
        assert memory.task("a").attempt == 3


async def test_after_it_the_crew_is_as_before():
    crew = flaky()
    async with in_memory(crew):
        pass
    assert crew._apis == {}
