"""Gathering: calls that come together share a flush, and each gets its own answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pytest

from resolvers.gather import Gather
from tests.support.crew import Crew, Refused


async def test_what_comes_during_a_flush_goes_into_the_next_together() -> None:
    flushes: list[list[int]] = []
    gate = asyncio.Event()

    async def flush(items: list[int]) -> Sequence[int]:
        flushes.append(items)
        await gate.wait()
        return [i * 2 for i in items]

    gather: Gather[int, int] = Gather(flush)
    first = asyncio.create_task(gather.add(1))
    while not flushes:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(gather.add(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert flushes == [[1], [2, 3, 4]]


async def test_a_flush_takes_no_more_than_the_heaviest_weight_at_a_time() -> None:
    flushes: list[list[int]] = []

    async def flush(items: list[int]) -> Sequence[int]:
        flushes.append(items)
        return items

    gather: Gather[int, int] = Gather(flush, weigh=lambda n: n, heaviest=10)
    assert await asyncio.gather(*(gather.add(n) for n in (6, 6, 6, 100, 1))) == [6, 6, 6, 100, 1]
    assert flushes == [[6, 6], [6, 100], [1]]


async def test_each_gets_its_own_exception() -> None:
    async def flush(items: list[int]) -> Sequence[int | BaseException]:
        return [ValueError(str(n)) if n % 2 else n for n in items]

    gather: Gather[int, int] = Gather(flush)
    found = await asyncio.gather(*(gather.add(n) for n in range(4)), return_exceptions=True)
    assert [str(f) for f in found] == ["0", "1", "2", "3"]
    assert [isinstance(f, ValueError) for f in found] == [False, True, False, True]


async def test_a_flush_that_raises_fails_all_of_it_and_the_next_goes_on() -> None:
    broken = True

    async def flush(items: list[int]) -> Sequence[int]:
        if broken:
            raise RuntimeError("broken")
        return items

    gather: Gather[int, int] = Gather(flush)
    found = await asyncio.gather(gather.add(1), gather.add(2), return_exceptions=True)
    assert [str(f) for f in found] == ["broken", "broken"]
    broken = False
    assert await gather.add(3) == 3
    await gather.idle()


async def test_a_caller_that_is_cancelled_does_not_undo_its_item() -> None:
    done: list[int] = []
    gate = asyncio.Event()

    async def flush(items: list[int]) -> Sequence[int]:
        await gate.wait()
        done.extend(items)
        return items

    gather: Gather[int, int] = Gather(flush)
    callers = [asyncio.create_task(gather.add(n)) for n in (1, 2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    callers[0].cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await callers[0]
    assert await callers[1] == 2
    await gather.idle()
    assert done == [1, 2]


# -- through the API ----------------------------------------------------------------------------------------------------


async def test_a_bad_creation_does_not_hurt_those_that_came_with_it(crew: Crew) -> None:
    taken = str(uuid.uuid4())
    await crew.create({"name": "taken", "id": taken})
    found = await asyncio.gather(
        crew.create({"name": "a"}),
        crew.create({"name": "b", "id": taken}),
        crew.create_tasks(str(uuid.uuid4()), {"name": "c"}),
        crew.create({"name": "d"}),
        return_exceptions=True,
    )
    assert [f.code if isinstance(f, Refused) else "made" for f in found] == ["made", "CONFLICT", "NOT_FOUND", "made"]
    names = await crew.ask("{ tasks(orderBy: CREATED_ASC) { nodes { name } } }")
    assert sorted(t["name"] for t in names["tasks"]["nodes"]) == ["a", "d", "taken"]


async def test_the_same_group_sent_many_times_at_once_is_made_once(crew: Crew) -> None:
    id = str(uuid.uuid4())
    found = await asyncio.gather(*(crew.create({"name": "a"}, {"name": "b"}, id=id) for _ in range(20)))
    assert all(f == found[0] for f in found)
    rows = await crew.sql("select (select count(*) from task_group)::int, (select count(*) from task)::int")
    assert tuple(rows[0]) == (1, 2)


async def test_the_same_tasks_sent_many_times_at_once_are_made_once(crew: Crew) -> None:
    group = (await crew.create())["taskGroup"]["id"]
    a, b = str(uuid.uuid4()), str(uuid.uuid4())
    tasks = ({"name": "b", "id": b, "parents": [{"id": a}]}, {"name": "a", "id": a})
    found = await asyncio.gather(*(crew.create_tasks(group, *tasks) for _ in range(20)))
    assert all(f == found[0] for f in found)
    rows = await crew.sql("select (select count(*) from task)::int, (select count(*) from edge)::int")
    assert tuple(rows[0]) == (2, 1)


async def test_completions_that_come_together_free_a_join_once(crew: Crew) -> None:
    made = await crew.create(
        *({"name": "p", "ref": str(n)} for n in range(30)),
        {"name": "join", "channel": "d", "parents": [{"ref": str(n)} for n in range(30)]},
    )
    leases = await crew.claim(30)
    found = await asyncio.gather(*(crew.complete(x) for x in leases))
    assert [f["completed"] for f in found] == [1] * 30
    (join,) = await crew.claim(9, ("d",))
    assert join["task"]["id"] == made["tasks"][-1]["id"]


@pytest.mark.parametrize("rich", [False, True])
async def test_the_same_lease_completed_many_times_at_once_counts_each_time_and_is_done_once(
    crew: Crew, rich: bool
) -> None:
    await crew.create({"name": "a"}, {"name": "bystander"})
    lease, bystander = await crew.claim(2)
    more = {"children": [{"name": "b", "channel": "d"}]} if rich else {}
    calls = [crew.complete(lease, output=n, **more) for n in range(12)]
    found = await asyncio.gather(*calls, crew.complete(bystander))
    assert [f["completed"] for f in found] == [1] * 13
    assert [f["errors"] for f in found] == [[]] * 13
    rows = await crew.sql("select (select count(*) from task)::int as tasks, (select count(*) from done)::int as done")
    assert tuple(rows[0]) == (3 if rich else 2, 2)


async def test_the_same_lease_failed_many_times_at_once_counts_each_time_and_has_failed_once(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "bystander"})
    lease, bystander = await crew.claim(2)
    found = await asyncio.gather(*(crew.fail(lease, error=n) for n in range(12)), crew.fail(bystander))
    assert [f["failed"] for f in found] == [1] * 13
    task = await crew.task(lease["task"]["id"], "state attempt remainingAttempts errors { attempt }")
    assert task == {"state": "SCHEDULED", "attempt": 1, "remainingAttempts": 4, "errors": [{"attempt": 1}]}


@pytest.mark.parametrize("call", ["release", "extend"])
async def test_the_same_lease_released_or_extended_many_times_at_once_is_answered(crew: Crew, call: str) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    lease, _ = await crew.claim(2)
    found = await asyncio.gather(*(getattr(crew, call)(lease) for _ in range(8)))
    codes = sorted(e["code"] for f in found for e in f["errors"])
    assert codes == (["LOST"] * 7 if call == "release" else [])
    assert len(await crew.claim(5)) == (1 if call == "release" else 0)


async def test_a_lease_completed_and_failed_at_once_ends_one_way(crew: Crew) -> None:
    await crew.create({"name": "a", "retry": {"delaySeconds": 100}})
    (lease,) = await crew.claim()
    done, failed = await asyncio.gather(crew.complete(lease), crew.fail(lease))
    assert done["completed"] + failed["failed"] == 1
    (error,) = done["errors"] + failed["errors"]
    assert error["code"] == "LOST"


async def test_bad_children_do_not_hurt_completions_that_came_with_them(crew: Crew) -> None:
    await crew.create(*({"name": str(n)} for n in range(6)))
    leases = await crew.claim(6)
    bad = [{"name": "x", "channel": "d", "parents": [{"id": str(uuid.uuid4())}]}]
    good = [{"name": "x", "channel": "d"}]
    found = await asyncio.gather(*(crew.complete(x, children=bad if n == 3 else good) for n, x in enumerate(leases)))
    assert [f["completed"] for f in found] == [1, 1, 1, 0, 1, 1]
    assert found[3]["errors"][0]["code"] == "INVALID_CHILDREN"
    assert len(await crew.claim(9, ("d",))) == 5


async def test_an_item_that_comes_as_the_last_flush_ends_is_flushed() -> None:
    """By the caller whose answer the flush has just given: before the loop runs anything else."""

    async def flush(items: list[int]) -> list[int]:
        return items

    for width in (1, 2):
        gather: Gather[int, int] = Gather(flush, width=width)

        async def twice(first: int, gather: Gather[int, int] = gather) -> int:
            return await gather.add(await gather.add(first))

        assert await asyncio.wait_for(asyncio.gather(*(twice(n) for n in range(5))), 5) == list(range(5))


async def test_a_second_flush_begins_beside_the_first_only_for_much() -> None:
    flushes: list[list[int]] = []
    gate = asyncio.Event()

    async def flush(items: list[int]) -> Sequence[int]:
        flushes.append(items)
        await gate.wait()
        return items

    gather: Gather[int, int] = Gather(flush, weigh=lambda n: n, width=2, beside=10)
    calls = []
    for n in (1, 4, 5, 6, 7):
        calls.append(asyncio.create_task(gather.add(n)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert flushes == [[1], [4, 5, 6]]
    gate.set()
    assert await asyncio.gather(*calls) == [1, 4, 5, 6, 7]
    assert flushes == [[1], [4, 5, 6], [7]]
