"""Races of delete, reset and update with claims, completions, creations, joins and twins.

Forced: a connection of the test holds a row that both calls need, so that both are seen to wait, in a known order.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import RETRY, group, id_of, state, t, work
from tests.support.races import Call, in_turn, stopped, two_servers
from tests.support.steering import delete, delete_group, reset, update

LEASE = "select from lease for update"
READY = "select from ready for update"
DONE = "select from done for update"
BLOCKED = "select from blocked for update"
KEY = "select from runner for update"
BOTH_WAYS = pytest.mark.parametrize("first", [0, 1])


async def both(a: Any, eye: Any, hold: str, first: int, *calls: Call) -> list[Any]:
    """The answers in the order of the calls; the one at `first` comes first."""
    answers = await in_turn(a, eye, hold, calls[first], calls[1 - first])
    return answers if first == 0 else answers[::-1]


async def names(crew: Crew) -> dict[str, str]:
    return {
        row["name"]: (await crew.task(str(row["id"])))["state"] for row in await crew.sql("select id, name from task")
    }


def codes(answer: dict[str, Any]) -> list[str]:
    return [error["code"] for error in answer["errors"]]


async def works_off(crew: Crew, *last: str) -> None:
    """All that is left can be done, these last."""
    left = {name for name, stands in (await names(crew)).items() if stands not in ("SUCCEEDED", "RUNNING")}
    seen = list(await work(crew))
    assert set(seen) == left
    assert tuple(seen[len(seen) - len(last) :]) == last
    for table in ("lease", "merged", "ready", "blocked", "parked", "scheduled"):
        assert await crew.sql(f"select from {table}") == []
    assert await crew.sql("select from runner where no is not null") == []


# -- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["delete", "reset"])
async def test_a_task_that_is_claimed_just_then_is_taken_from_its_lease(dsn: str, verb: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x", key="k"), t("below", "x"))
        call: Call = (lambda: delete(two, id_of("x"))) if verb == "delete" else (lambda: reset(two, id_of("x")))
        leases, answer = await in_turn(a, eye, KEY, one.claim, call)
        assert answer == (2 if verb == "delete" else {"x": "READY"})
        assert codes(await one.complete(*leases)) == ["CANCELLED" if verb == "delete" else "LOST"]
        assert await names(one) == ({} if verb == "delete" else {"x": "READY", "below": "BLOCKED"})
        await works_off(one)


async def test_a_task_that_is_being_deleted_is_not_claimed(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, _):
        await group(one, t("x"), t("y"))
        async with stopped(a, "select from task for update"):
            deleting = asyncio.ensure_future(delete(one, id_of("x")))
            while not await two.sql("select from pg_locks where not granted"):
                await asyncio.sleep(0.002)
            assert [x["task"]["name"] for x in await two.claim(9)] == ["y"]
        assert await deleting == 1


async def test_a_task_that_is_being_reset_is_claimed_after_that(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, _):
        await group(one, t("x", key="k"))
        async with stopped(a, KEY):
            resetting = asyncio.ensure_future(reset(one, id_of("x")))
            while not await two.sql("select from pg_locks where not granted"):
                await asyncio.sleep(0.002)
            assert await two.claim() == []
        assert await resetting == {"x": "READY"}
        assert len(await two.claim()) == 1


# -- completions, and what they spawn --------------------------------------------------------------------------------


@BOTH_WAYS
async def test_a_task_that_completes_while_it_is_deleted_counts_or_is_cancelled_and_goes(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("p"), t("child", "p"))
        (lease,) = await one.claim()
        spawn = [t("x"), t("y", "x")]
        done, deleted = await both(
            a, eye, LEASE, first, lambda: one.complete(lease, children=spawn), lambda: delete(two, id_of("p"))
        )
        assert (done["completed"], codes(done)) == ((1, []) if first == 0 else (0, ["CANCELLED"]))
        assert deleted == (4 if first == 0 else 2)
        assert await names(one) == {}
        assert await one.sql("select from edge") == []


@BOTH_WAYS
async def test_a_task_that_completes_while_it_is_reset_counts_or_is_lost_and_begins_again(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("p"), t("child", "p"))
        (lease,) = await one.claim()
        done, again = await both(
            a, eye, LEASE, first, lambda: one.complete(lease, children=[t("x")]), lambda: reset(two, id_of("p"))
        )
        assert (done["completed"], codes(done)) == ((1, []) if first == 0 else (0, ["LOST"]))
        assert again == {"p": "READY"}
        assert await names(one) == {"p": "READY", "child": "BLOCKED"}
        await works_off(one, "child")


@BOTH_WAYS
async def test_what_a_descendant_spawns_while_its_root_is_deleted_goes_too(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("root"), t("below", "root"))
        await work(one, limit=1)
        (lease,) = await one.claim()
        done, deleted = await both(
            a, eye, LEASE, first, lambda: one.complete(lease, children=[t("x")]), lambda: delete(two, id_of("root"))
        )
        assert done["completed"] == (1 if first == 0 else 0)
        assert deleted == (3 if first == 0 else 2)
        assert await names(one) == {}


@BOTH_WAYS
@pytest.mark.parametrize("verb", ["delete", "reset"])
async def test_what_is_spawned_while_the_root_of_it_is_reset_or_its_group_deleted_goes(
    dsn: str, verb: str, first: int
) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        g = await group(one, t("root"), t("beside", priority=-1))
        await work(one, {"root": [t("branch")]}, limit=1)
        (lease,) = [x for x in await one.claim(9) if x["task"]["name"] == "branch"] or await one.claim()
        verbs: dict[str, Call] = {"delete": lambda: delete_group(two, g), "reset": lambda: reset(two, id_of("root"))}
        done, _ = await both(a, eye, LEASE, first, lambda: one.complete(lease, children=[t("x")]), verbs[verb])
        assert (done["completed"], codes(done)) == ((1, []) if first == 0 else (0, ["CANCELLED"]))
        assert await names(one) == ({} if verb == "delete" else {"root": "READY", "beside": "RUNNING"})


# -- creations below -------------------------------------------------------------------------------------------------


@BOTH_WAYS
async def test_a_task_hung_below_one_that_is_deleted_goes_with_it_or_is_refused(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        g = await group(one, t("p"))
        made, deleted = await both(
            a, eye, READY, first, lambda: one.create_tasks(g, t("child", "p")), lambda: delete(two, id_of("p"))
        )
        if first == 0:
            assert deleted == 2
        else:
            assert isinstance(made, Refused)
            assert (made.code, made.path) == ("NOT_FOUND", ["input", "tasks", 0, "parents", 0, "id"])
        assert await names(one) == {}
        assert await one.sql("select from edge") == []


@BOTH_WAYS
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_task_made_in_a_group_that_is_deleted_goes_with_it_or_is_refused(
    dsn: str, first: int, key: str | None
) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        g = await group(one, t("p"))
        hold = "select from task_group for update"
        made, deleted = await both(
            a, eye, hold, first, lambda: one.create_tasks(g, t("new", key=key)), lambda: delete_group(two, g)
        )
        if first == 0:
            assert deleted == 2
        else:
            assert isinstance(made, Refused)
            assert (made.code, made.path) == ("NOT_FOUND", ["input", "groupId"])
        assert await names(one) == {}


@BOTH_WAYS
async def test_a_task_hung_below_one_that_begins_again_waits_for_it(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        g = await group(one, t("p"))
        await work(one)
        await both(a, eye, DONE, first, lambda: one.create_tasks(g, t("child", "p")), lambda: reset(two, id_of("p")))
        assert await names(one) == {"p": "READY", "child": "BLOCKED"}
        await works_off(one, "child")


# -- joins -----------------------------------------------------------------------------------------------------------


@BOTH_WAYS
async def test_a_join_goes_on_when_the_branch_that_spawns_is_deleted(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("root"), t("join", "root*"))
        await work(one, {"root": [t("branch")]}, limit=1)
        (lease,) = await one.claim()
        await both(
            a, eye, LEASE, first, lambda: one.complete(lease, children=[t("x")]), lambda: delete(two, id_of("branch"))
        )
        assert await names(one) == {"root": "SUCCEEDED", "join": "READY"}
        assert await work(one) == {"join": ["root"]}


@BOTH_WAYS
async def test_a_join_that_is_deleted_while_it_adopts_leaves_nothing_waiting(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("root"), t("join", "root*"), t("after", "join"))
        await work(one, {"root": [t("branch")]}, limit=1)
        (lease,) = await one.claim()
        done, deleted = await both(
            a, eye, BLOCKED, first, lambda: one.complete(lease, children=[t("x")]), lambda: delete(two, id_of("join"))
        )
        assert (done["completed"], deleted) == (1, 2)
        assert await names(one) == {"root": "SUCCEEDED", "branch": "SUCCEEDED", "x": "READY"}
        await works_off(one)
        assert await one.sql("select from feeder") == []


@BOTH_WAYS
async def test_a_join_waits_for_the_branch_that_begins_again_and_for_what_another_spawns(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("root"), t("join", "root*"))
        await work(one, {"root": [t("b"), t("c")], "b": [t("gone")]}, limit=2)
        (lease,) = await one.claim()
        assert lease["task"]["name"] == "c"
        done, again = await both(
            a, eye, BLOCKED, first, lambda: one.complete(lease, children=[t("x")]), lambda: reset(two, id_of("b"))
        )
        assert (done["completed"], again) == (1, {"b": "READY"})
        assert await state(one, "join") == "BLOCKED"
        assert set(await names(one)) == {"root", "join", "b", "c", "x"}
        await works_off(one, "join")


@BOTH_WAYS
async def test_a_late_join_does_not_wait_for_a_branch_that_is_deleted(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        g = await group(one, t("root"))
        await work(one, {"root": [t("branch"), t("other")]}, limit=1)
        await one.claim()
        await both(
            a, eye, LEASE, first, lambda: one.create_tasks(g, t("join", "root*")), lambda: delete(two, id_of("branch"))
        )
        assert await names(one) == {"root": "SUCCEEDED", "other": "READY", "join": "BLOCKED"}
        await works_off(one, "join")


@BOTH_WAYS
async def test_a_join_whose_priority_changes_while_a_branch_spawns_waits_for_what_it_spawns(
    dsn: str, first: int
) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("root"), t("join", "root*", onParentFailure="RUN", delaySeconds=1000))
        await work(one, {"root": [t("branch")]}, limit=1)
        await one.fail(*await one.claim(), discard=True)
        assert await state(one, "join") == "SCHEDULED"
        await one.ask(RETRY, ids=[id_of("branch")])
        (lease,) = await one.claim()
        await both(
            a,
            eye,
            "select from scheduled for update",
            first,
            lambda: one.complete(lease, children=[t("x")]),
            lambda: update(two, id_of("join"), priority=3),
        )
        assert (await one.task(id_of("join"), "state priority")) == {"state": "BLOCKED", "priority": 3}
        assert list(await work(one)) == ["x"]
        assert await state(one, "join") == "SCHEDULED"


# -- twins -----------------------------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("verb", ["delete", "reset"])
async def test_a_twin_made_while_its_runner_is_deleted_or_reset_is_ready(dsn: str, verb: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        g = await group(one, t("x", key="k"))
        await one.claim()
        call: Call = (lambda: delete(two, id_of("x"))) if verb == "delete" else (lambda: reset(two, id_of("x")))
        await both(a, eye, KEY, first, lambda: one.create_tasks(g, t("twin", key="k")), call)
        assert await names(one) == {"twin": "READY", **({"x": "READY"} if verb == "reset" else {})}
        assert len(await one.claim(9)) == 1
        assert len(await one.sql("select from merged")) == (verb == "reset")


@BOTH_WAYS
async def test_a_twin_that_is_deleted_while_its_runner_completes_goes_and_the_runner_counts(
    dsn: str, first: int
) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x", key="k", priority=1), t("twin", key="k"))
        (lease,) = await one.claim()
        hold = "select from merged for update"
        done, deleted = await both(a, eye, hold, first, lambda: one.complete(lease), lambda: delete(two, id_of("twin")))
        assert (done["completed"], deleted) == (1, 1)
        assert await names(one) == {"x": "SUCCEEDED"}


@BOTH_WAYS
async def test_a_twin_that_is_reset_while_its_runner_completes_ends_with_it_or_is_new_work(
    dsn: str, first: int
) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x", key="k", priority=1), t("twin", key="k"))
        (lease,) = await one.claim()
        hold = "select from merged for update"
        done, again = await both(a, eye, hold, first, lambda: one.complete(lease), lambda: reset(two, id_of("twin")))
        assert done["completed"] == 1
        assert again in ({"twin": "READY"}, {"twin": "MERGED"}, {"twin": "SUCCEEDED"})
        assert (await names(one))["x"] == "SUCCEEDED"
        await works_off(one)
        assert await state(one, "twin") == "SUCCEEDED"


# -- one another -----------------------------------------------------------------------------------------------------


@BOTH_WAYS
async def test_of_a_delete_and_a_reset_of_one_task_the_delete_wins(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x"), t("below", "x"))
        deleted, again = await both(
            a, eye, READY, first, lambda: delete(one, id_of("x")), lambda: reset(two, id_of("x"))
        )
        # What is reset is shown as it is after that: the other delete may have come between.
        assert (deleted, again if first == 0 else {}) == (2, {})
        assert await names(one) == {}


async def test_of_two_deletes_of_one_task_one_finds_it_gone(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x"), t("below", "x"))
        deleted, refused = await in_turn(
            a, eye, READY, lambda: delete(one, id_of("x")), lambda: delete(two, id_of("x"))
        )
        assert deleted == 2
        assert isinstance(refused, Refused)
        assert refused.code == "NOT_FOUND"


async def test_a_task_that_is_reset_twice_at_once_is_ready_once(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x"), t("below", "x"))
        await work(one, {"x": [t("y")]}, limit=1)
        again = await in_turn(a, eye, DONE, lambda: reset(one, id_of("x")), lambda: reset(two, id_of("x")))
        assert again == [{"x": "READY"}] * 2
        assert await names(one) == {"x": "READY", "below": "BLOCKED"}
        await works_off(one, "below")


@BOTH_WAYS
async def test_parent_and_child_that_are_reset_at_once_run_in_their_order(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("p"), t("child", "p"), t("other", "p"))
        await work(one)
        await both(a, eye, DONE, first, lambda: reset(one, id_of("p")), lambda: reset(two, id_of("child")))
        assert await names(one) == {"p": "READY", "child": "BLOCKED", "other": "SUCCEEDED"}
        await works_off(one, "child")


# -- updates ---------------------------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize("how", ["release", "fail", "complete"])
async def test_a_task_whose_priority_changes_while_its_attempt_ends_stands_where_it_belongs(
    dsn: str, how: str, first: int
) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x"), t("below", "x"))
        (lease,) = await one.claim()
        ends: dict[str, Call] = {
            "release": lambda: one.release(lease),
            "fail": lambda: one.fail(lease, retryDelaySeconds=0),
            "complete": lambda: one.complete(lease),
        }
        ended, shown = await both(
            a, eye, LEASE, first, ends[how], lambda: update(two, id_of("x"), "priority", priority=5)
        )
        assert (codes(ended), shown) == ([], {"priority": 5})
        assert await state(one, "x") == ("SUCCEEDED" if how == "complete" else "READY")
        await works_off(one, "below")


@BOTH_WAYS
async def test_a_task_that_changes_its_channel_while_it_is_deleted_or_cancelled_is_found(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("x"))
        _, deleted = await both(
            a, eye, READY, first, lambda: update(one, id_of("x"), channel="d"), lambda: delete(two, id_of("x"))
        )
        assert deleted == 1
        assert await names(one) == {}
        assert await one.sql("select from ready") == []


@BOTH_WAYS
async def test_a_policy_that_changes_while_the_parent_fails_is_gone_by(dsn: str, first: int) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await group(one, t("p"), t("x", "p"), t("below", "x", onParentFailure="CANCEL"))
        (lease,) = await one.claim()
        await both(
            a,
            eye,
            LEASE,
            first,
            lambda: one.fail(lease, discard=True),
            lambda: update(two, id_of("x"), onParentFailure="CANCEL"),
        )
        assert await names(one) == {"p": "FAILED", "x": "CANCELLED", "below": "CANCELLED"}
