"""Twins are taken in by the one that runs as soon as they are ready, from wherever they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.crew import Crew
from tests.support.keys import (
    PAUSE_CHANNEL,
    PAUSE_TASKS,
    RETRY,
    SUSPEND,
    K,
    existing,
    look,
    one,
)
from tests.support.wait import end_delays, expire_leases, until

# -- taken in, from wherever --------------------------------------------------------------------------------------------

Steps = AsyncIterator[str | None]
"""Two steps: what is before the runner is claimed, then what happens while it runs; the second says the twin's id."""


async def ready(crew: Crew) -> Steps:
    twin = await one(crew)
    yield None
    yield twin


async def given_back(crew: Crew) -> Steps:
    twin = await one(crew)
    await crew.release(*await crew.claim())
    yield None
    yield twin


async def with_a_lost_lease(crew: Crew) -> Steps:
    twin = await one(crew)
    await crew.claim()
    await expire_leases(crew)
    yield None
    yield twin


async def in_a_paused_group(crew: Crew) -> Steps:
    made = await crew.create(K, isPaused=True)
    yield None
    yield made["tasks"][0]["id"]


async def paused(crew: Crew) -> Steps:
    twin = await one(crew)
    await crew.ask(PAUSE_TASKS, ids=[twin])
    yield None
    yield twin


async def suspended_and_aside(crew: Crew) -> Steps:
    twin = await one(crew, workgroup="w")
    await crew.ask(SUSPEND)

    async def aside() -> bool:
        return (await crew.sql("select from parked")) != []

    await until(aside)
    yield None
    yield twin


async def suspended_meanwhile(crew: Crew) -> Steps:
    yield None
    await crew.ask(SUSPEND)
    yield await one(crew, workgroup="w")


async def created(crew: Crew) -> Steps:
    yield None
    yield await one(crew, priority=20)


async def created_in_a_paused_group(crew: Crew) -> Steps:
    yield None
    made = await crew.create(K, isPaused=True)
    yield made["tasks"][0]["id"]


async def created_in_a_paused_channel(crew: Crew) -> Steps:
    yield None
    await crew.ask(PAUSE_CHANNEL)
    yield await one(crew)


async def continuing_another(crew: Crew) -> Steps:
    await crew.create({"name": "p", "channel": "p"})
    yield None
    (lease,) = await crew.claim(channels=("p",))
    await crew.complete(lease, children=[{**K, "channel": "c"}])
    task = await crew.task(lease["task"]["id"], "children { id }")
    yield task["children"][0]["id"]


async def blocked(crew: Crew) -> Steps:
    made = await crew.create({"name": "p", "ref": "p", "channel": "p"}, {**K, "parents": [{"ref": "p"}]})
    yield None
    await crew.complete(*await crew.claim(channels=("p",)))
    yield made["tasks"][1]["id"]


async def blocked_till_its_parent_fails(crew: Crew) -> Steps:
    child = {**K, "parents": [{"ref": "p"}], "onParentFailure": "RUN"}
    made = await crew.create({"name": "p", "ref": "p", "channel": "p"}, child)
    yield None
    await crew.fail(*await crew.claim(channels=("p",)), discard=True)
    yield made["tasks"][1]["id"]


async def scheduled(crew: Crew) -> Steps:
    twin = await one(crew, delaySeconds=1000)
    yield None
    await end_delays(crew)
    yield twin


async def backing_off(crew: Crew) -> Steps:
    twin = await one(crew)
    await crew.fail(*await crew.claim(), retryDelaySeconds=1000)
    yield None
    await end_delays(crew)
    yield twin


async def delayed_by_its_parent(crew: Crew) -> Steps:
    made = await crew.create({"name": "p", "ref": "p", "channel": "p"}, {**K, "parents": [{"ref": "p"}]})
    yield None
    await crew.complete(*await crew.claim(channels=("p",)), childrenDelaySeconds=1000)
    await end_delays(crew)
    yield made["tasks"][1]["id"]


async def failed(crew: Crew) -> Steps:
    twin = await one(crew)
    await crew.fail(*await crew.claim(), discard=True)
    yield None
    await crew.ask(RETRY, ids=[twin])
    yield twin


WAYS: list[tuple[Callable[[Crew], Steps], int]] = [
    (ready, 0),
    (given_back, 0),
    (with_a_lost_lease, 1),
    (in_a_paused_group, 0),
    (paused, 0),
    (suspended_and_aside, 0),
    (suspended_meanwhile, 0),
    (created, 0),
    (created_in_a_paused_group, 0),
    (created_in_a_paused_channel, 0),
    (continuing_another, 0),
    (blocked, 0),
    (blocked_till_its_parent_fails, 0),
    (scheduled, 0),
    (backing_off, 1),
    (delayed_by_its_parent, 0),
    (failed, 1),
]


@pytest.mark.parametrize(("way", "attempt"), WAYS, ids=[way.__name__ for way, _ in WAYS])
async def test_a_twin_is_taken_in_as_soon_as_it_is_ready_and_ends_with_the_one_that_runs(
    crew: Crew, way: Callable[[Crew], Steps], attempt: int
) -> None:
    steps = way(crew)
    await anext(steps)
    runner = await one(crew, name="runner", priority=10)
    (lease,) = await crew.claim(9)
    assert lease["task"]["id"] == runner
    twin = await anext(steps)
    assert twin is not None
    assert await look(crew, twin) == [("MERGED", attempt, 5 - attempt, runner)]
    assert await crew.task(twin, "heldBy notBefore") == {"heldBy": [], "notBefore": None}
    assert await crew.claim(9) == []
    await crew.complete(lease, output={"by": "runner"})
    assert await look(crew, twin) == [("SUCCEEDED", attempt + 1, 4 - attempt, runner)]
    assert (await crew.task(twin))["output"] == {"by": "runner"}


@pytest.mark.parametrize("state", ["BLOCKED", "SCHEDULED", "FAILED"])
async def test_what_is_not_ready_before_its_twin_has_ended_is_work_of_its_own(crew: Crew, state: str) -> None:
    twin = await existing(crew, state)
    runner = await one(crew)
    await crew.complete(*await crew.claim())
    assert (await look(crew, runner))[0][0] == "SUCCEEDED"
    assert (await crew.task(twin))["state"] == state
    if state == "FAILED":
        await crew.ask(RETRY, ids=[twin])
    elif state == "BLOCKED":
        await crew.complete(*await crew.claim(channels=("p",)))
    else:
        await end_delays(crew)
    (lease,) = await crew.claim(9)
    assert lease["task"]["id"] == twin
    await crew.complete(lease, output="own")
    assert await crew.task(twin, "output mergedInto { id }") == {"output": "own", "mergedInto": None}


async def test_a_task_made_after_its_twin_has_ended_is_new_work(crew: Crew) -> None:
    first = await one(crew)
    await crew.complete(*await crew.claim())
    second = await one(crew)
    assert await look(crew, first, second) == [("SUCCEEDED", 1, 4, None), ("READY", 0, 5, None)]
    (lease,) = await crew.claim()
    assert lease["task"]["id"] == second


@pytest.mark.parametrize("first", ["parent", "runner"])
async def test_a_twin_freed_in_the_very_call_that_ends_its_runner_is_not_stranded(crew: Crew, first: str) -> None:
    made = await crew.create({"name": "p", "ref": "p", "channel": "p"}, {**K, "parents": [{"ref": "p"}]})
    twin = made["tasks"][1]["id"]
    await one(crew)
    (parent,), (runner,) = await crew.claim(channels=("p",)), await crew.claim()
    leases = (parent, runner) if first == "parent" else (runner, parent)
    assert (await crew.complete(*leases))["completed"] == 2
    state = (await crew.task(twin))["state"]
    assert state in ("READY", "SUCCEEDED")
    assert len(await crew.claim(9)) == (state == "READY")
