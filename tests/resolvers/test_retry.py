"""Retries by people."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from tests.support.crew import Crew
from tests.support.wait import until


async def retry(crew: Crew, *ids: str, **more: Any) -> dict[str, Any]:
    query = (
        "mutation($ids: [ID!], $attempts: Int = 2) { retryTasks(ids: $ids, attempts: $attempts) "
        "{ affected tasks { id name state remainingAttempts attempt } } }"
    )
    return (await crew.ask(query, ids=list(ids), **more))["retryTasks"]


async def failed(crew: Crew, *names: str, **more: Any) -> list[str]:
    """Ids of new tasks that have failed."""
    made = await crew.create(*({"name": n, **more} for n in names))
    await crew.fail(*await crew.claim(len(names)), discard=True)
    return [t["id"] for t in made["tasks"]]


async def test_a_retried_task_is_ready_at_once_with_new_attempts(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    answer = await retry(crew, id, attempts=7)
    expected = {"id": id, "name": "a", "state": "READY", "remainingAttempts": 7, "attempt": 1}
    assert answer == {"affected": 1, "tasks": [expected]}
    (lease,) = await crew.claim()
    assert (lease["attempt"], lease["task"]["id"]) == (2, id)
    task = await crew.task(id, "remainingAttempts errors { attempt } finishedAt")
    assert task == {"remainingAttempts": 6, "errors": [{"attempt": 1}], "finishedAt": None}


async def test_a_retried_task_gets_two_attempts_by_default(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    assert (await retry(crew, id))["tasks"][0]["remainingAttempts"] == 2


async def test_only_failed_tasks_are_retried(crew: Crew) -> None:
    (id,) = await failed(crew, "failed")
    made = await crew.create(
        {"name": "done", "priority": 9},
        {"name": "running", "priority": 8},
        {"name": "ready", "ref": "r"},
        {"name": "blocked", "parents": [{"ref": "r"}]},
        {"name": "scheduled", "delaySeconds": 100},
    )
    done, _ = await crew.claim(2)
    await crew.complete(done)
    before = await crew.states(made["taskGroup"]["id"])
    answer = await retry(crew, *(t["id"] for t in made["tasks"]), str(uuid.uuid4()), id)
    assert answer["affected"] == 1
    assert [t["id"] for t in answer["tasks"]] == [id]
    assert await crew.states(made["taskGroup"]["id"]) == before


async def test_a_repeated_retry_changes_nothing(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    await retry(crew, id, attempts=3)
    assert await retry(crew, id, attempts=9) == {"affected": 0, "tasks": []}
    assert (await crew.task(id))["remainingAttempts"] == 3


async def test_an_id_named_twice_is_retried_once(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    assert (await retry(crew, id, id))["affected"] == 1


async def test_back_off_starts_over_after_a_retry(crew: Crew) -> None:
    made = await crew.create({"name": "a", "retry": {"delaySeconds": 10, "backoff": 10, "maxAttempts": 3}})
    id = made["tasks"][0]["id"]
    for _ in range(2):
        await crew.fail(*await crew.claim(), retryDelaySeconds=0)
    await crew.fail(*await crew.claim(), discard=True)
    await retry(crew, id)
    await crew.fail(*await crew.claim())
    (row,) = await crew.sql("select extract(epoch from run_at - now())::float8 as wait from scheduled")
    assert 7 <= row["wait"] <= 11


async def test_a_retry_wakes_a_claim_that_waits(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    claim = asyncio.create_task(crew.claim(waitSeconds=20))

    async def waits() -> bool:
        return crew.services.dispatcher.waiting == 1

    await until(waits)
    await retry(crew, id)
    (lease,) = await asyncio.wait_for(claim, 5)
    assert lease["task"]["id"] == id


async def test_many_are_retried_at_once(crew: Crew) -> None:
    ids = await failed(crew, *map(str, range(50)))
    assert (await retry(crew, *ids))["affected"] == 50
    assert len(await crew.claim(100)) == 50


async def test_a_retried_task_of_a_suspended_workgroup_waits_for_it(crew: Crew) -> None:
    (id,) = await failed(crew, "a", workgroup="w")
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { name } } }')
    assert (await retry(crew, id))["affected"] == 1
    assert await crew.claim() == []
    assert (await crew.task(id))["heldBy"] == ["WORKGROUP_SUSPENDED"]
