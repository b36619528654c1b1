"""What others have in hand for long, as the leases of a large group that is being deleted, holds nobody else up.

Forced: a connection of the test holds the row; the call that needs it is seen to wait, and others at the same server do not.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.races import connected, servers_wait_for_locks, stopped
from tests.support.steering import delete_group

FINISH = ("complete", "fail", "extend", "release")


def lease_no(crew: Crew, lease: Any) -> int:
    found = crew.services.core.lease_ids.read(lease["id"])
    assert found is not None
    return found[0]


async def finished(crew: Crew, verb: str, *leases: Any) -> None:
    assert (await getattr(crew, verb)(*leases))["errors"] == []


@pytest.mark.parametrize("verb", FINISH)
async def test_a_lease_in_hand_holds_up_who_names_it_and_nobody_else(crew: Crew, verb: str) -> None:
    await crew.create({"name": "x"}, {"name": "y"}, {"name": "z"})
    (x,), (y,), (z,) = [await crew.claim() for _ in "xyz"]
    async with connected(crew.dsn, 2) as (a, eye):
        async with stopped(a, "select from lease where lease_no = $1 for update", lease_no(crew, x)):
            waiting = asyncio.create_task(finished(crew, verb, x, z))
            await servers_wait_for_locks(eye)
            await finished(crew, verb, y)
            assert not waiting.done()
        await waiting


async def test_a_completion_that_makes_tasks_holds_nobody_up_either(crew: Crew) -> None:
    await crew.create({"name": "x", "key": "k"}, {"name": "y"}, {"name": "z", "key": "l"})
    (x,), (y,), (z,) = [await crew.claim() for _ in "xyz"]
    async with connected(crew.dsn, 2) as (a, eye):
        async with stopped(a, "select from lease where lease_no = $1 for update", lease_no(crew, x)):
            waiting = asyncio.create_task(crew.complete(x, children=[{"name": "below", "channel": "c"}]))
            await servers_wait_for_locks(eye)
            assert (await crew.complete(y, children=[{"name": "beside", "channel": "c"}]))["completed"] == 1
            assert (await crew.complete(z))["completed"] == 1
            assert not waiting.done()
        assert (await waiting)["completed"] == 1
    assert {x["task"]["name"] for x in await crew.claim(9)} == {"below", "beside"}


@pytest.mark.parametrize(
    "more", [{}, {"metadata": {}, "delaySeconds": 0}, {"key": "k"}], ids=["everyday", "rare", "key"]
)
async def test_a_group_in_hand_holds_up_who_adds_to_it_and_nobody_else(crew: Crew, more: dict[str, Any]) -> None:
    one, two = [(await crew.create({"name": "first"}))["taskGroup"]["id"] for _ in "ab"]
    async with connected(crew.dsn, 2) as (a, eye):
        async with stopped(a, "select from task_group where id = $1 for update", one):
            waiting = [
                asyncio.create_task(crew.create_tasks(one, {"name": "x", **more}, *also))
                for also in ((), ({"name": "y"},))
            ]
            await servers_wait_for_locks(eye, 2)
            (made,) = await crew.create_tasks(two, {"name": "x", **more})
            assert made["state"] == "READY"
            await crew.create({"name": "of a new group"})
            assert not any(task.done() for task in waiting)
        assert [len(made) for made in await asyncio.gather(*waiting)] == [1, 2]
    assert set(await crew.states(one)) == {"first", "x", "y"}


async def test_a_child_of_a_task_in_hand_holds_up_no_other(crew: Crew) -> None:
    made = await crew.create({"name": "x"}, {"name": "y"})
    group, (x, y) = made["taskGroup"]["id"], [task["id"] for task in made["tasks"]]
    (lease,), _ = await crew.claim(), await crew.claim()
    async with connected(crew.dsn, 2) as (a, eye):
        async with stopped(a, "select from lease where lease_no = $1 for update", lease_no(crew, lease)):
            waiting = asyncio.create_task(crew.create_tasks(group, {"name": "below x", "parents": [{"id": x}]}))
            await servers_wait_for_locks(eye)
            await crew.create_tasks(group, {"name": "below y", "parents": [{"id": y}]})
            await crew.create_tasks(group, {"name": "alone"})
            assert not waiting.done()
        assert len(await waiting) == 1


async def test_who_waited_for_a_group_that_is_deleted_then_is_told_so(crew: Crew) -> None:
    group = (await crew.create({"name": "x"}))["taskGroup"]["id"]
    (lease,) = await crew.claim()
    async with connected(crew.dsn, 2) as (a, eye):
        async with stopped(a, "select from lease for update"):
            deleting = asyncio.create_task(delete_group(crew, group))
            await servers_wait_for_locks(eye)
            adding = asyncio.create_task(crew.create_tasks(group, {"name": "y"}))
            await servers_wait_for_locks(eye, 2)
            completing = asyncio.create_task(crew.complete(lease))
            await servers_wait_for_locks(eye, 3)
        assert await deleting == 1
        assert [e["code"] for e in (await completing)["errors"]] == ["CANCELLED"]
        with pytest.raises(Refused, match="no task group"):
            await adding
