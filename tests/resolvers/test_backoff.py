"""Back-off: how long a task waits after an attempt has ended badly."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.support.crew import Crew
from tests.support.wait import end_delays, expire_leases

Span = tuple[float, float]
Step = tuple[dict[str, Any] | str, Span | str]
"""How the attempt ends (fields of failTasks; or lost, released, retried), and how long the task then waits, or FAILED."""


def about(seconds: float) -> Span:
    """Give or take a tenth."""
    return 0.9 * seconds, 1.1 * seconds


def exactly(seconds: float) -> Span:
    return seconds, seconds


NONE: Span = (0, 0)
FAIL: dict[str, Any] = {}
KEEP = {"keepAttempt": True}
DISCARD: Step = ({"discard": True}, "FAILED")
RETRIED: Step = ("retried", NONE)
TRIPLE = {"maxAttempts": 9, "delaySeconds": 10, "backoff": 3, "maxDelaySeconds": 200}


def fails(*seconds: float) -> list[Step]:
    return [(FAIL, about(s)) for s in seconds]


def after(seconds: float, **given: Any) -> Step:
    return {"retryDelaySeconds": seconds, **given}, exactly(seconds)


CASES: dict[str, tuple[dict[str, Any], list[Step]]] = {
    # delay × backoff^(n−1), capped
    "by default 30 s": ({}, fails(30, 30, 30, 30)),
    "fixed": ({"delaySeconds": 10}, fails(10, 10, 10)),
    "doubled": ({"delaySeconds": 10, "backoff": 2, "maxAttempts": 9}, fails(10, 20, 40, 80, 160)),
    "tripled up to a cap": (TRIPLE, fails(10, 30, 90, 200, 200)),
    "half as much again": ({"delaySeconds": 8, "backoff": 1.5}, fails(8, 12, 18, 27)),
    "a fifth more": ({"delaySeconds": 2.5, "backoff": 1.2}, fails(2.5, 3, 3.6)),
    "a cap below the delay": ({"delaySeconds": 100, "maxDelaySeconds": 30, "backoff": 2}, fails(30, 30)),
    "a cap of an hour by default": ({"delaySeconds": 1000, "backoff": 10}, fails(1000, 3600, 3600)),
    "steep": (
        {"delaySeconds": 1, "backoff": 100, "maxDelaySeconds": 1_000_000, "maxAttempts": 20},
        fails(1, 100, 10_000, *[1_000_000] * 12),
    ),
    "no delay": ({"delaySeconds": 0, "backoff": 10}, [(FAIL, NONE)] * 3),
    "a cap of nothing": ({"delaySeconds": 100, "maxDelaySeconds": 0}, [(FAIL, NONE)] * 3),
    # what takes its place
    "a delay of the call is taken exactly": (TRIPLE, [after(7.5), after(100_000)]),
    "a delay of the call knows no cap": ({"delaySeconds": 1, "maxDelaySeconds": 2}, [after(500)]),
    "a delay of the call may be nothing": (TRIPLE, [after(0)]),
    "a delay of the call counts for the next": (TRIPLE, [after(0), after(5), (FAIL, about(90))]),
    # what does not count
    "a kept attempt": (TRIPLE, [(KEEP, about(10)), (KEEP, about(10)), *fails(10, 30)]),
    "a kept attempt with a delay of its own": (TRIPLE, [after(70, **KEEP), after(0, **KEEP), *fails(10, 30)]),
    "a lost lease": (TRIPLE, [("lost", NONE), ("lost", NONE), *fails(10), ("lost", NONE), *fails(30, 90)]),
    "a released lease": (TRIPLE, [("released", NONE), *fails(10), ("released", NONE), *fails(30)]),
    # a person's retry starts over
    "after a discard": (TRIPLE, [*fails(10, 30), DISCARD, RETRIED, *fails(10)]),
    "after the last attempt": ({**TRIPLE, "maxAttempts": 2}, [*fails(10), (FAIL, "FAILED"), RETRIED, *fails(10)]),
    "after each retry": (TRIPLE, [*fails(10, 30), *[DISCARD, RETRIED, *fails(10)] * 3]),
    "after a lost last attempt": ({**TRIPLE, "maxAttempts": 2}, [*fails(10), ("lost", "FAILED"), RETRIED, *fails(10)]),
    # workgroupDelaySeconds without a workgroup: at least so long
    "a longer workgroup delay": ({"delaySeconds": 1}, [({"workgroupDelaySeconds": 100}, exactly(100))]),
    "a shorter workgroup delay": ({"delaySeconds": 1000}, [({"workgroupDelaySeconds": 100}, about(1000))]),
    "a workgroup delay of nothing": ({"delaySeconds": 0}, [({"workgroupDelaySeconds": 0}, NONE)]),
    "a workgroup delay and no own": ({"delaySeconds": 0}, [({"workgroupDelaySeconds": 100}, exactly(100))]),
    "a workgroup delay longer than the call's": ({}, [({"workgroupDelaySeconds": 50, "retryDelaySeconds": 5}, exactly(50))]),
    "a workgroup delay shorter than the call's": (
        {},
        [({"workgroupDelaySeconds": 50, "retryDelaySeconds": 80}, exactly(80))],
    ),
    "a workgroup delay beyond the cap": ({"maxDelaySeconds": 10}, [({"workgroupDelaySeconds": 50}, exactly(50))]),
    "a workgroup delay counts": (TRIPLE, [({"workgroupDelaySeconds": 50}, exactly(50)), *fails(30)]),
    "a kept one with a workgroup delay does not": (
        TRIPLE,
        [({"workgroupDelaySeconds": 50, **KEEP}, exactly(50)), *fails(10)],
    ),
    "a discard has none": (TRIPLE, [({"workgroupDelaySeconds": 50, "discard": True}, "FAILED")]),
}  # fmt: skip


async def waits(crew: Crew, id: str) -> float:
    """From the failure to the time of the next attempt, both by the database's clock."""
    task = await crew.task(id, "notBefore errors(last: 1) { at }")
    if task["notBefore"] is None:
        return 0.0
    at = datetime.fromisoformat(task["errors"][0]["at"])
    return (datetime.fromisoformat(task["notBefore"]) - at).total_seconds()


@pytest.mark.parametrize("case", CASES)
async def test_a_task_waits_as_its_policy_says(crew: Crew, case: str) -> None:
    policy, steps = CASES[case]
    id = (await crew.create({"name": "a", "retry": policy}))["tasks"][0]["id"]
    for n, (how, expected) in enumerate(steps, 1):
        if how == "retried":
            answer = await crew.ask(
                "mutation($ids: [ID!]) { retryTasks(ids: $ids, attempts: 9) { affected } }", ids=[id]
            )
            assert answer == {"retryTasks": {"affected": 1}}
        else:
            (lease,) = await crew.claim()
            if how == "lost":
                await expire_leases(crew)
            elif how == "released":
                await crew.release(lease)
            else:
                assert isinstance(how, dict)
                assert (await crew.fail(lease, **how))["failed"] == 1
        state = (await crew.task(id, "state"))["state"]
        if isinstance(expected, str):
            assert state == expected, n
            continue
        low, high = expected
        assert state == ("SCHEDULED" if high else "READY"), n
        assert low - 1e-3 <= await waits(crew, id) <= high + 1e-3, n
        await end_delays(crew)
    assert await crew.sql("select from hold") == []


@pytest.mark.parametrize(
    ("policy", "nominal"),
    [({"delaySeconds": 1000}, 1000), ({"delaySeconds": 1000, "maxDelaySeconds": 500}, 500)],
    ids=["plain", "capped"],
)
async def test_delays_are_spread_over_a_tenth_either_way(crew: Crew, policy: dict[str, Any], nominal: float) -> None:
    await crew.create(*({"name": "a", "retry": policy} for _ in range(200)))
    await crew.fail(*await crew.claim(200))
    rows = await crew.sql(
        "select extract(epoch from s.run_at - e.at)::float8 as wait from scheduled s join error e using (ns, no)"
    )
    found = sorted(row["wait"] / nominal for row in rows)
    assert len(set(found)) > 150
    assert 0.9 - 1e-5 <= found[0] < 0.93
    assert 1.07 < found[-1] <= 1.1 + 1e-5
    assert 0.95 < found[100] < 1.05


async def test_a_delay_of_the_call_is_not_spread(crew: Crew) -> None:
    await crew.create(*({"name": "a"} for _ in range(20)))
    await crew.fail(*await crew.claim(20), retryDelaySeconds=50)
    rows = await crew.sql(
        "select distinct extract(epoch from s.run_at - e.at)::float8 as wait from scheduled s join error e using (ns, no)"
    )
    assert [row["wait"] for row in rows] == [50]


async def test_each_of_a_call_waits_by_its_own_policy_and_count(crew: Crew) -> None:
    made = await crew.create(
        {"name": "old", "retry": {"delaySeconds": 10, "backoff": 3}},
        {"name": "new", "retry": {"delaySeconds": 10, "backoff": 3}},
        {"name": "other", "retry": {"delaySeconds": 500}},
        {"name": "last", "retry": {"maxAttempts": 1}},
    )
    await crew.fail(*await crew.claim(), retryDelaySeconds=0)
    failed = await crew.fail(*await crew.claim(4))
    assert [t["state"] for t in failed["tasks"]] == ["SCHEDULED", "SCHEDULED", "SCHEDULED", "FAILED"]
    for task, nominal in zip(made["tasks"], (30, 10, 500, 0), strict=True):
        low, high = about(nominal)
        assert low - 1e-3 <= await waits(crew, task["id"]) <= high + 1e-3
