"""Joins that come with their tree or after it, and several joins of one tree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.crew import COMPLETE, Crew
from tests.support.joins import CANCEL, Grows, group, id_of, parents, state, t, work

# -- joins that come with their tree, and after it ----------------------------------------------------------------------

TOGETHER: dict[str, tuple[Grows, list[str]]] = {
    "of the spawner": ({"root": [t("join", "root*"), t("a"), t("after", "join")]}, ["root", "a"]),
    "of the spawner, last": ({"root": [t("a"), t("b", "a"), t("join", "root*")], "b": [t("d")]}, ["root", "a", "b", "d"]),
    "of a sibling": ({"root": [t("join", "a*"), t("a"), t("b")], "a": [t("d")], "d": [t("e")]}, ["a", "d", "e"]),
    "of a sibling that has children made with it": ({"root": [t("a"), t("b", "a"), t("join", "a*")]}, ["a"]),
    "of both": ({"root": [t("join", "a*", "root*"), t("a"), t("b")], "a": [t("d")]}, ["a", "root", "b", "d"]),
    "of an ended task that grew": ({"root": [t("a")], "a": [t("join", "root*"), t("b")]}, ["root", "a", "b"]),
    "two of the spawner": (
        {"root": [t("join", "root*"), t("second", "root*"), t("a"), t("w", "second")], "a": [t("b")]},
        ["root", "a", "w", "b"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("beside", [[], ["old"]], ids=["alone", "beside an old join"])
@pytest.mark.parametrize("case", TOGETHER)
async def test_a_join_made_in_a_completion_waits_for_what_is_made_with_it(
    crew: Crew, case: str, beside: list[str]
) -> None:
    grows, expected = TOGETHER[case]
    id = await group(crew, t("root"), *(t(n, "root*") for n in beside))
    seen = await work(crew, grows)
    assert seen["join"] == expected
    assert set((await crew.states(id)).values()) == {"SUCCEEDED"}


LATE: dict[str, tuple[int, list[str], str]] = {
    "before the parent runs": (0, ["root"], "BLOCKED"),
    "when it has spawned": (1, ["root", "a", "b"], "BLOCKED"),
    "when those have spawned": (2, ["root", "a", "b", "d"], "BLOCKED"),
    "when all has ended": (9, ["root", "a", "b", "d"], "READY"),
}


@pytest.mark.parametrize("case", LATE)
async def test_a_late_join_adopts_what_was_spawned_so_far_ended_or_not(crew: Crew, case: str) -> None:
    steps, expected, expected_state = LATE[case]
    id = await group(crew, t("root"))
    grows: Grows = {"root": [t("a"), t("b")], "a": [t("d")]}
    seen = await work(crew, grows, steps)
    (made,) = await crew.create_tasks(id, t("join", "root*"))
    assert made["state"] == expected_state
    assert await parents(crew, "join") == expected
    seen |= await work(crew, grows)
    assert list(seen) == ["root", "a", "b", "d", "join"]
    assert seen["join"] == ["root", "a", "b", "d"]


async def test_a_join_made_while_its_parent_runs_waits_for_what_that_spawns(crew: Crew) -> None:
    id = await group(crew, t("root"))
    (lease,) = await crew.claim()
    await crew.create_tasks(id, t("join", "root*"))
    await crew.complete(lease, children=[t("a")])
    assert await state(crew, "join") == "BLOCKED"
    assert (await work(crew))["join"] == ["root", "a"]


async def test_a_late_join_does_not_adopt_what_came_under_its_parent_by_other_hands(crew: Crew) -> None:
    id = await group(crew, t("root"), t("old", "root"))
    await work(crew, {"root": [t("a")]}, 1)
    await crew.create_tasks(id, t("by hand", "root"), t("join", "root*"))
    assert await parents(crew, "join") == ["root", "a"]


@pytest.mark.parametrize(("policy", "expected"), [("BLOCK", "BLOCKED"), ("CANCEL", "CANCELLED"), ("RUN", "READY")])
@pytest.mark.parametrize("end", ["FAILED", "CANCELLED"])
async def test_a_late_join_meets_what_has_gone_wrong_in_its_subtree(
    crew: Crew, end: str, policy: str, expected: str
) -> None:
    id = await group(crew, t("root"))
    await work(crew, {"root": [t("a"), t("b")]}, 1)
    (a,) = await crew.claim()
    if end == "FAILED":
        await crew.fail(a, discard=True)
    else:
        await crew.ask(CANCEL, ids=[id_of("a")])
    await work(crew)
    (join,) = await crew.create_tasks(id, t("join", "root*", onParentFailure=policy))
    assert join["state"] == expected


# -- several joins ------------------------------------------------------------------------------------------------------


async def test_a_join_of_a_join_waits_for_what_that_one_spawns(crew: Crew) -> None:
    await group(crew, t("root"), t("j1", "root*"), t("j2", "j1*"), t("j3", "j2*", "root*"))
    seen = await work(crew, {"root": [t("a")], "j1": [t("x")], "x": [t("y")], "j2": [t("z")]})
    assert list(seen) == ["root", "a", "j1", "x", "y", "j2", "z", "j3"]
    assert [seen[j] for j in ("j1", "j2", "j3")] == [["root", "a"], ["j1", "x", "y"], ["j2", "root", "a", "z"]]


async def test_two_joins_of_one_subtree_do_not_wait_for_each_other(crew: Crew) -> None:
    await group(crew, t("root"), t("j1", "root*"), t("j2", "root*"))
    await work(crew, {"root": [t("a"), t("j3", "root*")], "a": [t("b")]}, 3)
    assert [await state(crew, j) for j in ("j1", "j2", "j3")] == ["READY"] * 3
    for join in ("j1", "j2", "j3"):
        assert await parents(crew, join) == ["root", "a", "b"]


async def test_what_waits_for_two_joins_of_one_subtree_locks_nothing_for_good(crew: Crew) -> None:
    """Each join could adopt what waits for the other, and the other way round: a cycle that nobody named."""
    id = await group(crew, t("root"), t("j1", "root*"), t("j2", "root*"))
    seen = await work(crew, {"root": [t("w1", "j1"), t("w2", "j2"), t("a")]})
    assert set(await crew.states(id)) == set(seen) == {"root", "j1", "j2", "w1", "w2", "a"}
    assert set((await crew.states(id)).values()) == {"SUCCEEDED"}
    assert seen["j1"][:1] == seen["j2"][:1] == ["root"]
    assert "a" in seen["j1"]
    assert "a" in seen["j2"]


@pytest.mark.parametrize("how", ["one by one", "in one call", "at once"])
async def test_crossed_joins_of_siblings_end(crew: Crew, how: str) -> None:
    """x joins a's subtree and y b's; a spawns what waits for y, and b what waits for x."""
    id = await group(crew, t("a"), t("b"), t("x", "a*"), t("y", "b*"))
    a, b = await crew.claim(2)
    results = [{"lease": a["id"], "children": [t("a1", "y")]}, {"lease": b["id"], "children": [t("b1", "x")]}]
    calls = [results] if how == "in one call" else [[r] for r in results]
    answers = [crew.ask(COMPLETE, input={"results": call}) for call in calls]
    if how == "at once":
        await asyncio.gather(*answers)
    else:
        for answer in answers:
            await answer
    await work(crew)
    assert await crew.states(id) == dict.fromkeys(("a", "b", "x", "y", "a1", "b1"), "SUCCEEDED")


@pytest.mark.parametrize(("more", "waits"), [({}, "READY"), ({"delaySeconds": 1000}, "SCHEDULED")])
async def test_a_join_that_has_not_started_waits_again_when_its_subtree_grows(
    crew: Crew, more: dict[str, Any], waits: str
) -> None:
    """What another join of the subtree spawns is spawned under the root: only one that has started is left alone."""
    await group(crew, t("root"), t("join", "root*", **more))
    grows: Grows = {"root": [t("a")], "a": [t("inner", "root*", priority=9)], "inner": [t("late")]}
    assert list(await work(crew, grows, 2)) == ["root", "a"]
    assert [await state(crew, n) for n in ("join", "inner")] == [waits, "READY"]
    assert list(await work(crew, grows, 1)) == ["inner"]
    assert await state(crew, "join") == "BLOCKED"
    assert await parents(crew, "join") == ["root", "a", "late"]
    assert list(await work(crew, grows, 1)) == ["late"]
    assert await state(crew, "join") == waits
