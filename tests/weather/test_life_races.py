"""Races of keys, joins, failures, cancels and pauses.

Forced: a connection of the test holds a row that both calls need, so that both are seen to wait, in a known order.
"""

from __future__ import annotations

import asyncio

import pytest

from db.clock import promote_scheduled
from db.pause import park_front, unpark_paused
from resolvers.draft import new_id
from resolvers.follow import merge_moved
from tests.support.races import NS, Call, in_turn, servers_wait_for_locks, stopped, two_servers

CANCEL = "mutation($ids: [ID!], $d: Boolean) { cancelTasks(ids: $ids, descendants: $d) { affected } }"
PAUSE_GROUP = "mutation($id: ID!) { pauseTaskGroup(id: $id) { affected } }"
RESUME_GROUP = "mutation($id: ID!) { resumeTaskGroup(id: $id) { affected } }"
PAUSE = "mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }"
RESUME = "mutation($ids: [ID!]!) { resumeTasks(ids: $ids) { affected } }"

# The row of a task that another is about to make: whoever makes it waits.
TAKE_ID = """
insert into task (ns, no, id, group_no, channel, name, max_attempts, retry_delay, backoff, max_delay)
values (1, nextval('task_no'), $1, 0, 0, 'taken', 1, 0, 1, 0)
"""


# -- keys ------------------------------------------------------------------------------------------------------------


async def test_of_two_twins_claimed_at_once_one_runs_and_the_other_rides_with_it(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x", "key": "k"}, {"name": "y", "key": "k"})
        leases = await in_turn(a, eye, "select from runner for update", one.claim, two.claim)
        assert [len(part) for part in leases] == [1, 0]
        assert await one.states(made["taskGroup"]["id"]) == {"x": "RUNNING", "y": "MERGED"}
        await one.complete(*leases[0], output=7)
        assert await one.states(made["taskGroup"]["id"]) == {"x": "SUCCEEDED", "y": "SUCCEEDED"}


@pytest.mark.parametrize(("first", "twin"), [("create", "SUCCEEDED"), ("complete", "READY")])
async def test_a_twin_made_while_its_runner_completes_ends_with_it_or_is_new_work(
    dsn: str, first: str, twin: str
) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        group = (await one.create({"name": "x", "key": "k"}))["taskGroup"]["id"]
        (lease,) = await one.claim()
        calls: dict[str, Call] = {
            "complete": lambda: one.complete(lease, output=7),
            "create": lambda: two.create_tasks(group, {"name": "y", "key": "k"}),
        }
        order = [calls.pop(first), *calls.values()]
        await in_turn(a, eye, "select from runner for update", *order)
        assert await one.states(group) == {"x": "SUCCEEDED", "y": twin}
        assert len(await one.claim(9)) == (twin == "READY")
        assert await eye.fetchval("select count(*) from merged") == 0


@pytest.mark.parametrize("first", ["REJECT", "MERGE"])
async def test_of_two_that_make_a_key_at_once_the_one_that_rejects_sees_the_other(dsn: str, first: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        group = (await one.create())["taskGroup"]["id"]
        before = await one.create({"name": "before", "key": "k"})
        await one.ask(CANCEL, ids=[before["tasks"][0]["id"]])
        calls: dict[str, Call] = {
            "MERGE": lambda: one.create_tasks(group, {"name": "m", "key": "k"}),
            "REJECT": lambda: two.create_tasks(group, {"name": "r", "key": "k", "onDuplicate": "REJECT"}),
        }
        order = [calls.pop(first), *calls.values()]
        answers = await in_turn(a, eye, "select from runner for update", *order)
        refused = [x for x in answers if isinstance(x, BaseException)]
        assert [x.code for x in refused] == (["DUPLICATE_KEY"] if first == "MERGE" else [])  # type: ignore[attr-defined]
        assert set(await one.states(group)) == ({"m"} if first == "MERGE" else {"m", "r"})


# -- joins -----------------------------------------------------------------------------------------------------------


async def test_a_join_is_not_claimed_while_its_last_branch_spawns(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, _):
        made = await one.create(
            {"name": "root", "ref": "r"}, {"name": "join", "parents": [{"ref": "r", "waitFor": "SUBTREE"}]}
        )
        group, late = made["taskGroup"]["id"], str(new_id())
        (root,) = await one.claim()
        async with stopped(a, TAKE_ID, late):
            completing = asyncio.ensure_future(
                one.complete(root, children=[{"id": late, "name": "late", "channel": "c"}])
            )
            async with asyncio.timeout(5):
                while not await two.sql("select from pg_locks where not granted"):
                    await asyncio.sleep(0.002)
            assert await two.claim(9) == []
        assert (await completing)["completed"] == 1
        assert await one.states(group) == {"root": "SUCCEEDED", "join": "BLOCKED", "late": "READY"}
        await one.complete(*await two.claim(9))
        assert [x["task"]["name"] for x in await two.claim(9)] == ["join"]


@pytest.mark.parametrize("first", ["fail", "create"])
async def test_a_task_hung_under_one_that_fails_is_cancelled_with_it(dsn: str, first: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "p"})
        group, parent = made["taskGroup"]["id"], made["tasks"][0]["id"]
        (lease,) = await one.claim()
        child = {"name": "child", "parents": [{"id": parent}], "onParentFailure": "CANCEL"}
        calls: dict[str, Call] = {
            "fail": lambda: one.fail(lease, discard=True),
            "create": lambda: two.create_tasks(group, child),
        }
        order = [calls.pop(first), *calls.values()]
        await in_turn(a, eye, "select from lease for update", *order)
        assert await one.states(group) == {"p": "FAILED", "child": "CANCELLED"}


# -- cancel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["cancel", "complete"])
async def test_of_a_cancel_and_a_completion_the_first_counts(dsn: str, first: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x", "ref": "x"}, {"name": "child", "parents": [{"ref": "x"}]})
        group, x = made["taskGroup"]["id"], made["tasks"][0]["id"]
        (lease,) = await one.claim()
        calls: dict[str, Call] = {
            "cancel": lambda: two.ask(CANCEL, ids=[x]),
            "complete": lambda: one.complete(lease),
        }
        order = [calls.pop(first), *calls.values()]
        answers = dict(zip([first, *calls], await in_turn(a, eye, "select from lease for update", *order), strict=True))
        cancelled = first == "cancel"
        assert answers["cancel"]["cancelTasks"]["affected"] == int(cancelled)
        assert [e["code"] for e in answers["complete"]["errors"]] == (["CANCELLED"] if cancelled else [])
        states = {"x": "CANCELLED", "child": "BLOCKED"} if cancelled else {"x": "SUCCEEDED", "child": "READY"}
        assert await one.states(group) == states


async def test_a_cancel_that_waits_for_a_claim_cancels_what_it_claimed(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x"})
        await one.claim(channels=("none",))
        hold = "select from ready for update"
        async with stopped(a, hold):
            cancelling = asyncio.ensure_future(two.ask(CANCEL, ids=[made["tasks"][0]["id"]]))
            await servers_wait_for_locks(eye)
            await a.execute(
                "with g as (delete from ready returning *) insert into lease (ns, lease_no, worker, until, nos, groups, channels,"
                " workgroups, attempts, remainings, failures) select 1, nextval('lease_no'), worker, now() + interval '1 h',"
                " array[no], array[group_no], array[channel], array[0], array[1], array[4], array[0] from g, worker"
            )
            await a.execute("commit")
            assert (await cancelling)["cancelTasks"]["affected"] == 1
            await a.execute("begin")
        assert await one.states(made["taskGroup"]["id"]) == {"x": "CANCELLED"}
        assert await eye.fetchval("select count(*) from lease") == 0


async def test_a_cancel_of_descendants_takes_what_is_hung_below_meanwhile(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x", "ref": "x"}, {"name": "y", "parents": [{"ref": "x"}]})
        group, late = made["taskGroup"]["id"], str(new_id())
        x, y = (t["id"] for t in made["tasks"])
        async with stopped(a, TAKE_ID, late):
            creating = asyncio.ensure_future(
                one.create_tasks(group, {"id": late, "name": "late", "parents": [{"id": y}]})
            )
            await servers_wait_for_locks(eye, 1)
            cancelling = asyncio.ensure_future(two.ask(CANCEL, ids=[x], d=True))
            await servers_wait_for_locks(eye, 2)
        await creating
        assert (await cancelling)["cancelTasks"]["affected"] == 3
        assert await one.states(group) == {"x": "CANCELLED", "y": "CANCELLED", "late": "CANCELLED"}


COLUMNS = "ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at"
ALL_BACK = f"with g as (delete from parked returning {COLUMNS}) insert into ready ({COLUMNS}) select {COLUMNS} from g"


@pytest.mark.parametrize("way", ["aside", "back"])
async def test_a_twin_that_is_moved_while_its_runner_is_claimed_rides_with_it(dsn: str, way: str) -> None:
    """The claim finds it in neither place: who moves it looks for a runner after that."""
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "twin", "key": "k"}, isPaused=True)
        twin = made["tasks"][0]["id"]
        runner = (await one.create({"name": "runner", "key": "k"}))["tasks"][0]["id"]
        async with a.transaction():
            if way == "aside":
                await a.execute(ALL_BACK)
                moved = await park_front(a, NS, 10)
            else:
                await a.execute("delete from pause")
                moved = await unpark_paused(a, NS, tasks=[await a.fetchval("select no from parked")], groups=[])
            assert moved.count == 1
            claiming = asyncio.ensure_future(two.claim(9))
            await servers_wait_for_locks(eye)
            await merge_moved(a, NS, moved)
        assert [lease["task"]["id"] for lease in await claiming] == [runner]
        assert (await one.task(twin, "state mergedInto { id }")) == {"state": "MERGED", "mergedInto": {"id": runner}}


# -- pauses ----------------------------------------------------------------------------------------------------------


async def test_a_task_promoted_while_its_group_is_being_paused_is_held_and_freed(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, _):
        made = await one.create({"name": "x", "delaySeconds": 3600})
        group, x = made["taskGroup"]["id"], made["tasks"][0]["id"]
        async with a.transaction():
            await a.execute("update scheduled set run_at = now() - interval '1 s'")
            assert (await promote_scheduled(a, NS, 10)).count == 1
            await two.ask(PAUSE_GROUP, id=group)
        assert await one.task(x, "state heldBy") == {"state": "READY", "heldBy": ["GROUP_PAUSED"]}
        assert await one.claim(9) == []
        await two.ask(RESUME_GROUP, id=group)
        assert await one.task(x, "state heldBy") == {"state": "READY", "heldBy": []}
        assert len(await one.claim(9)) == 1


async def test_a_resume_waits_for_who_moves_the_groups_tasks_aside_and_moves_them_back(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x"}, isPaused=True)
        async with a.transaction():
            await a.execute(ALL_BACK)
            assert (await park_front(a, NS, 10)).count == 1
            resuming = asyncio.ensure_future(two.ask(RESUME_GROUP, id=made["taskGroup"]["id"]))
            await servers_wait_for_locks(eye)
        await resuming
        assert len(await one.claim(9)) == 1


async def test_a_task_and_its_group_resumed_at_once_leave_nothing_aside(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x"}, isPaused=True)
        ids, group = [made["tasks"][0]["id"]], made["taskGroup"]["id"]
        await one.ask(PAUSE, ids=ids)
        resume: list[Call] = [lambda: one.ask(RESUME, ids=ids), lambda: two.ask(RESUME_GROUP, id=group)]
        await in_turn(a, eye, "select from pause for update", *resume)
        assert len(await one.claim(9)) == 1
