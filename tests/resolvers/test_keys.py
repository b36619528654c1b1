"""Keys: tasks of one channel with the same key are the same work, which is done once for all of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.crew import COMPLETE, Crew, crew_on
from tests.support.keys import (
    CANCEL,
    EAGER,
    RETRY,
    K,
    look,
    names,
    one,
    wait_of,
)
from tests.support.wait import end_delays, expire_leases, until

# -- who runs, who rides ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("priorities", "best"), [((0, 0, 0), 0), ((0, 5, 0), 1), ((-1, 0, 0), 1), ((1, 1, 2), 2)])
@pytest.mark.parametrize("limit", [1, 9])
async def test_the_best_of_its_key_runs_and_the_others_ride_with_it_across_groups(
    crew: Crew, priorities: tuple[int, ...], best: int, limit: int
) -> None:
    ids = [await one(crew, priority=p) for p in priorities]
    (lease,) = await crew.claim(limit)
    assert lease["task"]["id"] == ids[best]
    expected: list[tuple[Any, ...]] = [("MERGED", 0, 5, ids[best])] * 3
    expected[best] = ("RUNNING", 1, 4, None)
    assert await look(crew, *ids) == expected
    assert await crew.claim(9) == []


async def test_twins_that_a_claim_meets_count_in_its_limit_and_the_next_finds_the_others_gone(crew: Crew) -> None:
    await crew.create(*({"name": f"k{n}", "key": "k"} for n in range(30)), {"name": "x"}, {"name": "y"})
    assert names(await crew.claim(2)) == ["k0"]
    assert names(await crew.claim(3)) == ["x", "y"]


async def test_a_claim_of_many_keys_runs_one_of_each(crew: Crew) -> None:
    await crew.create(*({"name": f"{key}{n}", "key": key} for n in range(3) for key in "abc"))
    assert names(await crew.claim(9)) == ["a0", "b0", "c0"]
    assert await crew.claim(9) == []


APART: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another channel": ({"key": "k"}, {"key": "k", "channel": "d"}),
    "another key": ({"key": "k"}, {"key": "l"}),
    "another case": ({"key": "k"}, {"key": "K"}),
    "a space more": ({"key": "k"}, {"key": "k "}),
    "no key": ({"key": "k"}, {}),
    "neither a key": ({}, {}),
    "null keys": ({"key": None}, {"key": None}),
    "ALLOW beside MERGE": ({"key": "k"}, {"key": "k", "onDuplicate": "ALLOW"}),
    "ALLOW before MERGE": ({"key": "k", "onDuplicate": "ALLOW"}, {"key": "k"}),
    "ALLOW beside ALLOW": ({"key": "k", "onDuplicate": "ALLOW"}, {"key": "k", "onDuplicate": "ALLOW"}),
}


@pytest.mark.parametrize("case", APART)
async def test_what_is_not_the_same_work_runs_beside_it(crew: Crew, case: str) -> None:
    made = await crew.create(*({"name": n, **task} for n, task in zip("ab", APART[case], strict=True)))
    a, b = await crew.claim(9, ("c", "d"))
    ids = [t["id"] for t in made["tasks"]]
    assert {a["task"]["id"], b["task"]["id"]} == set(ids)
    await crew.complete(a)
    assert (await crew.task(b["task"]["id"]))["state"] == "RUNNING"
    assert (await crew.complete(b))["completed"] == 1


@pytest.mark.parametrize("policy", [None, "MERGE", "RETURN_EXISTING", "REJECT"])
async def test_whatever_its_policy_short_of_allow_a_task_of_a_key_merges(crew: Crew, policy: str | None) -> None:
    first, second = await one(crew, onDuplicate=policy), await one(crew)
    assert len(await crew.claim(9)) == 1
    assert await look(crew, first, second) == [("RUNNING", 1, 4, None), ("MERGED", 0, 5, first)]


async def test_allowed_twins_are_not_taken_in_while_one_runs(crew: Crew) -> None:
    runner = await one(crew)
    (lease,) = await crew.claim()
    allowed = await one(crew, onDuplicate="ALLOW")
    assert await look(crew, allowed) == [("READY", 0, 5, None)]
    await crew.complete(lease)
    assert await look(crew, runner, allowed) == [("SUCCEEDED", 1, 4, None), ("READY", 0, 5, None)]


async def test_claims_that_come_together_at_two_servers_run_a_key_once(crew: Crew) -> None:
    ids = [await one(crew) for _ in range(20)]
    async with crew_on(crew.dsn) as other:
        shares = await asyncio.gather(*(c.claim(5) for c in (crew, other) for _ in range(5)))
        (lease,) = [x for share in shares for x in share]
        runner = lease["task"]["id"]
        rest = [i for i in ids if i != runner]
        assert await look(other, *rest) == [("MERGED", 0, 5, runner)] * 19
        await other.complete(lease)
    assert {state for state, *_ in await look(crew, *ids)} == {"SUCCEEDED"}


async def test_keys_are_read_back_filtered_and_counted(crew: Crew) -> None:
    made = await crew.create(
        *({"name": n, "key": "k"} for n in "ab"),
        {"name": "c", "key": "l"},
        {"name": "d", "key": "k", "onDuplicate": "ALLOW"},
        {"name": "e"},
    )
    assert [(await crew.task(t["id"], "key"))["key"] for t in made["tasks"]] == ["k", "k", "l", "k", None]
    assert len(await crew.claim(1)) == 1
    query = "query($f: TaskFilter) { tasks(filter: $f, orderBy: CREATED_ASC) { totalCount nodes { name } } }"
    for given, expected in (
        ({"key": "k"}, "abd"),
        ({"key": "l"}, "c"),
        ({"key": "k", "states": ["MERGED"]}, "b"),
        ({"key": "K"}, ""),
        ({"key": None}, "abcde"),
    ):
        found = (await crew.ask(query, f=given))["tasks"]
        assert ([n["name"] for n in found["nodes"]], found["totalCount"]) == (list(expected), len(expected)), given
    group = made["taskGroup"]["id"]
    counts = "counts { state count }"
    query = f'query($id: ID!) {{ channel(name: "c") {{ {counts} }} taskGroup(id: $id) {{ progress {{ {counts} }} }} }}'
    answer = await crew.ask(query, id=group)
    expected_counts = [{"state": s, "count": n} for s, n in (("READY", 3), ("RUNNING", 1), ("MERGED", 1))]
    assert answer["channel"]["counts"] == expected_counts
    assert answer["taskGroup"]["progress"]["counts"] == expected_counts


# -- success ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [{"a": 1}, 0, "", False, None], ids=repr)
async def test_all_end_with_the_same_output_and_their_children_follow(crew: Crew, output: Any) -> None:
    made = [
        await crew.create(
            {**K, "name": f"k{n}", "ref": "k", "priority": -n},
            {"name": f"child {n}", "channel": "d", "parents": [{"ref": "k"}]},
        )
        for n in range(3)
    ]
    runner, *twins = (m["tasks"][0]["id"] for m in made)
    children = [m["tasks"][1]["id"] for m in made]
    (lease,) = await crew.claim(9)
    for child in children:
        assert (await crew.task(child))["state"] == "BLOCKED"
    await crew.complete(lease, output=output)
    assert await look(crew, runner, *twins) == [("SUCCEEDED", 1, 4, None)] + [("SUCCEEDED", 1, 4, runner)] * 2
    for twin in twins:
        task = await crew.task(twin, "output finishedAt errors { error }")
        assert json.dumps(task["output"]) == json.dumps(output)
        assert task["finishedAt"] is not None
        assert task["errors"] == []
    query = "mutation($i: ClaimTasksInput!) { claimTasks(input: $i) { leases { id parents { name state output } } } }"
    leases = (await crew.ask(query, i={"workerId": "w", "channels": ["d"], "limit": 9}))["claimTasks"]["leases"]
    parents = [{"name": f"k{n}", "state": "SUCCEEDED", "output": output} for n in range(3)]
    assert sorted((x["parents"][0] for x in leases), key=lambda p: p["name"]) == parents
    assert [len(x["parents"]) for x in leases] == [1, 1, 1]
    await crew.complete(*leases)
    for m in made:
        group = await crew.ask("query($id: ID!) { taskGroup(id: $id) { finishedAt } }", id=m["taskGroup"]["id"])
        assert group["taskGroup"]["finishedAt"] is not None


async def test_a_child_of_several_twins_is_freed_once_when_all_have_ended(crew: Crew) -> None:
    made = await crew.create(
        *({**K, "ref": str(n)} for n in range(5)),
        {"name": "child", "channel": "d", "parents": [{"ref": str(n)} for n in range(5)]},
    )
    await crew.complete(*await crew.claim())
    (lease,) = await crew.claim(9, ("d",))
    assert lease["task"]["id"] == made["tasks"][5]["id"]
    assert (lease["attempt"], (await crew.complete(lease))["completed"]) == (1, 1)


async def test_hundreds_of_twins_end_once_each(crew: Crew) -> None:
    tasks = [{**K, "ref": str(n)} for n in range(400)]
    await crew.create(*tasks, *({"name": "x", "channel": "d", "parents": [{"ref": str(n)}]} for n in range(400)))
    (lease,) = await crew.claim(1000)
    await asyncio.gather(*(crew.complete(lease, output=1) for _ in range(5)))
    rows = await crew.sql("select count(*)::int as n from done")
    assert rows[0]["n"] == 400
    assert len(await crew.claim(1000, ("d",))) == 400


async def test_continuations_and_their_delay_are_the_runners_alone(crew: Crew) -> None:
    made = await crew.create(
        {**K, "ref": "a"},
        {**K, "ref": "b"},
        {"name": "child of a", "channel": "d", "parents": [{"ref": "a"}]},
        {"name": "child of b", "channel": "d", "parents": [{"ref": "b"}]},
    )
    a, b = (t["id"] for t in made["tasks"][:2])
    (lease,) = await crew.claim(9)
    await crew.complete(lease, children=[{"name": "new", "channel": "d"}], childrenDelaySeconds=1000)
    task = await crew.task(a, "children { name state spawnedBy { id } }")
    assert [(c["name"], c["state"]) for c in task["children"]] == [("child of a", "SCHEDULED"), ("new", "SCHEDULED")]
    assert task["children"][1]["spawnedBy"] == {"id": a}
    assert (await crew.task(b, "children { name state }"))["children"] == [{"name": "child of b", "state": "READY"}]


@pytest.mark.parametrize("policy", ["MERGE", "RETURN_EXISTING", "REJECT", "ALLOW"])
async def test_a_continuation_with_its_spawners_own_key_is_new_work(crew: Crew, policy: str) -> None:
    """The spawner has ended in the transaction that makes it."""
    spawner, twin = await one(crew), await one(crew)
    (lease,) = await crew.claim()
    done = await crew.complete(lease, children=[{**K, "channel": "c", "name": "again", "onDuplicate": policy}])
    assert (done["completed"], done["errors"]) == (1, [])
    (child,) = (await crew.task(spawner, "children { id state }"))["children"]
    assert child["state"] == "READY"
    assert (await look(crew, twin))[0][0] == "SUCCEEDED"
    assert [x["task"]["id"] for x in await crew.claim(9)] == [child["id"]]


async def test_a_chain_of_one_key_runs_link_by_link(crew: Crew) -> None:
    tasks = [{**K, "name": str(n), "ref": str(n), "parents": [{"ref": str(n - 1)}] if n else []} for n in range(4)]
    await crew.create(*tasks)
    for n in range(4):
        (lease,) = await crew.claim(9)
        assert lease["task"]["name"] == str(n)
        await crew.complete(lease)


async def test_a_repeated_completion_touches_no_later_twin(crew: Crew) -> None:
    await one(crew)
    (lease,) = await crew.claim()
    await crew.complete(lease, output=1)
    later = await one(crew)
    assert (await crew.complete(lease, output=2))["completed"] == 1
    assert await look(crew, later) == [("READY", 0, 5, None)]


async def test_a_lost_lease_ends_no_twin(crew: Crew) -> None:
    first, second = await one(crew), await one(crew)
    (stale,) = await crew.claim()
    await crew.release(stale)
    (lease,) = await crew.claim()
    for call in (crew.complete, crew.fail, crew.release):
        assert [e["code"] for e in (await call(stale))["errors"]] == ["LOST"]
    assert await look(crew, first, second) == [("RUNNING", 1, 4, None), ("MERGED", 0, 5, first)]
    assert (await crew.complete(lease))["completed"] == 1


async def test_a_lost_lease_beside_a_good_one_brings_no_twin_of_the_later_claim(crew: Crew) -> None:
    """The runner is claimed again, in one lease with a task of another key. (The twin was taken for one that ends.)"""
    runner, twin = await one(crew, priority=1), await one(crew)
    (lost,) = await crew.claim()
    await expire_leases(crew)
    await one(crew, key="other")
    leases = await crew.claim(3)
    other = next(lease for lease in leases if lease["task"]["id"] not in (runner, twin))
    results = [{"lease": lost["id"]}, {"lease": other["id"], "children": [{"name": "child", "channel": "c"}]}]
    done = (await crew.ask(COMPLETE, input={"results": results}))["completeTasks"]
    assert (done["completed"], [error["code"] for error in done["errors"]]) == (1, ["LOST"])
    assert [s for s, *_ in await look(crew, runner, twin)] == ["RUNNING", "MERGED"]


# -- failure ------------------------------------------------------------------------------------------------------------

TWINS: dict[str, dict[str, Any]] = {
    "runner": {"maxAttempts": 3, "delaySeconds": 10},
    "eager": {"delaySeconds": 0},
    "slow": {"delaySeconds": 100},
    "last": {"maxAttempts": 1, "delaySeconds": 0},
}
FAILURES: dict[str, tuple[dict[str, Any], list[tuple[str, int | None, float]]]] = {
    # fields of failTasks; then of each of TWINS: state, remaining attempts (None: whatever), delay
    "counted": ({}, [("SCHEDULED", 2, 10), ("READY", 4, 0), ("SCHEDULED", 4, 100), ("FAILED", 0, 0)]),
    "kept": ({"keepAttempt": True}, [("SCHEDULED", 3, 10), ("READY", 5, 0), ("SCHEDULED", 5, 100), ("READY", 1, 0)]),
    "discarded": ({"discard": True}, [("FAILED", None, 0)] * 4),
    "at once": ({"retryDelaySeconds": 0}, [("READY", 2, 0), ("READY", 4, 0), ("READY", 4, 0), ("FAILED", 0, 0)]),
    "later": (
        {"retryDelaySeconds": 50},
        [("SCHEDULED", 2, 50), ("SCHEDULED", 4, 50), ("SCHEDULED", 4, 50), ("FAILED", 0, 0)],
    ),
    "kept for later": (
        {"keepAttempt": True, "retryDelaySeconds": 50},
        [("SCHEDULED", 3, 50), ("SCHEDULED", 5, 50), ("SCHEDULED", 5, 50), ("SCHEDULED", 1, 50)],
    ),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_failed_attempt_is_one_of_each_and_each_goes_on_by_its_own_policy(crew: Crew, case: str) -> None:
    given, expected = FAILURES[case]
    ids = {n: await one(crew, name=n, retry=retry, priority=int(n == "runner")) for n, retry in TWINS.items()}
    (lease,) = await crew.claim(9)
    assert lease["task"]["name"] == "runner"
    failed = await crew.fail(lease, error={"why": 1}, **given)
    assert (failed["failed"], [t["name"] for t in failed["tasks"]]) == (1, ["runner"])
    for (name, id), (state, remaining, delay) in zip(ids.items(), expected, strict=True):
        task = await crew.task(
            id, "state attempt remainingAttempts mergedInto { id } errors { attempt error workerId }"
        )
        assert (task["state"], task["attempt"], task["mergedInto"]) == (state, 1, None), name
        if remaining is not None:
            assert task["remainingAttempts"] == remaining, name
        assert task["errors"] == [{"attempt": 1, "error": {"why": 1}, "workerId": "w"}], name
        assert 0.9 * delay - 2 <= await wait_of(crew, id) <= 1.1 * delay, name
    if "retryDelaySeconds" in given:
        waits = [await wait_of(crew, id) for id, (_, _, delay) in zip(ids.values(), expected, strict=True) if delay]
        assert all(given["retryDelaySeconds"] - 2 < w <= given["retryDelaySeconds"] for w in waits)


async def test_a_twin_goes_on_counting_from_its_own_failures(crew: Crew) -> None:
    twin = await one(crew, retry={"delaySeconds": 10, "backoff": 3, "maxAttempts": 4})
    for error in ("first", "second"):
        await crew.fail(*await crew.claim(), error=error, retryDelaySeconds=0)
    await one(crew, priority=1, retry=EAGER)
    await crew.fail(*await crew.claim(), error="third")
    task = await crew.task(twin, "state attempt remainingAttempts errors { attempt error }")
    assert task == {
        "state": "SCHEDULED",
        "attempt": 3,
        "remainingAttempts": 1,
        "errors": [{"attempt": n, "error": e} for n, e in enumerate(("first", "second", "third"), 1)],
    }
    assert 81 - 2 <= await wait_of(crew, twin) <= 99


async def test_a_repeated_fail_counts_once_for_each(crew: Crew) -> None:
    ids = [await one(crew, retry=EAGER) for _ in range(3)]
    (lease,) = await crew.claim()
    for _ in range(2):
        assert (await crew.fail(lease))["failed"] == 1
    assert await look(crew, *ids) == [("READY", 1, 4, None)] * 3


async def test_whichever_is_claimed_next_carries_the_rest(crew: Crew) -> None:
    a = await one(crew, retry=EAGER)
    b = await one(crew, retry=EAGER)
    (lease,) = await crew.claim()
    await crew.fail(lease)
    c = await one(crew, priority=1)
    (lease,) = await crew.claim(9)
    assert (lease["task"]["id"], lease["attempt"]) == (c, 1)
    assert await look(crew, a, b) == [("MERGED", 1, 4, c)] * 2
    await crew.complete(lease, output="late")
    assert await look(crew, a, b, c) == [("SUCCEEDED", 2, 3, c)] * 2 + [("SUCCEEDED", 1, 4, None)]


async def test_the_old_runner_rides_with_the_new_when_its_back_off_is_over(crew: Crew) -> None:
    old, new = await one(crew, retry={"delaySeconds": 1000}), await one(crew, retry=EAGER)
    await crew.fail(*await crew.claim())
    (lease,) = await crew.claim(9)
    assert lease["task"]["id"] == new
    assert await look(crew, old) == [("SCHEDULED", 1, 4, None)]
    await end_delays(crew)
    assert await look(crew, old) == [("MERGED", 1, 4, new)]
    await crew.complete(lease)
    assert await look(crew, old, new) == [("SUCCEEDED", 2, 3, new), ("SUCCEEDED", 2, 3, None)]


async def test_discarded_twins_can_be_retried_and_run_as_one_again(crew: Crew) -> None:
    ids = [await one(crew) for _ in range(3)]
    await crew.fail(*await crew.claim(), discard=True)
    assert await crew.claim(9) == []
    assert await crew.ask(RETRY, ids=ids) == {"retryTasks": {"affected": 3}}
    (lease,) = await crew.claim(9)
    await crew.complete(lease)
    runner = lease["task"]["id"]
    assert {(s, into) for s, _, _, into in await look(crew, *ids)} == {("SUCCEEDED", None), ("SUCCEEDED", runner)}


async def test_a_failed_twin_that_is_retried_after_the_others_succeeded_runs_alone(crew: Crew) -> None:
    last = await one(crew, retry={"maxAttempts": 1})
    other = await one(crew, retry=EAGER)
    await crew.fail(*await crew.claim())
    await crew.complete(*await crew.claim(9), output="other")
    assert await look(crew, last, other) == [("FAILED", 1, 0, None), ("SUCCEEDED", 2, 3, None)]
    await crew.ask(RETRY, ids=[last])
    await crew.complete(*await crew.claim(9), output="own")
    assert await look(crew, last) == [("SUCCEEDED", 2, 3, None)]
    assert (await crew.task(last))["output"] == "own"


# -- freed --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "runner_after"),
    [
        ("released", ("READY", 0, 2)),
        ("lost", ("READY", 1, 1)),
        ("lost for good", ("FAILED", 1, 0)),
        ("cancelled", ("CANCELLED", 1, None)),
    ],
)
async def test_twins_are_ready_as_before_when_the_one_that_ran_is_gone(
    crew: Crew, how: str, runner_after: tuple[str, int, int | None]
) -> None:
    attempts = 1 if how == "lost for good" else 2
    runner = await one(crew, priority=1, retry={"maxAttempts": attempts})
    twins = [await one(crew) for _ in range(2)]
    held = (await crew.create(K, isPaused=True))["tasks"][0]["id"]
    (lease,) = await crew.claim()
    assert await look(crew, *twins, held) == [("MERGED", 0, 5, runner)] * 3
    if how == "released":
        assert (await crew.release(lease))["released"] == 1
    elif how == "cancelled":
        assert await crew.ask(CANCEL, ids=[runner]) == {"cancelTasks": {"affected": 1}}
    else:
        await expire_leases(crew)
    ((state, attempt, remaining, into),) = await look(crew, runner)
    assert (state, attempt, into) == (*runner_after[:2], None)
    if runner_after[2] is not None:
        assert remaining == runner_after[2]
    assert await look(crew, *twins, held) == [("READY", 0, 5, None)] * 3
    assert (await crew.task(held, "heldBy"))["heldBy"] == ["GROUP_PAUSED"]
    for twin in twins:
        assert (await crew.task(twin, "errors { error }"))["errors"] == []
    (second,) = await crew.claim(9)
    expected = runner if state == "READY" else twins[0]
    assert second["task"]["id"] == expected
    await crew.complete(second, output="second")
    rest = [t for t in (*twins, held) if t != expected]
    assert await look(crew, *rest) == [("SUCCEEDED", 1, 4, expected)] * len(rest)


@pytest.mark.parametrize("how", ["released", "lost", "cancelled", "failed"])
async def test_a_claim_that_waits_gets_a_freed_twin_at_once(crew: Crew, how: str) -> None:
    runner, twin = await one(crew, retry={"delaySeconds": 1000}), await one(crew, retry=EAGER)
    (lease,) = await crew.claim()
    waiting = asyncio.create_task(crew.claim(9, waitSeconds=20))

    async def waits() -> bool:
        return crew.services.dispatcher.waiting == 1

    await until(waits)
    if how == "released":
        await crew.release(lease)
    elif how == "cancelled":
        await crew.ask(CANCEL, ids=[runner])
    elif how == "failed":
        await crew.fail(lease)
    else:
        await expire_leases(crew)
    (second,) = await asyncio.wait_for(waiting, 5)
    assert second["task"]["id"] in ((twin,) if how in ("cancelled", "failed") else (runner, twin))
    assert [s for s, *_ in await look(crew, runner, twin)].count("RUNNING") == 1
