"""deleteTask: a task, all below it along named links, and nothing else."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import group, id_of, links, parents, state, t, work
from tests.support.steering import delete, delete_group, everything_left, fold, progress


async def test_a_task_goes_with_all_below_it_and_nothing_else(crew: Crew) -> None:
    """Two triangles and a diamond."""
    g = await group(
        crew, t("a"), t("b", "a"), t("c", "a", "b"), t("d", "b", "c"), t("other"), t("e", "other"), t("f", "e", "other")
    )
    assert await delete(crew, id_of("b")) == 3
    assert await crew.states(g) == {"a": "READY", "other": "READY", "e": "BLOCKED", "f": "BLOCKED"}
    assert await delete(crew, id_of("other")) == 3
    assert await links(crew, g) == {}
    assert await work(crew) == {"a": []}


async def test_a_child_with_another_parent_goes_too(crew: Crew) -> None:
    g = await group(crew, t("a"), t("b"), t("child", "a", "b"))
    assert await delete(crew, id_of("a")) == 2
    assert await crew.states(g) == {"b": "READY"}
    assert await work(crew) == {"b": []}


@pytest.mark.parametrize(
    "how", ["BLOCKED", "SCHEDULED", "READY", "PAUSED", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED"]
)
async def test_a_task_in_any_state_can_be_deleted_and_leaves_nothing(crew: Crew, how: str) -> None:
    more: dict[str, Any] = {"SCHEDULED": {"delaySeconds": 1000}, "MERGED": {"key": "k"}, "RUNNING": {"key": "k"}}.get(
        how, {}
    )
    above = [t("above")] if how == "BLOCKED" else []
    g = await group(crew, *above, t("x", *(["above"] if above else []), **more))
    if how == "PAUSED":
        await crew.ask("mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }", ids=[id_of("x")])
    if how == "CANCELLED":
        await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[id_of("x")])
    if how == "MERGED":
        await crew.create({"name": "runner", "key": "k", "priority": 1})
    if how in ("RUNNING", "MERGED", "SUCCEEDED", "FAILED"):
        (lease,) = await crew.claim()
        await crew.extend(lease, progress=[{"lease": lease["id"], "fraction": 0.5}])
        if how == "SUCCEEDED":
            await crew.complete(lease)
        if how == "FAILED":
            await crew.fail(lease, discard=True)
    assert (await state(crew, "x")) == ("READY" if how == "PAUSED" else how)
    (no,) = [row["no"] for row in await crew.sql("select no from task where id = $1", uuid.UUID(id_of("x")))]
    assert await delete(crew, id_of("x")) == 1
    assert await crew.task(id_of("x")) is None
    assert await everything_left(crew, no) == {}
    assert await progress(crew, g) == ({"READY": 1} if above else {}, 0)
    counts = (await crew.ask('{ channel(name: "c") { counts { state count } } }'))["channel"]["counts"]
    others = {"BLOCKED": [("READY", 1)], "MERGED": [("RUNNING", 1)]}
    assert [(c["state"], c["count"]) for c in counts] == others.get(how, [])


async def test_a_lease_on_it_says_cancelled_whatever_is_done_with_it(crew: Crew) -> None:
    await group(crew, t("a"), t("b"))
    a, b = await crew.claim(2)
    await delete(crew, id_of("a"))
    for answer in (await crew.extend(a, b), await crew.release(a), await crew.fail(a), await crew.complete(a)):
        assert [e["code"] for e in answer["errors"]] == ["CANCELLED"]
    assert (await crew.complete(b))["completed"] == 1
    children = [{"name": "late", "channel": "c"}]
    assert [e["code"] for e in (await crew.complete(a, children=children))["errors"]] == ["CANCELLED"]


async def test_a_completed_lease_says_cancelled_once_its_task_is_deleted(crew: Crew) -> None:
    await group(crew, t("a"))
    (lease,) = await crew.claim()
    await crew.complete(lease)
    await delete(crew, id_of("a"))
    assert [e["code"] for e in (await crew.complete(lease))["errors"]] == ["CANCELLED"]


async def test_a_join_that_had_adopted_the_last_open_task_becomes_ready(crew: Crew) -> None:
    g = await group(crew, t("root"), t("join", "root*"))
    await work(crew, {"root": [t("x"), t("y")]}, limit=1)
    assert await parents(crew, "join") == ["root", "x", "y"]
    await work(crew, limit=1)
    assert await state(crew, "join") == "BLOCKED"
    assert await delete(crew, id_of("y")) == 1
    assert await state(crew, "join") == "READY"
    assert await parents(crew, "join") == ["root", "x"]
    assert await work(crew) == {"join": ["root", "x"]}
    assert await progress(crew, g) == ({"SUCCEEDED": 3}, 1)


async def test_a_join_that_still_waits_for_others_goes_on_waiting(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"))
    await work(crew, {"root": [t("x"), t("y", "x"), t("z")]}, limit=1)
    assert await delete(crew, id_of("x")) == 2
    assert await state(crew, "join") == "BLOCKED"
    assert list(await work(crew)) == ["z", "join"]


async def test_a_join_does_not_count_again_what_had_succeeded_already(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"))
    await work(crew, {"root": [t("x"), t("y")]}, limit=2)
    assert await delete(crew, id_of("x")) == 1
    assert await state(crew, "join") == "BLOCKED"
    assert list(await work(crew)) == ["y", "join"]


@pytest.mark.parametrize("policy", ["BLOCK", "RUN"])
async def test_a_join_that_a_failed_task_holds_up_goes_on_without_it(crew: Crew, policy: str) -> None:
    await group(crew, t("root"), t("join", "root*", onParentFailure=policy))
    await work(crew, {"root": [t("x"), t("y")]}, limit=1)
    await crew.fail(*await crew.claim(), discard=True)
    assert await delete(crew, id_of("x")) == 1
    assert await state(crew, "join") == "BLOCKED"
    assert list(await work(crew)) == ["y", "join"]


async def test_a_join_named_by_a_link_goes_with_its_root_and_what_was_adopted_stays(crew: Crew) -> None:
    """What the root spawned hangs from it by default; a task that hangs from another stays."""
    g = await group(crew, t("side"), t("root"), t("join", "root*"))
    (side, root) = await crew.claim(2)
    await crew.complete(root, children=[t("x", "side"), t("y")])
    assert await delete(crew, id_of("root")) == 3
    assert await crew.states(g) == {"side": "RUNNING", "x": "BLOCKED"}
    await crew.complete(side)
    assert list(await work(crew)) == ["x"]


async def test_what_is_spawned_below_after_a_branch_was_deleted_is_still_waited_for(crew: Crew) -> None:
    await group(crew, t("root"), t("join", "root*"))
    await work(crew, {"root": [t("x"), t("y")]}, limit=1)
    assert await delete(crew, id_of("x")) == 1
    seen = await work(crew, {"y": [t("z")]})
    assert list(seen) == ["y", "z", "join"]


async def test_twins_of_a_deleted_runner_are_ready_as_before(crew: Crew) -> None:
    g = await group(crew, t("runner", key="k", priority=1), t("twin", key="k"))
    await crew.claim()
    assert await crew.states(g) == {"runner": "RUNNING", "twin": "MERGED"}
    await delete(crew, id_of("runner"))
    assert await crew.states(g) == {"twin": "READY"}
    assert (await crew.task(id_of("twin"), "attempt mergedInto { id }")) == {"attempt": 0, "mergedInto": None}
    assert await work(crew) == {"twin": []}
    assert await crew.sql("select from runner where no is not null") == []


async def test_a_task_made_of_the_key_of_a_deleted_one_is_new_work(crew: Crew) -> None:
    await group(crew, t("a", key="k"))
    await delete(crew, id_of("a"))
    made = await crew.create({"name": "b", "key": "k", "onDuplicate": "REJECT"})
    assert made["tasks"][0]["state"] == "READY"


async def test_the_id_of_a_deleted_task_can_be_used_again(crew: Crew) -> None:
    g = await group(crew, t("a"))
    await delete(crew, id_of("a"))
    made = await crew.create_tasks(g, t("a"))
    assert made[0]["id"] == id_of("a")
    assert list(await work(crew)) == ["a"]


async def test_a_twin_that_succeeded_stays_when_the_task_whose_result_it_took_is_deleted(crew: Crew) -> None:
    await group(crew, t("runner", key="k"), t("twin", key="k"))
    await work(crew, limit=1)
    assert await state(crew, "twin") == "SUCCEEDED"
    await delete(crew, id_of("runner"))
    assert await crew.task(id_of("twin"), "state mergedInto { id }") == {"state": "SUCCEEDED", "mergedInto": None}


async def test_what_a_deleted_task_spawned_elsewhere_stays_and_forgets_its_spawner(crew: Crew) -> None:
    await group(crew, t("side"), t("root"))
    side, root = await crew.claim(2)
    await crew.complete(root, children=[t("x", "side")])
    assert await delete(crew, id_of("root")) == 1
    assert await crew.task(id_of("x"), "state spawnedBy { id }") == {"state": "BLOCKED", "spawnedBy": None}
    await crew.complete(side)
    assert await state(crew, "x") == "READY"


async def test_the_last_open_task_deleted_finishes_its_group(crew: Crew) -> None:
    g = await group(crew, t("a"), t("b"))
    await work(crew, limit=1)
    query = "query($id: ID!) { taskGroup(id: $id) { finishedAt progress { fraction total } } }"
    assert (await crew.ask(query, id=g))["taskGroup"]["finishedAt"] is None
    await delete(crew, id_of("b"))
    shown = (await crew.ask(query, id=g))["taskGroup"]
    assert shown["finishedAt"] is not None
    assert shown["progress"] == {"fraction": 1, "total": 1}
    await delete(crew, id_of("a"))
    shown = (await crew.ask(query, id=g))["taskGroup"]
    assert shown == {"finishedAt": None, "progress": {"fraction": 0, "total": 0}}


@pytest.mark.parametrize("folded", [True, False])
async def test_weights_other_than_one_are_taken_off_the_progress(crew: Crew, folded: bool) -> None:
    g = await group(
        crew,
        t("a", progressWeight=3),
        t("b", progressWeight=7),
        t("c", progressWeight=5),
        t("d"),
        t("e", progressWeight=0),
    )
    await work(crew, limit=2)
    if folded:
        await fold(crew)
    assert await progress(crew, g) == ({"READY": 3, "SUCCEEDED": 2}, pytest.approx(10 / 16))
    await delete(crew, id_of("b"))
    assert await progress(crew, g) == ({"READY": 3, "SUCCEEDED": 1}, pytest.approx(3 / 9))
    await delete(crew, id_of("c"))
    assert await progress(crew, g) == ({"READY": 2, "SUCCEEDED": 1}, pytest.approx(3 / 4))
    await fold(crew)
    assert await progress(crew, g) == ({"READY": 2, "SUCCEEDED": 1}, pytest.approx(3 / 4))


async def test_each_task_that_goes_has_an_event_and_its_id_is_kept_for_readers_of_the_log(crew: Crew) -> None:
    await group(crew, t("a"), t("b", "a"))
    nos = [r["no"] for r in await crew.sql("select no from task order by no")]
    await delete(crew, id_of("a"))
    events = await crew.sql("select was, state, nos from event where kind = 15 order by was")
    assert [(e["was"], e["state"], e["nos"]) for e in events] == [(0, None, [nos[1]]), (2, None, [nos[0]])]
    assert {str(r["id"]) for r in await crew.sql("select id from gone where kind = 1")} == {id_of("a"), id_of("b")}


async def test_what_cannot_be_deleted_is_refused_and_nothing_changes(crew: Crew) -> None:
    await group(crew, t("a"))
    for call in (delete, delete_group):
        for given, code in ((str(uuid.uuid4()), "NOT_FOUND"), ("x", "BAD_INPUT")):
            with pytest.raises(Refused) as refused:
                await call(crew, given)
            assert (refused.value.code, refused.value.path) == (code, ["id"])
    assert await state(crew, "a") == "READY"
