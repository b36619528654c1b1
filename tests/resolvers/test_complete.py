"""Completing: outputs, continuations, repeats, and what is refused alone."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import Any

import pytest

from tests.support.crew import COMPLETE, Crew
from tests.support.wait import end_delays, expire_leases


async def one(crew: Crew, **task: Any) -> dict[str, Any]:
    """A lease on a new task."""
    await crew.create({"name": "a", **task})
    (lease,) = await crew.claim()
    return lease


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [x["task"]["name"] for x in leases]


async def tasks(crew: Crew) -> int:
    n: int = (await crew.sql("select count(*)::int as n from task"))[0]["n"]
    return n


@pytest.mark.parametrize(
    "output", [0, "", False, [], {}, 0.0, None, "null", (1 << 64) - 1, {"a": [None, "ü"]}], ids=repr
)
async def test_an_output_is_kept_as_sent(crew: Crew, output: Any) -> None:
    lease = await one(crew)
    done = await crew.complete(lease, output=output)
    assert (done["completed"], done["errors"]) == (1, [])
    task = await crew.task(lease["task"]["id"], "state output attempt finishedAt workerId leaseExpiresAt")
    assert json.dumps(task["output"]) == json.dumps(output)
    assert (task["state"], task["attempt"], task["workerId"], task["leaseExpiresAt"]) == ("SUCCEEDED", 1, "w", None)
    assert task["finishedAt"] is not None


async def test_completed_tasks_are_answered_in_the_order_sent(crew: Crew) -> None:
    await crew.create(*({"name": n} for n in "abc"))
    leases = (await crew.claim(3))[::-1]
    done = await crew.complete(*leases)
    assert [t["name"] for t in done["tasks"]] == ["c", "b", "a"]
    assert {t["state"] for t in done["tasks"]} == {"SUCCEEDED"}


async def test_nothing_completed_is_nothing(crew: Crew) -> None:
    assert await crew.complete() == {"completed": 0, "errors": [], "tasks": []}


# -- continuations ------------------------------------------------------------------------------------------------------


async def test_a_continuation_that_names_no_parent_is_a_child(crew: Crew) -> None:
    lease = await one(crew)
    await crew.complete(lease, children=[{"name": "b", "channel": "c"}, {"name": "c", "channel": "c", "parents": []}])
    task = await crew.task(lease["task"]["id"], "children { name state spawnedBy { name } group { id } } group { id }")
    assert [(c["name"], c["state"]) for c in task["children"]] == [("b", "READY"), ("c", "READY")]
    assert {c["spawnedBy"]["name"] for c in task["children"]} == {"a"}
    assert {c["group"]["id"] for c in task["children"]} == {task["group"]["id"]}


async def test_continuations_hang_from_what_they_name_in_any_order(crew: Crew) -> None:
    lease = await one(crew)
    await crew.complete(
        lease,
        children=[
            {"name": "join", "channel": "c", "parents": [{"ref": "y"}, {"ref": "x"}]},
            {"name": "x", "ref": "x", "channel": "c"},
            {"name": "y", "ref": "y", "channel": "c"},
        ],
    )
    task = await crew.task(
        lease["task"]["id"],
        "children(first: 9) { name children(first: 9) { name state parents(first: 9) { name } spawnedBy { name } } }",
    )
    join = {"name": "join", "state": "BLOCKED", "parents": [{"name": "y"}, {"name": "x"}], "spawnedBy": {"name": "a"}}
    assert task["children"] == [{"name": "x", "children": [join]}, {"name": "y", "children": [join]}]
    both = await crew.claim(5)
    assert sorted(names(both)) == ["x", "y"]
    await crew.complete(*both)
    assert names(await crew.claim(5)) == ["join"]


async def test_a_continuation_can_name_its_spawner_and_others_by_id(crew: Crew) -> None:
    made = await crew.create({"name": "a", "priority": 1}, {"name": "other"})
    a, other = (t["id"] for t in made["tasks"])
    (lease,) = await crew.claim()
    await crew.complete(
        lease,
        children=[
            {"name": "of both", "channel": "c", "parents": [{"id": other}, {"id": a}]},
            {"name": "of a", "channel": "c", "parents": [{"id": a}]},
        ],
    )
    assert await crew.states(made["taskGroup"]["id"]) == {
        "a": "SUCCEEDED",
        "other": "READY",
        "of both": "BLOCKED",
        "of a": "READY",
    }
    await crew.complete(*await crew.claim(1))
    assert (await crew.states(made["taskGroup"]["id"]))["of both"] == "READY"


async def test_a_continuation_that_names_others_only_does_not_hang_from_its_spawner(crew: Crew) -> None:
    made = await crew.create({"name": "a", "priority": 1}, {"name": "other"})
    (lease,) = await crew.claim()
    other = made["tasks"][1]["id"]
    await crew.complete(lease, children=[{"name": "b", "channel": "c", "parents": [{"id": other}]}])
    task = await crew.task(other, "children { name parentCount spawnedBy { name } }")
    assert task["children"] == [{"name": "b", "parentCount": 1, "spawnedBy": {"name": "a"}}]


async def test_continuations_take_ids_of_the_senders_own(crew: Crew) -> None:
    lease, id = await one(crew), str(uuid.uuid4())
    child = {"name": "b", "channel": "c", "id": id}
    await crew.complete(lease, children=[child])
    await crew.complete(lease, children=[child])
    assert (await crew.task(id))["state"] == "READY"
    assert await tasks(crew) == 2


async def test_a_continuation_of_its_own_time_is_scheduled(crew: Crew) -> None:
    lease = await one(crew)
    await crew.complete(lease, children=[{"name": "b", "channel": "c", "delaySeconds": 100}])
    task = await crew.task(lease["task"]["id"], "children { state }")
    assert task["children"] == [{"state": "SCHEDULED"}]


async def test_results_of_one_call_can_all_have_continuations(crew: Crew) -> None:
    made = await crew.create(*({"name": str(n)} for n in range(10)))
    leases = await crew.claim(10)
    done = await crew.complete(*leases, children=[{"name": "child", "channel": "d"}])
    assert done["completed"] == 10
    assert len(await crew.claim(20, ("d",))) == 10
    for task in made["tasks"]:
        assert (await crew.task(task["id"], "childCount"))["childCount"] == 1


# -- delays -------------------------------------------------------------------------------------------------------------


async def test_children_wait_at_least_the_delay_of_their_parent(crew: Crew) -> None:
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "old", "parents": [{"ref": "a"}]})
    (lease,) = await crew.claim()
    before = (await crew.sql("select now() as now"))[0]["now"]
    children = [
        {"name": "new", "channel": "c", "ref": "new"},
        {"name": "later", "channel": "c", "delaySeconds": 500},
        {"name": "grandchild", "channel": "c", "parents": [{"ref": "new"}]},
    ]
    await crew.complete(lease, childrenDelaySeconds=100, children=children)
    task = await crew.task(made["tasks"][0]["id"], "children { name state notBefore }")
    waits = {}
    for child in task["children"]:
        assert child["state"] == "SCHEDULED"
        waits[child["name"]] = round((datetime.fromisoformat(child["notBefore"]) - before).total_seconds(), -1)
    assert waits == {"old": 100, "new": 100, "later": 500}
    assert await crew.claim(5) == []
    states = await crew.states(made["taskGroup"]["id"])
    assert states["grandchild"] == "BLOCKED"
    await end_delays(crew)
    assert sorted(names(await crew.claim(5))) == ["later", "new", "old"]


async def test_a_child_with_another_open_parent_keeps_the_delay(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a", "priority": 1},
        {"name": "b", "ref": "b"},
        {"name": "join", "parents": [{"ref": "a"}, {"ref": "b"}]},
    )
    (a,) = await crew.claim()
    await crew.complete(a, childrenDelaySeconds=100)
    join = made["tasks"][2]["id"]
    before = await crew.task(join, "state notBefore")
    assert before["state"] == "BLOCKED"
    assert before["notBefore"] is not None
    await crew.complete(*await crew.claim(), childrenDelaySeconds=10)
    assert await crew.task(join, "state notBefore") == {"state": "SCHEDULED", "notBefore": before["notBefore"]}


async def test_a_children_delay_of_nothing_delays_nothing(crew: Crew) -> None:
    lease = await one(crew)
    await crew.complete(lease, childrenDelaySeconds=0, children=[{"name": "b", "channel": "c"}])
    assert names(await crew.claim()) == ["b"]


async def test_a_completion_can_suspend_its_workgroup(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"}, {"name": "b", "workgroup": "w"}, {"name": "c", "workgroup": "v"})
    (lease,) = await crew.claim()
    done = await crew.complete(lease, workgroupDelaySeconds=100)
    assert done["completed"] == 1
    assert names(await crew.claim(5)) == ["c"]
    group = (await crew.ask('{ workgroup(name: "w") { suspendedUntil } }'))["workgroup"]
    assert group["suspendedUntil"] is not None


async def test_a_completion_without_a_workgroup_suspends_nothing(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    (lease,) = await crew.claim()
    assert (await crew.complete(lease, workgroupDelaySeconds=100))["completed"] == 1
    assert names(await crew.claim(5)) == ["b"]
    assert await crew.sql("select from hold") == []


# -- repeats and lost leases --------------------------------------------------------------------------------------------


async def test_the_first_complete_counts_and_later_ones_change_nothing(crew: Crew) -> None:
    lease = await one(crew)
    await crew.complete(lease, output=1)
    again = await crew.complete(lease, output=2, children=[{"name": "b", "channel": "c"}], childrenDelaySeconds=5)
    assert (again["completed"], again["errors"], len(again["tasks"])) == (1, [], 1)
    assert (await crew.task(lease["task"]["id"]))["output"] == 1
    assert await tasks(crew) == 1


async def test_a_repeat_of_a_rich_completion_makes_its_children_once(crew: Crew) -> None:
    lease = await one(crew, workgroup="w")
    for _ in range(2):
        done = await crew.complete(lease, children=[{"name": "b", "channel": "c"}], workgroupDelaySeconds=1)
        assert done["completed"] == 1
    assert await tasks(crew) == 2


@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("end", ["expired", "failed", "released", "claimed again"])
async def test_a_lost_lease_is_refused_and_changes_nothing(crew: Crew, end: str, rich: bool) -> None:
    lease = await one(crew, retry={"delaySeconds": 0})
    if end == "expired":
        await expire_leases(crew)
    elif end == "failed":
        await crew.fail(lease)
    else:
        await crew.release(lease)
    if end == "claimed again":
        (second,) = await crew.claim(workerId="second")
    before = await crew.task(lease["task"]["id"])
    more = {"children": [{"name": "b", "channel": "c"}], "workgroupDelaySeconds": 10} if rich else {}
    done = await crew.complete(lease, output=1, **more)
    assert (done["completed"], done["tasks"]) == (0, [])
    (error,) = done["errors"]
    assert (error["index"], error["lease"], error["code"], error["path"]) == (0, lease["id"], "LOST", None)
    assert error["message"]
    assert await crew.task(lease["task"]["id"]) == before
    assert await tasks(crew) == 1
    if end == "claimed again":
        assert (await crew.complete(second, output=2))["completed"] == 1
        assert (await crew.complete(lease, output=3))["errors"][0]["code"] == "LOST"
        assert (await crew.task(lease["task"]["id"]))["output"] == 2


async def test_a_lease_of_a_deleted_task_says_cancelled(crew: Crew) -> None:
    lease = await one(crew)
    await crew.sql("delete from lease")
    await crew.sql("delete from task")
    for call in (crew.complete, crew.fail, crew.extend, crew.release):
        (error,) = (await call(lease))["errors"]
        assert error["code"] == "CANCELLED"


async def test_what_comes_in_after_the_end_but_before_the_sweep_counts(crew: Crew) -> None:
    """It ends when the server takes it back."""
    lease = await one(crew)
    await crew.sql("update namespace set alive_at = now() - interval '1 h'")
    await crew.sql("update lease set until = now() - interval '1 s'")
    assert (await crew.complete(lease))["completed"] == 1


# -- what is refused alone ----------------------------------------------------------------------------------------------

BAD_CHILDREN: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "cycle": (
        [
            {"name": "x", "channel": "d", "ref": "x", "parents": [{"ref": "y"}]},
            {"name": "y", "channel": "d", "ref": "y", "parents": [{"ref": "x"}]},
        ],
        ["children", "0", "parents", "0"],
    ),
    "unknown ref": (
        [{"name": "ok", "channel": "d"}, {"name": "x", "channel": "d", "parents": [{"ref": "?"}]}],
        ["children", "1", "parents", "0", "ref"],
    ),
    "unknown parent": (
        [{"name": "x", "channel": "d", "parents": [{"id": str(uuid.uuid4())}]}],
        ["children", "0", "parents", "0", "id"],
    ),
    "a bad field": ([{"name": "", "channel": "d"}], ["children", "0", "name"]),
}


@pytest.mark.parametrize("case", BAD_CHILDREN)
async def test_bad_children_are_refused_alone_and_the_lease_stands(crew: Crew, case: str) -> None:
    children, path = BAD_CHILDREN[case]
    await crew.create(*({"name": n} for n in "abc"))
    a, b, c = await crew.claim(3)
    query = (
        "mutation($input: CompleteTasksInput!) { completeTasks(input: $input) "
        "{ completed errors { index lease code message path } tasks { name } } }"
    )
    good = [{"name": "good", "channel": "d"}]
    results = [
        {"lease": a["id"], "children": good},
        {"lease": b["id"], "output": 1, "children": children},
        {"lease": c["id"]},
    ]
    done = (await crew.ask(query, input={"results": results}))["completeTasks"]
    assert done["completed"] == 2
    assert [t["name"] for t in done["tasks"]] == ["a", "c"]
    (error,) = done["errors"]
    assert (error["index"], error["lease"], error["code"], error["path"]) == (1, b["id"], "INVALID_CHILDREN", path)
    assert error["message"]
    assert await tasks(crew) == 4
    assert (await crew.task(b["task"]["id"]))["state"] == "RUNNING"
    assert (await crew.complete(b, children=good))["completed"] == 1
    assert len(await crew.claim(9, ("d",))) == 2


@pytest.mark.parametrize("own", ["parent", "task"])
async def test_children_that_meet_another_group_are_refused_alone(crew: Crew, own: str) -> None:
    other = (await crew.create({"name": "x", "channel": "elsewhere"}))["tasks"][0]["id"]
    lease = await one(crew)
    child = {"name": "b", "channel": "c", **({"parents": [{"id": other}]} if own == "parent" else {"id": other})}
    (error,) = (await crew.complete(lease, children=[child]))["errors"]
    assert error["code"] == "INVALID_CHILDREN"
    assert error["path"] == (["children", "0", "parents", "0", "id"] if own == "parent" else ["children", "0", "id"])
    assert (await crew.complete(lease))["completed"] == 1


async def test_a_lease_named_twice_is_refused_the_second_time(crew: Crew) -> None:
    lease = await one(crew)
    query = "mutation($input: CompleteTasksInput!) { completeTasks(input: $input) { completed errors { index code } } }"
    results = [{"lease": lease["id"], "output": 1}, {"lease": lease["id"], "output": 2}]
    done = (await crew.ask(query, input={"results": results}))["completeTasks"]
    assert done == {"completed": 1, "errors": [{"index": 1, "code": "BAD_INPUT"}]}
    assert (await crew.task(lease["task"]["id"]))["output"] == 1


@pytest.mark.parametrize("call", ["fail", "extend", "release"])
async def test_a_lease_named_twice_in_other_calls_is_refused_the_second_time(crew: Crew, call: str) -> None:
    lease = await one(crew)
    (error,) = (await getattr(crew, call)(lease, lease))["errors"]
    assert (error["index"], error["code"]) == (1, "BAD_INPUT")


async def test_errors_come_in_the_order_of_the_items(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    a, b = await crew.claim(2)
    await crew.release(a)
    done = await crew.complete("x", a, "y", b, a)
    assert [(e["index"], e["code"]) for e in done["errors"]] == [
        (0, "UNKNOWN"),
        (1, "LOST"),
        (2, "UNKNOWN"),
        (4, "BAD_INPUT"),
    ]
    assert done["completed"] == 1


async def test_too_many_results_are_refused(dsn: str) -> None:
    from tests.support.crew import Refused, crew_on

    async with crew_on(dsn, max_batch=2) as crew:
        for call in (crew.complete, crew.fail, crew.extend, crew.release):
            with pytest.raises(Refused) as refused:
                await call("a", "b", "c")
            assert refused.value.code == "TOO_LARGE"
            assert refused.value.path[:1] == ["input"]


# -- complete and claim -------------------------------------------------------------------------------------------------

BOTH = (
    "mutation($done: CompleteTasksInput!, $next: ClaimTasksInput!) { completeTasks(input: $done) { completed } "
    "claimTasks(input: $next) { leases { task { name } } } }"
)


async def test_a_claim_after_a_complete_in_one_document_sees_the_children_it_freed(crew: Crew) -> None:
    await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}]})
    (lease,) = await crew.claim()
    answer = await crew.ask(
        BOTH,
        done={"results": [{"lease": lease["id"], "children": [{"name": "new", "channel": "c"}]}]},
        next={"workerId": "w", "channels": ["c"], "limit": 5},
    )
    assert answer["completeTasks"] == {"completed": 1}
    assert [x["task"]["name"] for x in answer["claimTasks"]["leases"]] == ["b", "new"]


async def test_a_chain_can_be_worked_off_one_document_a_task(crew: Crew) -> None:
    await crew.create(
        *({"name": str(n), "ref": str(n), "parents": [{"ref": str(n - 1)}] if n else []} for n in range(10))
    )
    query = BOTH.replace("task { name }", "id task { name }")
    (lease,) = await crew.claim()
    for n in range(1, 10):
        answer = await crew.ask(
            query, done={"results": [{"lease": lease["id"]}]}, next={"workerId": "w", "channels": ["c"]}
        )
        (lease,) = answer["claimTasks"]["leases"]
        assert lease["task"]["name"] == str(n)


async def test_continuations_of_several_results_are_made_in_the_order_sent(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    leases = await crew.claim(2)
    results = [
        {"lease": lease["id"], "children": [{"name": f"{name}{n}", "channel": "c"} for n in range(2)]}
        for lease, name in zip(leases, "ab", strict=True)
    ]
    await crew.ask(COMPLETE, input={"results": results})
    assert [lease["task"]["name"] for lease in await crew.claim(9)] == ["a0", "a1", "b0", "b1"]
