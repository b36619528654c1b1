"""Retries by people."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.wait import until


async def retry(crew: Crew, *ids: str, **more: Any) -> dict[str, Any]:
    query = (
        "mutation($ids: [ID!], $attempts: Int = 2) { retryTasks(ids: $ids, attempts: $attempts) "
        "{ affected tasks { id name state remainingAttempts attempt } } }"
    )
    return (await crew.ask(query, ids=list(ids), **more))["retryTasks"]


async def failed(crew: Crew, *names: str, **more: Any) -> list[str]:
    """Ids of new tasks that have failed."""
    made = await crew.create(*({"name": n, **more} for n in names))
    await crew.fail(*await crew.claim(len(names)), discard=True)
    return [t["id"] for t in made["tasks"]]


async def test_a_retried_task_is_ready_at_once_with_new_attempts(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    answer = await retry(crew, id, attempts=7)
    expected = {"id": id, "name": "a", "state": "READY", "remainingAttempts": 7, "attempt": 1}
    assert answer == {"affected": 1, "tasks": [expected]}
    (lease,) = await crew.claim()
    assert (lease["attempt"], lease["task"]["id"]) == (2, id)
    task = await crew.task(id, "remainingAttempts errors { attempt } finishedAt")
    assert task == {"remainingAttempts": 6, "errors": [{"attempt": 1}], "finishedAt": None}


async def test_a_retried_task_gets_two_attempts_by_default(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    assert (await retry(crew, id))["tasks"][0]["remainingAttempts"] == 2


async def test_only_failed_tasks_are_retried(crew: Crew) -> None:
    (id,) = await failed(crew, "failed")
    made = await crew.create(
        {"name": "done", "priority": 9},
        {"name": "running", "priority": 8},
        {"name": "ready", "ref": "r"},
        {"name": "blocked", "parents": [{"ref": "r"}]},
        {"name": "scheduled", "delaySeconds": 100},
    )
    done, _ = await crew.claim(2)
    await crew.complete(done)
    before = await crew.states(made["taskGroup"]["id"])
    answer = await retry(crew, *(t["id"] for t in made["tasks"]), str(uuid.uuid4()), id)
    assert answer["affected"] == 1
    assert [t["id"] for t in answer["tasks"]] == [id]
    assert await crew.states(made["taskGroup"]["id"]) == before


async def test_a_repeated_retry_changes_nothing(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    await retry(crew, id, attempts=3)
    assert await retry(crew, id, attempts=9) == {"affected": 0, "tasks": []}
    assert (await crew.task(id))["remainingAttempts"] == 3


async def test_an_id_named_twice_is_retried_once(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    assert (await retry(crew, id, id))["affected"] == 1


async def test_a_retry_wakes_a_claim_that_waits(crew: Crew) -> None:
    (id,) = await failed(crew, "a")
    claim = asyncio.create_task(crew.claim(waitSeconds=20))

    async def waits() -> bool:
        return crew.services.dispatcher.waiting == 1

    await until(waits)
    await retry(crew, id)
    (lease,) = await asyncio.wait_for(claim, 5)
    assert lease["task"]["id"] == id


async def test_many_are_retried_at_once(crew: Crew) -> None:
    ids = await failed(crew, *map(str, range(50)))
    assert (await retry(crew, *ids))["affected"] == 50
    assert len(await crew.claim(100)) == 50


async def test_a_retried_task_of_a_suspended_workgroup_waits_for_it(crew: Crew) -> None:
    (id,) = await failed(crew, "a", workgroup="w")
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { name } } }')
    assert (await retry(crew, id))["affected"] == 1
    assert await crew.claim() == []
    assert (await crew.task(id))["heldBy"] == ["WORKGROUP_SUSPENDED"]


# -- filters ------------------------------------------------------------------------------------------------------------

BY_FILTER = (
    "mutation($ids: [ID!], $filter: TaskFilter, $attempts: Int = 2) "
    "{ retryTasks(ids: $ids, filter: $filter, attempts: $attempts) { affected tasks { name state remainingAttempts } } }"
)
FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "a group": ({"groupId": "$first"}, "ad ag al bc"),
    "another group": ({"groupId": "$second"}, "other"),
    "no such group": ({"groupId": str(uuid.uuid4())}, ""),
    "a state": ({"states": ["FAILED"]}, "ad ag al bc other"),
    "states": ({"states": ["READY", "FAILED", "SUCCEEDED"]}, "ad ag al bc other"),
    "another state": ({"states": ["READY", "SUCCEEDED", "CANCELLED"]}, ""),
    "a channel": ({"channels": ["d"]}, "ad"),
    "channels": ({"channels": ["d", "e", "nobody"]}, "ad other"),
    "a workgroup": ({"workgroups": ["w"]}, "ag"),
    "a key": ({"key": "k"}, "al"),
    "a worker": ({"workerId": "one"}, "ad ag al bc"),
    "a part of the name": ({"nameContains": "A"}, "ad ag al"),
    "since": ({"createdAfter": "2020-01-01T00:00:00Z"}, "ad ag al bc other"),
    "long ago": ({"createdBefore": "2020-01-01T00:00:00Z"}, ""),
    "all of these": ({"groupId": "$first", "nameContains": "a", "workgroups": ["w", "v"]}, "ag"),
    "nulls beside one thing": ({"groupId": None, "key": None, "channels": ["e"]}, "other"),
}


@pytest.mark.parametrize("case", FILTERS)
async def test_a_filter_names_the_failed_tasks_to_retry(crew: Crew, case: str) -> None:
    first = await crew.create(
        {"name": "ad", "channel": "d"},
        {"name": "ag", "workgroup": "w"},
        {"name": "al", "key": "k"},
        {"name": "bc"},
        {"name": "a ready one", "priority": -1, "workgroup": "w"},
        {"name": "a done one", "priority": 9},
    )
    (done,) = await crew.claim()
    await crew.complete(done)
    await crew.fail(*await crew.claim(4, ("c", "d"), workerId="one"), discard=True)
    second = await crew.create({"name": "other", "channel": "e"})
    await crew.fail(*await crew.claim(1, ("e",), workerId="two"), discard=True)
    given, words = FILTERS[case]
    groups = {"$first": first["taskGroup"]["id"], "$second": second["taskGroup"]["id"]}
    given = {k: groups.get(v, v) if isinstance(v, str) else v for k, v in given.items()}
    before = {n: s for g in groups.values() for n, s in (await crew.states(g)).items()}
    names = words.split()
    answer = (await crew.ask(BY_FILTER, filter=given, attempts=3))["retryTasks"]
    assert answer["affected"] == len(names)
    assert sorted(answer["tasks"], key=lambda t: t["name"]) == [
        {"name": n, "state": "READY", "remainingAttempts": 3} for n in names
    ]
    after = {n: s for g in groups.values() for n, s in (await crew.states(g)).items()}
    assert after == before | dict.fromkeys(names, "READY")
    again = (await crew.ask(BY_FILTER, filter=given, attempts=3))["retryTasks"]
    assert again == {"affected": 0, "tasks": []}


async def test_more_than_a_page_is_retried_by_one_filter(crew: Crew) -> None:
    await crew.create(*({"name": str(n)} for n in range(1500)))
    await crew.fail(*await crew.claim(1500), discard=True)
    answer = (await crew.ask(BY_FILTER, filter={"channels": ["c"]}))["retryTasks"]
    assert answer["affected"] == 1500
    assert len(await crew.claim(2000)) == 1500


ID = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
BAD: dict[str, tuple[dict[str, Any], list[list[str | int]]]] = {
    "nothing": ({}, [["ids"]]),
    "nulls": ({"ids": None, "filter": None}, [["ids"]]),
    "no ids": ({"ids": []}, [["ids"]]),
    "both": ({"ids": [ID], "filter": {"channels": ["c"]}}, [["ids"], ["filter"]]),
    "a filter of nothing": ({"filter": {}}, [["filter"]]),
    "a filter of nulls": ({"filter": {"states": None, "key": None}}, [["filter"]]),
    "a bad group": ({"filter": {"groupId": "x"}}, [["filter", "groupId"]]),
    "a bad name": ({"filter": {"nameContains": "\0"}}, [["filter", "nameContains"]]),
    "no attempts": ({"filter": {"channels": ["c"]}, "attempts": 0}, [["attempts"]]),
    "too many attempts": ({"filter": {"channels": ["c"]}, "attempts": 1_000_001}, [["attempts"]]),
}


async def test_what_names_nothing_or_too_much_is_refused_and_retries_nothing(
    crew: Crew, subtests: pytest.Subtests
) -> None:
    (id,) = await failed(crew, "a")
    for case, (given, paths) in BAD.items():
        with subtests.test(case):
            with pytest.raises(Refused) as refused:
                await crew.ask(BY_FILTER, **given)
            assert refused.value.code == "BAD_INPUT"
            assert refused.value.path in paths
            assert (await crew.task(id))["state"] == "FAILED"
