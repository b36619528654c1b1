"""What workers and readers may not ask for is refused with a code and a path; the others are not hurt, the unexpected is masked."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

import schema.task_list
from tests.support.crew import CLAIM, EXTEND, FAIL, Crew, Refused, crew_on
from tests.support.refusals import ID, LEAK, T, check, counts, post

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

    monkeypatch.setattr(schema.task_list, "read_tasks", explode)
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
