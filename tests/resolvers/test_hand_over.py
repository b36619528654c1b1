"""A task that a claim waits for is made and leased by one statement."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from resolvers import create
from resolvers.core import Rhythm
from tests.support import pauses
from tests.support.counted import calls
from tests.support.crew import Crew, Refused, crew_on
from tests.support.races import connected, servers_wait_for_locks
from tests.support.streams import poll
from tests.support.wait import until

LEASE = "select to_jsonb(l) - 'lease_no' - 'until' - 'started_at' - 'nos' as row from lease l order by lease_no"
LIMITS = {
    "channel": 'mutation { configureChannel(input: {name: "c", maxRunning: %s}) { channel { name } } }',
    "workgroup": 'mutation { configureWorkgroup(input: {name: "w", maxRunning: %s}) { workgroup { name } } }',
}


async def waits(crew: Crew, n: int = 1, **more: Any) -> asyncio.Task[list[dict[str, Any]]]:
    """A claim that waits where nothing is ready; the last of n."""
    claim = asyncio.create_task(crew.claim(waitSeconds=20, **more))
    dispatcher = crew.services.dispatcher

    async def dry() -> bool:
        return dispatcher.waiting >= n and dispatcher.idle

    await until(dry)
    return claim


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [lease["task"]["name"] for lease in leases]


async def group_of(crew: Crew) -> str:
    """A group that is known, of channels and workgroups that are."""
    made = await crew.create({"name": "first", "workgroup": "w"})
    await crew.complete(*await crew.claim())
    group: str = made["taskGroup"]["id"]
    return group


@asynccontextmanager
async def tried(crew: Crew, times: int = 1) -> AsyncIterator[None]:
    """The hand-over is, so often, whatever comes of it."""
    before = await calls(crew)
    yield
    assert (await calls(crew) - before)["create_leased_task"] == times


async def test_it_is_as_if_it_had_been_ready_first(crew: Crew) -> None:
    group = await group_of(crew)
    task = {"name": "a", "workgroup": "w", "priority": 3, "input": {"n": 1}, "metadata": [2]}
    cursor = (await poll(crew))["cursor"]
    before = await calls(crew)
    claim = await waits(crew, claimId=str(uuid.uuid4()), leaseSeconds=30)
    (made,) = await crew.create_tasks(group, task)
    (lease,) = await asyncio.wait_for(claim, 5)
    ran = await calls(crew) - before
    assert (ran["create_leased_task"], ran["create_ready_task"], ran["claim_tasks"]) == (1, 0, 1)
    assert lease["task"]["id"] == made["id"]
    told = [(e["kind"], e["state"], e["attempt"]) for e in await events(crew, cursor, 2)]
    assert told == [("CREATED", "READY", 0), ("STARTED", "RUNNING", 1)]
    (row,) = await crew.sql(LEASE)
    await crew.complete(lease)

    (made,) = await crew.create_tasks(group, task)
    (other,) = await crew.claim(claimId=str(uuid.uuid4()), leaseSeconds=30)
    assert [row] == await crew.sql(LEASE)
    different = {"id", "expiresAt", "task"}
    assert {k: v for k, v in lease.items() if k not in different} == {
        k: v for k, v in other.items() if k not in different
    }
    assert {**lease["task"], "id": made["id"]} == other["task"]


async def events(crew: Crew, cursor: str, n: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < n:
        batch = await poll(crew, cursor, waitSeconds=5)
        found += batch["events"]
        cursor = batch["cursor"]
    return found


async def test_what_fails_is_tried_again_as_ever(crew: Crew) -> None:
    group = await group_of(crew)
    claim = await waits(crew)
    await crew.create_tasks(group, {"name": "a"})
    await crew.fail(*await claim, retryDelaySeconds=0)
    (lease,) = await crew.claim(waitSeconds=20)
    assert lease["attempt"] == 2
    assert (await crew.task(lease["task"]["id"], "remainingAttempts"))["remainingAttempts"] == 3


async def test_claims_that_wait_get_one_each_in_the_order_they_came(crew: Crew) -> None:
    group = await group_of(crew)
    first = await waits(crew)
    second = await waits(crew, 2)
    await crew.create_tasks(group, {"name": "a"})
    assert names(await first) == ["a"]
    assert not second.done()
    await crew.create_tasks(group, {"name": "b"})
    assert names(await second) == ["b"]


@pytest.mark.parametrize("kind", pauses.HOLDS[1:])
async def test_what_is_held_is_not_handed_over(crew: Crew, kind: str) -> None:
    group = await group_of(crew)
    refs = {pauses.GROUP: group, pauses.CHANNEL: "c", pauses.WORKGROUP: "w"}
    await pauses.hold(crew, kind, refs[kind])
    claim = await waits(crew)
    async with tried(crew):
        (task,) = await crew.create_tasks(group, {"name": "a", "workgroup": "w"})
    assert (await crew.task(task["id"], "state heldBy")) == {"state": "READY", "heldBy": [kind]}
    assert not claim.done()
    await pauses.let_go(crew, kind, refs[kind])
    assert names(await asyncio.wait_for(claim, 5)) == ["a"]


@pytest.mark.parametrize("kind", LIMITS)
async def test_what_is_limited_is_not_handed_over(crew: Crew, kind: str) -> None:
    group = await group_of(crew)
    await crew.ask(LIMITS[kind] % 1)
    await crew.create_tasks(group, {"name": "runs", "workgroup": "w"})
    (lease,) = await crew.claim(waitSeconds=20)
    claim = await waits(crew)
    async with tried(crew):
        (task,) = await crew.create_tasks(group, {"name": "a", "workgroup": "w"})
    assert (await crew.task(task["id"], "state"))["state"] == "READY"
    assert not claim.done()
    await crew.complete(lease)
    assert names(await asyncio.wait_for(claim, 5)) == ["a"]


async def test_a_claim_waits_on_when_there_is_nothing_to_be_made(crew: Crew) -> None:
    group, gone = await group_of(crew), await group_of(crew)
    other = await crew.create()
    id = str(uuid.uuid4())
    await crew.create_tasks(other["taskGroup"]["id"], {"name": "elsewhere", "id": id, "channel": "d"})
    claim = await waits(crew)
    await crew.sql("delete from task_group where id = $1", uuid.UUID(gone))
    async with tried(crew):
        with pytest.raises(Refused) as refused:
            await crew.create_tasks(gone, {"name": "none"})
    assert refused.value.code == "NOT_FOUND"
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(group, {"name": "taken", "id": id})
    assert refused.value.code == "CONFLICT"
    assert not claim.done()
    await crew.create_tasks(group, {"name": "a"})
    assert names(await asyncio.wait_for(claim, 5)) == ["a"]


async def test_a_claim_does_not_wait_for_the_lock_of_a_group(crew: Crew) -> None:
    group, free = await group_of(crew), await group_of(crew)
    claim = await waits(crew)
    async with connected(crew.dsn, 2) as (eye, holder), crew_on(crew.dsn) as other:
        async with holder.transaction():
            await holder.execute("select from task_group where id = $1 for update", uuid.UUID(group))
            making = asyncio.create_task(crew.create_tasks(group, {"name": "late"}))
            await servers_wait_for_locks(eye)
            await other.create_tasks(free, {"name": "a"})
            assert names(await asyncio.wait_for(claim, 5)) == ["a"]
            assert not making.done()
        await making
    assert names(await crew.claim()) == ["late"]


async def test_a_task_that_is_there_is_not_handed_over_again(crew: Crew) -> None:
    group, id = await group_of(crew), str(uuid.uuid4())
    claim = await waits(crew)
    made = await crew.create_tasks(group, {"name": "a", "id": id})
    assert names(await claim) == ["a"]
    claim = await waits(crew)
    assert [task["id"] for task in await crew.create_tasks(group, {"name": "a", "id": id})] == [made[0]["id"]]
    assert not claim.done()
    await crew.create_tasks(group, {"name": "b"})
    assert names(await asyncio.wait_for(claim, 5)) == ["b"]


async def test_a_repeat_of_the_claim_answers_the_same(crew: Crew) -> None:
    group, claim_id = await group_of(crew), str(uuid.uuid4())
    claim = await waits(crew, claimId=claim_id)
    copy = asyncio.create_task(crew.claim(waitSeconds=20, claimId=claim_id))
    await asyncio.sleep(0)
    await crew.create_tasks(group, {"name": "a"})
    (lease,) = await claim
    assert [one["id"] for one in await copy] == [lease["id"]]
    assert [one["id"] for one in await crew.claim(claimId=claim_id)] == [lease["id"]]
    async with crew_on(crew.dsn) as other:
        assert [one["id"] for one in await other.claim(claimId=claim_id)] == [lease["id"]]


async def test_a_claim_id_that_another_server_took_gets_no_more(dsn: str) -> None:
    claim_id = str(uuid.uuid4())
    async with crew_on(dsn, rhythm=Rhythm(floor=300)) as crew, crew_on(dsn) as other:
        group = await group_of(crew)
        claim = await waits(crew, claimId=claim_id)
        # Without a hint to the first server.
        await crew.sql(
            "with gone as (delete from done returning ns, no) "
            "insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures) "
            "select ns, t.channel, t.rank, t.workgroup, no, t.group_no, 0, 5, 0 from gone join task t using (ns, no)"
        )
        assert names(await other.claim(claimId=claim_id)) == ["first"]
        async with tried(crew):
            await crew.create_tasks(group, {"name": "a"})
        assert names(await other.claim()) == ["a"]
        assert not claim.done()
        claim.cancel()


@pytest.mark.parametrize("own_id", [True, False])
async def test_a_lost_answer_costs_nothing_but_the_repeat(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, own_id: bool
) -> None:
    group, make, lost = await group_of(crew), create.create_leased_task, []

    async def and_lose_the_answer(*given: Any) -> Any:
        row = await make(*given)
        if not lost:
            lost.append(row)
            raise asyncpg.ConnectionDoesNotExistError("the socket was dropped")
        return row

    monkeypatch.setattr(create, "create_leased_task", and_lose_the_answer)
    claim = await waits(crew, claimId=str(uuid.uuid4()))
    task = {"name": "a", "id": str(uuid.uuid4())} if own_id else {"name": "a"}
    (made,) = await crew.create_tasks(group, task)
    (lease,) = await asyncio.wait_for(claim, 5)
    assert lost
    assert lease["task"]["id"] == made["id"]
    assert await crew.claim() == []
    assert [row["n"] for row in await crew.sql("select count(*) as n from task where name = 'a'")] == [1]
    await crew.complete(lease)
    assert (await crew.task(made["id"], "state"))["state"] == "SUCCEEDED"


async def test_a_claim_that_ends_meanwhile_is_answered_with_the_task(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, make, gate = await group_of(crew), create.create_leased_task, asyncio.Event()

    async def slowly(*given: Any) -> Any:
        await gate.wait()
        return await make(*given)

    monkeypatch.setattr(create, "create_leased_task", slowly)
    claim = asyncio.create_task(crew.claim(waitSeconds=0.2))
    dispatcher = crew.services.dispatcher
    await until(lambda: asyncio.sleep(0, dispatcher.waiting == 1 and dispatcher.idle))
    making = asyncio.create_task(crew.create_tasks(group, {"name": "a"}))
    await until(lambda: asyncio.sleep(0, not dispatcher.idle))
    await asyncio.sleep(0.3)
    assert not claim.done()
    gate.set()
    await making
    assert names(await claim) == ["a"]
