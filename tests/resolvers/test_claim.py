"""Claiming: what comes first, how it is dealt, waiting, and repeats."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from db.claim import best_places
from resolvers import take
from resolvers.core import Rhythm
from tests.support.counted import calls
from tests.support.crew import CLAIM, Crew, Refused, crew_on
from tests.support.wait import end_delays, expire_leases, until


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [x["task"]["name"] for x in leases]


async def waiting(crew: Crew, n: int = 1) -> None:
    async def enough() -> bool:
        return crew.services.dispatcher.waiting >= n

    await until(enough)


async def test_the_highest_priority_goes_first_then_the_oldest(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b", "priority": 5}, {"name": "c", "priority": -1}, {"name": "d"})
    await crew.create({"name": "e", "priority": 5})
    assert names(await crew.claim(10)) == ["b", "e", "a", "d", "c"]


async def test_over_several_channels_the_highest_priority_goes_first(crew: Crew) -> None:
    await crew.create(
        {"name": "a", "channel": "x"},
        {"name": "b", "channel": "y", "priority": 1},
        {"name": "c", "channel": "x", "priority": 2},
        {"name": "d", "channel": "y"},
        {"name": "other", "channel": "z", "priority": 9},
    )
    assert names(await crew.claim(3, ("x", "y", "nobody"))) == ["c", "b", "a"]
    assert names(await crew.claim(3, ("y", "x"))) == ["d"]
    assert names(await crew.claim(3, ("z",))) == ["other"]


async def test_one_at_a_time_follows_the_same_order(crew: Crew) -> None:
    await crew.create(*({"name": str(n), "priority": n % 3} for n in range(9)))
    found = [names(await crew.claim())[0] for _ in range(9)]
    assert found == ["2", "5", "8", "1", "4", "7", "0", "3", "6"]
    assert await crew.claim() == []


async def test_a_lease_says_what_a_worker_needs(crew: Crew) -> None:
    made = await crew.create(
        {"name": "p", "ref": "p", "input": {"i": 1}, "channel": "parents"},
        {"name": "a", "input": [1], "metadata": {"m": 1}, "workgroup": "w", "priority": 3, "parents": [{"ref": "p"}]},
    )
    await crew.complete(*await crew.claim(channels=("parents",)), output={"o": False})
    fields = (
        "id attempt expiresAt parentCount parents { taskId name channel state input output } task { id name channel state "
        "workgroup priority input metadata attempt remainingAttempts workerId leaseExpiresAt startedAt heldBy group { name } "
        "parents { name } retry { maxAttempts } notBefore runAfter output }"
    )
    query = "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) { leases { %s } } }" % fields
    answer = await crew.ask(query, input={"workerId": "me", "channels": ["c"], "leaseSeconds": 100})
    (lease,) = answer["claimTasks"]["leases"]
    parent, child = made["tasks"]
    assert lease["parents"] == [
        {
            "taskId": parent["id"],
            "name": "p",
            "channel": "parents",
            "state": "SUCCEEDED",
            "input": {"i": 1},
            "output": {"o": False},
        }
    ]
    assert (lease["attempt"], lease["parentCount"]) == (1, 1)
    task = lease["task"]
    assert task["leaseExpiresAt"] == lease["expiresAt"]
    assert task["startedAt"] is not None
    shown = await crew.task(
        child["id"],
        "id name channel state workgroup priority input metadata attempt remainingAttempts workerId leaseExpiresAt startedAt "
        "heldBy group { name } parents { name } retry { maxAttempts } notBefore runAfter output",
    )
    assert task == shown
    assert (task["state"], task["attempt"], task["remainingAttempts"], task["workerId"]) == ("RUNNING", 1, 4, "me")


async def test_a_lease_lasts_as_long_as_asked(crew: Crew) -> None:
    await crew.create({"name": "a"})
    before = (await crew.sql("select now() as now"))[0]["now"]
    (lease,) = await crew.claim(leaseSeconds=1000)
    after = (await crew.sql("select now() as now"))[0]["now"]
    length = datetime.fromisoformat(lease["expiresAt"])
    assert (length - before).total_seconds() >= 1000
    assert (length - after).total_seconds() <= 1000


async def test_claims_that_come_together_share_what_there_is(crew: Crew) -> None:
    await crew.create(*({"name": str(n)} for n in range(4)))
    shares = await asyncio.gather(*(crew.claim(4, workerId=f"w{n}") for n in range(8)))
    given = [name for share in shares for name in names(share)]
    assert sorted(given) == ["0", "1", "2", "3"]


async def test_waiting_claims_are_dealt_one_each(crew: Crew) -> None:
    claims = [asyncio.create_task(crew.claim(4, workerId=f"w{n}", waitSeconds=20)) for n in range(4)]
    await waiting(crew, 4)
    await crew.create(*({"name": str(n)} for n in range(4)))
    shares = await asyncio.gather(*claims)
    assert sorted(map(len, shares)) == [1, 1, 1, 1]
    assert sorted(n for share in shares for n in names(share)) == ["0", "1", "2", "3"]


async def test_nothing_is_handed_out_twice(crew: Crew) -> None:
    await crew.create(*({"name": str(n)} for n in range(200)))
    shares = await asyncio.gather(*(crew.claim(7, workerId=f"w{n % 5}") for n in range(40)))
    given = [name for share in shares for name in names(share)]
    assert sorted(given, key=int) == [str(n) for n in range(200)]
    ids = [x["id"] for share in shares for x in share]
    assert len(set(ids)) == 200


async def test_two_servers_hand_out_each_task_once(crew: Crew) -> None:
    async with crew_on(crew.dsn) as other:
        await crew.create(*({"name": str(n)} for n in range(100)))
        shares = await asyncio.gather(*(c.claim(5) for c in (crew, other) for _ in range(15)))
        given = [name for share in shares for name in names(share)]
        assert sorted(given, key=int) == [str(n) for n in range(100)]


# -- waiting ------------------------------------------------------------------------------------------------------------


async def test_a_waiting_claim_is_woken_by_a_new_task(crew: Crew) -> None:
    claim = asyncio.create_task(crew.claim(waitSeconds=20))
    await waiting(crew)
    await crew.create({"name": "a"})
    assert names(await asyncio.wait_for(claim, 5)) == ["a"]


async def test_a_waiting_claim_is_woken_by_the_completion_of_the_last_parent(crew: Crew) -> None:
    await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}], "channel": "d"})
    (lease,) = await crew.claim()
    claim = asyncio.create_task(crew.claim(channels=("d",), waitSeconds=20))
    await waiting(crew)
    await crew.complete(lease)
    assert names(await asyncio.wait_for(claim, 5)) == ["b"]


async def test_a_waiting_claim_is_woken_by_the_end_of_a_delay(crew: Crew) -> None:
    await crew.create({"name": "a", "delaySeconds": 0.3})
    assert await crew.claim() == []
    assert names(await crew.claim(waitSeconds=20)) == ["a"]


async def test_a_waiting_claim_is_woken_by_a_release_and_by_a_lost_lease(crew: Crew) -> None:
    await crew.create({"name": "a"})
    (lease,) = await crew.claim()
    claim = asyncio.create_task(crew.claim(waitSeconds=20))
    await waiting(crew)
    await crew.release(lease)
    assert names(await asyncio.wait_for(claim, 5)) == ["a"]
    claim = asyncio.create_task(crew.claim(waitSeconds=20))
    await waiting(crew)
    await expire_leases(crew)
    assert names(await asyncio.wait_for(claim, 5)) == ["a"]


async def test_a_waiting_claim_finds_what_another_server_made(crew: Crew) -> None:
    async with crew_on(crew.dsn) as other:
        claim = asyncio.create_task(crew.claim(waitSeconds=20))
        await waiting(crew)
        await other.create({"name": "a"})
        assert names(await asyncio.wait_for(claim, 10)) == ["a"]


async def test_a_waiting_claim_gets_nothing_when_its_time_is_over(crew: Crew) -> None:
    assert await crew.claim(waitSeconds=0.05) == []


async def test_a_wait_is_cut_to_the_servers_limit(dsn: str) -> None:
    async with crew_on(dsn, max_wait_seconds=0.1) as crew:
        assert await asyncio.wait_for(crew.claim(waitSeconds=1e8), 10) == []
        limits = (await crew.ask("{ server { limits { maxWaitSeconds } } }"))["server"]["limits"]
        assert limits == {"maxWaitSeconds": 0.1}


async def test_a_claim_that_waits_answers_at_once_when_there_is_something(crew: Crew) -> None:
    await crew.create({"name": "a"})
    assert names(await asyncio.wait_for(crew.claim(5, waitSeconds=20), 5)) == ["a"]


async def test_a_delay_that_ends_while_nobody_waits_is_found_by_the_next(crew: Crew) -> None:
    await crew.create({"name": "a", "delaySeconds": 500}, {"name": "b"})
    assert names(await crew.claim()) == ["b"]
    await end_delays(crew)
    assert names(await crew.claim()) == ["a"]


# -- claim ids ----------------------------------------------------------------------------------------------------------


async def test_a_repeated_claim_answers_the_same_leases_and_never_more(crew: Crew) -> None:
    await crew.create(*({"name": n} for n in "abc"))
    id = str(uuid.uuid4())
    first = await crew.claim(2, claimId=id)
    assert names(first) == ["a", "b"]
    assert await crew.claim(2, claimId=id) == first
    assert await crew.claim(2, claimId=id.upper()) == first
    assert names(await crew.claim(2)) == ["c"]


async def test_a_repeated_claim_answers_only_what_still_stands(crew: Crew) -> None:
    await crew.create(*({"name": n} for n in "abcd"))
    id = str(uuid.uuid4())
    a, b, c, d = await crew.claim(4, claimId=id)
    await crew.complete(a)
    await crew.fail(b)
    await crew.release(c)
    assert await crew.claim(4, claimId=id) == [d]
    await crew.complete(d)
    assert await crew.claim(4, claimId=id) == []
    assert names(await crew.claim(4)) == ["c"]


async def test_a_repeated_claim_shows_an_extended_end(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    id = str(uuid.uuid4())
    first, second = await crew.claim(2, claimId=id)
    end = (await crew.extend(first, leaseSeconds=500))["expiresAt"]
    assert await crew.claim(2, claimId=id) == [{**first, "expiresAt": end}, second]


async def test_a_repeated_claim_after_its_leases_expired_gets_nothing(crew: Crew) -> None:
    await crew.create({"name": "a"})
    id = str(uuid.uuid4())
    await crew.claim(claimId=id)
    await expire_leases(crew)
    assert await crew.claim(claimId=id) == []
    assert names(await crew.claim()) == ["a"]


async def test_a_claim_that_got_nothing_leaves_no_trace(crew: Crew) -> None:
    id = str(uuid.uuid4())
    assert await crew.claim(claimId=id) == []
    assert await crew.claim(2, claimId=id, channels=("x",)) == []
    await crew.create({"name": "a"})
    assert names(await crew.claim(claimId=id)) == ["a"]


@pytest.mark.parametrize("other", [{"limit": 2}, {"channels": ["c", "d"]}, {"channels": ["d"]}])
async def test_a_claim_id_used_to_ask_for_something_else_is_a_conflict(crew: Crew, other: dict[str, Any]) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    id = str(uuid.uuid4())
    first = await crew.claim(claimId=id)
    with pytest.raises(Refused) as refused:
        await crew.ask(CLAIM, input={"workerId": "w", "channels": ["c"], "claimId": id, **other})
    assert refused.value.code == "CONFLICT"
    assert refused.value.path == ["input", "claimId"]
    assert await crew.claim(claimId=id) == first
    assert names(await crew.claim()) == ["b"]


async def test_a_repeated_claim_may_name_its_channels_in_another_order(crew: Crew) -> None:
    await crew.create({"name": "a"})
    id = str(uuid.uuid4())
    first = await crew.claim(channels=("c", "d"), claimId=id)
    assert await crew.claim(channels=("d", "c", "c"), claimId=id) == first


async def test_copies_that_wait_together_get_the_same_leases(crew: Crew) -> None:
    id = str(uuid.uuid4())
    copies = [asyncio.create_task(crew.claim(claimId=id, waitSeconds=20)) for _ in range(3)]
    await waiting(crew)
    await crew.create({"name": "a"}, {"name": "b"})
    answers = await asyncio.gather(*copies)
    assert names(answers[0]) == ["a"]
    assert answers[0] == answers[1] == answers[2]
    assert names(await crew.claim(5)) == ["b"]


async def test_a_copy_that_may_not_wait_ends_the_claim(crew: Crew) -> None:
    id = str(uuid.uuid4())
    first = asyncio.create_task(crew.claim(claimId=id, waitSeconds=20))
    await waiting(crew)
    assert await crew.claim(claimId=id) == []
    assert await asyncio.wait_for(first, 5) == []
    await crew.create({"name": "a"})
    assert names(await crew.claim()) == ["a"]


async def test_copies_at_two_servers_get_the_same_leases(crew: Crew) -> None:
    id = str(uuid.uuid4())
    async with crew_on(crew.dsn) as other:
        copies = [asyncio.create_task(c.claim(claimId=id, waitSeconds=20)) for c in (crew, other)]
        await waiting(crew)
        await waiting(other)
        await crew.create({"name": "a"})
        answers = await asyncio.gather(*copies)
    assert names(answers[0]) == ["a"]
    assert answers[0] == answers[1]


async def test_copies_that_do_not_ask_alike_are_a_conflict_while_both_wait(crew: Crew) -> None:
    id = str(uuid.uuid4())
    first = asyncio.create_task(crew.claim(claimId=id, waitSeconds=20))
    await waiting(crew)
    with pytest.raises(Refused) as refused:
        await crew.claim(2, claimId=id, waitSeconds=20)
    assert refused.value.code == "CONFLICT"
    await crew.create({"name": "a"})
    assert names(await first) == ["a"]


async def test_a_claim_id_is_told_as_used_even_when_nothing_is_ready(crew: Crew) -> None:
    await crew.create({"name": "a"})
    id = str(uuid.uuid4())
    first = await crew.claim(claimId=id)
    assert await crew.claim() == []
    assert await asyncio.wait_for(crew.claim(claimId=id, waitSeconds=20), 5) == first


MANY = tuple(f"c{n}" for n in range(12))


async def test_over_many_channels_the_highest_priority_goes_first_wherever_it_is(crew: Crew) -> None:
    tasks = [{"name": f"low {channel}", "channel": channel} for channel in MANY]
    tasks += [{"name": f"five {n}", "channel": "c3", "priority": 5} for n in range(5)]
    tasks += [{"name": f"nine {n}", "channel": "c7", "priority": 9} for n in range(3)]
    await crew.create(*tasks)
    names = [lease["task"]["name"] for lease in await crew.claim(6, channels=MANY)]
    assert sorted(names) == ["five 0", "five 1", "five 2", "nine 0", "nine 1", "nine 2"]
    rest = [lease["task"]["name"] for lease in await crew.claim(30, channels=MANY)]
    assert sorted(rest) == sorted(["five 3", "five 4", *(f"low {channel}" for channel in MANY)])
    assert await crew.claim(30, channels=MANY) == []


async def test_over_many_channels_what_is_held_is_passed_over(crew: Crew) -> None:
    made = await crew.create(
        *({"name": f"t{n}", "channel": channel, "priority": 1} for n, channel in enumerate(MANY)),
        {"name": "held", "channel": "c5", "priority": 9, "workgroup": "w"},
        {"name": "paused", "channel": "c6", "priority": 9},
    )
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 1000) { workgroup { name } } }')
    await crew.ask('mutation { pauseChannel(name: "c2") { channel { name } } }')
    await crew.ask("mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }", ids=[made["tasks"][-1]["id"]])
    names = [lease["task"]["name"] for lease in await crew.claim(30, channels=MANY)]
    assert sorted(names) == sorted(f"t{n}" for n in range(12) if n != 2)


async def test_a_claim_of_many_channels_locks_no_more_than_it_takes(crew: Crew) -> None:
    await crew.create(*({"name": f"t{n}", "channel": channel} for n in range(20) for channel in MANY))
    seen = await crew.sql("select * from channel where name = any($1)", list(MANY))
    start = [(row["channel"], -(1 << 31), 0) for row in seen]
    found = await crew.services.core.pool.run(lambda c: best_places(c, 1, start, 30))
    assert [no for _, _, no in found] == sorted(no for _, _, no in found)
    assert len(found) == 30
    assert set(Counter(channel for channel, _, _ in found).values()) <= {2, 3}


async def test_what_becomes_ready_behind_a_claim_that_is_on_its_way_is_next(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim remembers how far it came; what it cannot have seen is not passed over."""
    await crew.create({"name": "a"}, {"name": "b"}, {"name": "c"})
    first = await crew.claim()
    statement = take.claim_tasks

    async def and_meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(take, "claim_tasks", statement)
        found = await statement(*given)
        await crew.release(*first)
        return found

    monkeypatch.setattr(take, "claim_tasks", and_meanwhile)
    assert [lease["task"]["name"] for lease in await crew.claim()] == ["b"]
    assert [lease["task"]["name"] for lease in await crew.claim()] == ["a"]


@pytest.mark.parametrize("wait", [0, 20])
async def test_what_no_hint_told_of_before_the_last_claim_is_found(crew: Crew, wait: int) -> None:
    await crew.create({"name": "missed", "delaySeconds": 1000}, {"name": "a"})
    assert [x["task"]["name"] for x in await crew.claim(2)] == ["a"]
    columns = "ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures"
    await crew.sql(
        f"with gone as (delete from scheduled returning {columns}) insert into ready ({columns}) select {columns} from gone"
    )
    assert [x["task"]["name"] for x in await crew.claim(2, waitSeconds=wait)] == ["missed"]


async def test_a_claim_that_waits_does_not_look_from_the_start_by_itself(dsn: str) -> None:
    async with crew_on(dsn, rhythm=Rhythm(floor=300)) as crew:
        await crew.create({"name": "a"}, {"name": "b"})
        await crew.complete(*await crew.claim(2))
        before = (await calls(crew))["claim_tasks"]
        assert await crew.claim(2, waitSeconds=0.1) == []
        assert (await calls(crew))["claim_tasks"] == before + 1
        assert await crew.claim(2) == []
        assert (await calls(crew))["claim_tasks"] == before + 3


RARE = (
    "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) "
    "{ leases { id expiresAt task { name state retry { maxAttempts } startedAt leaseExpiresAt } } } }"
)


async def test_a_claim_tells_of_its_tasks_whatever_it_is_asked_for(crew: Crew) -> None:
    await crew.create({"name": "a", "retry": {"maxAttempts": 7}})
    given = {"workerId": "w", "channels": ["c"], "leaseSeconds": 30}
    (lease,) = (await crew.ask(RARE, input=given))["claimTasks"]["leases"]
    task = lease["task"]
    assert (task["name"], task["state"], task["retry"]) == ("a", "RUNNING", {"maxAttempts": 7})
    assert task["leaseExpiresAt"] == lease["expiresAt"]
    lasts = datetime.fromisoformat(lease["expiresAt"]) - datetime.fromisoformat(task["startedAt"])
    assert lasts.total_seconds() == 30


async def test_a_task_that_is_deleted_before_its_claim_is_answered_is_left_out(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await crew.create({"name": "a"}, {"name": "b"})
    claim = crew.services.dispatcher.claim

    async def and_delete(given: Any) -> Any:
        granted = await claim(given)
        await crew.ask("mutation($id: ID!) { deleteTask(id: $id) { deletedTasks } }", id=made["tasks"][0]["id"])
        return granted

    monkeypatch.setattr(crew.services.dispatcher, "claim", and_delete)
    given = {"workerId": "w", "channels": ["c"], "limit": 2}
    assert names((await crew.ask(RARE, input=given))["claimTasks"]["leases"]) == ["b"]


async def test_a_claim_that_takes_long_holds_up_none_of_other_channels(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none with a channel in common overtakes another."""
    taker, gates, order = crew.services.dispatcher._taker, {}, []
    take = taker.take

    async def slowly(numbers: list[int], requests: list[Any]) -> list[Any]:
        names = tuple(sorted(crew.services.core.channels.name[n] for n in numbers))
        order.append(names)
        if names in gates:
            await gates[names].wait()
        return await take(numbers, requests)

    await crew.create(*({"name": c, "channel": c} for c in ("slow", "other", "fast")))
    monkeypatch.setattr(taker, "take", slowly)
    gates["slow",] = asyncio.Event()
    slow = asyncio.create_task(crew.claim(1, ("slow",)))
    await until(lambda: asyncio.sleep(0, order == [("slow",)]))
    both = asyncio.create_task(crew.claim(2, ("slow", "other")))
    assert names(await crew.claim(1, ("fast",))) == ["fast"]
    late = asyncio.create_task(crew.claim(1, ("other",)))
    assert names(await crew.claim(1, ("fast",))) == []
    assert not any(one.done() for one in (slow, both, late))
    gates["slow",].set()
    assert [names(await one) for one in (slow, both, late)] == [["slow"], ["other"], []]
    assert [o for o in order if "fast" not in o][:2] == [("slow",), ("other", "slow")]
