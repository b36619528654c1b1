"""Pausing tasks, groups and channels: no new leases; what runs may finish."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.crew import Crew, Refused, crew_on
from tests.support.wait import end_delays, end_suspensions, expire_leases, until

TASK, GROUP, CHANNEL, WORKGROUP = HOLDS = ("TASK_PAUSED", "GROUP_PAUSED", "CHANNEL_PAUSED", "WORKGROUP_SUSPENDED")
"""In the order in which heldBy lists them."""
PAUSES = HOLDS[:3]
VERBS: dict[str, tuple[str, str, str]] = {
    TASK: ("pauseTasks(ids: [$x]) { affected }", "resumeTasks(ids: [$x]) { affected }", "ID!"),
    GROUP: (
        "pauseTaskGroup(id: $x) { affected taskGroup { id isPaused } }",
        "resumeTaskGroup(id: $x) { affected taskGroup { id isPaused } }",
        "ID!",
    ),
    CHANNEL: (
        "pauseChannel(name: $x) { channel { name isPaused } }",
        "resumeChannel(name: $x) { channel { name isPaused } }",
        "String!",
    ),
    WORKGROUP: (
        "suspendWorkgroup(name: $x, seconds: 1000) { workgroup { name } }",
        "resumeWorkgroup(name: $x) { workgroup { name } }",
        "String!",
    ),
}
TASKS = "mutation($ids: [ID!]!) { %sTasks(ids: $ids) { affected tasks { id name state heldBy } } }"


async def hold(crew: Crew, kind: str, ref: str) -> dict[str, Any]:
    """The payload of the verb that holds it."""
    call, _, type_ = VERBS[kind]
    (payload,) = (await crew.ask(f"mutation($x: {type_}) {{ {call} }}", x=ref)).values()
    return dict(payload)


async def let_go(crew: Crew, kind: str, ref: str) -> dict[str, Any]:
    _, call, type_ = VERBS[kind]
    (payload,) = (await crew.ask(f"mutation($x: {type_}) {{ {call} }}", x=ref)).values()
    return dict(payload)


async def tasks(crew: Crew, verb: str, *ids: str) -> dict[str, Any]:
    (payload,) = (await crew.ask(TASKS.replace("%s", verb), ids=list(ids))).values()
    return dict(payload)


async def one(crew: Crew, **task: Any) -> dict[str, str]:
    """A new task of channel c and workgroup w: what each kind of hold names, to hold it."""
    made = await crew.create({"name": "t", "workgroup": "w", **task})
    return {TASK: made["tasks"][0]["id"], GROUP: made["taskGroup"]["id"], CHANNEL: "c", WORKGROUP: "w"}


async def shown(crew: Crew, id: str) -> tuple[str, list[str]]:
    task = await crew.task(id, "state heldBy")
    return task["state"], task["heldBy"]


async def aside(crew: Crew, n: int = 1) -> None:
    """Wait until the server has moved so many held tasks out of the claims' way."""

    async def moved() -> bool:
        rows = await crew.sql("select count(*)::int as n from parked")
        return bool(rows[0]["n"] >= n)

    await until(moved)


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [x["task"]["name"] for x in leases]


# -- what is held -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PAUSES)
async def test_a_pause_stops_new_leases_of_what_it_names_and_of_nothing_else(crew: Crew, kind: str) -> None:
    refs = await one(crew)
    await crew.create({"name": "elsewhere", "channel": "c" if kind != CHANNEL else "d"})
    before = await crew.task(refs[TASK], "state readyAt notBefore priority")
    await hold(crew, kind, refs[kind])
    assert await shown(crew, refs[TASK]) == ("READY", [kind])
    assert await crew.task(refs[TASK], "state readyAt notBefore priority") == before
    assert names(await crew.claim(9, ("c", "d"))) == ["elsewhere"]
    await let_go(crew, kind, refs[kind])
    assert await shown(crew, refs[TASK]) == ("READY", [])
    assert await crew.task(refs[TASK], "state readyAt notBefore priority") == before
    (lease,) = await crew.claim(9)
    assert (lease["task"]["id"], lease["attempt"]) == (refs[TASK], 1)
    assert (await crew.complete(lease))["completed"] == 1


@pytest.mark.parametrize("kind", PAUSES)
async def test_every_server_heeds_a_pause_and_its_end_at_once(crew: Crew, kind: str) -> None:
    refs = await one(crew)
    async with crew_on(crew.dsn) as other:
        (lease,) = await other.claim()
        await other.release(lease)
        for _ in range(3):
            await hold(crew, kind, refs[kind])
            assert await other.claim() == []
            await let_go(crew, kind, refs[kind])
            (lease,) = await other.claim()
            await other.release(lease)


@pytest.mark.parametrize("kind", PAUSES)
async def test_what_runs_may_finish(crew: Crew, kind: str) -> None:
    made = await crew.create(*({"name": n, "workgroup": "w", "retry": {"delaySeconds": 0}} for n in "abcd"))
    leases = dict(zip("abcd", await crew.claim(4), strict=True))
    if kind == TASK:
        await tasks(crew, "pause", *(t["id"] for t in made["tasks"]))
    else:
        await hold(crew, kind, made["taskGroup"]["id"] if kind == GROUP else "c")
    for lease in leases.values():
        assert await shown(crew, lease["task"]["id"]) == ("RUNNING", [])
    answer = await crew.extend(*leases.values(), leaseSeconds=500)
    assert (answer["suspended"], answer["errors"]) == ([], [])
    done = await crew.complete(leases["a"], children=[{"name": "child", "channel": "c"}])
    assert done["completed"] == 1
    assert (await crew.fail(leases["b"]))["failed"] == 1
    assert (await crew.release(leases["c"]))["released"] == 1
    states = await crew.states(made["taskGroup"]["id"])
    assert states == {"a": "SUCCEEDED", "b": "READY", "c": "READY", "d": "RUNNING", "child": "READY"}
    # A pause of tasks is of those named; one of the group or channel covers what they spawn.
    assert names(await crew.claim(9)) == (["child"] if kind == TASK else [])
    assert (await crew.complete(leases["d"]))["completed"] == 1


async def test_only_suspensions_are_told_to_those_who_extend(crew: Crew) -> None:
    refs = await one(crew)
    (lease,) = await crew.claim()
    for kind in PAUSES:
        await hold(crew, kind, refs[kind])
    assert (await crew.extend(lease))["suspended"] == []
    await hold(crew, WORKGROUP, "w")
    assert (await crew.extend(lease))["suspended"] == [lease["id"]]


# -- in each state ------------------------------------------------------------------------------------------------------

Steps = AsyncIterator[dict[str, str]]
"""First the task stands in its state (and says what to pause), then, while that is paused, it becomes READY."""


async def blocked(crew: Crew) -> Steps:
    made = await crew.create({"name": "p", "ref": "p", "channel": "p"}, {"name": "t", "parents": [{"ref": "p"}]})
    (parent,) = await crew.claim(channels=("p",))
    yield {TASK: made["tasks"][1]["id"], GROUP: made["taskGroup"]["id"], CHANNEL: "c"}
    await crew.complete(parent)


async def scheduled(crew: Crew) -> Steps:
    yield await one(crew, delaySeconds=1000)
    await end_delays(crew)


async def backing_off(crew: Crew) -> Steps:
    refs = await one(crew)
    await crew.fail(*await crew.claim())
    yield refs
    await end_delays(crew)


async def delayed_by_its_parent(crew: Crew) -> Steps:
    made = await crew.create({"name": "p", "ref": "p", "channel": "p"}, {"name": "t", "parents": [{"ref": "p"}]})
    await crew.complete(*await crew.claim(channels=("p",)), childrenDelaySeconds=1000)
    yield {TASK: made["tasks"][1]["id"], GROUP: made["taskGroup"]["id"], CHANNEL: "c"}
    await end_delays(crew)


async def failing(crew: Crew) -> Steps:
    refs = await one(crew, retry={"delaySeconds": 0})
    (lease,) = await crew.claim()
    yield refs
    await crew.fail(lease)


async def released(crew: Crew) -> Steps:
    refs = await one(crew)
    (lease,) = await crew.claim()
    yield refs
    await crew.release(lease)


async def lost(crew: Crew) -> Steps:
    refs = await one(crew)
    await crew.claim()
    yield refs
    await expire_leases(crew)


async def merged(crew: Crew) -> Steps:
    runner = await one(crew, key="k")
    refs = await one(crew, key="k")
    await crew.claim()
    yield refs
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[runner[TASK]])


async def failed(crew: Crew) -> Steps:
    refs = await one(crew)
    await crew.fail(*await crew.claim(), discard=True)
    yield refs
    await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=[refs[TASK]])


WAYS: list[tuple[Callable[[Crew], Steps], str]] = [
    (blocked, "BLOCKED"),
    (scheduled, "SCHEDULED"),
    (backing_off, "SCHEDULED"),
    (delayed_by_its_parent, "SCHEDULED"),
    (failing, "RUNNING"),
    (released, "RUNNING"),
    (lost, "RUNNING"),
    (merged, "MERGED"),
    (failed, "FAILED"),
]


@pytest.mark.parametrize("kind", PAUSES)
@pytest.mark.parametrize(("way", "state"), WAYS, ids=[way.__name__ for way, _ in WAYS])
async def test_a_pause_shows_as_soon_as_the_task_is_ready(
    crew: Crew, way: Callable[[Crew], Steps], state: str, kind: str
) -> None:
    if (kind, state) == (TASK, "FAILED"):
        pytest.skip("a task that has ended is not paused")
    steps = way(crew)
    refs = await anext(steps)
    await hold(crew, kind, refs[kind])
    assert await shown(crew, refs[TASK]) == (state, [])
    async for _ in steps:
        raise AssertionError("one step more than there should be")
    assert await shown(crew, refs[TASK]) == ("READY", [kind])
    assert await crew.claim(9) == []
    await let_go(crew, kind, refs[kind])
    assert await shown(crew, refs[TASK]) == ("READY", [])
    (lease,) = await crew.claim(9)
    assert lease["task"]["id"] == refs[TASK]


@pytest.mark.parametrize("kind", PAUSES)
async def test_a_pause_that_ends_before_the_task_is_ready_holds_nothing(crew: Crew, kind: str) -> None:
    steps = blocked(crew)
    refs = await anext(steps)
    await hold(crew, kind, refs[kind])
    await let_go(crew, kind, refs[kind])
    async for _ in steps:
        pass
    assert names(await crew.claim(9)) == ["t"]


@pytest.mark.parametrize("kind", [GROUP, CHANNEL])
async def test_it_covers_what_is_made_while_it_lasts(crew: Crew, kind: str) -> None:
    made = await crew.create({"name": "spawner", "channel": "s"})
    group = made["taskGroup"]["id"]
    (lease,) = await crew.claim(channels=("s",))
    await hold(crew, kind, group if kind == GROUP else "c")
    made_now = await crew.create_tasks(group, {"name": "new"}, {"name": "later", "delaySeconds": 1000})
    await crew.complete(lease, children=[{"name": "child", "channel": "c"}])
    (child,) = (await crew.task(made["tasks"][0]["id"], "children { id }"))["children"]
    await end_delays(crew)
    for id in (made_now[0]["id"], made_now[1]["id"], child["id"]):
        assert await shown(crew, id) == ("READY", [kind])
    assert await crew.claim(9) == []
    await let_go(crew, kind, group if kind == GROUP else "c")
    assert sorted(names(await crew.claim(9))) == ["child", "later", "new"]


@pytest.mark.parametrize("kind", HOLDS)
async def test_what_is_held_can_be_cancelled_and_stays_so(crew: Crew, kind: str) -> None:
    refs = await one(crew)
    await hold(crew, kind, refs[kind])
    if kind == WORKGROUP:
        await aside(crew)
    cancelled = await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[refs[TASK]])
    assert cancelled == {"cancelTasks": {"affected": 1}}
    assert await shown(crew, refs[TASK]) == ("CANCELLED", [])
    await let_go(crew, kind, refs[kind])
    assert await crew.claim(9) == []


# -- several holds ------------------------------------------------------------------------------------------------------


async def test_holds_are_listed_in_one_order_and_all_must_go(crew: Crew, subtests: pytest.Subtests) -> None:
    for n, order in enumerate(itertools.permutations(HOLDS)):
        with subtests.test(", ".join(order)):
            channel, workgroup = f"c{n}", f"w{n}"
            refs = await one(crew, channel=channel, workgroup=workgroup)
            refs |= {CHANNEL: channel, WORKGROUP: workgroup}
            held: set[str] = set()
            for kind in order:
                await hold(crew, kind, refs[kind])
                held.add(kind)
                if kind == WORKGROUP and n % 3 == 0:
                    await aside(crew)
                assert await shown(crew, refs[TASK]) == ("READY", [k for k in HOLDS if k in held])
                assert await crew.claim(channels=(channel,)) == []
            for kind in order if n % 2 else reversed(order):
                assert await crew.claim(channels=(channel,)) == []
                await let_go(crew, kind, refs[kind])
                held.remove(kind)
                assert await shown(crew, refs[TASK]) == ("READY", [k for k in HOLDS if k in held])
            assert names(await crew.claim(channels=(channel,))) == ["t"]


@pytest.mark.parametrize("kind", PAUSES)
@pytest.mark.parametrize("first", ["pause", "suspension"])
async def test_the_end_of_a_suspension_does_not_end_a_pause(crew: Crew, kind: str, first: str) -> None:
    refs = await one(crew)
    await crew.create({"name": "other", "workgroup": "w", "channel": "d"})
    if first == "pause":
        await hold(crew, kind, refs[kind])
    end = await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { suspendedUntil } } }')
    await aside(crew)
    if first == "suspension":
        await hold(crew, kind, refs[kind])
    task = await crew.task(refs[TASK], "heldBy notBefore")
    assert task == {
        "heldBy": [kind, WORKGROUP],
        "notBefore": end["suspendWorkgroup"]["workgroup"]["suspendedUntil"],
    }
    await crew.sql("update hold set until = now() - interval '1 s'")
    crew.services.core.due(0)
    assert names(await crew.claim(9, ("c", "d"), waitSeconds=20)) == ["other"]
    assert await crew.task(refs[TASK], "heldBy notBefore") == {"heldBy": [kind], "notBefore": None}
    assert await crew.claim(9) == []
    await let_go(crew, kind, refs[kind])
    assert names(await crew.claim(9)) == ["t"]


async def test_the_end_of_a_pause_does_not_end_a_suspension(crew: Crew) -> None:
    refs = await one(crew)
    for kind in HOLDS:
        await hold(crew, kind, refs[kind])
    for kind in PAUSES:
        await let_go(crew, kind, refs[kind])
    assert await shown(crew, refs[TASK]) == ("READY", [WORKGROUP])
    assert await crew.claim(9) == []
    await end_suspensions(crew)
    assert names(await crew.claim(9)) == ["t"]


# -- claims that wait ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["the same server", "another server"])
@pytest.mark.parametrize("kind", PAUSES)
async def test_the_end_of_a_pause_wakes_a_claim_that_waits(crew: Crew, kind: str, where: str) -> None:
    refs = await one(crew)
    await hold(crew, kind, refs[kind])
    async with crew_on(crew.dsn) as other:
        waiter = crew if where == "the same server" else other
        claim = asyncio.create_task(waiter.claim(waitSeconds=20))

        async def waits() -> bool:
            return waiter.services.dispatcher.waiting == 1

        await until(waits)
        await let_go(crew, kind, refs[kind])
        assert names(await asyncio.wait_for(claim, 5)) == ["t"]


async def test_a_claim_that_waits_gets_what_is_not_held(crew: Crew) -> None:
    group = (await crew.create(isPaused=True))["taskGroup"]["id"]
    await hold(crew, CHANNEL, "c")
    claim = asyncio.create_task(crew.claim(9, ("c", "d"), waitSeconds=20))

    async def waits() -> bool:
        return crew.services.dispatcher.waiting == 1

    await until(waits)
    await crew.create_tasks(group, {"name": "held by its group", "channel": "d", "priority": 9})
    await crew.create({"name": "held by its channel", "priority": 9})
    await crew.create({"name": "free", "channel": "d"})
    assert names(await asyncio.wait_for(claim, 5)) == ["free"]


async def test_claims_and_a_pause_at_once_leave_each_task_running_or_held(crew: Crew) -> None:
    for _ in range(5):
        made = await crew.create(*({"name": str(n)} for n in range(30)))
        shares = await asyncio.gather(
            *(crew.claim(3, workerId=f"w{n}") for n in range(5)),
            hold(crew, GROUP, made["taskGroup"]["id"]),
            *(crew.claim(3, workerId=f"v{n}") for n in range(5)),
        )
        assert await crew.claim(99) == []
        leases = [x for share in shares if isinstance(share, list) for x in share]
        states = list((await crew.states(made["taskGroup"]["id"])).values())
        assert (states.count("RUNNING"), states.count("READY")) == (len(leases), 30 - len(leases))
        assert (await crew.complete(*leases))["completed"] == len(leases)


# -- order, counts, many ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PAUSES)
async def test_what_was_held_comes_in_its_order_again(crew: Crew, kind: str) -> None:
    made = await crew.create(*({"name": str(n), "priority": n % 2} for n in range(6)))
    await crew.create({"name": "later"})
    if kind == TASK:
        ids = [t["id"] for t in made["tasks"]]
        await tasks(crew, "pause", *ids)
        await tasks(crew, "resume", *reversed(ids))
    else:
        ref = made["taskGroup"]["id"] if kind == GROUP else "c"
        await hold(crew, kind, ref)
        await let_go(crew, kind, ref)
    assert names(await crew.claim(9)) == ["1", "3", "5", "0", "2", "4", "later"]


@pytest.mark.parametrize("kind", PAUSES)
async def test_thousands_are_held_and_let_go_by_one_call(crew: Crew, kind: str) -> None:
    made = await crew.create(*({"name": str(n), "workgroup": "w" if n % 2 else None} for n in range(2500)))
    ids = [t["id"] for t in made["tasks"]]
    for _ in range(2):
        if kind == TASK:
            assert (await tasks(crew, "pause", *ids))["affected"] == 2500
        else:
            await hold(crew, kind, made["taskGroup"]["id"] if kind == GROUP else "c")
        assert await crew.claim(99) == []
        if kind == TASK:
            assert (await tasks(crew, "resume", *ids))["affected"] == 2500
        else:
            await let_go(crew, kind, made["taskGroup"]["id"] if kind == GROUP else "c")
    assert names(await crew.claim(5000)) == [str(n) for n in range(2500)]


@pytest.mark.parametrize("kind", PAUSES)
async def test_a_held_task_is_counted_as_ready_but_not_as_the_oldest_that_could_be_claimed(
    crew: Crew, kind: str
) -> None:
    refs = await one(crew, name="old")
    await crew.create({"name": "young"})
    await crew.sql(
        "update ready r set ready_at = now() - case t.name when 'old' then interval '90 s' else interval '50 s' end "
        "from task t where t.ns = r.ns and t.no = r.no"
    )
    query = (
        '{ channel(name: "c") { isPaused oldestReadySeconds counts { state count } } '
        'workgroup(name: "w") { counts { state count } } }'
    )
    counts = [{"state": "READY", "count": 2}]

    async def look() -> tuple[bool, float | None]:
        answer = await crew.ask(query)
        assert answer["channel"]["counts"] == counts
        assert answer["workgroup"]["counts"] == [{"state": "READY", "count": 1}]
        return answer["channel"]["isPaused"], answer["channel"]["oldestReadySeconds"]

    is_paused, oldest = await look()
    assert (is_paused, 90 <= (oldest or 0) < 120) == (False, True)
    await hold(crew, kind, refs[kind])
    is_paused, oldest = await look()
    if kind == CHANNEL:
        assert (is_paused, oldest) == (True, None)
    else:
        assert (is_paused, 50 <= (oldest or 0) < 80) == (False, True)
    await let_go(crew, kind, refs[kind])
    is_paused, oldest = await look()
    assert (is_paused, 90 <= (oldest or 0) < 120) == (False, True)


# -- tasks --------------------------------------------------------------------------------------------------------------


async def test_tasks_that_have_not_ended_are_paused_and_resumed_once(crew: Crew) -> None:
    made = await crew.create(
        {"name": "SUCCEEDED", "priority": 9},
        {"name": "FAILED", "priority": 8},
        {"name": "RUNNING", "priority": 7},
        {"name": "CANCELLED"},
        {"name": "READY", "ref": "r"},
        {"name": "BLOCKED", "parents": [{"ref": "r"}]},
        {"name": "SCHEDULED", "delaySeconds": 1000},
        {"name": "other"},
    )
    ids = {t["name"]: t["id"] for t in made["tasks"]}
    done, failed, _ = await crew.claim(3)
    await crew.complete(done)
    await crew.fail(failed, discard=True)
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[ids["CANCELLED"]])
    before = await crew.states(made["taskGroup"]["id"])
    given = [str(uuid.uuid4()), *(i for n, i in ids.items() if n != "other"), ids["READY"], str(uuid.uuid4())]
    for verb, held in (("pause", [TASK]), ("resume", [])):
        answer = await tasks(crew, verb, *given)
        assert answer["affected"] == 4
        assert sorted(answer["tasks"], key=lambda t: t["name"]) == [
            {"id": ids[n], "name": n, "state": n, "heldBy": held if n == "READY" else []}
            for n in ("BLOCKED", "READY", "RUNNING", "SCHEDULED")
        ]
        assert await tasks(crew, verb, *given) == {"affected": 0, "tasks": []}
        assert await crew.states(made["taskGroup"]["id"]) == before
        (lease,) = await crew.claim()
        assert lease["task"]["name"] == ("other" if verb == "pause" else "READY")
        await crew.release(lease)


async def test_some_of_those_named_may_be_paused_already(crew: Crew) -> None:
    made = await crew.create(*({"name": n} for n in "abc"))
    a, b, c = (t["id"] for t in made["tasks"])
    await tasks(crew, "pause", b)
    answer = await tasks(crew, "pause", a, b, c)
    assert (answer["affected"], sorted(t["name"] for t in answer["tasks"])) == (2, ["a", "c"])
    answer = await tasks(crew, "resume", b)
    assert (answer["affected"], answer["tasks"][0]["heldBy"]) == (1, [])
    answer = await tasks(crew, "resume", a, b)
    assert (answer["affected"], [t["name"] for t in answer["tasks"]]) == (1, ["a"])
    assert names(await crew.claim(9)) == ["a", "b"]


# -- groups -------------------------------------------------------------------------------------------------------------


async def is_paused(crew: Crew, group: str) -> bool:
    found: bool = (await crew.ask("query($id: ID!) { taskGroup(id: $id) { isPaused } }", id=group))["taskGroup"][
        "isPaused"
    ]
    return found


async def test_a_group_says_that_it_is_paused_and_how_many_tasks_that_holds(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a"},
        {"name": "b"},
        {"name": "blocked", "parents": [{"ref": "a"}]},
        {"name": "later", "delaySeconds": 1000},
    )
    id = made["taskGroup"]["id"]
    await crew.create({"name": "other", "priority": -1})
    (lease,) = await crew.claim()
    for verb, paused in ((hold, True), (let_go, False)):
        assert await verb(crew, GROUP, id) == {"affected": 1, "taskGroup": {"id": id, "isPaused": paused}}
        assert await verb(crew, GROUP, id) == {"affected": 0, "taskGroup": {"id": id, "isPaused": paused}}
        assert await is_paused(crew, id) is paused
    await hold(crew, GROUP, id)
    await crew.complete(lease)
    assert names(await crew.claim(9)) == ["other"]
    assert (await let_go(crew, GROUP, id))["affected"] == 2
    assert sorted(names(await crew.claim(9))) == ["b", "blocked"]


async def test_an_empty_group_can_be_paused(crew: Crew) -> None:
    id = (await crew.create())["taskGroup"]["id"]
    assert (await hold(crew, GROUP, id))["affected"] == 0
    (task,) = await crew.create_tasks(id, {"name": "a"})
    assert await shown(crew, task["id"]) == ("READY", [GROUP])
    assert (await let_go(crew, GROUP, id))["affected"] == 1


async def test_a_group_can_be_born_paused(crew: Crew) -> None:
    id = str(uuid.uuid4())
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}]}, id=id, isPaused=True)
    assert [t["state"] for t in made["tasks"]] == ["READY", "BLOCKED"]
    assert await is_paused(crew, id) is True
    assert await shown(crew, made["tasks"][0]["id"]) == ("READY", [GROUP])
    assert await crew.claim(9) == []
    assert (await let_go(crew, GROUP, id))["affected"] == 1
    again = await crew.create({"name": "a"}, {"name": "b"}, id=id, isPaused=True)
    assert again["tasks"] == made["tasks"]
    assert await is_paused(crew, id) is False
    assert names(await crew.claim(9)) == ["a"]


async def test_groups_made_together_are_paused_each_as_it_says(crew: Crew) -> None:
    groups = [
        {"name": n, "tasks": [{"name": n, "channel": "c"}], "isPaused": p}
        for n, p in (("a", True), ("b", False), ("c", None), ("d", True))
    ]
    query = (
        "mutation($input: CreateTaskGroupsInput!) { createTaskGroups(input: $input) "
        "{ groups { taskGroup { id isPaused } tasks { heldBy } } } }"
    )
    made = (await crew.ask(query, input={"groups": groups}))["createTaskGroups"]["groups"]
    assert [m["taskGroup"]["isPaused"] for m in made] == [True, False, False, True]
    assert [m["tasks"][0]["heldBy"] for m in made] == [[GROUP], [], [], [GROUP]]
    assert names(await crew.claim(9)) == ["b", "c"]


async def test_groups_are_listed_by_whether_they_are_paused(crew: Crew) -> None:
    made = [await crew.create({"name": "t", "channel": n}, name=n, isPaused=n in "bd") for n in "abcd"]
    await crew.complete(*await crew.claim(channels=("a",)))

    async def listed(states: str) -> str:
        query = "{ taskGroups(orderBy: NAME_ASC, filter: {states: [%s]}) { totalCount nodes { name isPaused } } }"
        found = (await crew.ask(query.replace("%s", states)))["taskGroups"]
        assert found["totalCount"] == len(found["nodes"])
        assert [n["isPaused"] for n in found["nodes"]] == [n["name"] in paused for n in found["nodes"]]
        return "".join(n["name"] for n in found["nodes"])

    paused = "bd"
    assert [await listed(s) for s in ("PAUSED", "OPEN", "FINISHED", "FINISHED, PAUSED", "")] == [
        "bd",
        "bcd",
        "a",
        "abd",
        "",
    ]
    await let_go(crew, GROUP, made[1]["taskGroup"]["id"])
    await hold(crew, GROUP, made[0]["taskGroup"]["id"])
    paused = "ad"
    assert [await listed(s) for s in ("PAUSED", "OPEN", "FINISHED", "PAUSED, OPEN")] == ["ad", "bcd", "a", "abcd"]


# -- channels -----------------------------------------------------------------------------------------------------------


async def test_a_channel_says_that_it_is_paused(crew: Crew) -> None:
    await crew.create({"name": "c"}, {"name": "d", "channel": "d"})
    for _ in range(2):
        assert await hold(crew, CHANNEL, "c") == {"channel": {"name": "c", "isPaused": True}}
        assert (await crew.ask("{ channels { name isPaused } }"))["channels"] == [
            {"name": "c", "isPaused": True},
            {"name": "d", "isPaused": False},
        ]
    assert names(await crew.claim(9, ("c", "d"))) == ["d"]
    for _ in range(2):
        assert await let_go(crew, CHANNEL, "c") == {"channel": {"name": "c", "isPaused": False}}
    assert (await crew.ask('{ channel(name: "c") { isPaused } }'))["channel"] == {"isPaused": False}


async def test_a_channel_can_be_paused_before_it_has_tasks(crew: Crew) -> None:
    assert (await crew.ask('{ channel(name: "new") { name } }'))["channel"] is None
    await hold(crew, CHANNEL, "new")
    found = (await crew.ask('{ channel(name: "new") { isPaused counts { count } } }'))["channel"]
    assert found == {"isPaused": True, "counts": []}
    made = await crew.create({"name": "a", "channel": "new"}, {"name": "b", "channel": "newer"})
    assert await shown(crew, made["tasks"][0]["id"]) == ("READY", [CHANNEL])
    assert names(await crew.claim(9, ("new", "newer"))) == ["b"]


async def test_a_paused_channel_hides_nothing_of_the_others_behind_it(crew: Crew) -> None:
    await crew.create(*({"name": "x", "priority": 9} for _ in range(50)), {"name": "y", "channel": "d"})
    await hold(crew, CHANNEL, "c")
    assert names(await crew.claim(1, ("c", "d"))) == ["y"]


@pytest.mark.parametrize("kind", [TASK, GROUP])
async def test_what_is_held_hides_nothing_behind_it(crew: Crew, kind: str) -> None:
    made = await crew.create(*({"name": "x", "priority": 9} for _ in range(50)))
    await crew.create({"name": "y"})
    if kind == TASK:
        await tasks(crew, "pause", *(t["id"] for t in made["tasks"]))
    else:
        await hold(crew, kind, made["taskGroup"]["id"])
    assert names(await crew.claim(1)) == ["y"]


# -- what is refused ----------------------------------------------------------------------------------------------------

ID = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
BAD: dict[str, tuple[str, str, list[str | int]]] = {
    "no tasks": ("Tasks(ids: []) { affected }", "BAD_INPUT", ["ids"]),
    "a bad task": (f'Tasks(ids: ["{ID}", "x"]) {{ affected }}', "BAD_INPUT", ["ids", 1]),
    "an unknown group": (f'TaskGroup(id: "{ID}") {{ affected }}', "NOT_FOUND", ["id"]),
    "a bad group": ('TaskGroup(id: "x") { affected }', "BAD_INPUT", ["id"]),
    "an empty channel": ('Channel(name: "") { channel { name } }', "BAD_INPUT", ["name"]),
    "a NUL in the channel": ('Channel(name: "\\u0000") { channel { name } }', "BAD_INPUT", ["name"]),
    "a long channel": (f'Channel(name: "{"c" * 256}") {{ channel {{ name }} }}', "BAD_INPUT", ["name"]),
}


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_what_names_nothing_is_refused_and_changes_nothing(
    crew: Crew, verb: str, subtests: pytest.Subtests
) -> None:
    await crew.create({"name": "a"})
    cases = dict(BAD)
    if verb == "resume":
        cases["an unknown channel"] = ('Channel(name: "nobody") { channel { name } }', "NOT_FOUND", ["name"])
    for case, (call, code, path) in cases.items():
        with subtests.test(case):
            with pytest.raises(Refused) as refused:
                await crew.ask(f"mutation {{ {verb}{call} }}")
            assert (refused.value.code, refused.value.path) == (code, path)
            assert refused.value.message
    assert await crew.ask("{ channels { name isPaused } }") == {"channels": [{"name": "c", "isPaused": False}]}
    assert names(await crew.claim()) == ["a"]


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_too_many_tasks_are_refused(crew: Crew, verb: str) -> None:
    with pytest.raises(Refused) as refused:
        await tasks(crew, verb, *(str(uuid.uuid4()) for _ in range(10_001)))
    assert (refused.value.code, refused.value.path) == ("TOO_LARGE", ["ids"])
