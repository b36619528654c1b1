"""Joins: a SUBTREE link waits for the parent and for all that it goes on to spawn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.crew import COMPLETE, Crew, Refused
from tests.support.joins import CANCEL, RETRY, Grows, group, id_of, links, parents, state, t, work
from tests.support.wait import expire_leases

# -- what a join waits for ----------------------------------------------------------------------------------------------

TREES: dict[str, tuple[Grows, list[str]]] = {
    "nothing": ({}, []),
    "one child": ({"root": [t("a")]}, ["a"]),
    "a chain": ({"root": [t("a")], "a": [t("b")], "b": [t("d")], "d": [t("e")]}, ["a", "b", "d", "e"]),
    "a fan": ({"root": [t("a"), t("b"), t("d")], "b": [t("e")]}, ["a", "b", "d", "e"]),
    "each of a fan": (
        {"root": [t("a"), t("b")], "a": [t("a1"), t("a2")], "b": [t("b1")]},
        ["a", "b", "a1", "a2", "b1"],
    ),
    "a graph in one completion": ({"root": [t("a"), t("b", "a"), t("d", "a", "b")]}, ["a", "b", "d"]),
    "under another's parents": ({"root": [t("a", "other")], "a": [t("b", "other")]}, ["a", "b"]),
    "a join inside": ({"root": [t("a"), t("inner", "a*")], "a": [t("b")]}, ["a", "inner", "b"]),
    "what a join inside spawns": (
        {"root": [t("a"), t("inner", "a*")], "a": [t("b")], "inner": [t("d")], "d": [t("e")]},
        ["a", "inner", "b", "d", "e"],
    ),
    "not what waits for it": ({"root": [t("w", "join"), t("a"), t("v", "w", "a")]}, ["a"]),
    "not what waits for it from deep": ({"root": [t("a")], "a": [t("b"), t("w", "after")]}, ["a", "b"]),
    "not what a join on it waits for": ({"root": [t("a"), t("w", "join*"), t("v", "w*")], "w": [t("u")]}, ["a"]),
    "not what those that wait for it spawn": ({"root": [t("a"), t("w", "join")], "w": [t("late")]}, ["a"]),
    "not what comes after it": ({"after": [t("late")], "join": [t("own")]}, []),
    "not another join of it": ({"root": [t("second", "root*"), t("a")], "a": [t("b")]}, ["a", "b"]),
}


@pytest.mark.parametrize("case", TREES)
async def test_a_join_waits_for_all_that_is_spawned_under_its_parent(crew: Crew, case: str) -> None:
    grows, adopted = TREES[case]
    id = await group(crew, t("other", priority=-1), t("root"), t("join", "root*"), t("after", "join"))
    seen = await work(crew, grows)
    assert seen["join"] == ["root", *adopted]
    assert await parents(crew, "join") == ["root", *adopted]
    assert seen["after"] == ["join"]
    states = await crew.states(id)
    made = {c["name"] for children in grows.values() for c in children}
    assert states == dict.fromkeys({"other", "root", "join", "after", *made}, "SUCCEEDED")
    found = await links(crew, id)
    assert found["root", "join"] == ("SUBTREE", False)
    assert found["join", "after"] == ("TASK", False)
    assert {p for (p, c), (_, is_adopted) in found.items() if c == "join" and is_adopted} == set(adopted)
    assert all(found[a, "join"] == ("SUBTREE", True) for a in adopted)


async def test_a_plain_link_waits_for_the_parent_alone(crew: Crew) -> None:
    await group(crew, t("root"), t("plain", "root"), t("join", "root*"))
    assert await work(crew, {"root": [t("a"), t("b")]}, 1) == {"root": []}
    assert [await state(crew, n) for n in ("plain", "join")] == ["READY", "BLOCKED"]
    assert await parents(crew, "plain") == ["root"]


async def test_a_join_is_blocked_until_the_very_last_has_ended(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"))
    grows: Grows = {"root": [t("a"), t("b")], "a": [t("d")], "d": [t("e")]}
    for expected in ("root", "a", "b", "d"):
        assert list(await work(crew, grows, 1)) == [expected]
        assert await state(crew, "join") == "BLOCKED"
    assert list(await work(crew, grows, 1)) == ["e"]
    assert await state(crew, "join") == "READY"


async def test_a_subtree_link_by_ref_is_the_same(crew: Crew) -> None:
    made = await crew.create(
        {"name": "join", "parents": [{"ref": "r", "waitFor": "SUBTREE"}]}, {"name": "root", "ref": "r"}
    )
    (lease,) = await crew.claim()
    await crew.complete(lease, children=[{"name": "a", "channel": "c"}])
    task = await crew.task(made["tasks"][0]["id"], "state parents { name }")
    assert task == {"state": "BLOCKED", "parents": [{"name": "root"}, {"name": "a"}]}


async def test_parents_come_in_the_order_they_were_named_and_then_as_they_were_adopted(crew: Crew) -> None:
    await group(
        crew, t("one", priority=1), t("two", priority=2), t("three", priority=3), t("join", "three", "one*", "two*")
    )
    seen = await work(crew, {"one": [t("z"), t("y")], "two": [t("x", priority=9)], "x": [t("a", priority=9)]})
    assert list(seen)[:4] == ["three", "two", "x", "a"]
    assert seen["join"] == ["three", "one", "two", "x", "a", "z", "y"]
    assert await parents(crew, "join") == seen["join"]
    found = await crew.task(id_of("join"), "parents(first: 4) { name } parentCount")
    assert found == {"parents": [{"name": n} for n in ("three", "one", "two", "x")], "parentCount": 7}


async def test_each_parent_of_a_join_brings_its_own_subtree(crew: Crew) -> None:
    await group(crew, t("r1"), t("r2"), t("r3"), t("join", "r1*", "r2", "r3*"))
    seen = await work(crew, {"r1": [t("a")], "r2": [t("b")], "r3": [t("d")]})
    assert seen["join"] == ["r1", "r2", "r3", "a", "d"]


async def test_a_spawned_join_of_another_of_its_parents_is_no_rival(crew: Crew) -> None:
    """`a` joins what r2 spawns, not the subtree that it belongs to."""
    await group(crew, t("r1"), t("r2"), t("join", "r1*", "r2*"))
    seen = await work(crew, {"r1": [t("a", "r2*")], "r2": [t("b")]})
    assert seen["a"] == ["r2", "b"]
    assert seen["join"] == ["r1", "r2", "a", "b"]


async def test_a_spawned_task_that_the_join_names_too_is_one_parent(crew: Crew) -> None:
    await group(crew, t("root"))
    seen = await work(crew, {"root": [t("a"), t("join", "a", "root*"), t("b")]})
    assert seen["join"] == ["a", "root", "b"]


async def test_tasks_know_who_spawned_them(crew: Crew) -> None:
    id = await group(crew, t("root"), t("other"), t("join", "root*"))
    await work(crew, {"root": [t("a"), t("b", "other")], "a": [t("d", "b")], "join": [t("e")]})
    nodes = (
        await crew.ask("query($id: ID!) { taskGroup(id: $id) { graph { nodes { name spawnedBy { name } } } } }", id=id)
    )["taskGroup"]["graph"]["nodes"]
    assert {n["name"]: n["spawnedBy"] and n["spawnedBy"]["name"] for n in nodes} == {
        "root": None,
        "other": None,
        "join": None,
        "a": "root",
        "b": "root",
        "d": "a",
        "e": "join",
    }


# -- growing while others end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
async def test_one_that_ends_and_one_that_spawns_in_one_call_leave_the_join_blocked(
    crew: Crew, order: tuple[str, str]
) -> None:
    await group(crew, t("root"), t("join", "root*"))
    await work(crew, {"root": [t("a"), t("b")]}, 1)
    lease = {x["task"]["name"]: x["id"] for x in await crew.claim(2)}
    results = [{"lease": lease[n], **({"children": [t("new")]} if n == "a" else {})} for n in order]
    done = (await crew.ask(COMPLETE, input={"results": results}))["completeTasks"]
    assert done["completed"] == 2
    assert await state(crew, "join") == "BLOCKED"
    assert list(await work(crew)) == ["new", "join"]


async def test_many_that_spawn_at_once_are_all_waited_for(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"))
    await work(crew, {"root": [t(f"a{n}") for n in range(40)]}, 1)
    leases = await crew.claim(100)
    assert len(leases) == 40
    await asyncio.gather(*(crew.complete(x, children=[t(f"of {x['task']['name']}")]) for x in leases))
    assert (await crew.task(id_of("join"), "state parentCount")) == {"state": "BLOCKED", "parentCount": 81}
    leases = await crew.claim(100)
    assert len(leases) == 40
    await asyncio.gather(*(crew.complete(x) for x in leases[1:]))
    assert await state(crew, "join") == "BLOCKED"
    await crew.complete(leases[0])
    assert await state(crew, "join") == "READY"


async def test_a_released_or_lost_attempt_spawns_nothing_and_the_next_one_counts(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"))
    (first,) = await crew.claim()
    await crew.release(first)
    (second,) = await crew.claim()
    await expire_leases(crew)
    for lease in (first, second):
        assert (await crew.complete(lease, children=[t("a")]))["errors"][0]["code"] == "LOST"
    assert await parents(crew, "join") == ["root"]
    assert (await work(crew, {"root": [t("a")]}))["join"] == ["root", "a"]


async def test_a_twins_join_does_not_wait_for_what_the_runner_spawns(crew: Crew) -> None:
    await group(crew, t("root", key="k"), t("join", "root*"))
    await group(crew, t("twin", key="k"), t("twin's", "twin*"))
    await work(crew, {"root": [t("a")]}, 1)
    assert [await state(crew, n) for n in ("join", "twin's")] == ["BLOCKED", "READY"]
    assert [await parents(crew, n) for n in ("join", "twin's")] == [["root", "a"], ["twin"]]


async def test_a_join_that_has_started_is_left_alone(crew: Crew) -> None:
    """Under RUN it may start after a failure; what a retry of that spawns then comes too late."""
    await group(crew, t("root"), t("join", "root*", onParentFailure="RUN"))
    await work(crew, {"root": [t("a")]}, 1)
    await crew.fail(*await crew.claim(), discard=True)
    (join,) = await crew.claim()
    assert join["task"]["name"] == "join"
    await crew.ask(RETRY, ids=[id_of("a")])
    assert await work(crew, {"a": [t("late")]}) == {"a": ["root"], "late": ["a"]}
    assert await state(crew, "join") == "RUNNING"
    assert (await crew.complete(join))["completed"] == 1
    assert await state(crew, "join") == "SUCCEEDED"


# -- failures and cancels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "while_open", "at_the_end"),
    [("BLOCK", "BLOCKED", "BLOCKED"), ("CANCEL", "CANCELLED", "CANCELLED"), ("RUN", "BLOCKED", "READY")],
)
@pytest.mark.parametrize("end", ["FAILED", "CANCELLED"])
async def test_an_adopted_parent_that_goes_wrong_is_a_parent_like_any_other(
    crew: Crew, end: str, policy: str, while_open: str, at_the_end: str
) -> None:
    await group(crew, t("root"), t("join", "root*", onParentFailure=policy))
    await work(crew, {"root": [t("a"), t("b")]}, 1)
    (a,) = await crew.claim()
    if end == "FAILED":
        await crew.fail(a, discard=True)
    else:
        await crew.ask(CANCEL, ids=[id_of("a")])
    assert await state(crew, "join") == while_open
    await work(crew, None, 1)
    assert await state(crew, "join") == at_the_end


@pytest.mark.parametrize(("policy", "expected"), [("BLOCK", "BLOCKED"), ("CANCEL", "CANCELLED"), ("RUN", "READY")])
async def test_a_root_that_fails_has_no_subtree(crew: Crew, policy: str, expected: str) -> None:
    await group(crew, t("root"), t("join", "root*", onParentFailure=policy))
    await crew.fail(*await crew.claim(), discard=True)
    assert await state(crew, "join") == expected


async def test_a_retry_in_the_subtree_lets_the_join_go_on_with_all_that_it_spawns(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"))
    await work(crew, {"root": [t("a"), t("b")]}, 1)
    await crew.fail(*await crew.claim(), discard=True)
    await work(crew)
    assert await state(crew, "join") == "BLOCKED"
    await crew.ask(RETRY, ids=[id_of("a")])
    seen = await work(crew, {"a": [t("d")]})
    assert list(seen) == ["a", "d", "join"]
    assert seen["join"] == ["root", "a", "b", "d"]


async def test_a_join_that_was_cancelled_adopts_no_more(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"), t("after", "join"))
    await crew.ask(CANCEL, ids=[id_of("join")])
    assert list(await work(crew, {"root": [t("a")]})) == ["root", "a"]
    assert [await state(crew, n) for n in ("join", "after")] == ["CANCELLED", "BLOCKED"]


async def test_a_cancel_with_descendants_follows_the_links_that_someone_named(crew: Crew) -> None:
    id = await group(crew, t("root"), t("join", "root*"), t("after", "join"))
    await work(crew, {"root": [t("a"), t("b")]}, 1)
    await crew.create_tasks(id, t("under a", "a"), t("under both", "under a", "b"))
    answer = (await crew.ask(CANCEL, ids=[id_of("a")], descendants=True))["cancelTasks"]
    assert answer["affected"] == 3
    assert {x["name"] for x in answer["tasks"]} == {"a", "under a", "under both"}
    assert await crew.states(id) == {
        "root": "SUCCEEDED",
        "join": "BLOCKED",
        "after": "BLOCKED",
        "a": "CANCELLED",
        "b": "READY",
        "under a": "CANCELLED",
        "under both": "CANCELLED",
    }


async def test_a_named_subtree_link_is_one_that_someone_named(crew: Crew) -> None:
    id = await group(crew, t("root"), t("join", "root*"), t("after", "join"), t("other"))
    assert (await crew.ask(CANCEL, ids=[id_of("root")], descendants=True))["cancelTasks"]["affected"] == 3
    assert await crew.states(id) == {
        "root": "CANCELLED",
        "join": "CANCELLED",
        "after": "CANCELLED",
        "other": "READY",
    }


# -- repeats ------------------------------------------------------------------------------------------------------------


async def test_a_repeated_completion_adopts_nothing_twice(crew: Crew) -> None:
    id = await group(crew, t("root"), t("join", "root*"))
    (lease,) = await crew.claim()
    for _ in range(3):
        assert (await crew.complete(lease, children=[t("a"), t("b")]))["completed"] == 1
    assert await parents(crew, "join") == ["root", "a", "b"]
    before = await links(crew, id)
    await crew.complete(lease, children=[t("never")])
    assert await links(crew, id) == before
    assert list(await work(crew)) == ["a", "b", "join"]


async def test_a_task_that_is_there_already_is_not_spawned_again(crew: Crew) -> None:
    await group(crew, t("root"), t("other", priority=-1), t("join", "root*"), t("there", "other"))
    seen = await work(crew, {"root": [t("there"), t("a")], "a": [t("a"), t("root"), t("b")]})
    assert seen["join"] == ["root", "a", "b"]
    assert list(seen)[-2:] == ["other", "there"]
    assert seen["there"] == ["other"]
    assert (await crew.task(id_of("there"), "spawnedBy { id }"))["spawnedBy"] is None
    assert (await crew.task(id_of("a"), "spawnedBy { name }"))["spawnedBy"] == {"name": "root"}


async def test_two_that_spawn_the_same_task_spawn_it_once(crew: Crew) -> None:
    await group(crew, t("r1"), t("r2"), t("j1", "r1*"), t("j2", "r2*"))
    seen = await work(crew, {"r1": [t("a")], "r2": [t("a")]})
    assert (seen["j1"], seen["j2"]) == (["r1", "a"], ["r2"])
    assert (await crew.task(id_of("a"), "spawnedBy { name }"))["spawnedBy"] == {"name": "r1"}


async def test_a_late_join_that_is_repeated_is_the_same(crew: Crew) -> None:
    id = await group(crew, t("root"))
    grows: Grows = {"root": [t("a")], "a": [t("b")]}
    await work(crew, grows, 1)
    first = await crew.create_tasks(id, t("join", "root*"))
    assert await crew.create_tasks(id, t("join", "root*")) == first
    assert await crew.create_tasks(id, t("join", "root*", "a*")) == first
    assert await parents(crew, "join") == ["root", "a"]
    await work(crew, grows, 1)
    assert await parents(crew, "join") == ["root", "a", "b"]
    assert (await work(crew))["join"] == ["root", "a", "b"]


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "path"),
    [
        ([{"name": "a", "ref": "a", "parents": [{"ref": "a", "waitFor": "SUBTREE"}]}], [0, "parents", 0, "ref"]),
        (
            [
                {"name": "a", "ref": "a"},
                {"name": "j", "parents": [{"ref": "a", "waitFor": "SUBTREE"}, {"ref": "a"}]},
            ],
            [1, "parents", 1, "ref"],
        ),
        (
            [
                {"name": "a", "ref": "a", "parents": [{"ref": "b", "waitFor": "SUBTREE"}]},
                {"name": "b", "ref": "b", "parents": [{"ref": "a"}]},
            ],
            None,
        ),
        ([{"name": "a", "ref": "a"}, {"name": "j", "parents": [{"ref": "a", "waitFor": "ALL"}]}], [1, "parents", 0]),
        ([{"name": "j", "parents": [{"waitFor": "SUBTREE"}]}], [0, "parents", 0]),
    ],
    ids=["of itself", "named twice", "a cycle", "no such wait", "of nothing"],
)
async def test_a_bad_subtree_link_is_refused(crew: Crew, tasks: list[dict[str, Any]], path: list[Any] | None) -> None:
    with pytest.raises(Refused) as refused:
        await crew.create(*tasks)
    assert refused.value.code == "BAD_INPUT"
    if path:
        assert refused.value.path[: 2 + len(path)] == ["input", "tasks", *path]
    assert await crew.sql("select from task") == []


async def test_null_waits_for_the_task(crew: Crew) -> None:
    id = await group(crew, t("root"), {**t("child"), "parents": [{"id": id_of("root"), "waitFor": None}]})
    await work(crew, {"root": [t("a")]}, 1)
    assert (await links(crew, id))["root", "child"] == ("TASK", False)
    assert await state(crew, "child") == "READY"
