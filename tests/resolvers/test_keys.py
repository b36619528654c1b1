"""Keys: tasks of one channel with the same key are the same work, which is done once for all of them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import pytest

from tests.support.crew import COMPLETE, CREATE, Crew, Refused, crew_on
from tests.support.wait import end_delays, expire_leases, until

LOOK = "state attempt remainingAttempts mergedInto { id }"
K = {"name": "k", "key": "k"}
EAGER = {"delaySeconds": 0}
CANCEL = "mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }"
RETRY = "mutation($ids: [ID!]) { retryTasks(ids: $ids, attempts: 4) { affected } }"
PAUSE_TASKS = "mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }"
PAUSE_CHANNEL = 'mutation { pauseChannel(name: "c") { channel { isPaused } } }'
SUSPEND = 'mutation { suspendWorkgroup(name: "w", seconds: 1000) { workgroup { name } } }'


async def one(crew: Crew, **task: Any) -> str:
    """The id of a new task of key k, in a group of its own."""
    made = await crew.create({**K, **task})
    id: str = made["tasks"][0]["id"]
    return id


async def look(crew: Crew, *ids: str) -> list[tuple[Any, ...]]:
    """Of each task: its state, the attempts started, those left, and the id of the one it rides with."""
    shown = [await crew.task(id, LOOK) for id in ids]
    return [
        (t["state"], t["attempt"], t["remainingAttempts"], t["mergedInto"] and t["mergedInto"]["id"]) for t in shown
    ]


async def count(crew: Crew) -> int:
    n: int = (await crew.sql("select count(*)::int as n from task"))[0]["n"]
    return n


async def wait_of(crew: Crew, id: str) -> float:
    """Seconds until it can be handed out; 0 when it can be now."""
    end = (await crew.task(id, "notBefore"))["notBefore"]
    now = (await crew.sql("select now() as now"))[0]["now"]
    return (datetime.fromisoformat(end) - now).total_seconds() if end else 0.0


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [x["task"]["name"] for x in leases]


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


# -- the other policies -------------------------------------------------------------------------------------------------

OPEN = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED"]
ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"]


async def existing(crew: Crew, state: str, **more: Any) -> str:
    """The id of a task of key k that stands in this state. It is older than any twin that it needs for that."""
    if state == "BLOCKED":
        parent = {"name": "p", "ref": "p", "channel": "p"}
        id = (await crew.create(parent, {**K, "parents": [{"ref": "p"}], **more}))["tasks"][1]["id"]
    elif state == "SCHEDULED":
        id = await one(crew, delaySeconds=1000, **more)
    else:
        id = await one(crew, **more)
    if state == "MERGED":
        await one(crew, priority=1)
    if state in ("RUNNING", "MERGED", "SUCCEEDED", "FAILED"):
        (lease,) = await crew.claim()
        if state == "SUCCEEDED":
            await crew.complete(lease)
        elif state == "FAILED":
            await crew.fail(lease, discard=True)
    if state == "CANCELLED":
        await crew.ask(CANCEL, ids=[id])
    assert (await crew.task(id))["state"] == state
    return str(id)


FOUND = [(s, "MERGE") for s in OPEN] + [(s, "ALLOW") for s in OPEN if s != "MERGED"]


@pytest.mark.parametrize(("state", "policy"), FOUND)
async def test_return_existing_answers_the_task_that_has_not_ended_and_creates_nothing(
    crew: Crew, state: str, policy: str
) -> None:
    old = await existing(crew, state, onDuplicate=policy)
    before = await count(crew)
    group = (await crew.create({"name": "x", "channel": "x"}))["taskGroup"]["id"]
    new = {**K, "name": "new", "onDuplicate": "RETURN_EXISTING", "priority": 9, "input": 1}
    expected = {"id": old, "name": "k", "state": state}
    made = await crew.create({"name": "y", "channel": "x"}, new)
    assert [t["name"] for t in made["tasks"]] == ["y", "k"]
    assert made["tasks"][1] == expected
    assert await crew.create_tasks(group, new, {"name": "z", "channel": "x"}, new) == [
        expected,
        {"id": (await newest(crew, "z")), "name": "z", "state": "READY"},
        expected,
    ]
    assert await count(crew) == before + 3
    assert await crew.task(old, "priority input") == {"priority": 0, "input": None}


async def newest(crew: Crew, name: str) -> str:
    query = "query($f: TaskFilter) { tasks(filter: $f, first: 1) { nodes { id } } }"
    id: str = (await crew.ask(query, f={"nameContains": name}))["tasks"]["nodes"][0]["id"]
    return id


@pytest.mark.parametrize(("state", "policy"), FOUND)
async def test_reject_refuses_while_one_has_not_ended(crew: Crew, state: str, policy: str) -> None:
    await existing(crew, state, onDuplicate=policy)
    group = (await crew.create({"name": "spawner", "channel": "s"}))["taskGroup"]["id"]
    (lease,) = await crew.claim(channels=("s",))
    before = await count(crew)
    plain, new = {"name": "x", "channel": "x"}, {**K, "channel": "c", "onDuplicate": "REJECT"}
    for call in (lambda: crew.create(plain, new), lambda: crew.create_tasks(group, plain, new)):
        with pytest.raises(Refused) as refused:
            await call()
        assert (refused.value.code, refused.value.path) == ("DUPLICATE_KEY", ["input", "tasks", 1, "key"])
    done = await crew.complete(lease, children=[plain, new])
    (error,) = done["errors"]
    assert (done["completed"], error["code"], error["path"]) == (0, "INVALID_CHILDREN", ["children", "1", "key"])
    assert await count(crew) == before
    assert (await crew.complete(lease, children=[plain]))["completed"] == 1


@pytest.mark.parametrize("policy", ["RETURN_EXISTING", "REJECT"])
@pytest.mark.parametrize("state", ENDED)
async def test_one_that_has_ended_is_in_nobodys_way(crew: Crew, state: str, policy: str) -> None:
    old = await existing(crew, state)
    new = await one(crew, onDuplicate=policy)
    assert new != old
    assert [x["task"]["id"] for x in await crew.claim(9)] == [new]


@pytest.mark.parametrize("policy", ["RETURN_EXISTING", "REJECT"])
async def test_other_channels_and_keys_are_in_nobodys_way(crew: Crew, policy: str) -> None:
    await one(crew)
    made = await crew.create(
        {**K, "channel": "d", "onDuplicate": policy}, {"name": "x", "key": "K", "onDuplicate": policy}
    )
    assert [t["state"] for t in made["tasks"]] == ["READY", "READY"]
    assert await count(crew) == 3


@pytest.mark.parametrize("policy", ["MERGE", "RETURN_EXISTING", "REJECT", "ALLOW"])
async def test_without_a_key_a_policy_has_no_effect(crew: Crew, policy: str) -> None:
    await crew.create(*({"name": n, "onDuplicate": policy} for n in "ab"), {"name": "c", "onDuplicate": None})
    assert names(await crew.claim(9)) == ["a", "b", "c"]


async def test_the_oldest_that_has_not_ended_is_answered(crew: Crew) -> None:
    ended = await existing(crew, "SUCCEEDED")
    oldest = await existing(crew, "SCHEDULED")
    for more in ({"onDuplicate": "ALLOW"}, {"priority": 9}):
        await one(crew, **more)
    assert await one(crew, onDuplicate="RETURN_EXISTING") == oldest != ended


async def test_earlier_tasks_of_the_same_call_count(crew: Crew) -> None:
    existing_one = {**K, "onDuplicate": "RETURN_EXISTING"}
    made = await crew.create({**existing_one, "name": "first"}, existing_one, {"name": "x"}, existing_one)
    assert [t["name"] for t in made["tasks"]] == ["first", "first", "x", "first"]
    assert await count(crew) == 2
    reject = {"key": "other", "name": "r", "onDuplicate": "REJECT"}
    with pytest.raises(Refused) as refused:
        await crew.create(reject, {"name": "x"}, reject)
    assert (refused.value.code, refused.value.path) == ("DUPLICATE_KEY", ["input", "tasks", 2, "key"])
    # A later one of another policy does not look back.
    made = await crew.create(
        reject, {"key": "other", "name": "m"}, {"key": "other", "name": "a", "onDuplicate": "ALLOW"}
    )
    assert [t["state"] for t in made["tasks"]] == ["READY"] * 3
    assert await count(crew) == 5


async def test_earlier_groups_of_the_same_call_count(crew: Crew) -> None:
    query = (
        "mutation($input: CreateTaskGroupsInput!) { createTaskGroups(input: $input) { groups { tasks { id name } } } }"
    )

    def groups(policy: str) -> dict[str, Any]:
        task = {"name": "t", "channel": "c", "key": policy, "onDuplicate": policy}
        return {"groups": [{"name": str(n), "tasks": [{"name": "x", "channel": "c"}, task]} for n in range(2)]}

    answer = (await crew.ask(query, input=groups("RETURN_EXISTING")))["createTaskGroups"]["groups"]
    assert answer[0]["tasks"][1] == answer[1]["tasks"][1]
    assert await count(crew) == 3
    with pytest.raises(Refused) as refused:
        await crew.ask(query, input=groups("REJECT"))
    assert refused.value.code == "DUPLICATE_KEY"
    assert refused.value.path == ["input", "groups", 1, "tasks", 1, "key"]
    assert await count(crew) == 3


async def test_a_child_can_hang_from_an_existing_task_of_its_group_by_ref(crew: Crew) -> None:
    made = await crew.create({**K, "name": "old"})
    old = made["tasks"][0]["id"]
    tasks = await crew.create_tasks(
        made["taskGroup"]["id"],
        {"name": "child", "parents": [{"ref": "r"}]},
        {**K, "ref": "r", "onDuplicate": "RETURN_EXISTING", "parents": [{"ref": "x"}]},
        {"name": "x", "ref": "x", "channel": "d"},
    )
    assert [(t["name"], t["state"]) for t in tasks] == [("child", "BLOCKED"), ("old", "READY"), ("x", "READY")]
    assert (await crew.task(tasks[0]["id"], "parents { id }"))["parents"] == [{"id": old}]
    assert (await crew.task(old, "parentCount"))["parentCount"] == 0
    await crew.complete(*await crew.claim())
    assert names(await crew.claim()) == ["child"]


async def test_a_child_cannot_hang_from_an_existing_task_of_another_group(crew: Crew) -> None:
    await one(crew)
    group = (await crew.create({"name": "spawner", "channel": "s"}))["taskGroup"]["id"]
    (lease,) = await crew.claim(channels=("s",))
    before = await count(crew)
    tasks: list[dict[str, Any]] = [
        {**K, "channel": "c", "ref": "r", "onDuplicate": "RETURN_EXISTING"},
        {"name": "child", "channel": "c", "parents": [{"ref": "r"}]},
    ]
    for call in (lambda: crew.create(*tasks), lambda: crew.create_tasks(group, *tasks)):
        with pytest.raises(Refused) as refused:
            await call()
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["input", "tasks", 1, "parents", 0, "ref"])
    (error,) = (await crew.complete(lease, children=tasks))["errors"]
    assert (error["code"], error["path"]) == ("INVALID_CHILDREN", ["children", "1", "parents", "0", "ref"])
    assert await count(crew) == before
    assert (await crew.complete(lease))["completed"] == 1


async def test_a_cycle_closed_by_the_task_that_is_answered_is_refused(crew: Crew) -> None:
    with pytest.raises(Refused) as refused:
        await crew.create(
            {**K, "ref": "a", "parents": [{"ref": "b"}]},
            {"name": "b", "ref": "b", "parents": [{"ref": "again"}]},
            {**K, "ref": "again", "onDuplicate": "RETURN_EXISTING"},
        )
    assert refused.value.code == "BAD_INPUT"
    assert refused.value.path[:2] == ["input", "tasks"]
    assert await count(crew) == 0


@pytest.mark.parametrize("where", ["this group", "another group"])
async def test_a_continuation_answered_with_an_existing_task_makes_nothing(crew: Crew, where: str) -> None:
    made = await crew.create({"name": "spawner", "channel": "s"})
    if where == "this group":
        (old,) = await crew.create_tasks(made["taskGroup"]["id"], K)
    else:
        old = (await crew.create(K))["tasks"][0]
    (lease,) = await crew.claim(channels=("s",))
    done = await crew.complete(lease, children=[{**K, "channel": "c", "onDuplicate": "RETURN_EXISTING"}])
    assert (done["completed"], done["errors"]) == (1, [])
    assert await count(crew) == 2
    task = await crew.task(old["id"], "state parentCount spawnedBy { id }")
    assert task == {"state": "READY", "parentCount": 0, "spawnedBy": None}


# -- repeats and races --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["MERGE", "RETURN_EXISTING", "REJECT", "ALLOW"])
async def test_a_repeat_is_no_duplicate_of_what_it_made(crew: Crew, policy: str) -> None:
    group, id = str(uuid.uuid4()), str(uuid.uuid4())
    first = await crew.create({**K, "onDuplicate": policy}, {"name": "x"}, id=group)
    assert await crew.create({**K, "onDuplicate": policy}, {"name": "x"}, id=group) == first
    own = {"name": "own", "key": "own", "id": id, "onDuplicate": policy}
    made = await crew.create_tasks(group, own)
    assert made[0]["id"] == id
    assert await crew.create_tasks(group, own) == made
    assert await count(crew) == 3


@pytest.mark.parametrize("policy", ["RETURN_EXISTING", "REJECT"])
async def test_of_many_creations_at_once_one_is_made(crew: Crew, policy: str) -> None:
    async with crew_on(crew.dsn) as other:
        calls = [c.create({**K, "onDuplicate": policy}, {"name": str(n)}) for n in range(10) for c in (crew, other)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    made = [f for f in found if isinstance(f, dict)]
    refused = [f for f in found if isinstance(f, Refused)]
    assert len(made) + len(refused) == 20
    assert len({f["tasks"][0]["id"] for f in made}) == 1
    if policy == "REJECT":
        assert (len(made), {r.code for r in refused}) == (1, {"DUPLICATE_KEY"})
    else:
        assert refused == []
    assert await count(crew) == 1 + len(made)


async def test_a_refused_creation_does_not_hurt_those_that_came_with_it(crew: Crew) -> None:
    await one(crew)
    calls = [
        crew.create({"name": "x", "key": "k" if n == 3 else None, "onDuplicate": "REJECT", "channel": "c"})
        for n in range(6)
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [f.code if isinstance(f, Refused) else "made" for f in found] == ["made"] * 3 + ["DUPLICATE_KEY"] + [
        "made"
    ] * 2
    assert await count(crew) == 6


async def test_bad_children_hurt_no_other_result_of_the_call(crew: Crew) -> None:
    await one(crew)
    await crew.create(*({"name": n, "channel": "s"} for n in "abc"))
    leases = await crew.claim(3, ("s",))
    child = {"name": "x", "channel": "c", "key": "new", "onDuplicate": "REJECT"}
    results = [{"lease": x["id"], "children": [child]} for x in leases]
    done = (await crew.ask(COMPLETE, input={"results": results}))["completeTasks"]
    assert done["completed"] == 1
    assert [(e["code"], e["path"]) for e in done["errors"]] == [("INVALID_CHILDREN", ["children", "0", "key"])] * 2
    assert await count(crew) == 5


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"key": ""}, ["key"]),
        ({"key": "k\0"}, ["key"]),
        ({"key": "\ud800"}, ["key"]),
        ({"key": "k" * 100_000}, ["key"]),
        ({"key": 5}, ["key"]),
        ({"key": "k", "onDuplicate": "IGNORE"}, ["onDuplicate"]),
        ({"key": "k", "onDuplicate": "merge"}, ["onDuplicate"]),
    ],
    ids=lambda x: repr(x)[:30],
)
async def test_a_bad_key_or_policy_is_refused(crew: Crew, fields: dict[str, Any], path: list[str]) -> None:
    tasks = [{"name": "x", "channel": "c"}, {"name": "t", "channel": "c", **fields}]
    body = json.dumps({"query": CREATE, "variables": {"input": {"name": "g", "tasks": tasks}}})
    answer = await crew.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    (error,) = answer.json()["errors"]
    assert error["message"]
    assert error["extensions"]["code"] == "BAD_INPUT"
    assert error["extensions"]["path"][:4] == ["input", "tasks", 1, *path]
    assert await count(crew) == 0
