"""resetTasks: tasks as if they had never run."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import CANCEL, group, id_of, links, parents, state, t, work
from tests.support.steering import RESET, fold, progress, reset
from tests.support.wait import expire_leases, move_clock, until

RETRY = "mutation($ids: [ID!]) { retryTasks(ids: $ids, attempts: 3) { affected } }"
NEW = {
    "state": "READY",
    "attempt": 0,
    "remainingAttempts": 3,
    "errors": [],
    "output": None,
    "progress": None,
    "progressMessage": None,
    "workerId": None,
    "startedAt": None,
    "finishedAt": None,
    "leaseExpiresAt": None,
    "mergedInto": None,
}
FIELDS = (
    "state attempt remainingAttempts errors { error } output progress progressMessage workerId startedAt finishedAt "
    "leaseExpiresAt mergedInto { id }"
)
STATES = ["READY", "PAUSED", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED", "BACKING OFF"]


@pytest.mark.parametrize("how", STATES)
async def test_a_task_in_any_state_looks_as_if_it_had_never_run(crew: Crew, how: str) -> None:
    policy = {"maxAttempts": 3, "delaySeconds": 0}
    g = await group(crew, t("x", key="k", retry=policy))
    (lease,) = await crew.claim()
    await crew.fail(lease)
    if how == "MERGED":
        await crew.create({"name": "runner", "key": "k", "priority": 1})
    if how == "PAUSED":
        await crew.ask("mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }", ids=[id_of("x")])
    if how == "CANCELLED":
        await crew.ask(CANCEL, ids=[id_of("x")])
    if how not in ("READY", "PAUSED", "CANCELLED"):
        (lease,) = await crew.claim()
        if how == "RUNNING":
            await crew.extend(lease, progress=[{"lease": lease["id"], "fraction": 0.5, "message": "half"}])
        elif how != "MERGED":
            await {
                "SUCCEEDED": lambda: crew.complete(lease, output=7),
                "FAILED": lambda: crew.fail(lease, discard=True),
                "BACKING OFF": lambda: crew.fail(lease, retryDelaySeconds=1000),
            }[how]()
    assert await state(crew, "x") == {"BACKING OFF": "SCHEDULED", "PAUSED": "READY"}.get(how, how)
    after = "MERGED" if how == "MERGED" else "READY"
    assert await reset(crew, id_of("x")) == {"x": after}
    shown = await crew.task(id_of("x"), FIELDS)
    if how == "MERGED":
        assert shown == {**NEW, "state": "MERGED", "mergedInto": shown["mergedInto"]}
        return
    assert shown == NEW
    assert await progress(crew, g) == ({"READY": 1}, 0)
    counts = (await crew.ask('{ channel(name: "c") { counts { state count } } }'))["channel"]["counts"]
    assert counts == [{"state": "READY", "count": 1}]
    if how != "PAUSED":
        assert list(await work(crew)) == ["x"]
        assert await progress(crew, g) == ({"SUCCEEDED": 1}, 1)


async def test_it_waits_for_its_parents_and_its_time_as_when_it_was_made(crew: Crew) -> None:
    await group(crew, t("a"), t("b", "a"), t("later", delaySeconds=1000), t("child", "later"))
    await crew.sql("update scheduled set run_at = now() - interval '1 s'")
    await crew.sql("update task set run_after = now() + interval '1 h' where name = 'later'")
    await work(crew)
    assert await reset(crew, id_of("b")) == {"b": "READY"}
    assert await reset(crew, id_of("a"), id_of("b")) == {"a": "READY", "b": "BLOCKED"}
    assert await reset(crew, id_of("later")) == {"later": "SCHEDULED"}
    assert list(await work(crew)) == ["a", "b"]


async def test_children_that_have_not_started_wait_again_and_others_stay(crew: Crew) -> None:
    g = await group(
        crew,
        t("p", priority=9),
        t("q", priority=9),
        t("blocked", "p", "q"),
        t("ready", "p", priority=-1),
        t("delayed", "p", delaySeconds=1000),
        t("runs", "p", priority=3),
        t("done", "p", priority=8),
        t("failed", "p", priority=7),
        t("gone", "p"),
    )
    p, q = await crew.claim(2)
    await crew.complete(p, output=1)
    done, failed, _ = await crew.claim(3)
    await crew.complete(done)
    await crew.fail(failed, discard=True)
    await crew.ask(CANCEL, ids=[id_of("gone")])
    assert await reset(crew, id_of("p")) == {"p": "READY"}
    assert await crew.states(g) == {
        "p": "READY",
        "q": "RUNNING",
        "blocked": "BLOCKED",
        "ready": "BLOCKED",
        "delayed": "BLOCKED",
        "runs": "RUNNING",
        "done": "SUCCEEDED",
        "failed": "FAILED",
        "gone": "CANCELLED",
    }
    await crew.complete(q)
    assert await state(crew, "blocked") == "BLOCKED"
    (p,) = await crew.claim()
    await crew.complete(p, output=2)
    states = await crew.states(g)
    assert [states[x] for x in ("blocked", "ready", "delayed")] == ["READY", "READY", "SCHEDULED"]


async def test_a_child_that_rides_with_a_runner_waits_again(crew: Crew) -> None:
    g = await group(crew, t("p", priority=9), t("child", "p", key="k"), t("runner", key="k", priority=5))
    (p,) = await crew.claim()
    (runner,) = await crew.claim()
    await crew.complete(p)
    assert await state(crew, "child") == "MERGED"
    await reset(crew, id_of("p"))
    assert await crew.states(g) == {"p": "READY", "child": "BLOCKED", "runner": "RUNNING"}
    await crew.complete(runner)
    assert list(await work(crew)) == ["p", "child"]


async def test_what_it_spawned_goes_with_its_descendants_and_is_rebuilt(crew: Crew) -> None:
    g = await group(crew, t("root"), t("join", "root*"))
    seen = await work(crew, {"root": [t("x"), t("y", "x")], "x": [t("z")]})
    assert list(seen) == ["root", "x", "y", "z", "join"]
    await crew.create_tasks(g, t("hung", "z"), t("beside"))
    assert await reset(crew, id_of("root")) == {"root": "READY"}
    assert await crew.states(g) == {"root": "READY", "join": "SUCCEEDED", "beside": "READY"}
    assert await reset(crew, id_of("join")) == {"join": "BLOCKED"}
    assert await parents(crew, "join") == ["root"]
    seen = await work(crew, {"root": [t("x"), t("y", "x")], "x": [t("z")]})
    assert list(seen) == ["root", "beside", "x", "y", "z", "join"]
    assert sorted(seen["join"]) == ["root", "x", "y", "z"]


async def test_a_join_that_begins_again_waits_for_what_was_spawned_since_it_had_started(crew: Crew) -> None:
    """The tree was rebuilt after the join had run. What waits for the join, and other joins of the tree, are not adopted."""
    g = await group(crew, t("root", priority=9), t("join", "root*"), t("after", "join"))
    await work(crew)
    await reset(crew, id_of("root"))
    grows = {"root": [t("x"), t("y", "x", "after"), t("other", "root*")], "x": [t("z")]}
    assert set(await work(crew, grows)) == {"root", "x", "y", "other", "z"}
    assert await reset(crew, id_of("join")) == {"join": "READY"}
    assert await links(crew, g) == {
        ("root", "join"): ("SUBTREE", False),
        ("root", "x"): ("TASK", False),
        ("x", "join"): ("SUBTREE", True),
        ("z", "join"): ("SUBTREE", True),
        ("join", "after"): ("TASK", False),
        ("x", "y"): ("TASK", False),
        ("after", "y"): ("TASK", False),
        ("x", "z"): ("TASK", False),
        ("root", "other"): ("SUBTREE", False),
        ("x", "other"): ("SUBTREE", True),
        ("y", "other"): ("SUBTREE", True),
        ("z", "other"): ("SUBTREE", True),
    }
    assert await work(crew) == {"join": ["root", "x", "z"]}


@pytest.mark.parametrize(("policy", "after"), [("BLOCK", "BLOCKED"), ("CANCEL", "CANCELLED"), ("RUN", "READY")])
async def test_a_join_that_begins_again_goes_by_how_the_rebuilt_tree_stands(
    crew: Crew, policy: str, after: str
) -> None:
    await group(crew, t("root", priority=9), t("join", "root*", onParentFailure=policy))
    await work(crew)
    await reset(crew, id_of("root"))
    await work(crew, {"root": [t("x")]}, limit=1)
    await crew.fail(*await crew.claim(), discard=True)
    assert await reset(crew, id_of("join")) == {"join": after}
    assert await parents(crew, "join") == ["root", "x"]


async def test_a_join_that_has_not_started_waits_again_for_the_whole_tree(crew: Crew) -> None:
    await group(crew, t("root", priority=1), t("join", "root*"))
    await work(crew, {"root": [t("x", priority=1)]}, limit=2)
    assert await state(crew, "join") == "READY"
    await reset(crew, id_of("root"))
    assert (await state(crew, "join"), await parents(crew, "join")) == ("BLOCKED", ["root"])
    seen = await work(crew, {"root": [t("x", priority=1), t("w", "x")]})
    assert list(seen) == ["root", "x", "w", "join"]


async def test_what_was_spawned_below_other_parents_goes_too_and_they_stay(crew: Crew) -> None:
    g = await group(crew, t("side"), t("root"))
    side, root = await crew.claim(2)
    await crew.complete(root, children=[t("x", "side"), t("under", "x")])
    await reset(crew, id_of("root"))
    assert await crew.states(g) == {"side": "RUNNING", "root": "READY"}
    assert (await crew.complete(side))["completed"] == 1


async def test_of_a_task_and_one_that_it_spawned_the_first_begins_again_and_the_other_goes(crew: Crew) -> None:
    g = await group(crew, t("root"))
    await work(crew, {"root": [t("x")]})
    assert await reset(crew, id_of("root"), id_of("x")) == {"root": "READY"}
    assert await crew.states(g) == {"root": "READY"}


async def test_leases_are_lost_of_what_begins_again_and_cancelled_of_what_goes(crew: Crew) -> None:
    await group(crew, t("root"), t("running"))
    root, running = await crew.claim(2)
    await crew.complete(root, children=[t("x")])
    (x,) = await crew.claim()
    await reset(crew, id_of("root"), id_of("running"))
    leases = (root, running, x)
    calls = [crew.extend(*leases), crew.release(*leases), crew.fail(*leases), crew.complete(*leases)]
    for answer in [await call for call in calls]:
        assert [e["code"] for e in answer["errors"]] == ["LOST", "LOST", "CANCELLED"]
    assert await crew.task(id_of("running"), "attempt errors { error }") == {"attempt": 0, "errors": []}


async def test_a_reset_and_claimed_task_has_a_new_lease_and_the_old_one_is_lost(crew: Crew) -> None:
    await group(crew, t("a"))
    (old,) = await crew.claim()
    await reset(crew, id_of("a"))
    (new,) = await crew.claim()
    assert new["attempt"] == 1
    assert [e["code"] for e in (await crew.complete(old, output="old"))["errors"]] == ["LOST"]
    assert (await crew.complete(new, output="new"))["completed"] == 1
    assert (await crew.task(id_of("a"), "output"))["output"] == "new"


async def test_twins_of_a_reset_runner_are_ready_as_before(crew: Crew) -> None:
    g = await group(crew, t("runner", key="k", priority=1), t("twin", key="k"))
    await crew.claim()
    assert await reset(crew, id_of("runner")) == {"runner": "READY"}
    assert await crew.states(g) == {"runner": "READY", "twin": "READY"}
    assert list(await work(crew)) == ["runner"]
    assert await state(crew, "twin") == "SUCCEEDED"


async def test_a_reset_task_whose_key_another_runs_for_rides_with_it(crew: Crew) -> None:
    g = await group(crew, t("a", key="k"))
    await work(crew)
    await crew.create({"name": "b", "key": "k"})
    (lease,) = await crew.claim()
    assert await reset(crew, id_of("a")) == {"a": "MERGED"}
    await crew.complete(lease, output=5)
    assert await crew.states(g) == {"a": "SUCCEEDED"}
    assert await crew.task(id_of("a"), "output attempt") == {"output": 5, "attempt": 1}


async def test_the_key_of_a_reset_task_is_in_use_again(crew: Crew) -> None:
    from db.key import forget_ended_keys

    await group(crew, t("a", key="k"))
    await work(crew)
    await forget_ended_keys(crew.services.core.pool, 1, 100)
    await reset(crew, id_of("a"))
    with pytest.raises(Refused) as refused:
        await crew.create({"name": "b", "key": "k", "onDuplicate": "REJECT"})
    assert refused.value.code == "DUPLICATE_KEY"


@pytest.mark.parametrize(("parent", "after"), [("FAILED", "CANCELLED"), ("SUCCEEDED", "READY"), ("READY", "BLOCKED")])
async def test_a_task_cancelled_with_its_parent_begins_again_as_the_parent_stands_now(
    crew: Crew, parent: str, after: str
) -> None:
    g = await group(crew, t("p"), t("child", "p", onParentFailure="CANCEL"), t("below", "child"))
    await crew.fail(*await crew.claim(), discard=True)
    assert await state(crew, "child") == "CANCELLED"
    if parent != "FAILED":
        await crew.ask(RETRY, ids=[id_of("p")])
    if parent == "SUCCEEDED":
        await work(crew)
    await reset(crew, id_of("child"))
    assert await crew.states(g) == {"p": parent, "child": after, "below": "BLOCKED"}


@pytest.mark.parametrize(("policy", "after"), [("BLOCK", "BLOCKED"), ("RUN", "READY")])
async def test_a_task_whose_parent_has_failed_waits_or_runs_by_its_policy(crew: Crew, policy: str, after: str) -> None:
    await group(crew, t("p"), t("child", "p", onParentFailure=policy))
    await crew.fail(*await crew.claim(), discard=True)
    assert await reset(crew, id_of("child")) == {"child": after}


async def test_a_failed_parent_that_begins_again_is_waited_for_by_those_that_run_however_it_ends(crew: Crew) -> None:
    g = await group(crew, t("p"), t("q"), t("child", "p", "q", onParentFailure="RUN"))
    p, q = await crew.claim(2)
    await crew.fail(p, discard=True)
    await reset(crew, id_of("p"))
    await crew.complete(q)
    assert await crew.states(g) == {"p": "READY", "q": "SUCCEEDED", "child": "BLOCKED"}
    assert list(await work(crew)) == ["p", "child"]


async def test_a_finished_group_is_open_again_until_all_is_settled_again(crew: Crew) -> None:
    g = await group(crew, t("a", progressWeight=3), t("b"))
    await work(crew)
    query = "query($id: ID!) { taskGroup(id: $id) { finishedAt } }"
    before = (await crew.ask(query, id=g))["taskGroup"]["finishedAt"]
    assert before
    await fold(crew)
    await reset(crew, id_of("a"))
    assert (await crew.ask(query, id=g))["taskGroup"]["finishedAt"] is None
    assert await progress(crew, g) == ({"READY": 1, "SUCCEEDED": 1}, 0.25)
    await fold(crew)
    assert await progress(crew, g) == ({"READY": 1, "SUCCEEDED": 1}, 0.25)
    await work(crew)
    assert (await crew.ask(query, id=g))["taskGroup"]["finishedAt"] > before


async def test_each_task_has_an_event(crew: Crew) -> None:
    await group(crew, t("a"), t("b", "a"))
    await work(crew, limit=1)
    a, b = (r["no"] for r in await crew.sql("select no from task order by no"))
    await reset(crew, id_of("a"))
    events = await crew.sql("select kind, was, state, nos from event where kind in (13, 14) order by seq")
    assert [tuple(e) for e in events] == [(13, 5, 2, [a]), (14, 2, 0, [b])]


async def test_ids_that_do_not_exist_are_passed_over_and_bad_ones_refused(crew: Crew) -> None:
    await group(crew, t("a"))
    assert await reset(crew, str(uuid.uuid4())) == {}
    assert await reset(crew, str(uuid.uuid4()), id_of("a"), id_of("a")) == {"a": "READY"}
    given: list[tuple[Any, list[Any]]] = [([], ["ids"]), (["x"], ["ids", 0])]
    for ids, path in given:
        with pytest.raises(Refused) as refused:
            await crew.ask(RESET, ids=ids)
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", path)


BACK = ["released", "expired", "failed", "delayed", "discarded", "timed out"]


@pytest.mark.parametrize("how", BACK)
async def test_a_child_that_ran_meanwhile_waits_before_it_is_tried_again(crew: Crew, how: str) -> None:
    """Rule 1: nothing is handed out before every parent has succeeded."""
    g = await group(crew, t("p", priority=1), t("child", "p", timeoutSeconds=1000, retry={"delaySeconds": 0}))
    await work(crew, limit=1)
    (child,) = await crew.claim()
    await reset(crew, id_of("p"))
    assert await crew.states(g) == {"p": "READY", "child": "RUNNING"}
    if how == "released":
        await crew.release(child)
    elif how == "expired":
        await expire_leases(crew)
    elif how == "timed out":
        await move_clock(crew, "update lease set until = now() - interval '1 s', deadline = now() - interval '1 s'")
        await until(lambda: not_running(crew))
    elif how == "delayed":
        await crew.fail(child, retryDelaySeconds=1000)
    else:
        await crew.fail(child, discard=how == "discarded")
    if how == "discarded":
        assert await state(crew, "child") == "FAILED"
        await crew.ask(RETRY, ids=[id_of("child")])
    assert await crew.states(g) == {"p": "READY", "child": "BLOCKED"}
    shown = await crew.task(id_of("child"), "attempt remainingAttempts")
    assert shown["attempt"] == (0 if how == "released" else 1)
    assert shown["remainingAttempts"] == (3 if how == "discarded" else 5 - shown["attempt"])
    assert list(await work(crew)) == (["p"] if how == "delayed" else ["p", "child"])
    assert await state(crew, "child") == ("SCHEDULED" if how == "delayed" else "SUCCEEDED")
    assert await crew.sql("select from ahead") == []


async def not_running(crew: Crew) -> bool:
    return await crew.sql("select from lease") == []


async def test_a_child_that_ran_meanwhile_may_end(crew: Crew) -> None:
    g = await group(crew, t("p", priority=1), t("child", "p"), t("below", "child"))
    await work(crew, limit=1)
    (child,) = await crew.claim()
    await reset(crew, id_of("p"))
    assert (await crew.complete(child))["completed"] == 1
    assert await crew.states(g) == {"p": "READY", "child": "SUCCEEDED", "below": "READY"}


async def test_a_child_whose_parent_has_succeeded_again_is_tried_again_at_once(crew: Crew) -> None:
    g = await group(crew, t("p", priority=1), t("child", "p"))
    await work(crew, limit=1)
    (child,) = await crew.claim()
    await reset(crew, id_of("p"))
    await work(crew, limit=1)
    await crew.release(child)
    assert await crew.states(g) == {"p": "SUCCEEDED", "child": "READY"}
