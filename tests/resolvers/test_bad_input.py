"""New tasks and groups that cannot be taken are refused with a code, the path of the bad field and a message; nothing is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.crew import CREATE, CREATE_TASKS, Crew, Refused
from tests.support.refusals import ID, LEAK, OTHER, T, body, check, counts, far, post, retry

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
