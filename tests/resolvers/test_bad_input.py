"""What cannot be taken is refused with a code, the path of the bad field and a message; and nothing is made."""

from __future__ import annotations

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import schema.task
from tests.support.crew import CLAIM, CREATE, CREATE_TASKS, EXTEND, FAIL, Crew, Refused, crew_on

LEAK = re.compile(
    r"Traceback|asyncpg|psycopg|File \"|\bselect\b|\binsert\b|\$\d|<class|object at 0x|violates|line \d+", re.I
)
T = {"name": "t", "channel": "c"}
ID = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
OTHER = "018f5a3e-7c11-7a55-8d3c-0242ac120003"
CODES = {"BAD_INPUT", "NOT_FOUND", "CONFLICT", "TOO_LARGE"}


async def counts(crew: Crew) -> tuple[int, int, int]:
    (row,) = await crew.sql(
        "select (select count(*) from task)::int, (select count(*) from task_group)::int, (select count(*) from lease)::int"
    )
    return tuple(row)


def check(errors: list[dict[str, Any]]) -> dict[str, Any]:
    """One refusal, well formed. Answers its extensions."""
    (error,) = errors
    assert error["message"]
    assert not LEAK.search(error["message"]), error["message"]
    assert len(error["message"]) < 1000
    assert error["extensions"]["code"] in CODES
    return error["extensions"]


def far(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def retry(**policy: Any) -> dict[str, Any]:
    return {**T, "retry": policy}


# What is wrong with one new task: the task, the code, the path inside the task.
ONE_TASK: dict[str, tuple[dict[str, Any], str, list[str | int]]] = {
    "NUL in name": ({**T, "name": "a\0b"}, "BAD_INPUT", ["name"]),
    "NUL in channel": ({**T, "channel": "a\0b"}, "BAD_INPUT", ["channel"]),
    "NUL in workgroup": ({**T, "workgroup": "\0"}, "BAD_INPUT", ["workgroup"]),
    "NUL in ref": ({**T, "ref": "\0"}, "BAD_INPUT", ["ref"]),
    "NUL in input": ({**T, "input": "a\0"}, "BAD_INPUT", ["input"]),
    "NUL deep in input": ({**T, "input": {"a": [1, {"b": "\0"}]}}, "BAD_INPUT", ["input", "a", 1, "b"]),
    "NUL in a key of input": ({**T, "input": {"a\0": 1}}, "BAD_INPUT", ["input", "a\0"]),
    "NUL in metadata": ({**T, "metadata": {"a": "\0"}}, "BAD_INPUT", ["metadata", "a"]),
    "NUL in a key of metadata": ({**T, "metadata": {"\0": 1}}, "BAD_INPUT", ["metadata", "\0"]),
    "surrogate in name": ({**T, "name": "a\ud800"}, "BAD_INPUT", ["name"]),
    "surrogate in channel": ({**T, "channel": "\udfff"}, "BAD_INPUT", ["channel"]),
    "surrogate in workgroup": ({**T, "workgroup": "\ud800"}, "BAD_INPUT", ["workgroup"]),
    "surrogate in ref": ({**T, "ref": "\ud800"}, "BAD_INPUT", ["ref"]),
    "surrogate in input": ({**T, "input": ["\ud800"]}, "BAD_INPUT", ["input", 0]),
    "surrogate in metadata": ({**T, "metadata": {"a": "\ud800"}}, "BAD_INPUT", ["metadata", "a"]),
    "swapped pair in input": ({**T, "input": "\udf0d\ud83c"}, "BAD_INPUT", ["input"]),
    "integer of 65 bits": ({**T, "input": 1 << 64}, "BAD_INPUT", ["input"]),
    "negative integer of 65 bits": ({**T, "input": {"a": -(1 << 63) - 1}}, "BAD_INPUT", ["input", "a"]),
    "integer of 1000 digits": ({**T, "input": [10**999]}, "BAD_INPUT", ["input", 0]),
    "big integer in metadata": ({**T, "metadata": {"n": 10**30}}, "BAD_INPUT", ["metadata", "n"]),
    "empty name": ({**T, "name": ""}, "BAD_INPUT", ["name"]),
    "long name": ({**T, "name": "n" * 1001}, "BAD_INPUT", ["name"]),
    "enormous name": ({**T, "name": "n" * 1_000_000}, "BAD_INPUT", ["name"]),
    "empty channel": ({**T, "channel": ""}, "BAD_INPUT", ["channel"]),
    "long channel": ({**T, "channel": "c" * 256}, "BAD_INPUT", ["channel"]),
    "empty workgroup": ({**T, "workgroup": ""}, "BAD_INPUT", ["workgroup"]),
    "long workgroup": ({**T, "workgroup": "w" * 256}, "BAD_INPUT", ["workgroup"]),
    "empty ref": ({**T, "ref": ""}, "BAD_INPUT", ["ref"]),
    "enormous input": ({**T, "input": "x" * ((1 << 20) + 1)}, "TOO_LARGE", ["input"]),
    "enormous metadata": ({**T, "metadata": "x" * ((1 << 20) + 1)}, "TOO_LARGE", ["metadata"]),
    "id of the wrong shape": ({**T, "id": "abc"}, "BAD_INPUT", ["id"]),
    "empty id": ({**T, "id": ""}, "BAD_INPUT", ["id"]),
    "id in braces": ({**T, "id": "{" + ID + "}"}, "BAD_INPUT", ["id"]),
    "id without dashes": ({**T, "id": ID.replace("-", "")}, "BAD_INPUT", ["id"]),
    "id as a URN": ({**T, "id": "urn:uuid:" + ID}, "BAD_INPUT", ["id"]),
    "id with a line end": ({**T, "id": ID + "\n"}, "BAD_INPUT", ["id"]),
    "id with a NUL": ({**T, "id": ID[:-1] + "\0"}, "BAD_INPUT", ["id"]),
    "id with a surrogate": ({**T, "id": ID[:-1] + "\ud800"}, "BAD_INPUT", ["id"]),
    "id in other digits": ({**T, "id": ID[:-1] + "٣"}, "BAD_INPUT", ["id"]),
    "id that is a number": ({**T, "id": 5}, "BAD_INPUT", ["id"]),
    "negative delay": ({**T, "delaySeconds": -1}, "BAD_INPUT", ["delaySeconds"]),
    "endless delay": ({**T, "delaySeconds": 1e300}, "BAD_INPUT", ["delaySeconds"]),
    "delay and time": ({**T, "delaySeconds": 1, "runAfter": far(hours=1)}, "BAD_INPUT", ["delaySeconds"]),
    "time without offset": ({**T, "runAfter": "2031-01-31T09:30:00"}, "BAD_INPUT", ["runAfter"]),
    "day without time": ({**T, "runAfter": "2031-01-31"}, "BAD_INPUT", ["runAfter"]),
    "time that is no time": ({**T, "runAfter": "tomorrow"}, "BAD_INPUT", ["runAfter"]),
    "time that does not exist": ({**T, "runAfter": "2031-02-30T00:00:00Z"}, "BAD_INPUT", ["runAfter"]),
    "time that is a number": ({**T, "runAfter": 1700000000}, "BAD_INPUT", ["runAfter"]),
    "year 9999": ({**T, "runAfter": "9999-12-31T23:59:59Z"}, "BAD_INPUT", ["runAfter"]),
    "year 9999 past the end": ({**T, "runAfter": "9999-12-31T23:59:59-12:00"}, "BAD_INPUT", ["runAfter"]),
    "year 1": ({**T, "runAfter": "0001-01-01T00:00:00+14:00"}, "BAD_INPUT", ["runAfter"]),
    "year 10000": ({**T, "runAfter": "10000-01-01T00:00:00Z"}, "BAD_INPUT", ["runAfter"]),
    "no attempts": (retry(maxAttempts=0), "BAD_INPUT", ["retry", "maxAttempts"]),
    "negative attempts": (retry(maxAttempts=-1), "BAD_INPUT", ["retry", "maxAttempts"]),
    "too many attempts": (retry(maxAttempts=1_000_001), "BAD_INPUT", ["retry", "maxAttempts"]),
    "attempts beyond Int": (retry(maxAttempts=1 << 31), "BAD_INPUT", ["retry", "maxAttempts"]),
    "negative retry delay": (retry(delaySeconds=-0.5), "BAD_INPUT", ["retry", "delaySeconds"]),
    "negative backoff": (retry(backoff=-2), "BAD_INPUT", ["retry", "backoff"]),
    "backoff of 0": (retry(backoff=0), "BAD_INPUT", ["retry", "backoff"]),
    "negative longest delay": (retry(maxDelaySeconds=-1), "BAD_INPUT", ["retry", "maxDelaySeconds"]),
    "endless longest delay": (retry(maxDelaySeconds=1e18), "BAD_INPUT", ["retry", "maxDelaySeconds"]),
    "negative weight": ({**T, "progressWeight": -1}, "BAD_INPUT", ["progressWeight"]),
    "priority below Int": ({**T, "priority": -(1 << 31)}, "BAD_INPUT", ["priority"]),
    "priority beyond Int": ({**T, "priority": 1 << 31}, "BAD_INPUT", ["priority"]),
    "fractional priority": ({**T, "priority": 1.5}, "BAD_INPUT", ["priority"]),
    "priority as text": ({**T, "priority": "1"}, "BAD_INPUT", ["priority"]),
    "name that is a number": ({**T, "name": 1}, "BAD_INPUT", ["name"]),
    "seed that is no boolean": ({**T, "isSeed": 1}, "BAD_INPUT", ["isSeed"]),
    "parent of the wrong shape": ({**T, "parents": [{"id": "x"}]}, "BAD_INPUT", ["parents", 0, "id"]),
    "parent that is nothing": ({**T, "parents": [{}]}, "BAD_INPUT", ["parents", 0]),
    "parent by id and ref": ({**T, "ref": "r", "parents": [{"id": ID, "ref": "r"}]}, "BAD_INPUT", ["parents", 0]),
    "unknown ref": ({**T, "parents": [{"ref": "nobody"}]}, "BAD_INPUT", ["parents", 0, "ref"]),
    "unknown ref with a surrogate": ({**T, "parents": [{"ref": "\ud800"}]}, "BAD_INPUT", ["parents", 0, "ref"]),
    "its own parent by ref": ({**T, "ref": "me", "parents": [{"ref": "me"}]}, "BAD_INPUT", ["parents", 0, "ref"]),
    "its own parent by id": ({**T, "id": ID, "parents": [{"id": ID}]}, "BAD_INPUT", ["parents", 0, "id"]),
}
REQUEST_ITSELF: dict[str, tuple[dict[str, Any], list[str | int]]] = {
    "missing channel": ({"name": "t"}, []),
    "missing name": ({"channel": "c"}, []),
    "null name": ({**T, "name": None}, ["name"]),
    "null channel": ({**T, "channel": None}, ["channel"]),
    "unknown field": ({**T, "nmae": "x"}, []),
}
"""Refused before any resolver: the path goes as far as GraphQL tells."""


def body(query: str, given: Any) -> bytes:
    """As a client would send it: a lone surrogate travels as an escape."""
    return json.dumps({"query": query, "variables": {"input": given}}).encode()


async def post(crew: Crew, query: str, given: Any) -> Any:
    answer = await crew.http.post("/graphql", content=body(query, given), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    return answer.json()


async def test_a_bad_task_is_refused_in_a_new_group(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in ONE_TASK:
        with subtests.test(case):
            task, code, path = ONE_TASK[case]
            answer = await post(crew, CREATE, {"name": "g", "tasks": [T, task]})
            extensions = check(answer["errors"])
            assert extensions["code"] == code
            assert extensions["path"] == ["input", "tasks", 1, *path]
            assert await counts(crew) == (0, 0, 0)


async def test_a_bad_task_is_refused_in_a_group_that_is_there(crew: Crew, subtests: pytest.Subtests) -> None:
    group = (await crew.create())["taskGroup"]["id"]
    for case in ONE_TASK:
        with subtests.test(case):
            task, code, path = ONE_TASK[case]
            answer = await post(crew, CREATE_TASKS, {"groupId": group, "tasks": [task, T]})
            extensions = check(answer["errors"])
            assert extensions["code"] == code
            assert extensions["path"] == ["input", "tasks", 0, *path]
            assert await counts(crew) == (0, 1, 0)


async def test_a_bad_task_is_refused_alike_through_the_executor(crew: Crew, subtests: pytest.Subtests) -> None:
    """A directive sends the document the long way round; the refusal is the same."""
    for case in ONE_TASK:
        with subtests.test(case):
            task, code, path = ONE_TASK[case]
            slow = CREATE.replace("{ id name state }", "{ id name state @include(if: true) }")
            answer = await post(crew, slow, {"name": "g", "tasks": [T, task]})
            extensions = check(answer["errors"])
            assert (extensions["code"], extensions["path"]) == (code, ["input", "tasks", 1, *path])
            assert await counts(crew) == (0, 0, 0)


async def test_a_bad_continuation_is_refused_and_the_lease_stands(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in ONE_TASK:
        with subtests.test(case):
            task, _, path = ONE_TASK[case]
            await crew.create({"name": "p"})
            (lease,) = await crew.claim()
            before = await counts(crew)
            given = {"results": [{"lease": lease["id"], "output": 1, "children": [T, task]}]}
            query = (
                "mutation($input: CompleteTasksInput!) { completeTasks(input: $input) "
                "{ completed errors { code message path } } }"
            )
            answer = await post(crew, query, given)
            if "errors" in answer:  # the request itself does not fit the schema
                assert check(answer["errors"])["path"] == ["input", "results", 0, "children", 1, *path]
            else:
                assert answer["data"]["completeTasks"]["completed"] == 0
                (error,) = answer["data"]["completeTasks"]["errors"]
                assert error["code"] == "INVALID_CHILDREN"
                assert error["path"] == [str(p) for p in ("children", 1, *path)]
                assert error["message"]
                assert not LEAK.search(error["message"])
            assert await counts(crew) == before
            assert (await crew.complete(lease))["completed"] == 1


async def test_a_task_that_does_not_fit_the_schema_is_refused(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in REQUEST_ITSELF:
        with subtests.test(case):
            task, path = REQUEST_ITSELF[case]
            answer = await post(crew, CREATE, {"name": "g", "tasks": [T, task]})
            extensions = check(answer["errors"])
            assert extensions["code"] == "BAD_INPUT"
            assert extensions["path"][: 3 + len(path)] == ["input", "tasks", 1, *path]
            assert await counts(crew) == (0, 0, 0)


async def test_a_continuation_that_does_not_fit_the_schema_is_refused_and_the_lease_stands(
    crew: Crew, subtests: pytest.Subtests
) -> None:
    for case in REQUEST_ITSELF:
        with subtests.test(case):
            task, path = REQUEST_ITSELF[case]
            await crew.create({"name": "p"})
            (lease,) = await crew.claim()
            before = await counts(crew)
            query = "mutation($input: CompleteTasksInput!) { completeTasks(input: $input) { completed } }"
            answer = await post(crew, query, {"results": [{"lease": lease["id"], "children": [T, task]}]})
            extensions = check(answer["errors"])
            assert extensions["path"][: 5 + len(path)] == ["input", "results", 0, "children", 1, *path]
            assert await counts(crew) == before
            assert (await crew.complete(lease))["completed"] == 1


@pytest.mark.parametrize("key", ["a\ud800", "\udfff"])
@pytest.mark.parametrize("field", ["input", "metadata"])
async def test_a_lone_surrogate_in_a_key_is_refused(crew: Crew, field: str, key: str) -> None:
    answer = await post(crew, CREATE, {"name": "g", "tasks": [{**T, field: {"x": {key: 1}}}]})
    extensions = check(answer["errors"])
    assert extensions["code"] == "BAD_INPUT"
    assert extensions["path"][:5] == ["input", "tasks", 0, field, "x"]
    assert await counts(crew) == (0, 0, 0)


async def test_a_lone_surrogate_in_the_name_of_a_field_is_refused(crew: Crew) -> None:
    answer = await post(crew, CREATE, {"name": "g", "tasks": [{**T, "\ud800": 1}]})
    assert check(answer["errors"])["code"] == "BAD_INPUT"
    assert await counts(crew) == (0, 0, 0)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
async def test_numbers_that_json_does_not_have_are_no_json(crew: Crew, text: str) -> None:
    raw = body(CREATE, {"name": "g", "tasks": [{**T, "delaySeconds": 12345}]}).replace(b"12345", text.encode())
    answer = await crew.http.post("/graphql", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert await counts(crew) == (0, 0, 0)


@pytest.mark.parametrize("field", ["delaySeconds", "input"])
async def test_a_number_too_large_for_a_double_is_refused(crew: Crew, field: str) -> None:
    raw = body(CREATE, {"name": "g", "tasks": [{**T, field: 12345}]}).replace(b"12345", b"1e999")
    answer = await crew.http.post("/graphql", content=raw, headers={"content-type": "application/json"})
    extensions = check(answer.json()["errors"])
    assert (extensions["code"], extensions["path"]) == ("BAD_INPUT", ["input", "tasks", 0, field])
    assert await counts(crew) == (0, 0, 0)


@pytest.mark.parametrize("depth", [300, 900, 5_000, 100_000])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
async def test_json_nested_without_end_is_refused(crew: Crew, depth: int, left: str, right: str) -> None:
    raw = body(CREATE, {"name": "g", "tasks": [{**T, "input": 12345}]})
    raw = raw.replace(b"12345", (left * depth + "1" + right * depth).encode())
    answer = await crew.http.post("/graphql", content=raw, headers={"content-type": "application/json"})
    (error,) = answer.json()["errors"]
    assert error["extensions"]["code"] in ("BAD_INPUT", "BAD_REQUEST", "TOO_LARGE")
    assert not LEAK.search(error["message"].replace("line 1", ""))
    assert await counts(crew) == (0, 0, 0)


async def test_a_negative_priority_is_taken(crew: Crew) -> None:
    made = await crew.create({"name": "a", "priority": 1 - (1 << 31)}, {"name": "b", "priority": (1 << 31) - 1})
    assert (await crew.task(made["tasks"][0]["id"], "priority"))["priority"] == 1 - (1 << 31)
    assert [x["task"]["name"] for x in await crew.claim(2)] == ["b", "a"]


# -- several tasks ------------------------------------------------------------------------------------------------------

GRAPHS: dict[str, tuple[list[dict[str, Any]], list[str | int]]] = {
    "a ref used twice": ([{**T, "ref": "r"}, T, {**T, "ref": "r"}], [2, "ref"]),
    "an id used twice": ([{**T, "id": ID}, {**T, "id": ID}], [1, "id"]),
    "an id used twice, in two cases": ([{**T, "id": ID}, {**T, "id": ID.upper()}], [1, "id"]),
    "a parent named twice": (
        [{**T, "ref": "r"}, {**T, "parents": [{"ref": "r"}, {"ref": "r"}]}],
        [1, "parents", 1, "ref"],
    ),
    "a parent named by ref and by id": (
        [{**T, "ref": "r", "id": ID}, {**T, "parents": [{"ref": "r"}, {"id": ID}]}],
        [1, "parents", 1, "id"],
    ),
}


async def test_a_bad_graph_is_refused(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in GRAPHS:
        with subtests.test(case):
            tasks, path = GRAPHS[case]
            with pytest.raises(Refused) as refused:
                await crew.create(*tasks)
            assert check(refused.value.errors) == {"code": "BAD_INPUT", "path": ["input", "tasks", *path]}
            assert await counts(crew) == (0, 0, 0)


@pytest.mark.parametrize("length", [2, 3, 50])
async def test_a_cycle_is_refused_with_the_path_of_one_of_its_links(crew: Crew, length: int) -> None:
    cycle = [{"name": f"c{n}", "ref": f"c{n}", "parents": [{"ref": f"c{(n + 1) % length}"}]} for n in range(length)]
    free = {"name": "free", "ref": "free"}
    behind = {"name": "behind", "parents": [{"ref": "free"}, {"ref": "c0"}]}
    with pytest.raises(Refused) as refused:
        await crew.create(free, behind, *cycle)
    assert refused.value.code == "BAD_INPUT"
    path = refused.value.path
    assert path[:2] == ["input", "tasks"]
    assert 2 <= path[2] < 2 + length
    assert path[3:5] == ["parents", 0]
    assert "c0" in refused.value.message or "c1" in refused.value.message
    assert await counts(crew) == (0, 0, 0)


@pytest.mark.parametrize("tasks", [T, {**T, "parents": [{"id": OTHER}]}], ids=["alone", "with another parent"])
async def test_an_unknown_parent_is_not_found(crew: Crew, tasks: dict[str, Any]) -> None:
    group = (await crew.create())["taskGroup"]["id"]
    unknown = {**T, "parents": [{"id": ID}]}
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(group, T, unknown)
    assert check(refused.value.errors) == {"code": "NOT_FOUND", "path": ["input", "tasks", 1, "parents", 0, "id"]}
    assert await counts(crew) == (0, 1, 0)


@pytest.mark.parametrize("own_id", [False, True])
async def test_an_unknown_parent_is_not_found_in_a_new_group(crew: Crew, own_id: bool) -> None:
    more = {"id": OTHER} if own_id else {}
    with pytest.raises(Refused) as refused:
        await crew.create(T, {**T, "parents": [{"id": ID}]}, **more)
    assert check(refused.value.errors) == {"code": "NOT_FOUND", "path": ["input", "tasks", 1, "parents", 0, "id"]}
    assert await counts(crew) == (0, 0, 0)


@pytest.mark.parametrize("state", ["ready", "succeeded"])
async def test_a_parent_in_another_group_is_refused(crew: Crew, state: str) -> None:
    parent = (await crew.create(T))["tasks"][0]["id"]
    if state == "succeeded":
        await crew.complete(*await crew.claim())
    group = (await crew.create())["taskGroup"]["id"]
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(group, T, {**T, "parents": [{"id": parent}]})
    assert check(refused.value.errors) == {"code": "BAD_INPUT", "path": ["input", "tasks", 1, "parents", 0, "id"]}
    assert await counts(crew) == (1, 2, 0)


@pytest.mark.parametrize("own_id", [False, True])
async def test_a_parent_in_another_group_is_refused_in_a_new_group(crew: Crew, own_id: bool) -> None:
    parent = (await crew.create(T))["tasks"][0]["id"]
    with pytest.raises(Refused) as refused:
        await crew.create({**T, "parents": [{"id": parent}]}, **({"id": OTHER} if own_id else {}))
    extensions = check(refused.value.errors)
    assert extensions["code"] in ("BAD_INPUT", "NOT_FOUND")
    assert extensions["path"] == ["input", "tasks", 0, "parents", 0, "id"]
    assert await counts(crew) == (1, 1, 0)


async def test_too_many_tasks_are_refused(crew: Crew) -> None:
    with pytest.raises(Refused) as refused:
        await crew.create(*[T] * 10_001)
    extensions = check(refused.value.errors)
    assert extensions["code"] == "TOO_LARGE"
    assert extensions["path"][:1] == ["input"]
    group = (await crew.create())["taskGroup"]["id"]
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(group, *[T] * 10_001)
    assert check(refused.value.errors) == {"code": "TOO_LARGE", "path": ["input", "tasks"]}
    assert await counts(crew) == (0, 1, 0)


GROUP_FIELDS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "empty name": ({"name": ""}, "BAD_INPUT", ["name"]),
    "long name": ({"name": "n" * 1001}, "BAD_INPUT", ["name"]),
    "NUL in name": ({"name": "\0"}, "BAD_INPUT", ["name"]),
    "surrogate in name": ({"name": "\ud800"}, "BAD_INPUT", ["name"]),
    "bad id": ({"id": "x"}, "BAD_INPUT", ["id"]),
    "NUL in metadata": ({"metadata": {"a": "\0"}}, "BAD_INPUT", ["metadata", "a"]),
    "big integer in metadata": ({"metadata": 1 << 64}, "BAD_INPUT", ["metadata"]),
    "enormous metadata": ({"metadata": "x" * ((1 << 20) + 1)}, "TOO_LARGE", ["metadata"]),
}


async def test_a_bad_group_is_refused(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in GROUP_FIELDS:
        with subtests.test(case):
            fields, code, path = GROUP_FIELDS[case]
            answer = await post(crew, CREATE, {"name": "g", "tasks": [T], **fields})
            assert check(answer["errors"]) == {"code": code, "path": ["input", *path]}
            assert await counts(crew) == (0, 0, 0)


# -- workers ------------------------------------------------------------------------------------------------------------

C = {"workerId": "w", "channels": ["c"]}
CLAIMS: dict[str, tuple[dict[str, Any], list[str | int]]] = {
    "limit 0": ({**C, "limit": 0}, ["limit"]),
    "negative limit": ({**C, "limit": -1}, ["limit"]),
    "too large a limit": ({**C, "limit": 10_001}, ["limit"]),
    "lease of 0 s": ({**C, "leaseSeconds": 0}, ["leaseSeconds"]),
    "negative lease": ({**C, "leaseSeconds": -5}, ["leaseSeconds"]),
    "endless lease": ({**C, "leaseSeconds": 1e12}, ["leaseSeconds"]),
    "negative wait": ({**C, "waitSeconds": -1}, ["waitSeconds"]),
    "no channels": ({**C, "channels": []}, ["channels"]),
    "too many channels": ({**C, "channels": [str(n) for n in range(1001)]}, ["channels"]),
    "empty channel": ({**C, "channels": ["c", ""]}, ["channels", 1]),
    "long channel": ({**C, "channels": ["c" * 256]}, ["channels", 0]),
    "NUL in channel": ({**C, "channels": ["c", "a\0"]}, ["channels", 1]),
    "surrogate in channel": ({**C, "channels": ["\ud800"]}, ["channels", 0]),
    "null channel": ({**C, "channels": [None]}, ["channels", 0]),
    "empty workerId": ({**C, "workerId": ""}, ["workerId"]),
    "long workerId": ({**C, "workerId": "w" * 256}, ["workerId"]),
    "NUL in workerId": ({**C, "workerId": "\0"}, ["workerId"]),
    "surrogate in workerId": ({**C, "workerId": "\ud800"}, ["workerId"]),
    "bad claimId": ({**C, "claimId": "mine"}, ["claimId"]),
}


async def test_a_bad_claim_is_refused_and_claims_nothing(crew: Crew, subtests: pytest.Subtests) -> None:
    await crew.create(T)
    for case in CLAIMS:
        with subtests.test(case):
            given, path = CLAIMS[case]
            answer = await post(crew, CLAIM, given)
            assert check(answer["errors"]) == {"code": "BAD_INPUT", "path": ["input", *path]}
            assert await counts(crew) == (1, 1, 0)


GARBAGE = ["", "x", "a" * 32, ID, "\0", "🌍", "a" * 100_000, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "=" * 32, "é" * 32, 5]


async def test_a_lease_that_was_never_given_is_unknown(crew: Crew, subtests: pytest.Subtests) -> None:
    for lease in GARBAGE:
        for call in (crew.complete, crew.fail, crew.extend, crew.release):
            with subtests.test(f"{call.__name__} {lease!r:.20}"):
                (error,) = (await call({"id": lease}))["errors"]
                assert (error["index"], error["lease"], error["code"]) == (0, str(lease), "UNKNOWN")
                assert error["message"]
                assert not LEAK.search(error["message"])


@pytest.mark.parametrize("call", ["complete", "fail", "extend", "release"])
async def test_a_lease_with_a_lone_surrogate_is_unknown_and_does_not_hurt_the_others(crew: Crew, call: str) -> None:
    await crew.create(T)
    (lease,) = await crew.claim()
    kind = {"complete": "CompleteTasks", "fail": "FailTasks", "extend": "ExtendLeases", "release": "ReleaseLeases"}[
        call
    ]
    field = kind[0].lower() + kind[1:]
    ids = ["\ud800", lease["id"]]
    given: dict[str, Any] = {"leases": ids}
    if call == "complete":
        given = {"results": [{"lease": x} for x in ids]}
    if call == "fail":
        given = {"failures": [{"lease": x, "error": "no"} for x in ids]}
    answer = await post(
        crew, f"mutation($input: {kind}Input!) {{ {field}(input: $input) {{ errors {{ code }} }} }}", given
    )
    assert answer == {"data": {field: {"errors": [{"code": "UNKNOWN"}]}}}
    answer = await post(
        crew, f"mutation($input: {kind}Input!) {{ {field}(input: $input) {{ errors {{ lease }} }} }}", given
    )
    assert "errors" not in answer


async def test_a_lease_of_another_server_s_key_is_unknown(crew: Crew) -> None:
    await crew.create(T)
    (lease,) = await crew.claim()
    id = lease["id"]
    for place in range(len(id)):
        changed = id[:place] + ("A" if id[place] != "A" else "B") + id[place + 1 :]
        (error,) = (await crew.complete(changed))["errors"]
        assert error["code"] == "UNKNOWN"
    assert (await crew.complete(lease))["completed"] == 1


FAILURES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "keepAttempt and discard": ({"keepAttempt": True, "discard": True}, ["discard"]),
    "negative retry delay": ({"retryDelaySeconds": -1}, ["retryDelaySeconds"]),
    "endless retry delay": ({"retryDelaySeconds": 1e200}, ["retryDelaySeconds"]),
    "negative workgroup delay": ({"workgroupDelaySeconds": -0.1}, ["workgroupDelaySeconds"]),
    "NUL in the error": ({"error": "a\0"}, ["error"]),
    "NUL in a key of the error": ({"error": {"\0": 1}}, ["error", "\0"]),
    "surrogate in the error": ({"error": {"a": "\ud800"}}, ["error", "a"]),
    "big integer in the error": ({"error": 1 << 70}, ["error"]),
    "enormous error": ({"error": "x" * ((1 << 20) + 1)}, ["error"]),
}


async def test_a_bad_failure_is_refused_alone_and_its_lease_stands(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in FAILURES:
        with subtests.test(case):
            fields, path = FAILURES[case]
            await crew.create(T, T)
            first, second = await crew.claim(2)
            bad = {"lease": first["id"], "error": "no", **fields}
            answer = await post(crew, FAIL, {"failures": [bad, {"lease": second["id"], "error": "no"}]})
            payload = answer["data"]["failTasks"]
            assert payload["failed"] == 1
            (error,) = payload["errors"]
            assert (error["index"], error["lease"], error["code"]) == (0, first["id"], "BAD_INPUT")
            assert error["path"] == path
            assert error["message"]
            assert (await crew.complete(first))["completed"] == 1


COMPLETIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "negative children delay": ({"childrenDelaySeconds": -1}, ["childrenDelaySeconds"]),
    "negative workgroup delay": ({"workgroupDelaySeconds": -1}, ["workgroupDelaySeconds"]),
    "NUL in the output": ({"output": ["\0"]}, ["output", "0"]),
    "surrogate in the output": ({"output": "\ud800"}, ["output"]),
    "big integer in the output": ({"output": {"n": 1 << 64}}, ["output", "n"]),
    "enormous output": ({"output": "x" * ((1 << 20) + 1)}, ["output"]),
}


async def test_a_bad_completion_is_refused_alone_and_its_lease_stands(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in COMPLETIONS:
        with subtests.test(case):
            fields, path = COMPLETIONS[case]
            await crew.create(T, T)
            first, second = await crew.claim(2)
            query = (
                "mutation($input: CompleteTasksInput!) { completeTasks(input: $input) "
                "{ completed errors { index lease code message path } } }"
            )
            answer = await post(crew, query, {"results": [{"lease": first["id"], **fields}, {"lease": second["id"]}]})
            payload = answer["data"]["completeTasks"]
            assert payload["completed"] == 1
            (error,) = payload["errors"]
            assert (error["index"], error["lease"], error["code"]) == (0, first["id"], "BAD_INPUT")
            assert error["path"] == path
            assert (await crew.complete(first))["completed"] == 1


EXTENDS: dict[str, tuple[dict[str, Any], list[str | int]]] = {
    "lease of 0 s": ({"leaseSeconds": 0}, ["leaseSeconds"]),
    "endless lease": ({"leaseSeconds": 1e9}, ["leaseSeconds"]),
    "fraction above 1": ({"fraction": 1.01}, ["progress", 0, "fraction"]),
    "negative fraction": ({"fraction": -0.01}, ["progress", 0, "fraction"]),
    "NUL in the message": ({"message": "\0"}, ["progress", 0, "message"]),
    "surrogate in the message": ({"message": "\ud800"}, ["progress", 0, "message"]),
}


async def test_a_bad_extend_is_refused(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in EXTENDS:
        with subtests.test(case):
            fields, path = EXTENDS[case]
            await crew.create(T)
            (lease,) = await crew.claim()
            given: dict[str, Any] = {"leases": [lease["id"]]}
            if "leaseSeconds" in fields:
                given |= fields
            else:
                given["progress"] = [{"lease": lease["id"], **fields}]
            answer = await post(crew, EXTEND, given)
            assert check(answer["errors"]) == {"code": "BAD_INPUT", "path": ["input", *path]}
            task = await crew.task(lease["task"]["id"], "leaseExpiresAt progress progressMessage")
            assert task == {"leaseExpiresAt": lease["expiresAt"], "progress": None, "progressMessage": None}


# -- arguments ----------------------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[str, str, list[str | int]]] = {
    "task id": ('{ task(id: "x") { id } }', "BAD_INPUT", ["id"]),
    "group id": ('{ taskGroup(id: "x") { id } }', "BAD_INPUT", ["id"]),
    "page too large": ("{ tasks(first: 1001) { nodes { id } } }", "BAD_INPUT", ["first"]),
    "negative page": ("{ tasks(first: -1) { nodes { id } } }", "BAD_INPUT", ["first"]),
    "groups' page": ("{ taskGroups(first: 1001) { nodes { id } } }", "BAD_INPUT", ["first"]),
    "channels' page": ("{ channels(first: 1001) { name } }", "BAD_INPUT", ["first"]),
    "workgroups' page": ("{ workgroups(first: -1) { name } }", "BAD_INPUT", ["first"]),
    "workers' page": ("{ workers(first: 1001) { id } }", "BAD_INPUT", ["first"]),
    "cursor": ('{ tasks(after: "x") { nodes { id } } }', "BAD_INPUT", ["after"]),
    "empty cursor": ('{ tasks(after: "") { nodes { id } } }', "BAD_INPUT", ["after"]),
    "cursor that is not ASCII": ('{ tasks(after: "é") { nodes { id } } }', "BAD_INPUT", ["after"]),
    "cursor of JSON": ('{ tasks(after: "W10=") { nodes { id } } }', "BAD_INPUT", ["after"]),
    "groups' cursor": ('{ taskGroups(after: "x") { nodes { id } } }', "BAD_INPUT", ["after"]),
    "NUL in a name": ('{ channel(name: "\\u0000") { name } }', "BAD_INPUT", ["name"]),
    "empty channel": ('{ channel(name: "") { name } }', "BAD_INPUT", ["name"]),
    "NUL in a workgroup": ('{ workgroup(name: "\\u0000") { name } }', "BAD_INPUT", ["name"]),
    "NUL in after": ('{ channels(after: "\\u0000") { name } }', "BAD_INPUT", ["after"]),
    "NUL in after of workgroups": ('{ workgroups(after: "\\u0000") { name } }', "BAD_INPUT", ["after"]),
    "NUL in after of workers": ('{ workers(after: "\\u0000") { id } }', "BAD_INPUT", ["after"]),
    "filter by group": ('{ tasks(filter: {groupId: "x"}) { nodes { id } } }', "BAD_INPUT", ["filter", "groupId"]),
    "NUL in a filter": (
        '{ tasks(filter: {nameContains: "\\u0000"}) { nodes { id } } }',
        "BAD_INPUT",
        ["filter", "nameContains"],
    ),
    "NUL in filtered channels": (
        '{ tasks(filter: {channels: ["c", "\\u0000"]}) { nodes { id } } }',
        "BAD_INPUT",
        ["filter", "channels", 1],
    ),
    "NUL in a worker": (
        '{ tasks(filter: {workerId: "\\u0000"}) { nodes { id } } }',
        "BAD_INPUT",
        ["filter", "workerId"],
    ),
    "NUL in groups' filter": (
        '{ taskGroups(filter: {nameContains: "\\u0000"}) { nodes { id } } }',
        "BAD_INPUT",
        ["filter", "nameContains"],
    ),
    "year 9999 in a filter": (
        '{ tasks(filter: {createdAfter: "9999-12-31T23:59:59-10:00"}) { nodes { id } } }',
        "BAD_INPUT",
        ["filter", "createdAfter"],
    ),
    "suspension of a negative time": (
        'mutation { suspendWorkgroup(name: "w", seconds: -1) { workgroup { name } } }',
        "BAD_INPUT",
        ["seconds"],
    ),
    "endless suspension": (
        'mutation { suspendWorkgroup(name: "w", seconds: 1e300) { workgroup { name } } }',
        "BAD_INPUT",
        ["seconds"],
    ),
    "empty workgroup": (
        'mutation { suspendWorkgroup(name: "", seconds: 1) { workgroup { name } } }',
        "BAD_INPUT",
        ["name"],
    ),
    "NUL in the reason": (
        'mutation { suspendWorkgroup(name: "w", seconds: 1, reason: "\\u0000") { workgroup { name } } }',
        "BAD_INPUT",
        ["reason"],
    ),
    "unknown workgroup": ('mutation { resumeWorkgroup(name: "nobody") { workgroup { name } } }', "NOT_FOUND", ["name"]),
    "no ids to retry": ("mutation { retryTasks(ids: []) { affected } }", "BAD_INPUT", ["ids"]),
    "nothing to retry": ("mutation { retryTasks { affected } }", "BAD_INPUT", ["ids"]),
    "bad id to retry": (f'mutation {{ retryTasks(ids: ["{ID}", "x"]) {{ affected }} }}', "BAD_INPUT", ["ids", 1]),
    "no attempts": (f'mutation {{ retryTasks(ids: ["{ID}"], attempts: 0) {{ affected }} }}', "BAD_INPUT", ["attempts"]),
}


async def test_a_bad_argument_is_refused(crew: Crew, subtests: pytest.Subtests) -> None:
    for case in ARGUMENTS:
        with subtests.test(case):
            query, code, path = ARGUMENTS[case]
            with pytest.raises(Refused) as refused:
                await crew.ask(query)
            assert check(refused.value.errors) == {"code": code, "path": path}
            rows = await crew.sql(
                "select (select count(*) from workgroup)::int + (select count(*) from hold)::int as n"
            )
            assert rows[0]["n"] == 0


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("graph(limit: 1001) { truncated }", ["limit"]),
        ("graph(limit: -1) { truncated }", ["limit"]),
        ("tasks(first: 1001) { nodes { id } }", ["first"]),
        ('tasks(after: "x") { nodes { id } }', ["after"]),
        (f'tasks(filter: {{groupId: "{ID}"}}) {{ nodes {{ id }} }}', ["filter", "groupId"]),
    ],
)
async def test_a_bad_argument_inside_a_group_is_refused(crew: Crew, query: str, path: list[str]) -> None:
    group = (await crew.create(T))["taskGroup"]["id"]
    with pytest.raises(Refused) as refused:
        await crew.ask(f'{{ taskGroup(id: "{group}") {{ {query} }} }}')
    assert check(refused.value.errors) == {"code": "BAD_INPUT", "path": path}


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("errors(last: 101) { attempt }", ["last"]),
        ("errors(last: -1) { attempt }", ["last"]),
        ("parents(first: 1001) { id }", ["first"]),
        ("children(first: -1) { id }", ["first"]),
    ],
)
async def test_a_bad_argument_inside_a_task_is_refused(crew: Crew, query: str, path: list[str]) -> None:
    task = (await crew.create(T))["tasks"][0]["id"]
    with pytest.raises(Refused) as refused:
        await crew.ask(f'{{ task(id: "{task}") {{ {query} }} }}')
    assert check(refused.value.errors) == {"code": "BAD_INPUT", "path": path}


async def test_a_cursor_of_one_order_is_refused_in_another(crew: Crew) -> None:
    await crew.create(T, T)
    query = "{ tasks(first: 1, orderBy: %s%s) { pageInfo { endCursor } } }"
    cursor = (await crew.ask(query % ("CREATED_ASC", "")))["tasks"]["pageInfo"]["endCursor"]
    with pytest.raises(Refused) as refused:
        await crew.ask(query % ("PRIORITY_DESC", f', after: "{cursor}"'))
    assert check(refused.value.errors) == {"code": "BAD_INPUT", "path": ["after"]}


# -- the others are not hurt, the unexpected is masked ------------------------------------------------------------------


async def test_a_refused_field_does_not_take_the_answers_of_the_others(crew: Crew) -> None:
    answer = await crew.http.post(
        "/graphql",
        json={
            "query": "mutation { "
            'good: createTaskGroup(input: {name: "good"}) { taskGroup { name } } '
            'bad: createTaskGroup(input: {name: ""}) { taskGroup { name } } '
            'last: createTaskGroup(input: {name: "last"}) { taskGroup { name } } }'
        },
    )
    found = answer.json()
    assert found["data"] == {
        "good": {"taskGroup": {"name": "good"}},
        "bad": None,
        "last": {"taskGroup": {"name": "last"}},
    }
    assert [e["path"] for e in found["errors"]] == [["bad"]]


class Secret(Exception):
    """Something nobody foresaw."""


@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json"])
async def test_the_unexpected_is_masked_with_a_request_id(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, accept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def explode(*_: object, **__: object) -> None:
        raise Secret("password=hunter2 in select * from task")

    monkeypatch.setattr(schema.task, "read_tasks", explode)
    answer = await crew.http.post(
        "/graphql", json={"query": f'{{ task(id: "{uuid.uuid4()}") {{ id }} }}'}, headers={"accept": accept}
    )
    assert answer.status_code == 200
    assert "hunter2" not in answer.text
    assert "Secret" not in answer.text
    found = answer.json()
    assert found["data"] == {"task": None}
    (error,) = found["errors"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert re.fullmatch(r"[0-9a-f]{8,}", error["extensions"]["requestId"])
    assert error["extensions"]["requestId"] in error["message"]
    assert not LEAK.search(error["message"].replace("logged", ""))
    logged = capsys.readouterr().out
    assert error["extensions"]["requestId"] in logged


async def test_the_unexpected_in_a_mutation_is_masked_and_the_others_go_through(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object, **__: object) -> None:
        raise Secret("hunter2")

    await crew.create(T)
    monkeypatch.setattr(type(crew.services.dispatcher), "claim", explode)
    answer = await crew.send(
        "mutation($c: ClaimTasksInput!, $g: CreateTaskGroupInput!) { createTaskGroup(input: $g) { taskGroup { name } } "
        "claimTasks(input: $c) { leases { id } } }",
        c=C,
        g={"name": "g"},
    )
    assert "hunter2" not in answer.text
    found = answer.json()
    assert found["data"] == {"createTaskGroup": {"taskGroup": {"name": "g"}}, "claimTasks": None}
    assert found["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert found["errors"][0]["extensions"]["requestId"]


async def test_something_unexpected_in_one_call_leaves_the_server_well(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object, **__: object) -> None:
        raise Secret("hunter2")

    with monkeypatch.context() as patched:
        patched.setattr("resolvers.create.create_tasks", explode)
        with pytest.raises(Refused) as refused:
            await crew.create(T)
        assert refused.value.code == "INTERNAL"
    assert await counts(crew) == (0, 0, 0)
    assert len((await crew.create(T))["tasks"]) == 1


async def test_the_limit_of_a_json_field_is_the_servers_setting_everywhere(dsn: str) -> None:
    large = "x" * 3000
    async with crew_on(dsn, max_input_bytes=2048) as crew:
        for task in ({"input": large}, {"metadata": large}):
            with pytest.raises(Refused) as refused:
                await crew.create({"name": "a", **task})
            assert refused.value.code == "TOO_LARGE"
        with pytest.raises(Refused) as refused:
            await crew.create({"name": "a"}, metadata=large)
        assert refused.value.code == "TOO_LARGE"
        await crew.create({"name": "a", "input": "x" * 2000})
        (lease,) = await crew.claim()
        for more in ({"output": large}, {"children": [{"name": "b", "channel": "c", "input": large}]}):
            (error,) = (await crew.complete(lease, **more))["errors"]
            assert "2048" in error["message"]
        (error,) = (await crew.fail(lease, error=large))["errors"]
        assert error["code"] == "BAD_INPUT"
        assert (await crew.complete(lease))["completed"] == 1
