"""claimedTasks: leases as they come, offers that lapse, and what a reconnect finds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resolvers.core import Rhythm
from tests.support.crew import Crew, Refused, crew_on
from tests.support.steering import delete, reset, update
from tests.support.streams import PUSH, Reader, pushed, reading
from tests.support.wait import move_clock, until

FIELDS = "state attempt remainingAttempts errors { error } workerId"


async def leases(reader: Reader, n: int) -> list[dict[str, Any]]:
    """The next leases, so many."""
    found: list[dict[str, Any]] = []
    while len(found) < n:
        found += (await reader.next())["leases"]
    assert len(found) == n
    return found


async def lapse(crew: Crew) -> None:
    """Every offer has lapsed, and the server has taken it back."""
    await move_clock(crew, "update lease set until = now() - interval '1 s' where offer is not null")

    async def none_left() -> bool:
        return (await crew.sql("select count(*)::int as n from lease where until < now()"))[0]["n"] == 0

    await until(none_left)


async def seconds_left(crew: Crew) -> list[float]:
    rows = await crew.sql("select extract(epoch from until - now())::float8 as left from lease order by lease_no, part")
    return [round(row["left"]) for row in rows]


async def test_the_first_payload_comes_at_once_and_leases_as_they_come(crew: Crew) -> None:
    async with pushed(crew, limit=5) as reader:
        assert (await reader.next(2))["leases"] == []
        made = await crew.create({"name": "a", "input": {"n": 1}})
        (lease,) = await leases(reader, 1)
    assert lease["task"] == {"id": made["tasks"][0]["id"], "name": "a", "channel": "c", "input": {"n": 1}}
    assert lease["attempt"] == 1


async def test_a_lease_begins_as_an_offer_of_ten_seconds_that_a_call_confirms(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    async with pushed(crew, limit=2, leaseSeconds=300) as reader:
        one, _ = await leases(reader, 2)
        assert await seconds_left(crew) == [10]
        await crew.extend(one, leaseSeconds=200)
        assert sorted(await seconds_left(crew)) == [10, 200]
        await lapse(crew)
    states = {r["name"]: r async for r in _tasks(crew)}
    assert states["a"]["state"] == "RUNNING"
    assert states["b"]["state"] != "FAILED"


async def _tasks(crew: Crew) -> Any:
    for node in (await crew.ask(f"{{ tasks {{ nodes {{ name {FIELDS} }} }} }}"))["tasks"]["nodes"]:
        yield node


async def test_an_offer_that_lapses_is_a_release(crew: Crew) -> None:
    made = await crew.create({"name": "a", "retry": {"maxAttempts": 1}})
    async with pushed(crew) as reader:
        await leases(reader, 1)
    await lapse(crew)
    task = await crew.task(made["tasks"][0]["id"], FIELDS)
    assert task == {"state": "READY", "attempt": 0, "remainingAttempts": 1, "errors": [], "workerId": None}


async def test_an_offer_that_lapses_is_a_release_though_the_task_has_a_shorter_time_out(crew: Crew) -> None:
    made = await crew.create({"name": "a", "timeoutSeconds": 1, "retry": {"maxAttempts": 1}})
    async with pushed(crew) as reader:
        await leases(reader, 1)
    await move_clock(
        crew,
        "update lease set until = now() - interval '1 s', deadline = now() - interval '1 s' where offer is not null",
    )

    async def back() -> bool:
        return (await crew.task(made["tasks"][0]["id"], "state"))["state"] == "READY"

    await until(back)
    task = await crew.task(made["tasks"][0]["id"], FIELDS)
    assert (task["attempt"], task["remainingAttempts"], task["errors"]) == (0, 1, [])


async def test_never_more_than_limit_are_open_and_an_ended_one_makes_room(crew: Crew) -> None:
    await crew.create(*({"name": str(n)} for n in range(6)))
    async with pushed(crew, limit=2) as reader:
        first = await leases(reader, 2)
        await crew.complete(first[0])
        (third,) = await leases(reader, 1)
        await crew.fail(first[1], retryDelaySeconds=1000)
        (fourth,) = await leases(reader, 1)
        await crew.release(third)
        await leases(reader, 1)
        assert len({x["task"]["name"] for x in [*first, third, fourth]}) == 4
        rows = await crew.sql("select sum(cardinality(nos))::int as n from lease")
        assert rows[0]["n"] == 2


async def test_a_lease_that_is_ended_at_another_server_makes_room(dsn: str) -> None:
    async with crew_on(dsn, rhythm=Rhythm(floor=0.1)) as one, crew_on(dsn) as two:
        await one.create({"name": "a"}, {"name": "b"})
        async with pushed(one) as reader:
            (lease,) = await leases(reader, 1)
            await two.complete(lease)
            (second,) = await leases(reader, 1)
        assert second["task"]["name"] == "b"


async def test_what_it_holds_stands_after_a_reconnect_and_counts(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"}, {"name": "c"})
    async with pushed(crew, limit=2) as reader:
        one, two = await leases(reader, 2)
    async with pushed(crew, limit=2, leaseSeconds=100, holding=[one["id"], two["id"]]) as reader:
        assert (await reader.next())["leases"] == []
        assert await seconds_left(crew) == [100]
        await crew.complete(one)
        (third,) = await leases(reader, 1)
    assert third["task"]["name"] == "c"


async def test_what_never_reached_it_is_sent_again_at_once(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    async with pushed(crew, limit=2) as reader:
        one, two = await leases(reader, 2)
    await crew.sql("update lease set until = now() + interval '3 s'")
    async with pushed(crew, limit=2, holding=[one["id"]]) as reader:
        (again,) = (await reader.next())["leases"]
        assert again["id"] == two["id"]
        assert sorted(await seconds_left(crew)) == [10, 60]
        assert (await crew.complete(again, one))["completed"] == 2


async def test_a_confirmed_lease_that_is_not_named_stands_until_it_expires_and_does_not_count(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    async with pushed(crew) as reader:
        (one,) = await leases(reader, 1)
        await crew.extend(one)
    async with pushed(crew) as reader:
        (two,) = await leases(reader, 1)
    assert two["task"]["name"] == "b"
    assert (await crew.complete(one))["completed"] == 1


async def test_holding_what_is_lost_counts_for_nothing(crew: Crew) -> None:
    await crew.create({"name": "a"})
    async with pushed(crew) as reader:
        (one,) = await leases(reader, 1)
    await lapse(crew)
    async with pushed(crew, holding=[one["id"], "nonsense"]) as reader:
        (again,) = await leases(reader, 1)
    assert again["id"] != one["id"]
    assert again["attempt"] == 1


async def test_a_new_stream_of_a_worker_ends_its_old_one(crew: Crew) -> None:
    async with pushed(crew) as old:
        await old.next()
        async with pushed(crew) as new:
            await new.next()
            with pytest.raises(StopAsyncIteration):
                await old.next(5)
            await crew.create({"name": "a"})
            await leases(new, 1)


async def test_a_new_stream_at_another_server_ends_the_old_one(dsn: str) -> None:
    async with crew_on(dsn, rhythm=Rhythm(floor=0.1)) as one, crew_on(dsn) as two, pushed(one) as old:
        await old.next()
        async with pushed(two) as new:
            await new.next()
            with pytest.raises(StopAsyncIteration):
                await old.next(5)


async def test_a_worker_is_shown_with_its_stream(crew: Crew) -> None:
    async with pushed(crew, "bert") as reader:
        await reader.next()
        await crew.services.write_down_workers()
        (worker,) = (await crew.ask("{ workers { id transport channels isAlive } }"))["workers"]
    assert worker == {"id": "bert", "transport": "websocket", "channels": ["c"], "isAlive": True}


async def test_quiet_spells_carry_empty_payloads(dsn: str) -> None:
    async with crew_on(dsn, rhythm=Rhythm(quiet=0.1)) as crew, pushed(crew) as reader:
        assert [(await reader.next(2))["leases"] for _ in range(3)] == [[], [], []]


async def test_a_stream_that_is_closed_leaves_no_place_behind(crew: Crew) -> None:
    async with pushed(crew) as reader:
        await reader.next()
        waiting = asyncio.create_task(reader.next(20))

        async def waits() -> bool:
            return crew.services.dispatcher.waiting == 1

        await until(waits)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    async def gone() -> bool:
        return crew.services.push.open == 0 and crew.services.dispatcher.waiting == 0

    await until(gone)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"limit": 0}, ["input", "limit"]),
        ({"limit": 10_001}, ["input", "limit"]),
        ({"leaseSeconds": 0}, ["input", "leaseSeconds"]),
        ({"channels": []}, ["input", "channels"]),
        ({"workerId": ""}, ["input", "workerId"]),
    ],
)
async def test_bad_input_is_refused_with_its_path(crew: Crew, given: dict[str, Any], path: list[Any]) -> None:
    async with reading(crew, PUSH, input={"workerId": "w", "channels": ["c"], **given}) as reader:
        with pytest.raises(Refused) as refused:
            await reader.next()
    assert (refused.value.code, refused.value.path) == ("BAD_INPUT", path)


@pytest.mark.parametrize("verb", ["delete", "reset"])
async def test_an_offer_whose_task_is_deleted_or_reset_makes_room_and_is_told(crew: Crew, verb: str) -> None:
    made = await crew.create({"name": "a", "priority": 1}, {"name": "b"})
    (id, _) = (task["id"] for task in made["tasks"])
    async with pushed(crew, limit=1) as reader:
        (one,) = await leases(reader, 1)
        if verb == "delete":
            assert await delete(crew, id) == 1
        else:
            assert await reset(crew, id) == {"a": "READY"}
        (next_one,) = await leases(reader, 1)
        assert (next_one["task"]["name"], next_one["attempt"]) == ("b" if verb == "delete" else "a", 1)
        (error,) = (await crew.complete(one))["errors"]
        assert error["code"] == ("CANCELLED" if verb == "delete" else "LOST")
        assert (await crew.complete(next_one))["completed"] == 1


async def test_an_offer_of_a_task_that_was_changed_lapses_uncounted(crew: Crew) -> None:
    id = (await crew.create({"name": "a", "retry": {"maxAttempts": 2}}))["tasks"][0]["id"]
    async with pushed(crew) as reader:
        await leases(reader, 1)
        await update(crew, id, priority=4, retry={"maxAttempts": 5})
    await lapse(crew)
    task = await crew.task(id, f"{FIELDS} priority")
    assert task == {
        "state": "READY",
        "attempt": 0,
        "remainingAttempts": 5,
        "errors": [],
        "workerId": None,
        "priority": 4,
    }
