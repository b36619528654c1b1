"""Pausing tasks, groups and channels: no new leases; what runs may finish."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.crew import Crew, crew_on
from tests.support.pauses import (
    CHANNEL,
    GROUP,
    HOLDS,
    PAUSES,
    TASK,
    WORKGROUP,
    aside,
    hold,
    let_go,
    names,
    one,
    shown,
    tasks,
)
from tests.support.wait import end_delays, end_suspensions, expire_leases, until

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
