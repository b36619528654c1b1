"""Cancelling: what can be called off, what its worker hears, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.wait import end_delays, expire_leases

CANCEL = (
    "mutation($ids: [ID!], $filter: TaskFilter, $descendants: Boolean) "
    "{ cancelTasks(ids: $ids, filter: $filter, descendants: $descendants) { affected tasks { id name state } } }"
)
STATES = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED"]
SETTLED = ("SUCCEEDED", "CANCELLED")


async def cancel(crew: Crew, *ids: str, **more: Any) -> dict[str, Any]:
    """The payload: affected, tasks."""
    given = {**({"ids": list(ids)} if ids else {}), **more}
    found: dict[str, Any] = (await crew.ask(CANCEL, **given))["cancelTasks"]
    return found


async def mixed(crew: Crew) -> tuple[dict[str, str], str, dict[str, dict[str, Any]]]:
    """A group with a task in each state, named so, and the runner of the merged one: ids, group, leases (by name)."""
    made = await crew.create(
        {"name": "SUCCEEDED", "priority": 9},
        {"name": "FAILED", "priority": 8},
        {"name": "RUNNING", "priority": 7},
        {"name": "runner", "priority": 6, "key": "k"},
        {"name": "MERGED", "key": "k"},
        {"name": "CANCELLED", "priority": 5},
        {"name": "READY", "ref": "ready"},
        {"name": "SCHEDULED", "delaySeconds": 1000},
        {"name": "BLOCKED", "parents": [{"ref": "ready"}]},
    )
    ids = {t["name"]: t["id"] for t in made["tasks"]}
    leases = {x["task"]["name"]: x for x in await crew.claim(4)}
    await crew.complete(leases["SUCCEEDED"])
    await crew.fail(leases["FAILED"], discard=True)
    await cancel(crew, ids["CANCELLED"])
    group = made["taskGroup"]["id"]
    assert await crew.states(group) == {**{n: n for n in STATES}, "runner": "RUNNING"}
    return ids, group, leases


# -- what is cancelled --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
async def test_a_task_that_is_not_settled_is_cancelled_and_no_other(crew: Crew, state: str) -> None:
    ids, group, _ = await mixed(crew)
    before = await crew.states(group)
    shown = await crew.task(ids[state])
    answer = await cancel(crew, ids[state])
    if state in SETTLED:
        assert answer == {"affected": 0, "tasks": []}
        assert await crew.task(ids[state]) == shown
    else:
        assert answer == {"affected": 1, "tasks": [{"id": ids[state], "name": state, "state": "CANCELLED"}]}
    assert await crew.states(group) == before | ({} if state in SETTLED else {state: "CANCELLED"})
    fields = "finishedAt heldBy notBefore leaseExpiresAt output errors { attempt }"
    task = await crew.task(ids[state], fields)
    assert task.pop("finishedAt") is not None
    errors = [{"attempt": 1}] if state == "FAILED" else []
    assert task == {"heldBy": [], "notBefore": None, "leaseExpiresAt": None, "output": None, "errors": errors}
    assert await cancel(crew, ids[state]) == {"affected": 0, "tasks": []}


async def test_nothing_brings_a_cancelled_task_back(crew: Crew) -> None:
    ids, group, leases = await mixed(crew)
    unsettled = [s for s in STATES if s not in (*SETTLED, "READY")]
    await cancel(crew, *(ids[s] for s in unsettled))
    await end_delays(crew)
    await crew.complete(leases["runner"])
    (lease,) = await crew.claim(9)
    assert lease["task"]["name"] == "READY"
    await crew.complete(lease)
    await expire_leases(crew)
    answer = await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=list(ids.values()))
    assert answer == {"retryTasks": {"affected": 0}}
    assert await crew.claim(9) == []
    states = await crew.states(group)
    assert {n for n, s in states.items() if s == "CANCELLED"} == {*unsettled, "CANCELLED"}
    assert {n for n, s in states.items() if s == "SUCCEEDED"} == {"SUCCEEDED", "READY", "runner"}


async def test_ids_that_are_unknown_settled_or_named_twice_are_passed_over(crew: Crew) -> None:
    ids, _, _ = await mixed(crew)
    given = [str(uuid.uuid4()), *ids.values(), *ids.values(), ids["READY"].upper(), str(uuid.uuid4())]
    answer = await cancel(crew, *given)
    assert answer["affected"] == 7
    assert {t["name"]: t["state"] for t in answer["tasks"]} == {n: "CANCELLED" for n in ids if n not in SETTLED}
    assert len(answer["tasks"]) == 7


async def test_a_group_is_finished_when_the_last_of_it_is_cancelled(crew: Crew) -> None:
    ids, group, _ = await mixed(crew)
    query = (
        "query($id: ID!) { taskGroup(id: $id) { finishedAt progress { fraction counts { state count } } } "
        'channel(name: "c") { counts { state count } } }'
    )
    await cancel(crew, *(i for n, i in ids.items() if n != "FAILED"))
    found = (await crew.ask(query, id=group))["taskGroup"]
    assert (found["finishedAt"], round(found["progress"]["fraction"], 6)) == (None, round(8 / 9, 6))
    await cancel(crew, ids["FAILED"])
    answer = await crew.ask(query, id=group)
    assert answer["taskGroup"]["finishedAt"] is not None
    counts = [{"state": "SUCCEEDED", "count": 1}, {"state": "CANCELLED", "count": 8}]
    assert answer["taskGroup"]["progress"] == {"fraction": 1, "counts": counts}
    assert answer["channel"]["counts"] == counts


async def test_thousands_are_cancelled_in_one_call(crew: Crew) -> None:
    made = await crew.create(*({"name": str(n), "delaySeconds": 1000 if n % 3 else None} for n in range(2500)))
    leases = await crew.claim(100)
    group = made["taskGroup"]["id"]
    assert (await cancel(crew, filter={"groupId": group}))["affected"] == 2500
    assert await crew.claim(10) == []
    assert {e["code"] for e in (await crew.extend(*leases))["errors"]} == {"CANCELLED"}
    query = "query($id: ID!) { taskGroup(id: $id) { progress { counts { state count } } } }"
    answer = await crew.ask(query, id=group)
    assert answer["taskGroup"]["progress"]["counts"] == [{"state": "CANCELLED", "count": 2500}]


# -- leases -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["extend", "complete", "fail", "release"])
async def test_the_lease_of_a_cancelled_task_is_told_so_and_counts_for_nothing(crew: Crew, call: str) -> None:
    await crew.create({"name": "a"}, {"name": "b"})
    a, b = await crew.claim(2)
    id = a["task"]["id"]
    await cancel(crew, id)
    before = await crew.task(id, "state attempt remainingAttempts output finishedAt workerId errors { error }")
    more: dict[str, dict[str, Any]] = {
        "complete": {"output": 1, "children": [{"name": "x", "channel": "c"}]},
        "fail": {"discard": True},
    }
    for _ in range(2):
        answer = await getattr(crew, call)(a, **more.get(call, {}))
        (error,) = answer["errors"]
        assert (error["index"], error["lease"], error["code"], error["path"]) == (0, a["id"], "CANCELLED", None)
        assert error["message"]
    assert await crew.task(id, "state attempt remainingAttempts output finishedAt workerId errors { error }") == before
    assert len(await crew.sql("select from task")) == 2
    assert await crew.claim(9) == []
    answer = await getattr(crew, call)("x", b, a)
    assert [(e["index"], e["code"]) for e in answer["errors"]] == [(0, "UNKNOWN"), (2, "CANCELLED")]
    if call == "extend":
        assert answer["expiresAt"] == (await crew.task(b["task"]["id"], "leaseExpiresAt"))["leaseExpiresAt"]


async def test_a_lease_that_had_ended_before_the_cancel_is_answered_as_before(crew: Crew) -> None:
    """A failed attempt stays failed, a repeat of it stays a repeat; a lost one need not be told more."""
    await crew.create({"name": "failed", "retry": {"delaySeconds": 1000}}, {"name": "done"})
    failed, done = await crew.claim(2)
    await crew.fail(failed)
    await crew.complete(done)
    await cancel(crew, failed["task"]["id"], done["task"]["id"])
    assert (await crew.fail(failed))["failed"] == 1
    assert (await crew.complete(done))["completed"] == 1
    assert (await crew.task(failed["task"]["id"]))["state"] == "CANCELLED"
    assert (await crew.task(done["task"]["id"]))["state"] == "SUCCEEDED"


async def test_a_repeated_claim_no_longer_answers_the_lease_of_a_cancelled_task(crew: Crew) -> None:
    await crew.create({"name": "a"}, {"name": "b"}, {"name": "c"})
    claim_id = str(uuid.uuid4())
    a, b, c = await crew.claim(3, claimId=claim_id)
    await cancel(crew, b["task"]["id"])
    assert [x["id"] for x in await crew.claim(3, claimId=claim_id)] == [a["id"], c["id"]]


async def test_a_cancel_and_a_completion_at_once_end_one_way(crew: Crew) -> None:
    for _ in range(10):
        await crew.create({"name": "a"})
        (lease,) = await crew.claim()
        id = lease["task"]["id"]
        cancelled, done = await asyncio.gather(cancel(crew, id), crew.complete(lease))
        state = (await crew.task(id))["state"]
        codes = [e["code"] for e in done["errors"]]
        assert (state, cancelled["affected"], done["completed"], codes) in (
            ("CANCELLED", 1, 0, ["CANCELLED"]),
            ("SUCCEEDED", 0, 1, []),
        )


# -- keys ---------------------------------------------------------------------------------------------------------------


async def test_a_cancelled_runner_lets_its_twins_go_and_a_cancelled_twin_leaves_alone(crew: Crew) -> None:
    made = await crew.create(*({"name": n, "key": "k"} for n in "abcd"))
    a, b, c, d = (t["id"] for t in made["tasks"])
    (lease,) = await crew.claim(9)
    assert (await cancel(crew, b))["affected"] == 1
    states = await crew.states(made["taskGroup"]["id"])
    assert states == {"a": "RUNNING", "b": "CANCELLED", "c": "MERGED", "d": "MERGED"}
    assert (await crew.extend(lease))["errors"] == []
    assert (await cancel(crew, a))["affected"] == 1
    (second,) = await crew.claim(9)
    assert second["task"]["id"] == c
    assert (await crew.complete(lease))["errors"][0]["code"] == "CANCELLED"
    await crew.complete(second, output=1)
    states = await crew.states(made["taskGroup"]["id"])
    assert states == {"a": "CANCELLED", "b": "CANCELLED", "c": "SUCCEEDED", "d": "SUCCEEDED"}
    assert [(await crew.task(i, "output"))["output"] for i in (b, d)] == [None, 1]


@pytest.mark.parametrize("by", ["ids", "filter"])
async def test_a_runner_and_its_twins_can_be_cancelled_together(crew: Crew, by: str) -> None:
    made = await crew.create(*({"name": str(n), "key": "k"} for n in range(5)))
    await crew.claim()
    ids = [t["id"] for t in made["tasks"]]
    answer = await (cancel(crew, *ids) if by == "ids" else cancel(crew, filter={"key": "k"}))
    assert answer["affected"] == 5
    assert await crew.claim(9) == []
    assert set((await crew.states(made["taskGroup"]["id"])).values()) == {"CANCELLED"}
    await crew.create({"name": "new", "key": "k"})
    assert [x["task"]["name"] for x in await crew.claim(9)] == ["new"]


# -- filters ------------------------------------------------------------------------------------------------------------

FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "a group": ({"groupId": "$first"}, "running failed ready blocked scheduled"),
    "another group": ({"groupId": "$second"}, "other"),
    "no such group": ({"groupId": str(uuid.uuid4())}, ""),
    "a state": ({"states": ["READY"]}, "ready other"),
    "states": ({"states": ["FAILED", "RUNNING", "SUCCEEDED", "CANCELLED"]}, "running failed"),
    "a settled state": ({"states": ["SUCCEEDED"]}, ""),
    "a channel": ({"channels": ["d"]}, "blocked"),
    "channels": ({"channels": ["d", "e", "nobody"]}, "blocked other"),
    "a workgroup": ({"workgroups": ["w"]}, "ready scheduled"),
    "a key": ({"key": "k"}, "scheduled"),
    "no such key": ({"key": "K"}, ""),
    "a worker": ({"workerId": "one"}, "running failed"),
    "a part of the name": ({"nameContains": "ED"}, "failed blocked scheduled"),
    "since": ({"createdAfter": "2020-01-01T00:00:00Z"}, "running failed ready blocked scheduled other"),
    "long ago": ({"createdBefore": "2020-01-01T00:00:00Z"}, ""),
    "all of these": ({"groupId": "$first", "workgroups": ["w"], "states": ["SCHEDULED", "FAILED"]}, "scheduled"),
    "none of these": ({"groupId": "$second", "workgroups": ["w"]}, ""),
    "nulls beside one thing": ({"groupId": None, "states": None, "channels": ["e"]}, "other"),
}


@pytest.mark.parametrize("case", FILTERS)
async def test_a_filter_names_what_is_cancelled(crew: Crew, case: str) -> None:
    first = await crew.create(
        {"name": "done", "priority": 9},
        {"name": "running", "priority": 8},
        {"name": "failed", "priority": 7},
        {"name": "ready", "ref": "r", "workgroup": "w"},
        {"name": "blocked", "channel": "d", "parents": [{"ref": "r"}]},
        {"name": "scheduled", "delaySeconds": 1000, "workgroup": "w", "key": "k"},
    )
    second = await crew.create({"name": "other", "channel": "e"})
    done, _, failed = await crew.claim(3, workerId="one")
    await crew.complete(done)
    await crew.fail(failed, discard=True)
    given, names = FILTERS[case]
    groups = {"$first": first["taskGroup"]["id"], "$second": second["taskGroup"]["id"]}
    given = {k: groups.get(v, v) if isinstance(v, str) else v for k, v in given.items()}
    before = {n: s for g in groups.values() for n, s in (await crew.states(g)).items()}
    answer = await cancel(crew, filter=given)
    assert answer["affected"] == len(names.split())
    assert {t["name"] for t in answer["tasks"]} == set(names.split())
    after = {n: s for g in groups.values() for n, s in (await crew.states(g)).items()}
    assert after == before | dict.fromkeys(names.split(), "CANCELLED")


# -- descendants --------------------------------------------------------------------------------------------------------

GRAPH: list[dict[str, Any]] = [
    {"name": "a", "ref": "a"},
    {"name": "b", "ref": "b", "parents": [{"ref": "a"}]},
    {"name": "c", "ref": "c", "parents": [{"ref": "a"}]},
    {"name": "d", "ref": "d", "parents": [{"ref": "b"}, {"ref": "c"}]},
    {"name": "e", "ref": "e", "parents": [{"ref": "d"}, {"ref": "x"}], "onParentFailure": "RUN"},
    {"name": "x", "ref": "x"},
    {"name": "y", "parents": [{"ref": "x"}]},
]


@pytest.mark.parametrize(
    ("roots", "descendants", "expected"),
    [
        ("a", True, "abcde"),
        ("a", False, "a"),
        ("a", None, "a"),
        ("b", True, "bde"),
        ("bc", True, "bcde"),
        ("ad", True, "abcde"),
        ("e", True, "e"),
        ("x", True, "exy"),
        ("dx", True, "dexy"),
    ],
)
async def test_descendants_are_taken_along_once_each(
    crew: Crew, roots: str, descendants: bool | None, expected: str
) -> None:
    made = await crew.create(*GRAPH)
    ids = {t["name"]: t["id"] for t in made["tasks"]}
    answer = await cancel(crew, *(ids[n] for n in roots), descendants=descendants)
    assert answer["affected"] == len(expected)
    assert sorted(t["name"] for t in answer["tasks"]) == list(expected)
    states = await crew.states(made["taskGroup"]["id"])
    assert "".join(sorted(n for n, s in states.items() if s == "CANCELLED")) == expected


async def test_descendants_of_what_a_filter_names_are_taken_along(crew: Crew) -> None:
    made = await crew.create(*GRAPH)
    await crew.create(*({**t, "name": t["name"] + "2"} for t in GRAPH))
    answer = await cancel(crew, filter={"groupId": made["taskGroup"]["id"], "states": ["READY"]}, descendants=True)
    assert (answer["affected"], set((await crew.states(made["taskGroup"]["id"])).values())) == (7, {"CANCELLED"})
    assert sorted(x["task"]["name"] for x in await crew.claim(9)) == ["a2", "x2"]


async def test_descendants_are_found_below_what_is_settled(crew: Crew) -> None:
    made = await crew.create(*GRAPH)
    ids = {t["name"]: t["id"] for t in made["tasks"]}
    a, x = await crew.claim(2)
    await crew.complete(a, children=[{"name": "spawned", "channel": "c"}])
    await crew.release(x)
    answer = await cancel(crew, ids["a"], descendants=True)
    assert {t["name"] for t in answer["tasks"]} == {"b", "c", "d", "e", "spawned"}
    states = await crew.states(made["taskGroup"]["id"])
    assert (states["a"], states["x"], states["y"]) == ("SUCCEEDED", "READY", "BLOCKED")


async def test_running_descendants_are_told(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}], "onParentFailure": "RUN"}
    )
    await crew.fail(*await crew.claim(), discard=True)
    (lease,) = await crew.claim()
    answer = await cancel(crew, made["tasks"][0]["id"], descendants=True)
    assert sorted(t["name"] for t in answer["tasks"]) == ["a", "b"]
    assert [e["code"] for e in (await crew.extend(lease))["errors"]] == ["CANCELLED"]


async def test_a_deep_chain_is_cancelled_to_its_end(crew: Crew) -> None:
    tasks = [{"name": str(n), "ref": str(n), "parents": [{"ref": str(n - 1)}] if n else []} for n in range(500)]
    made = await crew.create(*tasks)
    assert (await cancel(crew, made["tasks"][0]["id"], descendants=True))["affected"] == 500


# -- what is refused ----------------------------------------------------------------------------------------------------

ID = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
BAD: dict[str, tuple[dict[str, Any], list[list[str | int]]]] = {
    "nothing": ({}, [["ids"]]),
    "nulls": ({"ids": None, "filter": None}, [["ids"]]),
    "no ids": ({"ids": []}, [["ids"]]),
    "both": ({"ids": [ID], "filter": {"channels": ["c"]}}, [["ids"], ["filter"]]),
    "a filter of nothing": ({"filter": {}}, [["filter"]]),
    "a filter of nulls": ({"filter": {"states": None, "groupId": None, "key": None}}, [["filter"]]),
    "a bad id": ({"ids": [ID, "x"]}, [["ids", 1]]),
    "a null id": ({"ids": [None]}, [["ids", 0]]),
    "a bad group": ({"filter": {"groupId": "x"}}, [["filter", "groupId"]]),
    "a bad key": ({"filter": {"key": "\0"}}, [["filter", "key"]]),
    "a bad name": ({"filter": {"nameContains": "\0"}}, [["filter", "nameContains"]]),
    "no such state": ({"filter": {"states": ["DONE"]}}, [["filter", "states", 0]]),
    "descendants that are no boolean": ({"ids": [ID], "descendants": 1}, [["descendants"]]),
}


async def test_what_names_nothing_or_too_much_is_refused_and_cancels_nothing(
    crew: Crew, subtests: pytest.Subtests
) -> None:
    ids, group, _ = await mixed(crew)
    before = await crew.states(group)
    for case, (given, paths) in BAD.items():
        with subtests.test(case):
            with pytest.raises(Refused) as refused:
                await crew.ask(CANCEL, **given)
            assert refused.value.code == "BAD_INPUT"
            assert refused.value.path in paths
            assert await crew.states(group) == before
    assert (await cancel(crew, filter={"groupId": ID}))["affected"] == 0
    assert (await cancel(crew, ids["READY"], filter=None, descendants=None))["affected"] == 1


async def test_too_many_ids_are_refused(crew: Crew) -> None:
    with pytest.raises(Refused) as refused:
        await cancel(crew, *(str(uuid.uuid4()) for _ in range(10_001)))
    assert (refused.value.code, refused.value.path) == ("TOO_LARGE", ["ids"])
