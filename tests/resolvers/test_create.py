"""Creating: whole graphs, in any order, safely repeated, all or nothing."""

from __future__ import annotations

import asyncio
import itertools
import uuid

import pytest
import strawberry

from schema.new_task import NewTask
from tests.support.crew import Crew, Refused

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


@pytest.mark.parametrize("tasks", [({"name": "a"},), ()], ids=["a task", "nothing"])
async def test_a_group_that_is_gone_takes_no_tasks_and_one_with_its_id_does(
    crew: Crew, tasks: tuple[dict[str, str], ...]
) -> None:
    id = new_id()
    await crew.create(id=id)
    assert len(await crew.create_tasks(id, *tasks)) == len(tasks)
    await crew.ask("mutation($id: ID!) { deleteTaskGroup(id: $id) { deletedTasks } }", id=id)
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(id, *tasks)
    assert refused.value.code == "NOT_FOUND"
    assert refused.value.path == ["input", "groupId"]
    await crew.create(id=id)
    assert len(await crew.create_tasks(id, *tasks)) == len(tasks)
    assert list((await crew.states(id)).values()) == ["READY"] * len(tasks)


async def test_a_group_with_the_id_of_one_that_is_gone_is_not_taken_for_it_beside_a_repeat(crew: Crew) -> None:
    """Two calls are gathered, and one's id is there already: each is made apart, the other by the number of the group of now."""
    gone, other, task, repeated = (new_id() for _ in range(4))
    await crew.create(id=gone)
    await crew.create_tasks(gone, {"name": "x"})
    numbers = crew.services.core.groups.numbers
    old = numbers[uuid.UUID(gone)]
    await crew.ask("mutation($id: ID!) { deleteTaskGroup(id: $id) { deletedTasks } }", id=gone)
    await crew.create({"name": "a", "id": task}, id=gone)
    numbers[uuid.UUID(gone)] = old  # As if another server had made it again.
    await crew.create({"name": "b", "id": repeated}, id=other)
    creator = crew.services.creator
    parts = [
        [creator.into_old(group, [NewTask(name="n", channel="c", id=strawberry.ID(id))], ())]
        for group, id in ((gone, task), (other, repeated))
    ]
    answers = await asyncio.gather(*(creator._made(part) for part in parts))
    assert [[[str(id) for _, id in made.tasks] for made in answer] for answer in answers] == [[[task]], [[repeated]]]
    assert await crew.states(gone) == {"a": "READY"}


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
