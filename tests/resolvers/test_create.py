"""Creating: whole graphs, in any order, safely repeated, all or nothing."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import itertools
import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support.crew import CREATE, CREATE_TASKS, Crew, Refused
from tests.support.wait import end_delays

LINKED = "id name state parentCount childCount parents { name } children { name } spawnedBy { name }"


def new_id() -> str:
    return str(uuid.uuid4())


async def count(crew: Crew, table: str) -> int:
    n: int = (await crew.sql(f"select count(*)::int as n from {table}"))[0]["n"]
    return n


async def parents_of(crew: Crew, id: str) -> list[str]:
    return [p["name"] for p in (await crew.task(id, "parents { name }"))["parents"]]


# -- graphs -------------------------------------------------------------------------------------------------------------


async def test_a_group_can_be_made_without_tasks(crew: Crew) -> None:
    made = await crew.create()
    assert made["tasks"] == []
    assert await crew.states(made["taskGroup"]["id"]) == {}


async def test_a_whole_graph_is_made_in_one_call(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a"},
        {"name": "b", "ref": "b", "parents": [{"ref": "a"}]},
        {"name": "c", "ref": "c", "parents": [{"ref": "a"}]},
        {"name": "d", "parents": [{"ref": "b"}, {"ref": "c"}]},
    )
    graph = "query($id: ID!) { taskGroup(id: $id) { graph { nodes { id name state } edges { parentId childId } } } }"
    found = (await crew.ask(graph, id=made["taskGroup"]["id"]))["taskGroup"]["graph"]
    name = {n["id"]: n["name"] for n in found["nodes"]}
    assert {n["name"]: n["state"] for n in found["nodes"]} == {
        "a": "READY",
        "b": "BLOCKED",
        "c": "BLOCKED",
        "d": "BLOCKED",
    }
    edges = sorted((name[e["parentId"]], name[e["childId"]]) for e in found["edges"])
    assert edges == [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_refs_may_be_used_before_and_after_they_are_given(crew: Crew, order: tuple[int, ...]) -> None:
    chain = [
        {"name": "a", "ref": "a"},
        {"name": "b", "ref": "b", "parents": [{"ref": "a"}]},
        {"name": "c", "ref": "c", "parents": [{"ref": "b"}]},
    ]
    made = await crew.create(*[chain[n] for n in order])
    assert [t["name"] for t in made["tasks"]] == ["abc"[n] for n in order]
    for expected in "abc":
        (lease,) = await crew.claim(10)
        assert lease["task"]["name"] == expected
        await crew.complete(lease)


async def test_a_ref_means_something_only_inside_its_call(crew: Crew) -> None:
    made = await crew.create({"name": "a", "ref": "x"})
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(made["taskGroup"]["id"], {"name": "b", "parents": [{"ref": "x"}]})
    assert refused.value.code == "BAD_INPUT"


async def test_parents_are_kept_in_the_order_they_were_named(crew: Crew) -> None:
    made = await crew.create(
        *({"name": n, "ref": n} for n in "abcde"),
        {"name": "join", "parents": [{"ref": n} for n in "dbeac"]},
    )
    assert await parents_of(crew, made["tasks"][-1]["id"]) == list("dbeac")


async def test_a_client_made_id_can_name_a_parent_of_the_same_call(crew: Crew) -> None:
    id = new_id()
    made = await crew.create({"name": "b", "parents": [{"id": id}]}, {"name": "a", "id": id})
    assert made["tasks"][1]["id"] == id
    assert [t["state"] for t in made["tasks"]] == ["BLOCKED", "READY"]
    assert await parents_of(crew, made["tasks"][0]["id"]) == ["a"]


async def test_an_id_in_upper_case_is_the_same_id(crew: Crew) -> None:
    id = new_id()
    made = await crew.create({"name": "a", "id": id.upper()})
    assert made["tasks"][0]["id"] == id
    again = await crew.create_tasks(made["taskGroup"]["id"], {"name": "a", "id": id})
    assert again[0]["id"] == id
    assert await count(crew, "task") == 1


async def test_an_unknown_task_and_group_are_null(crew: Crew) -> None:
    assert await crew.task(new_id()) is None
    assert (await crew.ask("query($id: ID!) { taskGroup(id: $id) { id } }", id=new_id()))["taskGroup"] is None


async def test_the_answer_is_in_the_order_sent(crew: Crew) -> None:
    names = [f"t{n}" for n in range(50)]
    tasks = [{"name": n, "ref": n, "parents": [{"ref": names[-1]}] if n != names[-1] else []} for n in names]
    made = await crew.create(*tasks)
    assert [t["name"] for t in made["tasks"]] == names
    again = await crew.create_tasks(made["taskGroup"]["id"], *({"name": n} for n in reversed(names)))
    assert [t["name"] for t in again] == names[::-1]


async def test_a_deep_chain_runs_in_order(crew: Crew) -> None:
    tasks = [{"name": str(n), "ref": str(n), "parents": [{"ref": str(n - 1)}] if n else []} for n in range(20)]
    await crew.create(*reversed(tasks))
    for n in range(20):
        (lease,) = await crew.claim(5)
        assert lease["task"]["name"] == str(n)
        await crew.complete(lease)


async def test_a_task_with_many_parents_waits_for_all(crew: Crew) -> None:
    made = await crew.create(
        *({"name": "p", "ref": str(n)} for n in range(100)),
        {"name": "join", "parents": [{"ref": str(n)} for n in range(100)]},
    )
    join = made["tasks"][-1]["id"]
    assert (await crew.task(join, "parentCount"))["parentCount"] == 100
    leases = await crew.claim(100)
    await crew.complete(*leases[:99])
    assert (await crew.task(join))["state"] == "BLOCKED"
    await crew.complete(leases[99])
    assert (await crew.task(join))["state"] == "READY"


# -- into a group that is there -----------------------------------------------------------------------------------------


async def test_tasks_can_be_added_under_parents_that_exist(crew: Crew) -> None:
    made = await crew.create({"name": "a"})
    (child,) = await crew.create_tasks(
        made["taskGroup"]["id"], {"name": "b", "parents": [{"id": made["tasks"][0]["id"]}]}
    )
    assert child["state"] == "BLOCKED"
    assert await parents_of(crew, child["id"]) == ["a"]
    await crew.complete(*await crew.claim())
    assert (await crew.task(child["id"]))["state"] == "READY"


async def test_a_task_under_a_running_parent_waits_for_it(crew: Crew) -> None:
    made = await crew.create({"name": "a"})
    (lease,) = await crew.claim()
    (child,) = await crew.create_tasks(
        made["taskGroup"]["id"], {"name": "b", "parents": [{"id": made["tasks"][0]["id"]}]}
    )
    assert child["state"] == "BLOCKED"
    await crew.complete(lease)
    assert (await crew.task(child["id"]))["state"] == "READY"


async def test_a_task_under_a_parent_that_has_succeeded_is_ready(crew: Crew) -> None:
    made = await crew.create({"name": "a"})
    await crew.complete(*await crew.claim())
    (child,) = await crew.create_tasks(
        made["taskGroup"]["id"], {"name": "b", "parents": [{"id": made["tasks"][0]["id"]}]}
    )
    assert child["state"] == "READY"
    assert await parents_of(crew, child["id"]) == ["a"]


async def test_a_task_under_a_failed_parent_is_blocked_until_a_retry_succeeds(crew: Crew) -> None:
    made = await crew.create({"name": "a"})
    parent = made["tasks"][0]["id"]
    await crew.fail(*await crew.claim(), discard=True)
    (child,) = await crew.create_tasks(made["taskGroup"]["id"], {"name": "b", "parents": [{"id": parent}]})
    assert child["state"] == "BLOCKED"
    await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=[parent])
    await crew.complete(*await crew.claim())
    assert (await crew.task(child["id"]))["state"] == "READY"


async def test_a_task_under_a_delayed_parent_is_blocked(crew: Crew) -> None:
    made = await crew.create({"name": "a", "delaySeconds": 100})
    (child,) = await crew.create_tasks(
        made["taskGroup"]["id"], {"name": "b", "parents": [{"id": made["tasks"][0]["id"]}]}
    )
    assert child["state"] == "BLOCKED"


async def test_parents_that_exist_and_parents_of_the_call_can_be_mixed(crew: Crew) -> None:
    made = await crew.create({"name": "old"}, {"name": "done", "priority": 1})
    old, done = (t["id"] for t in made["tasks"])
    (lease,) = await crew.claim()
    await crew.complete(lease)
    tasks = await crew.create_tasks(
        made["taskGroup"]["id"],
        {"name": "join", "parents": [{"ref": "new"}, {"id": done}, {"id": old}]},
        {"name": "new", "ref": "new"},
    )
    assert [t["state"] for t in tasks] == ["BLOCKED", "READY"]
    assert await parents_of(crew, tasks[0]["id"]) == ["new", "done", "old"]
    await crew.complete(*await crew.claim(5))
    assert (await crew.task(tasks[0]["id"]))["state"] == "READY"


async def test_tasks_for_an_unknown_group_are_not_found(crew: Crew) -> None:
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(new_id(), {"name": "a"})
    assert refused.value.code == "NOT_FOUND"
    assert refused.value.path == ["input", "groupId"]
    assert await count(crew, "task") == 0


async def test_no_tasks_can_be_added(crew: Crew) -> None:
    made = await crew.create()
    assert await crew.create_tasks(made["taskGroup"]["id"]) == []


# -- repeats ------------------------------------------------------------------------------------------------------------


async def test_a_repeated_group_answers_the_same_group_and_tasks(crew: Crew) -> None:
    id = new_id()
    tasks = ({"name": "b", "parents": [{"ref": "a"}]}, {"name": "a", "ref": "a"})
    first = await crew.create(*tasks, id=id)
    assert first["taskGroup"]["id"] == id
    assert await crew.create(*tasks, id=id) == first
    assert (await count(crew, "task_group"), await count(crew, "task"), await count(crew, "edge")) == (1, 2, 1)


async def test_a_repeated_group_answers_the_tasks_as_they_are_now(crew: Crew) -> None:
    id = new_id()
    first = await crew.create({"name": "a"}, id=id)
    await crew.complete(*await crew.claim())
    again = await crew.create({"name": "a"}, id=id)
    assert again["tasks"] == [{**first["tasks"][0], "state": "SUCCEEDED"}]
    assert await crew.claim() == []


async def test_a_repeated_group_does_not_answer_tasks_that_came_later(crew: Crew) -> None:
    id = new_id()
    first = await crew.create({"name": "a"}, id=id)
    await crew.create_tasks(id, {"name": "later"})
    assert await crew.create({"name": "a"}, id=id) == first


async def test_a_repeated_group_with_client_made_task_ids_creates_nothing(crew: Crew) -> None:
    id, a, b = new_id(), new_id(), new_id()
    tasks = ({"name": "a", "id": a}, {"name": "b", "id": b, "parents": [{"id": a}]})
    first = await crew.create(*tasks, id=id)
    assert [t["id"] for t in first["tasks"]] == [a, b]
    assert await crew.create(*tasks, id=id) == first
    assert await count(crew, "task") == 2


async def test_a_repeated_group_without_tasks_is_the_same_group(crew: Crew) -> None:
    id = new_id()
    assert await crew.create(id=id) == await crew.create(id=id)
    assert await count(crew, "task_group") == 1


async def test_a_group_repeated_a_hundred_tasks_at_a_time_keeps_their_order(crew: Crew) -> None:
    id = new_id()
    tasks = [{"name": f"t{n}"} for n in range(100)]
    first = await crew.create(*tasks, id=id)
    assert await crew.create(*tasks, id=id) == first


async def test_two_groups_without_ids_are_two_groups(crew: Crew) -> None:
    first, second = await crew.create({"name": "a"}), await crew.create({"name": "a"})
    assert first["taskGroup"]["id"] != second["taskGroup"]["id"]
    assert await count(crew, "task") == 2


async def test_a_repeated_create_tasks_answers_the_same_tasks_and_changes_nothing(crew: Crew) -> None:
    group = (await crew.create())["taskGroup"]["id"]
    id = new_id()
    first = await crew.create_tasks(group, {"name": "a", "id": id, "priority": 1})
    again = await crew.create_tasks(group, {"name": "other", "id": id, "priority": 2, "delaySeconds": 10})
    assert again == first
    assert (await crew.task(id, "name priority state")) == {"name": "a", "priority": 1, "state": "READY"}
    assert await count(crew, "task") == 1


async def test_a_repeat_adds_no_link(crew: Crew) -> None:
    group = (await crew.create())["taskGroup"]["id"]
    a, b = new_id(), new_id()
    await crew.create_tasks(group, {"name": "a", "id": a}, {"name": "b", "id": b})
    await crew.create_tasks(group, {"name": "b", "id": b, "parents": [{"id": a}]})
    assert (await crew.task(b, "state parentCount")) == {"state": "READY", "parentCount": 0}
    assert await count(crew, "edge") == 0


async def test_a_partly_repeated_call_links_new_tasks_to_old_ones_by_ref(crew: Crew) -> None:
    group = (await crew.create())["taskGroup"]["id"]
    a, b = new_id(), new_id()
    await crew.create_tasks(group, {"name": "a", "id": a, "ref": "a"})
    tasks = await crew.create_tasks(
        group, {"name": "b", "id": b, "parents": [{"ref": "a"}]}, {"name": "a", "id": a, "ref": "a"}
    )
    assert [(t["id"], t["state"]) for t in tasks] == [(b, "BLOCKED"), (a, "READY")]
    assert await parents_of(crew, b) == ["a"]
    assert await count(crew, "task") == 2


async def test_a_partly_repeated_call_links_new_tasks_to_old_ones_by_id(crew: Crew) -> None:
    group = (await crew.create())["taskGroup"]["id"]
    a = new_id()
    await crew.create_tasks(group, {"name": "a", "id": a})
    await crew.complete(*await crew.claim())
    old, new = await crew.create_tasks(group, {"name": "a", "id": a}, {"name": "b", "parents": [{"id": a}]})
    assert (old["state"], new["state"]) == ("SUCCEEDED", "READY")
    assert await parents_of(crew, new["id"]) == ["a"]


async def test_a_task_id_of_another_group_is_a_conflict(crew: Crew) -> None:
    id = new_id()
    await crew.create({"name": "a", "id": id})
    group = (await crew.create())["taskGroup"]["id"]
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(group, {"name": "x"}, {"name": "a", "id": id})
    assert refused.value.code == "CONFLICT"
    assert refused.value.path == ["input", "tasks", 1, "id"]
    assert await count(crew, "task") == 1


async def test_a_task_id_of_another_group_is_a_conflict_in_a_new_group_too(crew: Crew) -> None:
    id = new_id()
    await crew.create({"name": "a", "id": id})
    with pytest.raises(Refused) as refused:
        await crew.create({"name": "x"}, {"name": "a", "id": id})
    assert refused.value.code == "CONFLICT"
    assert refused.value.path == ["input", "tasks", 1, "id"]
    assert (await count(crew, "task"), await count(crew, "task_group")) == (1, 1)


async def test_a_group_and_a_task_may_share_an_id(crew: Crew) -> None:
    """They are different things: nothing in the contract forbids it."""
    id = new_id()
    made = await crew.create({"name": "a", "id": id}, id=id)
    assert (made["taskGroup"]["id"], made["tasks"][0]["id"]) == (id, id)


# -- many groups --------------------------------------------------------------------------------------------------------

GROUPS = (
    "mutation($input: CreateTaskGroupsInput!) { createTaskGroups(input: $input) "
    "{ groups { taskGroup { id name } tasks { id name state } } } }"
)


async def test_many_groups_are_made_in_one_call_in_order(crew: Crew) -> None:
    groups = [{"name": f"g{n}", "tasks": [{"name": f"t{n}.{m}", "channel": "c"} for m in range(n)]} for n in range(5)]
    made = (await crew.ask(GROUPS, input={"groups": groups}))["createTaskGroups"]["groups"]
    assert [g["taskGroup"]["name"] for g in made] == [g["name"] for g in groups]
    assert [[t["name"] for t in g["tasks"]] for g in made] == [[t["name"] for t in g["tasks"]] for g in groups]
    assert await count(crew, "task_group") == 5


async def test_no_groups_are_no_groups(crew: Crew) -> None:
    assert (await crew.ask(GROUPS, input={"groups": []}))["createTaskGroups"]["groups"] == []


async def test_of_many_groups_all_are_made_or_none(crew: Crew) -> None:
    groups = [
        {"name": "good", "tasks": [{"name": "a", "channel": "c"}]},
        {"name": "bad", "tasks": [{"name": "a", "channel": "c", "parents": [{"ref": "nobody"}]}]},
    ]
    with pytest.raises(Refused) as refused:
        await crew.ask(GROUPS, input={"groups": groups})
    assert refused.value.code == "BAD_INPUT"
    assert refused.value.path == ["input", "groups", 1, "tasks", 0, "parents", 0, "ref"]
    assert (await count(crew, "task_group"), await count(crew, "task")) == (0, 0)


async def test_of_many_groups_none_is_made_when_one_meets_a_conflict(crew: Crew) -> None:
    id = new_id()
    await crew.create({"name": "a", "id": id})
    groups = [
        {"name": "good", "tasks": [{"name": "a", "channel": "c"}]},
        {"name": "bad", "tasks": [{"name": "a", "channel": "c", "id": id}]},
    ]
    with pytest.raises(Refused) as refused:
        await crew.ask(GROUPS, input={"groups": groups})
    assert refused.value.code == "CONFLICT"
    assert refused.value.path == ["input", "groups", 1, "tasks", 0, "id"]
    assert (await count(crew, "task_group"), await count(crew, "task")) == (1, 1)


async def test_repeated_groups_are_the_same_groups_and_new_ones_are_added(crew: Crew) -> None:
    one = {"id": new_id(), "name": "one", "tasks": [{"name": "a", "channel": "c"}]}
    two = {"id": new_id(), "name": "two", "tasks": [{"name": "b", "channel": "c"}]}
    first = (await crew.ask(GROUPS, input={"groups": [one]}))["createTaskGroups"]["groups"]
    both = (await crew.ask(GROUPS, input={"groups": [two, one]}))["createTaskGroups"]["groups"]
    assert both[1] == first[0]
    assert both[0]["taskGroup"] == {"id": two["id"], "name": "two"}
    assert (await count(crew, "task_group"), await count(crew, "task")) == (2, 2)


async def test_refs_of_two_groups_of_one_call_do_not_meet(crew: Crew) -> None:
    tasks = [{"name": "a", "channel": "c", "ref": "a"}, {"name": "b", "channel": "c", "parents": [{"ref": "a"}]}]
    made = await crew.ask(GROUPS, input={"groups": [{"name": "g", "tasks": tasks}, {"name": "h", "tasks": tasks}]})
    groups = made["createTaskGroups"]["groups"]
    for group in groups:
        query = "{ parents { id } }"
        child = await crew.task(group["tasks"][1]["id"], query[2:-2])
        assert child["parents"] == [{"id": group["tasks"][0]["id"]}]


@pytest.mark.parametrize("what", ["group", "task"])
async def test_an_id_given_twice_in_one_call_is_refused_with_its_path(crew: Crew, what: str) -> None:
    id = new_id()
    task = {"name": "a", "channel": "c", **({"id": id} if what == "task" else {})}
    group = {"name": "g", "tasks": [task], **({"id": id} if what == "group" else {})}
    with pytest.raises(Refused) as refused:
        await crew.ask(GROUPS, input={"groups": [group, group]})
    assert refused.value.code == "BAD_INPUT"
    expected = ["input", "groups", 1, "id"] if what == "group" else ["input", "groups", 1, "tasks", 0, "id"]
    assert refused.value.path == expected
    assert (await count(crew, "task_group"), await count(crew, "task")) == (0, 0)


# -- when ---------------------------------------------------------------------------------------------------------------


async def now(crew: Crew) -> datetime:
    value: datetime = (await crew.sql("select now() as now"))[0]["now"]
    return value


async def test_a_delayed_task_is_scheduled_and_says_until_when(crew: Crew) -> None:
    before = await now(crew)
    made = await crew.create({"name": "a", "delaySeconds": 100})
    task = await crew.task(made["tasks"][0]["id"], "state notBefore runAfter heldBy readyAt")
    assert (task["state"], task["heldBy"], task["readyAt"]) == ("SCHEDULED", [], None)
    until = datetime.fromisoformat(task["notBefore"])
    assert before + timedelta(seconds=100) <= until <= await now(crew) + timedelta(seconds=100)
    assert await crew.claim() == []


async def test_a_task_with_a_time_of_its_own_is_scheduled_until_then(crew: Crew) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=123456)
    made = await crew.create({"name": "a", "runAfter": at.isoformat()})
    task = await crew.task(made["tasks"][0]["id"], "state notBefore runAfter")
    assert task["state"] == "SCHEDULED"
    assert datetime.fromisoformat(task["runAfter"]) == at
    assert datetime.fromisoformat(task["notBefore"]) == at


async def test_run_after_may_come_in_any_offset(crew: Crew) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    for hours in (-12, 0, 5.5, 14):
        local = at.astimezone(timezone(timedelta(hours=hours)))
        made = await crew.create({"name": "a", "runAfter": local.isoformat()})
        task = await crew.task(made["tasks"][0]["id"], "runAfter")
        assert datetime.fromisoformat(task["runAfter"]) == at


@pytest.mark.parametrize("form", ["2031-01-31T09:30:00Z", "2031-01-31T09:30:00z", "2031-01-31t09:30:00.5+00:00"])
async def test_run_after_is_read_as_rfc_3339(crew: Crew, form: str) -> None:
    made = await crew.create({"name": "a", "runAfter": form})
    task = await crew.task(made["tasks"][0]["id"], "runAfter")
    assert datetime.fromisoformat(task["runAfter"]) == datetime.fromisoformat(form.upper())


async def test_a_time_that_is_past_makes_a_task_ready(crew: Crew) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    made = await crew.create({"name": "a", "runAfter": at.isoformat()})
    task = await crew.task(made["tasks"][0]["id"], "state notBefore runAfter")
    assert (task["state"], task["notBefore"]) == ("READY", None)
    assert datetime.fromisoformat(task["runAfter"]) == at


async def test_a_delay_of_nothing_makes_a_task_ready(crew: Crew) -> None:
    made = await crew.create({"name": "a", "delaySeconds": 0})
    assert made["tasks"][0]["state"] == "READY"


async def test_a_delay_that_ends_makes_a_task_ready(crew: Crew) -> None:
    made = await crew.create({"name": "a", "delaySeconds": 100})
    await end_delays(crew)
    task = await crew.task(made["tasks"][0]["id"], "state notBefore readyAt")
    assert (task["state"], task["notBefore"]) == ("READY", None)
    assert task["readyAt"] is not None
    assert len(await crew.claim()) == 1


async def test_a_blocked_task_with_a_delay_says_so_and_is_scheduled_when_its_parents_are_done(crew: Crew) -> None:
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}], "delaySeconds": 100})
    child = made["tasks"][1]["id"]
    task = await crew.task(child, "state notBefore")
    assert task["state"] == "BLOCKED"
    assert task["notBefore"] is not None
    await crew.complete(*await crew.claim())
    assert await crew.task(child, "state notBefore") == {"state": "SCHEDULED", "notBefore": task["notBefore"]}
    await end_delays(crew)
    assert len(await crew.claim()) == 1


async def test_a_blocked_task_whose_delay_has_ended_is_ready_with_its_parents(crew: Crew) -> None:
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}], "delaySeconds": 100})
    await crew.sql("update blocked set run_at = now() - interval '1 s'")
    await crew.complete(*await crew.claim())
    assert (await crew.task(made["tasks"][1]["id"]))["state"] == "READY"


# -- what comes back ----------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    0,
    -0.0,
    1.0,
    False,
    True,
    "",
    [],
    {},
    None,
    [None],
    {"": None},
    "null",
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
    1 << 53,
    (1 << 53) + 1,
    0.1,
    1e300,
    5e-324,
    -1.7976931348623157e308,
    "Grüße, 世界 🌍",
    "\u0001\u001f\u007f\u2028\u2029\ufeff\uffff",
    "\\u0000",
    'quotes " and \\ back',
    "e\u0301 and é",
    {"b": 1, "a": [1, {"c": [False, 0, "", None]}]},
    {"__proto__": 1, "a.b": 2, "$ref": "x"},
    [[[[[[[[[[1]]]]]]]]]],
    "x" * 100_000,
    list(range(1000)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:40])
async def test_input_and_metadata_come_back_equal(crew: Crew, value: Any) -> None:
    made = await crew.create({"name": "a", "input": value, "metadata": value})
    id = made["tasks"][0]["id"]
    expected = json.dumps(value)
    task = await crew.task(id, "input metadata")
    assert json.dumps(task["input"]) == expected
    assert json.dumps(task["metadata"]) == expected
    (lease,) = await crew.claim()
    assert json.dumps(lease["task"]["input"]) == expected


def graphql_literal(value: Any) -> str | None:
    if isinstance(value, dict):
        if not all(k.isidentifier() for k in value):
            return None
        parts = {k: graphql_literal(v) for k, v in value.items()}
        if None in parts.values():
            return None
        return "{" + ", ".join(f"{k}: {v}" for k, v in parts.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(graphql_literal(v) or "null" for v in value) + "]"
    if isinstance(value, float) and (abs(value) > 1e100 or 0 < abs(value) < 1e-100):
        return None
    return json.dumps(value)


@pytest.mark.parametrize("value", [v for v in VALUES if graphql_literal(v) is not None], ids=lambda v: repr(v)[:40])
async def test_json_that_stands_in_the_document_comes_back_equal(crew: Crew, value: Any) -> None:
    literal = graphql_literal(value)
    made = await crew.ask(
        'mutation { createTaskGroup(input: {name: "g", tasks: [{name: "a", channel: "c", input: %s}]}) '
        "{ tasks { input } } }" % literal
    )
    assert json.dumps(made["createTaskGroup"]["tasks"][0]["input"]) == json.dumps(value)


async def test_metadata_of_a_group_comes_back_equal(crew: Crew) -> None:
    for value in (0, "", False, {"a": [1, None]}, "世界"):
        made = await crew.create(metadata=value)
        query = "query($id: ID!) { taskGroup(id: $id) { metadata } }"
        found = (await crew.ask(query, id=made["taskGroup"]["id"]))["taskGroup"]
        assert json.dumps(found["metadata"]) == json.dumps(value)


@pytest.mark.parametrize("text", ["ü", "世界", "🌍", "a\tb", " ", "a" * 255, "🌍" * 255, "'; drop table task; --"])
async def test_words_are_kept_to_the_character(crew: Crew, text: str) -> None:
    made = await crew.create({"name": text, "channel": text, "workgroup": text, "ref": text}, name=text)
    task = await crew.task(made["tasks"][0]["id"], "name channel workgroup group { name }")
    assert task == {"name": text, "channel": text, "workgroup": text, "group": {"name": text}}
    (lease,) = await crew.claim(channels=(text,), workerId=text)
    assert lease["task"]["channel"] == text
    assert (await crew.task(made["tasks"][0]["id"], "workerId"))["workerId"] == text


async def test_a_name_may_have_a_thousand_characters(crew: Crew) -> None:
    made = await crew.create({"name": "ä" * 1000}, name="b" * 1000)
    assert (await crew.task(made["tasks"][0]["id"], "name"))["name"] == "ä" * 1000


async def test_a_task_is_as_it_was_asked_for(crew: Crew) -> None:
    retry = {"maxAttempts": 7, "delaySeconds": 1.5, "backoff": 2.5, "maxDelaySeconds": 99.5}
    made = await crew.create(
        {"name": "a", "workgroup": "w", "priority": -7, "progressWeight": 9, "isSeed": True, "retry": retry}
    )
    fields = (
        "name channel workgroup state priority progressWeight isSeed attempt remainingAttempts progress progressMessage "
        "workerId leaseExpiresAt startedAt finishedAt output heldBy errors { attempt } "
        "retry { maxAttempts delaySeconds backoff maxDelaySeconds }"
    )
    assert await crew.task(made["tasks"][0]["id"], fields) == {
        "name": "a",
        "channel": "c",
        "workgroup": "w",
        "state": "READY",
        "priority": -7,
        "progressWeight": 9,
        "isSeed": True,
        "attempt": 0,
        "remainingAttempts": 7,
        "progress": None,
        "progressMessage": None,
        "workerId": None,
        "leaseExpiresAt": None,
        "startedAt": None,
        "finishedAt": None,
        "output": None,
        "heldBy": [],
        "errors": [],
        "retry": retry,
    }


async def test_part_of_a_retry_policy_leaves_the_rest_at_its_defaults(crew: Crew) -> None:
    made = await crew.create({"name": "a", "retry": {"backoff": 3}})
    task = await crew.task(made["tasks"][0]["id"], "retry { maxAttempts delaySeconds backoff maxDelaySeconds }")
    assert task["retry"] == {"maxAttempts": 5, "delaySeconds": 30, "backoff": 3, "maxDelaySeconds": 3600}


async def test_creation_answers_only_the_id_when_no_more_is_asked(crew: Crew) -> None:
    made = await crew.ask(
        "mutation($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } tasks { id } } }",
        input={"name": "g", "tasks": [{"name": "a", "channel": "c"}]},
    )
    (task,) = made["createTaskGroup"]["tasks"]
    assert (await crew.task(task["id"]))["name"] == "a"


@pytest.mark.parametrize(
    ("head", "query"),
    [("CreateTaskGroupInput", CREATE), ("CreateTasksInput", CREATE_TASKS)],
)
async def test_creation_through_the_executor_answers_as_the_compiled_one(crew: Crew, head: str, query: str) -> None:
    """A directive on a field sends a document the long way; what it makes is the same."""
    slow = query.replace("{ id name state }", "{ id name state @include(if: true) }")
    group = (await crew.create())["taskGroup"]["id"]
    answers = []
    for text in (query, slow):
        tasks = [
            {"name": "a", "channel": "c", "ref": "a", "input": {"x": [1, 2.5]}},
            {"name": "b", "channel": "c", "parents": [{"ref": "a"}], "retry": {"maxAttempts": 1}},
        ]
        given = {"tasks": tasks, **({"name": "g"} if head == "CreateTaskGroupInput" else {"groupId": group})}
        (payload,) = (await crew.ask(text, input=given)).values()
        shown = []
        for task in payload["tasks"]:
            shown.append({k: v for k, v in task.items() if k != "id"})
            shown.append(await crew.task(task["id"], "name state input remainingAttempts parents { name }"))
        answers.append(shown)
    assert answers[0] == answers[1]
