"""pluckTask: one task alone in a paused group, with its parents' results, to be run again and again."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import group, id_of, t, work
from tests.support.steering import delete, delete_group, fold, progress, reset, reset_group, update
from tests.support.streams import now, poll

PLUCK = "mutation($id: ID!) { pluckTask(id: $id) { affected taskGroup { id name isPaused tasks { nodes { id name state } } } } }"
RESUME = "mutation($id: ID!) { resumeTaskGroup(id: $id) { affected } }"
CLAIM = (
    "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) "
    "{ leases { id attempt parentCount parents { taskId name channel state input output } task { id name input } } } }"
)
FIELDS = (
    "name channel workgroup key input priority retry { maxAttempts delaySeconds backoff maxDelaySeconds } timeoutSeconds "
    "progressWeight onParentFailure metadata"
)
FULL: dict[str, Any] = {
    "name": "t",
    "channel": "c",
    "workgroup": "w",
    "key": "k",
    "input": {"a": 0},
    "priority": 3,
    "retry": {"maxAttempts": 7, "delaySeconds": 1.5, "backoff": 2.0, "maxDelaySeconds": 9.0},
    "timeoutSeconds": 50.0,
    "progressWeight": 4,
    "onParentFailure": "RUN",
    "metadata": {"b": 2},
}


async def pluck(crew: Crew, id: str) -> tuple[str, str]:
    """The ids of the new group and of the copy."""
    answer = (await crew.ask(PLUCK, id=id))["pluckTask"]
    assert answer["affected"] == 1
    assert answer["taskGroup"]["isPaused"]
    (copy,) = answer["taskGroup"]["tasks"]["nodes"]
    assert (copy["name"], copy["state"]) == (answer["taskGroup"]["name"], "READY")
    return answer["taskGroup"]["id"], copy["id"]


async def claim(crew: Crew) -> list[dict[str, Any]]:
    leases: list[dict[str, Any]] = (await crew.ask(CLAIM, input={"workerId": "w", "channels": ["c"], "limit": 9}))[
        "claimTasks"
    ]["leases"]
    return leases


async def test_the_copy_has_what_the_task_has_but_its_time_and_its_past(crew: Crew) -> None:
    given = {**FULL, "runAfter": "2090-01-01T00:00:00+00:00"}
    original = (await crew.create(given))["tasks"][0]["id"]
    _, copy = await pluck(crew, original)
    assert await crew.task(copy, FIELDS) == FULL
    more = await crew.task(copy, "runAfter attempt remainingAttempts isSeed heldBy spawnedBy { id }")
    assert more == {
        "runAfter": None,
        "attempt": 0,
        "remainingAttempts": 7,
        "isSeed": True,
        "heldBy": ["GROUP_PAUSED"],
        "spawnedBy": None,
    }


async def test_it_runs_with_its_parents_results_again_and_again(crew: Crew) -> None:
    await group(crew, t("b", input=0), t("a", priority=1), t("x", "b", "a", input={"n": 1}))
    await work(crew)
    g, copy = await pluck(crew, id_of("x"))
    assert await claim(crew) == []
    assert await crew.task(copy, "parentCount parents { id }") == {"parentCount": 0, "parents": []}
    await crew.ask(RESUME, id=g)
    results = [
        {"taskId": id_of(n), "name": n, "channel": "c", "state": "SUCCEEDED", "input": i, "output": f"of {n}"}
        for n, i in (("b", 0), ("a", None))
    ]
    for output in (1, 2):
        (lease,) = await claim(crew)
        assert (lease["attempt"], lease["parentCount"], lease["parents"]) == (1, 2, results)
        assert lease["task"] == {"id": copy, "name": "x", "input": {"n": 1}}
        await crew.complete(lease, output=output, children=[{"name": "more", "channel": "c", "isSeed": False}])
        assert await reset_group(crew, g) == 1
        assert await crew.states(g) == {"x": "READY"}
        await delete(crew, id_of("b")) if output == 1 else None
    assert (await crew.ask("query($id: ID!) { task(id: $id) { id } }", id=id_of("x")))["task"] is None


async def test_a_page_of_results_is_as_long_as_asked_for(crew: Crew) -> None:
    await group(crew, t("a"), t("b"), t("x", "a", "b"))
    g, _ = await pluck(crew, id_of("x"))
    await crew.ask(RESUME, id=g)
    query = CLAIM.replace("parents {", "parents(first: 1) {")
    given = {"workerId": "w", "channels": ["c"], "limit": 9}
    leases = (await crew.ask(query, input=given))["claimTasks"]["leases"]
    (lease,) = [x for x in leases if x["task"]["name"] == "x"]
    assert (lease["parentCount"], [p["name"] for p in lease["parents"]]) == (2, ["a"])
    assert lease["parents"][0]["state"] == "READY"


async def test_it_never_merges_and_nobody_finds_it_by_its_key(crew: Crew) -> None:
    await group(crew, t("x", key="k"))
    g, copy = await pluck(crew, id_of("x"))
    await crew.ask(RESUME, id=g)
    both = await claim(crew)
    assert [x["task"]["name"] for x in both] == ["x", "x"]
    await crew.complete(*both)
    for again in (False, True):
        if again:
            await reset(crew, copy)
            await update(crew, copy, key="l")
            await update(crew, copy, key="k")
        assert (await crew.task(copy))["state"] == ("READY" if again else "SUCCEEDED")
        made = await crew.create({"name": "new", "key": "k", "onDuplicate": "REJECT"})
        await delete_group(crew, made["taskGroup"]["id"])


async def test_a_copy_can_be_copied(crew: Crew) -> None:
    await group(crew, t("a", priority=1), t("x", "a"))
    await work(crew, limit=1)
    _, copy = await pluck(crew, id_of("x"))
    g, _ = await pluck(crew, copy)
    await crew.ask(RESUME, id=g)
    leases = await claim(crew)
    assert [[p["output"] for p in x["parents"]] for x in leases] == [["of a"], ["of a"]]
    assert {x["task"]["id"] for x in leases} - {id_of("x")} != {copy}


async def test_the_original_and_its_group_stay_as_they_were(crew: Crew) -> None:
    g = await group(crew, t("a"), t("x", "a"), t("below", "x"))
    await pluck(crew, id_of("x"))
    assert await crew.states(g) == {"a": "READY", "x": "BLOCKED", "below": "BLOCKED"}
    await fold(crew)
    assert await progress(crew, g) == ({"READY": 1, "BLOCKED": 2}, 0)
    assert set(await work(crew)) == {"a", "x", "below"}


async def test_nothing_is_left_of_a_deleted_copy(crew: Crew) -> None:
    await group(crew, t("a"), t("x", "a"))
    g, _ = await pluck(crew, id_of("x"))
    assert await delete_group(crew, g) == 1
    assert await crew.sql("select from plucked") == []


async def test_it_is_told(crew: Crew) -> None:
    await group(crew, t("x"))
    start = await now(crew)
    await pluck(crew, id_of("x"))
    events = (await poll(crew, start))["events"]
    assert [e["kind"] for e in events] == ["GROUP_CREATED", "CREATED", "HELD"]


async def test_what_cannot_be_plucked_is_refused_and_nothing_is_made(crew: Crew) -> None:
    for given, code in ((str(uuid.uuid4()), "NOT_FOUND"), ("x", "BAD_INPUT")):
        with pytest.raises(Refused) as refused:
            await crew.ask(PLUCK, id=given)
        assert (refused.value.code, refused.value.path) == (code, ["id"])
    assert await crew.sql("select from task_group") == []
