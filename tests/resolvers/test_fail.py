"""Failing: counting, discarding, and what is kept of it. How long it then waits is in test_backoff.py."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests.support.crew import Crew
from tests.support.wait import end_delays, expire_leases

POLICY = {"maxAttempts": 9, "delaySeconds": 10, "backoff": 3, "maxDelaySeconds": 200}


async def one(crew: Crew, **task: Any) -> dict[str, Any]:
    await crew.create({"name": "a", **task})
    (lease,) = await crew.claim()
    return lease


async def test_a_delay_of_nothing_makes_the_task_ready_at_once(crew: Crew) -> None:
    lease = await one(crew, retry={"delaySeconds": 0})
    (task,) = (await crew.fail(lease))["tasks"]
    assert (task["state"], task["notBefore"]) == ("READY", None)
    (second,) = await crew.claim()
    assert second["attempt"] == 2


async def test_a_kept_attempt_is_not_counted(crew: Crew) -> None:
    lease = await one(crew, retry=POLICY)
    (task,) = (await crew.fail(lease, keepAttempt=True, error="weather"))["tasks"]
    assert (task["state"], task["remainingAttempts"], task["attempt"]) == ("SCHEDULED", 9, 1)
    await end_delays(crew)
    await crew.fail(*await crew.claim())
    task = await crew.task(lease["task"]["id"], "remainingAttempts errors { error }")
    assert task == {"remainingAttempts": 8, "errors": [{"error": "weather"}, {"error": "no"}]}


async def test_a_task_can_be_kept_for_ever(crew: Crew) -> None:
    made = await crew.create({"name": "a", "retry": {"maxAttempts": 1, "delaySeconds": 0}})
    for n in range(1, 6):
        (lease,) = await crew.claim()
        assert lease["attempt"] == n
        (task,) = (await crew.fail(lease, keepAttempt=True))["tasks"]
        assert (task["state"], task["remainingAttempts"]) == ("READY", 1)
    (lease,) = await crew.claim()
    (task,) = (await crew.fail(lease))["tasks"]
    assert (task["state"], task["remainingAttempts"], task["id"]) == ("FAILED", 0, made["tasks"][0]["id"])


async def test_the_last_attempt_makes_it_failed(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a", "retry": {"maxAttempts": 2, "delaySeconds": 0}},
        {"name": "b", "parents": [{"ref": "a"}]},
    )
    for _ in range(2):
        await crew.fail(*await crew.claim())
    task = await crew.task(made["tasks"][0]["id"], "state attempt remainingAttempts finishedAt workerId notBefore")
    assert (task["state"], task["attempt"], task["remainingAttempts"]) == ("FAILED", 2, 0)
    assert task["finishedAt"] is not None
    assert task["workerId"] == "w"
    assert await crew.claim() == []
    assert (await crew.task(made["tasks"][1]["id"]))["state"] == "BLOCKED"


async def test_a_discarded_task_is_failed_whatever_remains(crew: Crew) -> None:
    lease = await one(crew)
    (task,) = (await crew.fail(lease, discard=True, retryDelaySeconds=5))["tasks"]
    assert task["state"] == "FAILED"
    assert await crew.claim() == []


# -- workgroups ---------------------------------------------------------------------------------------------------------


async def test_a_workgroup_delay_suspends_the_workgroup(crew: Crew) -> None:
    await crew.create(
        {"name": "a", "workgroup": "w", "retry": {"delaySeconds": 0}},
        {"name": "b", "workgroup": "w"},
        {"name": "c", "workgroup": "v"},
    )
    (lease,) = await crew.claim()
    (task,) = (await crew.fail(lease, workgroupDelaySeconds=100))["tasks"]
    assert task["state"] == "READY"
    assert task["notBefore"] is not None
    assert [x["task"]["name"] for x in await crew.claim(5)] == ["c"]
    shown = await crew.task(lease["task"]["id"], "heldBy")
    assert shown == {"heldBy": ["WORKGROUP_SUSPENDED"]}


async def test_a_rate_limited_attempt_that_is_kept_waits_for_the_workgroup_alone(crew: Crew) -> None:
    lease = await one(crew, workgroup="w", retry=POLICY)
    (task,) = (await crew.fail(lease, workgroupDelaySeconds=50, keepAttempt=True))["tasks"]
    assert (task["state"], task["remainingAttempts"]) == ("READY", 9)
    until = (await crew.ask('{ workgroup(name: "w") { suspendedUntil } }'))["workgroup"]["suspendedUntil"]
    assert task["notBefore"] == until


# -- what is kept -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", ["", "no", {"code": 429, "detail": ["x", None]}, {}, 0, False, "ü🌍", {"message": ""}], ids=repr
)
async def test_an_error_is_kept_as_sent(crew: Crew, error: Any) -> None:
    lease = await one(crew)
    assert (await crew.fail(lease, error=error))["failed"] == 1
    task = await crew.task(lease["task"]["id"], "startedAt errors { attempt error workerId startedAt at }")
    (kept,) = task["errors"]
    assert json.dumps(kept["error"]) == json.dumps(error)
    assert (kept["attempt"], kept["workerId"]) == (1, "w")
    assert datetime.fromisoformat(kept["startedAt"]) <= datetime.fromisoformat(kept["at"])
    assert kept["startedAt"] == task["startedAt"]


async def test_errors_are_listed_oldest_first_with_their_workers(crew: Crew) -> None:
    made = await crew.create({"name": "a", "retry": {"delaySeconds": 0}})
    for n in range(1, 5):
        (lease,) = await crew.claim(workerId=f"w{n}")
        await crew.fail(lease, error={"n": n})
    id = made["tasks"][0]["id"]
    task = await crew.task(id, "errors { attempt error workerId }")
    assert task["errors"] == [{"attempt": n, "error": {"n": n}, "workerId": f"w{n}"} for n in range(1, 5)]
    assert (await crew.task(id, "errors(last: 2) { attempt }"))["errors"] == [{"attempt": 3}, {"attempt": 4}]
    assert (await crew.task(id, "errors(last: 0) { attempt }"))["errors"] == []


async def test_the_first_error_and_the_newest_99_are_kept(crew: Crew) -> None:
    made = await crew.create({"name": "a", "retry": {"maxAttempts": 1000, "delaySeconds": 0}})
    for _ in range(103):
        await crew.fail(*await crew.claim())
    task = await crew.task(made["tasks"][0]["id"], "errors { attempt }")
    assert [e["attempt"] for e in task["errors"]] == [1, *range(5, 104)]


# -- repeats ------------------------------------------------------------------------------------------------------------


async def test_a_repeated_fail_counts_and_changes_nothing(crew: Crew) -> None:
    lease = await one(crew)
    await crew.fail(lease, error="first")
    before = await crew.task(lease["task"]["id"], "state attempt remainingAttempts notBefore errors { error }")
    again = await crew.fail(lease, error="second", discard=True)
    assert (again["failed"], again["errors"], len(again["tasks"])) == (1, [], 1)
    assert await crew.task(lease["task"]["id"], "state attempt remainingAttempts notBefore errors { error }") == before
    assert [e["error"] for e in before["errors"]] == ["first"]


async def test_a_repeated_fail_counts_while_another_worker_has_the_task(crew: Crew) -> None:
    lease = await one(crew, retry={"delaySeconds": 0})
    await crew.fail(lease)
    (second,) = await crew.claim(workerId="second")
    again = await crew.fail(lease, workgroupDelaySeconds=10)
    assert (again["failed"], again["errors"]) == (1, [])
    assert (await crew.complete(second))["completed"] == 1
    assert (await crew.fail(lease))["failed"] == 1
    assert (await crew.task(lease["task"]["id"]))["state"] == "SUCCEEDED"


@pytest.mark.parametrize("end", ["completed", "released", "expired"])
async def test_a_fail_of_a_lease_that_ended_otherwise_is_lost(crew: Crew, end: str) -> None:
    lease = await one(crew)
    if end == "completed":
        await crew.complete(lease)
    elif end == "released":
        await crew.release(lease)
    else:
        await expire_leases(crew)
    before = await crew.task(lease["task"]["id"], "state attempt errors { attempt }")
    done = await crew.fail(lease)
    assert (done["failed"], done["tasks"]) == (0, [])
    (error,) = done["errors"]
    assert (error["index"], error["lease"], error["code"], error["path"]) == (0, lease["id"], "LOST", None)
    assert await crew.task(lease["task"]["id"], "state attempt errors { attempt }") == before


async def test_part_of_a_claim_can_fail(crew: Crew) -> None:
    await crew.create(*({"name": n} for n in "abc"))
    a, b, c = await crew.claim(3)
    assert (await crew.fail(b))["failed"] == 1
    assert (await crew.complete(a, c))["completed"] == 2


async def test_null_is_no_error(crew: Crew) -> None:
    lease = await one(crew)
    query = 'mutation { failTasks(input: {failures: [{lease: "%s", error: null}]}) { failed } }' % lease["id"]
    answer = (await crew.send(query)).json()
    assert answer["errors"]
    assert (await crew.task(lease["task"]["id"]))["state"] == "RUNNING"


# -- leases that run out ------------------------------------------------------------------------------------------------


async def test_a_lease_that_runs_out_counts_and_its_task_is_claimable_at_once(crew: Crew) -> None:
    lease = await one(crew, retry=POLICY)
    await expire_leases(crew)
    task = await crew.task(
        lease["task"]["id"], "state attempt remainingAttempts notBefore errors { attempt error workerId startedAt }"
    )
    assert (task["state"], task["attempt"], task["remainingAttempts"], task["notBefore"]) == ("READY", 1, 8, None)
    (error,) = task["errors"]
    assert (error["attempt"], error["workerId"]) == (1, "w")
    assert error["startedAt"] is not None
    assert error["error"]["code"] == "LEASE_EXPIRED"
    assert "w" in error["error"]["message"]
    assert error["error"]["workerId"] == "w"
    (second,) = await crew.claim()
    assert second["attempt"] == 2
    assert second["id"] != lease["id"]


async def test_a_task_whose_last_lease_runs_out_is_failed_and_can_be_retried(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a", "retry": {"maxAttempts": 1}}, {"name": "b", "parents": [{"ref": "a"}]}
    )
    id, child = (t["id"] for t in made["tasks"])
    await crew.claim()
    await expire_leases(crew)
    task = await crew.task(id, "state remainingAttempts finishedAt errors { error }")
    assert (task["state"], task["remainingAttempts"], len(task["errors"])) == ("FAILED", 0, 1)
    assert task["finishedAt"] is not None
    assert (await crew.task(child))["state"] == "BLOCKED"
    assert await crew.claim() == []
    await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=[id])
    (lease,) = await crew.claim()
    assert lease["attempt"] == 2
    await crew.complete(lease)
    assert (await crew.task(child))["state"] == "READY"


async def test_a_short_lease_runs_out_by_itself(crew: Crew) -> None:
    await crew.create({"name": "a"})
    (lease,) = await crew.claim(leaseSeconds=1)
    (second,) = await crew.claim(waitSeconds=20, workerId="second")
    assert second["task"]["id"] == lease["task"]["id"]
    assert (await crew.complete(lease))["errors"][0]["code"] == "LOST"
