"""The second Crew's REST protocol: its workers run unchanged."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.crew import Crew, crew_on
from tests.support.second_crew import Answered, Rest, Worker
from tests.support.wait import until

FIELDS = [
    "_id",
    "taskGroupId",
    "name",
    "channel",
    "workgroup",
    "key",
    "remainingAttempts",
    "isPaused",
    "parentsComplete",
    "isComplete",
    "priority",
    "runAfter",
    "progressWeight",
    "isSeed",
    "errorDelayInSeconds",
    "input",
    "output",
    "errors",
    "createdAt",
    "parentIds",
    "assignedTo",
    "assignedAt",
]


@pytest.fixture
def rest(crew: Crew) -> Rest:
    return Rest(crew.http)


# ---------------------------------------------------------------- documents


async def test_a_new_task_has_the_second_crews_defaults(rest: Rest):
    group, (task,) = await rest.group({"input": {"a": [1, 0, ""]}})
    assert list(task) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", task.pop("createdAt"))
    task.pop("_id")
    assert task == {
        "taskGroupId": group,
        "name": "t",
        "channel": "c",
        "workgroup": None,
        "key": None,
        "remainingAttempts": 5,
        "isPaused": False,
        "parentsComplete": True,
        "isComplete": False,
        "priority": 0,
        "runAfter": None,
        "progressWeight": 1,
        "isSeed": False,
        "errorDelayInSeconds": 30,
        "input": {"a": [1, 0, ""]},
        "output": None,
        "errors": [],
        "parentIds": [],
        "assignedTo": None,
        "assignedAt": None,
    }


async def test_a_task_is_made_as_it_is_described(rest: Rest):
    given = {
        "name": "n",
        "channel": "d",
        "workgroup": "token",
        "key": "k",
        "remainingAttempts": 2,
        "priority": 7,
        "runAfter": "2080-01-02T03:04:05.678Z",
        "progressWeight": 3,
        "isSeed": True,
        "errorDelayInSeconds": 1.5,
        "input": False,
    }
    _, (task,) = await rest.group(given)
    assert {name: task[name] for name in given} == given


async def test_empty_names_of_workgroup_and_key_are_none(rest: Rest):
    _, (task,) = await rest.group({"workgroup": "", "key": ""})
    assert (task["workgroup"], task["key"]) == (None, None)


async def test_groups_are_made_read_counted_and_listed_newest_first(rest: Rest):
    ids = [(await rest.post("/task_groups", {"name": name, "isPaused": name == "b"}))["_id"] for name in "abc"]
    group = await rest.get(f"/task_group/{ids[1]}")
    assert group.pop("createdAt")
    assert group == {"_id": ids[1], "name": "b", "isPaused": True}
    assert [g["_id"] for g in await rest.get("/task_groups")] == ids[::-1]
    assert [g["_id"] for g in await rest.get("/task_groups", limit=1, skip=1)] == [ids[1]]
    assert await rest.get("/task_groups", skip=3) == []
    assert await rest.get("/task_groups/count") == {"count": 3}


async def test_tasks_are_listed_by_group_and_by_channel(rest: Rest):
    group, tasks = await rest.group({"name": "a"}, {"name": "b", "channel": "d"}, {"name": "e"})
    names = [t["name"] for t in await rest.get(f"/task_group/{group}/tasks")]
    assert names == ["e", "b", "a"]
    assert [t["name"] for t in await rest.get(f"/task_group/{group}/tasks", limit=1, skip=1)] == ["b"]
    assert [t["_id"] for t in await rest.get("/channel/d/tasks")] == [tasks[1]["_id"]]
    assert await rest.get("/channel/nobody/tasks") == []


async def test_channels_are_listed_with_their_counts(rest: Rest):
    await rest.group({}, {}, {}, {"channel": "d"})
    await rest.release((await rest.acquire())["task"], output=1)
    await rest.acquire()
    assert await rest.get("/channels") == [
        {"name": "c", "totalCount": 3, "completedCount": 1, "assignedCount": 1},
        {"name": "d", "totalCount": 1, "completedCount": 0, "assignedCount": 0},
    ]


async def test_a_channels_name_may_hold_anything(rest: Rest):
    await rest.group({"channel": "send mail/ä?"})
    got = await rest.acquire(channel="send%20mail%2F%C3%A4%3F")
    assert got["task"]["channel"] == "send mail/ä?"


async def test_health(crew: Crew):
    assert (await crew.http.get("/healthz")).json()["healthy"] is True


# ---------------------------------------------------------------- acquire


async def test_where_there_is_nothing_a_worker_is_told_null(rest: Rest):
    assert await rest.acquire() == {"task": None}
    await rest.group({})
    assert await rest.acquire(channel="other") == {"task": None}


async def test_an_acquired_task_is_assigned_and_leased_for_an_hour(rest: Rest, crew: Crew):
    await rest.group({})
    got = await rest.acquire("me")
    task = got["task"]
    assert (task["assignedTo"], task["remainingAttempts"], got["parents"]) == ("me", 5, [])
    assert task["assignedAt"]
    (left,) = await crew.sql("select extract(epoch from until - now())::int as s from lease")
    assert 3590 <= left["s"] <= 3600
    assert await rest.acquire("other") == {"task": None}


async def test_the_length_of_the_lease_is_a_setting(dsn: str):
    async with crew_on(dsn, rest_lease_seconds=120) as crew:
        rest = Rest(crew.http)
        await rest.group({})
        await rest.acquire()
        (left,) = await crew.sql("select extract(epoch from until - now())::int as s from lease")
        assert 110 <= left["s"] <= 120


async def test_a_child_is_acquired_with_what_its_parents_did(rest: Rest):
    _, (a, b, child) = await rest.group({"name": "a", "input": 1}, {"channel": "d"}, {"after": [1, 0]})
    assert (child["parentsComplete"], child["parentIds"]) == (False, [b["_id"], a["_id"]])
    await rest.release((await rest.acquire())["task"], output="")
    assert await rest.acquire() == {"task": None}
    await rest.release((await rest.acquire(channel="d"))["task"], output={"x": 0})
    got = await rest.acquire()
    assert got["task"]["_id"] == child["_id"]
    assert got["task"]["parentsComplete"] is True
    assert got["parents"] == [
        {"_id": b["_id"], "channel": "d", "input": None, "output": {"x": 0}},
        {"_id": a["_id"], "channel": "c", "input": 1, "output": ""},
    ]


async def test_a_task_that_was_abandoned_is_given_to_another_worker(rest: Rest, crew: Crew):
    await rest.group({})
    task = (await rest.acquire("a"))["task"]
    await crew.sql("update lease set until = now() - interval '1 s'")

    async def again() -> Any:
        return (await rest.acquire("b"))["task"]

    got = await until(again)
    assert (got["_id"], got["remainingAttempts"], got["errors"][0]["code"]) == (task["_id"], 4, "LEASE_EXPIRED")
    with pytest.raises(Answered) as late:
        await rest.release(task, "a", output="late")
    assert late.value.status == 409
    assert (await rest.release(task, "b", output="mine"))["output"] == "mine"


# ---------------------------------------------------------------- release


@pytest.mark.parametrize("output", [0, "", False, None, [], {"a": {}}, "x"])
async def test_an_output_is_kept_as_it_is_sent(rest: Rest, output: Any):
    await rest.group({})
    task = await rest.release((await rest.acquire())["task"], output=output)
    assert (task["output"], task["isComplete"], task["remainingAttempts"], task["assignedTo"]) == (
        output,
        True,
        0,
        None,
    )
    assert task["output"].__class__ is output.__class__


@pytest.mark.parametrize("error", ["no", "", 0, False, {"code": 1}, []])
async def test_that_error_is_there_is_failure_whatever_it_is(rest: Rest, error: Any):
    await rest.group({})
    task = await rest.release((await rest.acquire())["task"], error=error, output="not this")
    assert (task["isComplete"], task["output"], task["errors"]) == (False, None, [error])
    assert (task["remainingAttempts"], task["assignedTo"]) == (4, None)
    assert task["runAfter"]


async def test_an_error_of_null_is_a_failure_too(rest: Rest):
    await rest.group({})
    task = await rest.release((await rest.acquire())["task"], error=None)
    assert (task["isComplete"], task["errors"]) == (False, ["the worker reported an error of null"])


async def test_the_last_failure_leaves_no_attempt(rest: Rest):
    await rest.group({"remainingAttempts": 1, "errorDelayInSeconds": 0})
    task = await rest.release((await rest.acquire())["task"], error="no")
    assert (task["remainingAttempts"], task["isComplete"]) == (0, False)
    assert await rest.acquire() == {"task": None}
    again = await rest.post(f"/task/{task['_id']}/retry", {"remainingAttempts": 3})
    assert again["remainingAttempts"] == 3
    assert (await rest.acquire())["task"]["_id"] == task["_id"]


async def test_a_repeat_of_a_release_answers_the_task_and_changes_nothing(rest: Rest):
    group, _ = await rest.group({"errorDelayInSeconds": 0}, {})
    good, bad = (await rest.acquire())["task"], (await rest.acquire())["task"]
    children = [{"name": "x", "channel": "d"}]
    first = await rest.release(good, output=1, children=children)
    assert await rest.release(good, output=2, children=children) == first
    assert await rest.release(good, "another", output=3) == first, "as the second Crew answered it"
    failed = await rest.release(bad, error="no")
    assert await rest.release(bad, error="no") == failed
    assert len(await rest.get(f"/task_group/{group}/tasks")) == 3


async def test_a_release_by_another_worker_is_refused_and_changes_nothing(rest: Rest):
    await rest.group({})
    task = (await rest.acquire("a"))["task"]
    for more in ({"output": 1}, {"error": "no"}):
        with pytest.raises(Answered) as refused:
            await rest.release(task, "b", **more)
        assert refused.value.status == 409
        assert "'b'" in refused.value.body["message"]
    assert await rest.get(f"/task/{task['_id']}") == task


async def test_a_task_cancelled_meanwhile_is_refused(rest: Rest, crew: Crew):
    await rest.group({})
    task = (await rest.acquire())["task"]
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[task["_id"]])
    with pytest.raises(Answered) as refused:
        await rest.release(task, output=1)
    assert (refused.value.status, "cancelled" in refused.value.body["message"]) == (409, True)


async def test_children_hang_from_the_siblings_they_name_or_from_the_task(rest: Rest):
    group, _ = await rest.group({"name": "root"})
    root = (await rest.acquire())["task"]
    children = [
        {"_child_id": "c", "_parent_ids": ["a", 7], "name": "c", "channel": "d"},
        {"_child_id": "a", "name": "a", "channel": "d", "input": {"n": 0}, "workgroup": "g", "key": "k", "priority": 2},
        {"_child_id": 7, "name": "b", "channel": "d", "remainingAttempts": 1, "errorDelayInSeconds": 5},
        {"_child_id": "e", "_parent_ids": [], "name": "e", "channel": "d"},
    ]
    await rest.release(root, output=0, children=children)
    tasks = {t["name"]: t for t in await rest.get(f"/task_group/{group}/tasks")}
    ids = {name: task["_id"] for name, task in tasks.items()}
    assert tasks["a"]["parentIds"] == tasks["b"]["parentIds"] == tasks["e"]["parentIds"] == [root["_id"]]
    assert tasks["c"]["parentIds"] == [ids["a"], ids["b"]]
    assert (tasks["c"]["parentsComplete"], tasks["a"]["parentsComplete"]) == (False, True)
    assert [tasks["a"][f] for f in ("input", "workgroup", "key", "priority")] == [{"n": 0}, "g", "k", 2]
    assert [tasks["b"][f] for f in ("remainingAttempts", "errorDelayInSeconds")] == [1, 5]


async def test_children_of_a_failure_are_not_made(rest: Rest):
    group, _ = await rest.group({})
    await rest.release((await rest.acquire())["task"], error="no", children=[{"name": "x", "channel": "d"}])
    assert len(await rest.get(f"/task_group/{group}/tasks")) == 1


@pytest.mark.parametrize(
    "children",
    [
        [{"channel": "d"}],
        [{"name": "x"}],
        [{"name": 1, "channel": "d"}],
        [{"name": "x", "channel": "d", "_parent_ids": ["nobody"]}],
        [{"name": "x", "channel": "d", "_parent_ids": "y"}],
        [
            {"_child_id": "a", "_parent_ids": ["b"], "name": "x", "channel": "d"},
            {"_child_id": "b", "_parent_ids": ["a"], "name": "x", "channel": "d"},
        ],
        [{"_child_id": "a", "name": "x", "channel": "d"}, {"_child_id": "a", "name": "x", "channel": "d"}],
        ["x"],
        {"a": 1},
        [{"name": "x", "channel": "d", "remainingAttempts": 0}],
    ],
)
async def test_bad_children_are_refused_and_the_task_stays_assigned(rest: Rest, children: Any):
    group, _ = await rest.group({})
    task = (await rest.acquire())["task"]
    with pytest.raises(Answered) as refused:
        await rest.release(task, output=1, children=children)
    assert refused.value.status == 400
    assert list(refused.value.body) == ["message"]
    assert await rest.get(f"/task/{task['_id']}") == task
    assert (await rest.release(task, output=1))["isComplete"] is True
    assert len(await rest.get(f"/task_group/{group}/tasks")) == 1


async def test_delays_of_workgroup_and_children(rest: Rest, crew: Crew):
    await rest.group({"workgroup": "g"}, {"workgroup": "g"}, {"channel": "d", "after": [0]})
    task = (await rest.acquire())["task"]
    await rest.release(task, output=1, workgroupDelayInSeconds=50, childrenDelayInSeconds=60)
    assert await rest.acquire() == {"task": None}, "its workgroup is suspended"
    (child,) = await rest.get("/channel/d/tasks")
    assert (child["parentsComplete"], child["runAfter"] is None) == (True, False)
    (row,) = await crew.sql("select extract(epoch from until - now())::int as s from hold")
    assert 45 <= row["s"] <= 50


async def test_an_error_may_suspend_the_workgroup(rest: Rest):
    await rest.group({"workgroup": "g"}, {"workgroup": "g"}, {"workgroup": "other"})
    await rest.release((await rest.acquire())["task"], error="429", workgroupDelayInSeconds=60)
    assert (await rest.acquire())["task"]["workgroup"] == "other"
    assert await rest.acquire() == {"task": None}


async def test_pauses_of_tasks_and_groups(rest: Rest):
    group, (task, child) = await rest.group({}, {"after": [0]})
    assert (await rest.post(f"/task_group/{group}/pause"))["isPaused"] is True
    assert [t["isPaused"] for t in await rest.get(f"/task_group/{group}/tasks")] == [True, True]
    assert await rest.acquire() == {"task": None}
    assert (await rest.post(f"/task_group/{group}/resume", {}))["isPaused"] is False
    assert (await rest.post(f"/task/{task['_id']}/pause"))["isPaused"] is True
    assert (await rest.post(f"/task/{child['_id']}/pause"))["isPaused"] is True, "also where it waits anyway"
    assert await rest.acquire() == {"task": None}
    assert (await rest.post(f"/task/{task['_id']}/resume"))["isPaused"] is False
    assert (await rest.acquire())["task"]["_id"] == task["_id"]


async def test_a_groups_failed_tasks_are_retried(rest: Rest):
    group, _ = await rest.group({"remainingAttempts": 1, "errorDelayInSeconds": 0}, {"remainingAttempts": 1})
    for _ in range(2):
        await rest.release((await rest.acquire())["task"], error="no")
    assert (await rest.post(f"/task_group/{group}/retry"))["_id"] == group
    assert [t["remainingAttempts"] for t in await rest.get(f"/task_group/{group}/tasks")] == [2, 2]


# ---------------------------------------------------------------- changes


async def test_a_task_is_updated_field_by_field(rest: Rest):
    _, (task,) = await rest.group({"workgroup": "g", "key": "k"})
    given = {
        "name": "other",
        "channel": "d",
        "workgroup": None,
        "key": "",
        "remainingAttempts": 9,
        "priority": -3,
        "runAfter": "2080-01-02T03:04:05.678Z",
        "progressWeight": 0,
        "isSeed": True,
        "errorDelayInSeconds": 4000,
        "input": "",
    }
    changed = await rest.ask(
        "PUT", f"/task/{task['_id']}", {**given, "isComplete": True, "assignedTo": "me", "output": 1}
    )
    assert changed == {**task, **given, "key": None}
    assert await rest.get(f"/task/{task['_id']}") == changed


async def test_a_document_that_is_put_back_as_it_was_read_changes_nothing(rest: Rest, crew: Crew):
    _, (task, _) = await rest.group({"workgroup": "g"}, {"workgroup": "g"})
    assert await rest.ask("PUT", f"/task/{task['_id']}", task) == task
    running = (await rest.acquire())["task"]
    assert await rest.ask("PUT", f"/task/{task['_id']}", running) == running
    await rest.release(running, error="no", workgroupDelayInSeconds=60)
    failed = await rest.get(f"/task/{task['_id']}")
    assert await rest.ask("PUT", f"/task/{task['_id']}", failed) == failed


async def test_a_failed_task_that_is_given_attempts_runs_again(rest: Rest):
    _, (task,) = await rest.group({"remainingAttempts": 1})
    await rest.release((await rest.acquire())["task"], error="no")
    assert (await rest.ask("PUT", f"/task/{task['_id']}", {"remainingAttempts": 2}))["remainingAttempts"] == 2
    assert (await rest.acquire())["task"]["_id"] == task["_id"]


async def test_a_group_is_renamed(rest: Rest):
    group, _ = await rest.group()
    changed = await rest.ask("PUT", f"/task_group/{group}", {"name": "other", "isPaused": True})
    assert (changed["name"], changed["isPaused"]) == ("other", False)
    assert await rest.get(f"/task_group/{group}") == changed


async def test_a_reset_task_looks_as_if_it_had_never_run(rest: Rest):
    _, (task, child) = await rest.group({}, {"channel": "d", "after": [0]})
    await rest.release((await rest.acquire())["task"], output=1)
    assert await rest.post(f"/task/{task['_id']}/reset", {"remainingAttempts": 3}) == task
    assert await rest.get(f"/task/{child['_id']}") == child


async def test_a_reset_group_is_left_with_its_seeds(rest: Rest):
    group, (seed, _) = await rest.group({"isSeed": True}, {"channel": "d"})
    await rest.release((await rest.acquire())["task"], output=1, children=[{"name": "x", "channel": "d"}])
    assert (await rest.post(f"/task_group/{group}/reset"))["_id"] == group
    assert await rest.get(f"/task_group/{group}/tasks") == [seed]


async def test_tasks_are_deleted_with_all_below_and_groups_whole(rest: Rest):
    group, (task, _, other) = await rest.group({}, {"after": [0]}, {})
    assert (await rest.ask("DELETE", f"/task/{task['_id']}"))["deletedCount"] == 1
    assert [t["_id"] for t in await rest.get(f"/task_group/{group}/tasks")] == [other["_id"]]
    assert (await rest.ask("DELETE", f"/task_group/{group}"))["deletedCount"] == 1
    for method, path in (
        ("GET", f"/task_group/{group}"),
        ("DELETE", f"/task_group/{group}"),
        ("GET", f"/task/{task['_id']}"),
    ):
        with pytest.raises(Answered) as gone:
            await rest.ask(method, path)
        assert gone.value.status == 404


async def test_a_plucked_task_is_a_copy_in_a_paused_group_of_its_own(rest: Rest):
    group, (_, task) = await rest.group({"name": "a"}, {"name": "b", "channel": "d", "input": 7, "after": [0]})
    await rest.release((await rest.acquire())["task"], output="of a")
    copy = await rest.post(f"/task/{task['_id']}/pluck")
    assert (copy["name"], copy["channel"], copy["input"], copy["isPaused"]) == ("b", "d", 7, True)
    assert copy["taskGroupId"] != group
    await rest.release((await rest.acquire(channel="d"))["task"], output=1)
    assert await rest.acquire(channel="d") == {"task": None}
    await rest.post(f"/task_group/{copy['taskGroupId']}/resume")
    got = await rest.acquire(channel="d")
    assert got["task"]["_id"] == copy["_id"]
    assert [p["output"] for p in got["parents"]] == ["of a"]


# ---------------------------------------------------------------- whole workers


async def test_a_worker_does_a_dag_that_it_grows_itself(rest: Rest):
    await rest.group({"name": "campaign", "channel": "create", "input": {"adsets": 2}})

    def create(input: Any, parents: list[Any]) -> dict[str, Any]:
        made = [
            {"_child_id": f"s{n}", "name": f"adset {n}", "channel": "adset", "input": {"n": n}}
            for n in range(input["adsets"])
        ]
        verify = {"_child_id": "v", "_parent_ids": ["s0", "s1"], "name": "verify", "channel": "verify"}
        return {"output": {"campaign": 1}, "children": [*made, verify]}

    failures = iter([True, False, False])

    def adset(input: Any, parents: list[Any]) -> dict[str, Any]:
        if next(failures):
            raise RuntimeError("the ads API failed")
        return {"output": parents[0]["output"]["campaign"] + input["n"]}

    seen: list[Any] = []

    def verify(input: Any, parents: list[Any]) -> dict[str, Any]:
        seen.extend(p["output"] for p in parents)
        return {"output": ""}

    assert await Worker(rest, "create", create).run() == ["campaign"]
    worker = Worker(rest, "adset", adset)
    assert len(await worker.run()) == 2
    assert await Worker(rest, "verify", verify).run() == []
    (failed,) = [t for t in await rest.get("/channel/adset/tasks") if t["errors"]]
    assert failed["errors"] == ["the ads API failed"]
