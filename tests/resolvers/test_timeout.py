"""Time-outs: an attempt that takes longer than its task allows has failed, whatever was extended."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests.support.crew import CREATE, Crew
from tests.support.wait import end_delays, expire_leases, move_clock, until

POLICY = {"maxAttempts": 5, "delaySeconds": 10, "backoff": 3}
LOOK = "state attempt remainingAttempts errors { attempt error workerId startedAt }"


async def one(crew: Crew, **task: Any) -> dict[str, Any]:
    """A lease on a new task that may take 100 s."""
    await crew.create({"name": "a", "timeoutSeconds": 100, **task})
    (lease,) = await crew.claim()
    return lease


async def time_out(crew: Crew) -> None:
    """Every deadline has passed. Returns when the server has seen it."""
    await move_clock(
        crew,
        "update lease set until = now() - interval '1 s', deadline = now() - interval '1 s' where deadline is not null",
    )

    async def none_left() -> bool:
        return (await crew.sql("select from lease where until < now()")) == []

    await until(none_left)


async def allowed(crew: Crew, lease: dict[str, Any], end: str | None = None) -> float:
    """Seconds from the start of the attempt to the end of its lease (or another instant)."""
    task = await crew.task(lease["task"]["id"], "startedAt leaseExpiresAt")
    start = datetime.fromisoformat(task["startedAt"])
    return (datetime.fromisoformat(end or task["leaseExpiresAt"]) - start).total_seconds()


async def wait_of(crew: Crew, id: str) -> float:
    """Seconds until it can be handed out; 0 when it can be now."""
    end = (await crew.task(id, "notBefore"))["notBefore"]
    now = (await crew.sql("select now() as now"))[0]["now"]
    return (datetime.fromisoformat(end) - now).total_seconds() if end else 0.0


# -- the deadline -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "lease", "expected"),
    [(100, 60, 60), (100, 1000, 100), (100, 100, 100), (5, 60, 5), (90_000, 86_400, 86_400), (None, 500, 500)],
)
async def test_a_lease_lasts_no_longer_than_the_task_may_take(
    crew: Crew, timeout: float | None, lease: float, expected: float
) -> None:
    await crew.create({"name": "a", "timeoutSeconds": timeout})
    (given,) = await crew.claim(leaseSeconds=lease)
    assert await allowed(crew, given) == pytest.approx(expected, abs=1e-3)
    assert await allowed(crew, given, given["expiresAt"]) == pytest.approx(expected, abs=1e-3)


async def test_each_of_a_claim_has_its_own_end(crew: Crew) -> None:
    times = [50, None, 20, 5000, 50]
    await crew.create(*({"name": str(n), "timeoutSeconds": s} for n, s in enumerate(times)))
    leases = await crew.claim(5, leaseSeconds=100)
    assert [x["task"]["name"] for x in leases] == ["0", "1", "2", "3", "4"]
    for lease, expected in zip(leases, (50, 100, 20, 100, 50), strict=True):
        assert await allowed(crew, lease, lease["expiresAt"]) == pytest.approx(expected, abs=1e-3)
        assert await allowed(crew, lease) == pytest.approx(expected, abs=1e-3)
    assert (await crew.complete(*leases))["completed"] == 5


@pytest.mark.parametrize("seconds", [50, 99, 200, 80_000])
async def test_no_extension_goes_past_the_deadline(crew: Crew, seconds: float) -> None:
    lease = await one(crew)
    for _ in range(3):
        answer = await crew.extend(lease, leaseSeconds=seconds)
        assert (answer["errors"], answer["suspended"]) == ([], [])
        end = await allowed(crew, lease, answer["expiresAt"])
        # So long from now is no less from the start; and an extension never shortens.
        assert max(60, min(seconds, 100)) - 1e-3 <= end <= 100 + 1e-3
        assert await allowed(crew, lease) == pytest.approx(end, abs=1e-3)
    assert (await crew.complete(lease))["completed"] == 1


async def test_extending_several_says_the_end_of_the_one_that_ends_first(crew: Crew) -> None:
    await crew.create({"name": "a", "timeoutSeconds": 100}, {"name": "b"}, {"name": "c", "timeoutSeconds": 30})
    a, b, c = await crew.claim(3)
    answer = await crew.extend(a, b, leaseSeconds=500)
    assert await allowed(crew, a, answer["expiresAt"]) == pytest.approx(100, abs=1e-3)
    assert await allowed(crew, b) >= 500
    answer = await crew.extend(a, b, c, leaseSeconds=500)
    assert await allowed(crew, c, answer["expiresAt"]) == pytest.approx(30, abs=1e-3)
    assert (await crew.complete(a, b, c))["completed"] == 3


async def test_each_attempt_has_its_time_from_its_own_start(crew: Crew) -> None:
    lease = await one(crew, retry={"delaySeconds": 0})
    starts = {(await crew.task(lease["task"]["id"], "startedAt"))["startedAt"]}
    for end in ("released", "failed", "lost", "timed out"):
        if end == "released":
            await crew.release(lease)
        elif end == "failed":
            await crew.fail(lease)
        elif end == "lost":
            await move_clock(crew, "update lease set until = now() - interval '1 s'")
        else:
            await time_out(crew)
        (lease,) = await crew.claim(leaseSeconds=1000, waitSeconds=20)
        assert await allowed(crew, lease) == pytest.approx(100, abs=1e-3)
        starts.add((await crew.task(lease["task"]["id"], "startedAt"))["startedAt"])
    assert len(starts) == 5


# -- what a time-out does -----------------------------------------------------------------------------------------------


async def test_a_time_out_is_a_failure_with_an_error_of_its_own_and_a_back_off(crew: Crew) -> None:
    lease = await one(crew, retry=POLICY)
    id = lease["task"]["id"]
    started = (await crew.task(id, "startedAt"))["startedAt"]
    await time_out(crew)
    task = await crew.task(id, LOOK)
    assert (task["state"], task["attempt"], task["remainingAttempts"]) == ("SCHEDULED", 1, 4)
    (error,) = task["errors"]
    assert (error["attempt"], error["workerId"], error["startedAt"]) == (1, "w", started)
    assert error["error"]["code"] == "TIMED_OUT"
    assert error["error"]["message"]
    assert 9 - 2 <= await wait_of(crew, id) <= 11
    for call in (crew.complete, crew.fail, crew.extend, crew.release):
        assert [e["code"] for e in (await call(lease))["errors"]] == ["LOST"]
    assert await crew.claim() == []
    await end_delays(crew)
    (second,) = await crew.claim()
    assert (second["attempt"], second["task"]["id"]) == (2, id)


async def test_time_outs_count_for_the_back_off_as_failures_do(crew: Crew) -> None:
    lease = await one(crew, retry=POLICY)
    id = lease["task"]["id"]
    for n, (end, expected) in enumerate([("timed out", 10), ("failed", 30), ("lost", 0), ("timed out", 90)], 1):
        if end == "timed out":
            await time_out(crew)
        elif end == "failed":
            await crew.fail(lease)
        else:
            await expire_leases(crew)
        task = await crew.task(id, LOOK)
        assert (task["attempt"], task["remainingAttempts"]) == (n, 5 - n)
        assert 0.9 * expected - 2 <= await wait_of(crew, id) <= 1.1 * expected
        await end_delays(crew)
        (lease,) = await crew.claim()
    codes = [
        e["error"]["code"] if isinstance(e["error"], dict) else e["error"]
        for e in (await crew.task(id, LOOK))["errors"]
    ]
    assert codes == ["TIMED_OUT", "no", "LEASE_EXPIRED", "TIMED_OUT"]


async def test_a_time_out_without_a_delay_makes_the_task_claimable_at_once(crew: Crew) -> None:
    lease = await one(crew, retry={"delaySeconds": 0})
    await time_out(crew)
    (second,) = await crew.claim()
    assert (second["attempt"], second["task"]["id"]) == (2, lease["task"]["id"])


async def test_a_time_out_of_the_last_attempt_fails_the_task_and_moves_its_children(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a", "timeoutSeconds": 1000, "retry": {"maxAttempts": 1}},
        *({"name": p, "parents": [{"ref": "a"}], "onParentFailure": p} for p in ("BLOCK", "CANCEL", "RUN")),
    )
    await crew.claim()
    await time_out(crew)
    assert await crew.states(made["taskGroup"]["id"]) == {
        "a": "FAILED",
        "BLOCK": "BLOCKED",
        "CANCEL": "CANCELLED",
        "RUN": "READY",
    }
    task = await crew.task(made["tasks"][0]["id"], "remainingAttempts finishedAt workerId errors { error }")
    assert (task["remainingAttempts"], task["workerId"]) == (0, "w")
    assert task["finishedAt"] is not None
    assert [e["error"]["code"] for e in task["errors"]] == ["TIMED_OUT"]


async def test_a_lease_that_runs_out_before_the_deadline_is_lost_and_not_timed_out(crew: Crew) -> None:
    lease = await one(crew, retry=POLICY)
    await expire_leases(crew)
    task = await crew.task(lease["task"]["id"], LOOK)
    assert (task["state"], task["attempt"], task["remainingAttempts"]) == ("READY", 1, 4)
    assert [e["error"]["code"] for e in task["errors"]] == ["LEASE_EXPIRED"]


async def test_only_what_has_a_time_out_times_out(crew: Crew) -> None:
    await crew.create({"name": "a", "timeoutSeconds": 100}, {"name": "b"}, {"name": "c", "timeoutSeconds": 100})
    a, b, c = await crew.claim(3)
    await time_out(crew)
    assert [(await crew.task(x["task"]["id"]))["state"] for x in (a, b, c)] == ["SCHEDULED", "RUNNING", "SCHEDULED"]
    done = await crew.complete(a, b, c)
    assert (done["completed"], [e["code"] for e in done["errors"]]) == (1, ["LOST", "LOST"])


async def test_an_extended_attempt_times_out_all_the_same(crew: Crew) -> None:
    lease = await one(crew, retry=POLICY)
    await crew.extend(lease, leaseSeconds=5000)
    await time_out(crew)
    task = await crew.task(lease["task"]["id"], LOOK)
    assert (task["state"], [e["error"]["code"] for e in task["errors"]]) == ("SCHEDULED", ["TIMED_OUT"])


async def test_a_short_time_out_ends_an_attempt_by_itself(crew: Crew) -> None:
    lease = await one(crew, timeoutSeconds=0.2, retry={"delaySeconds": 0})
    await crew.extend(lease, leaseSeconds=500)
    (second,) = await crew.claim(waitSeconds=20, workerId="second")
    assert (second["task"]["id"], second["attempt"]) == (lease["task"]["id"], 2)
    errors = (await crew.task(lease["task"]["id"], LOOK))["errors"]
    assert [(e["error"]["code"], e["workerId"]) for e in errors] == [("TIMED_OUT", "w")]
    assert (await crew.complete(lease))["errors"][0]["code"] == "LOST"


async def test_a_time_out_is_an_attempt_of_each_twin(crew: Crew) -> None:
    made = await crew.create(
        {"name": "runner", "key": "k", "timeoutSeconds": 100, "retry": {"delaySeconds": 10}},
        {"name": "eager", "key": "k", "retry": {"delaySeconds": 0}},
        {"name": "slow", "key": "k", "retry": {"delaySeconds": 50}, "timeoutSeconds": 5},
        {"name": "last", "key": "k", "retry": {"maxAttempts": 1}},
    )
    (lease,) = await crew.claim(9)
    assert await allowed(crew, lease) == pytest.approx(60, abs=1e-3)
    await time_out(crew)
    expected = {
        "runner": ("SCHEDULED", 4, 10),
        "eager": ("READY", 4, 0),
        "slow": ("SCHEDULED", 4, 50),
        "last": ("FAILED", 0, 0),
    }
    for task in made["tasks"]:
        state, remaining, delay = expected[task["name"]]
        found = await crew.task(task["id"], LOOK + " mergedInto { id }")
        assert (found["state"], found["attempt"], found["remainingAttempts"]) == (state, 1, remaining)
        assert [(e["attempt"], e["error"]["code"], e["workerId"]) for e in found["errors"]] == [(1, "TIMED_OUT", "w")]
        assert found["mergedInto"] is None
        assert 0.9 * delay - 2 <= await wait_of(crew, task["id"]) <= 1.1 * delay
    (lease,) = await crew.claim(9)
    assert lease["task"]["name"] == "eager"


async def test_a_cancelled_or_completed_attempt_times_out_no_more(crew: Crew) -> None:
    done, cancelled = await one(crew), await one(crew)
    await crew.complete(done)
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[cancelled["task"]["id"]])
    await time_out(crew)
    for lease, state in ((done, "SUCCEEDED"), (cancelled, "CANCELLED")):
        task = await crew.task(lease["task"]["id"], LOOK)
        assert (task["state"], task["errors"]) == (state, [])


# -- what is kept and what is refused -----------------------------------------------------------------------------------


async def test_a_time_out_is_read_back(crew: Crew) -> None:
    times = [None, 0.25, 100, 86_400]
    made = await crew.create(*({"name": "a", "timeoutSeconds": s} for s in times), {"name": "a"})
    found = [(await crew.task(t["id"], "timeoutSeconds"))["timeoutSeconds"] for t in made["tasks"]]
    assert found == [*times, None]


async def test_a_continuation_has_a_time_out_too(crew: Crew) -> None:
    lease = await one(crew)
    await crew.complete(lease, children=[{"name": "b", "channel": "c", "timeoutSeconds": 20}])
    (child,) = await crew.claim()
    assert await allowed(crew, child) == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("seconds", [0, -1, -0.001, 1e300, "10", True])
async def test_a_bad_time_out_is_refused(crew: Crew, seconds: Any) -> None:
    tasks = [{"name": "x", "channel": "c"}, {"name": "a", "channel": "c", "timeoutSeconds": seconds}]
    body = json.dumps({"query": CREATE, "variables": {"input": {"name": "g", "tasks": tasks}}})
    answer = await crew.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    (error,) = answer.json()["errors"]
    assert error["extensions"]["code"] == "BAD_INPUT"
    assert error["extensions"]["path"] == ["input", "tasks", 1, "timeoutSeconds"]
    assert await crew.sql("select from task") == []
