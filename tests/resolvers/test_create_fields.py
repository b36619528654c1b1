"""When a task may run, and what comes back of what it was given."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support.crew import CREATE, CREATE_TASKS, Crew
from tests.support.wait import end_delays

# -- when ---------------------------------------------------------------------------------------------------------------


async def now(crew: Crew) -> datetime:
    value: datetime = (await crew.sql("select now() as now"))[0]["now"]
    return value


async def test_a_delayed_task_is_scheduled_and_says_until_when(crew: Crew) -> None:
    before = await now(crew)
    made = await crew.create({"name": "a", "delaySeconds": 100})
    task = await crew.task(made["tasks"][0]["id"], "state notBefore runAfter heldBy readyAt")
    assert (task["state"], task["heldBy"], task["readyAt"]) == ("SCHEDULED", [], None)
    until = datetime.fromisoformat(task["notBefore"])
    assert before + timedelta(seconds=100) <= until <= await now(crew) + timedelta(seconds=100)
    assert await crew.claim() == []


async def test_a_task_with_a_time_of_its_own_is_scheduled_until_then(crew: Crew) -> None:
    at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=123456)
    made = await crew.create({"name": "a", "runAfter": at.isoformat()})
    task = await crew.task(made["tasks"][0]["id"], "state notBefore runAfter")
    assert task["state"] == "SCHEDULED"
    assert datetime.fromisoformat(task["runAfter"]) == at
    assert datetime.fromisoformat(task["notBefore"]) == at


async def test_run_after_may_come_in_any_offset(crew: Crew) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    for hours in (-12, 0, 5.5, 14):
        local = at.astimezone(timezone(timedelta(hours=hours)))
        made = await crew.create({"name": "a", "runAfter": local.isoformat()})
        task = await crew.task(made["tasks"][0]["id"], "runAfter")
        assert datetime.fromisoformat(task["runAfter"]) == at


@pytest.mark.parametrize("form", ["2031-01-31T09:30:00Z", "2031-01-31T09:30:00z", "2031-01-31t09:30:00.5+00:00"])
async def test_run_after_is_read_as_rfc_3339(crew: Crew, form: str) -> None:
    made = await crew.create({"name": "a", "runAfter": form})
    task = await crew.task(made["tasks"][0]["id"], "runAfter")
    assert datetime.fromisoformat(task["runAfter"]) == datetime.fromisoformat(form.upper())


async def test_a_time_that_is_past_makes_a_task_ready(crew: Crew) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    made = await crew.create({"name": "a", "runAfter": at.isoformat()})
    task = await crew.task(made["tasks"][0]["id"], "state notBefore runAfter")
    assert (task["state"], task["notBefore"]) == ("READY", None)
    assert datetime.fromisoformat(task["runAfter"]) == at


async def test_a_delay_of_nothing_makes_a_task_ready(crew: Crew) -> None:
    made = await crew.create({"name": "a", "delaySeconds": 0})
    assert made["tasks"][0]["state"] == "READY"


async def test_a_delay_that_ends_makes_a_task_ready(crew: Crew) -> None:
    made = await crew.create({"name": "a", "delaySeconds": 100})
    await end_delays(crew)
    task = await crew.task(made["tasks"][0]["id"], "state notBefore readyAt")
    assert (task["state"], task["notBefore"]) == ("READY", None)
    assert task["readyAt"] is not None
    assert len(await crew.claim()) == 1


async def test_a_blocked_task_with_a_delay_says_so_and_is_scheduled_when_its_parents_are_done(crew: Crew) -> None:
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}], "delaySeconds": 100})
    child = made["tasks"][1]["id"]
    task = await crew.task(child, "state notBefore")
    assert task["state"] == "BLOCKED"
    assert task["notBefore"] is not None
    await crew.complete(*await crew.claim())
    assert await crew.task(child, "state notBefore") == {"state": "SCHEDULED", "notBefore": task["notBefore"]}
    await end_delays(crew)
    assert len(await crew.claim()) == 1


async def test_a_blocked_task_whose_delay_has_ended_is_ready_with_its_parents(crew: Crew) -> None:
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}], "delaySeconds": 100})
    await crew.sql("update blocked set run_at = now() - interval '1 s'")
    await crew.complete(*await crew.claim())
    assert (await crew.task(made["tasks"][1]["id"]))["state"] == "READY"


# -- what comes back ----------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    0,
    -0.0,
    1.0,
    False,
    True,
    "",
    [],
    {},
    None,
    [None],
    {"": None},
    "null",
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
    1 << 53,
    (1 << 53) + 1,
    0.1,
    1e300,
    5e-324,
    -1.7976931348623157e308,
    "Grüße, 世界 🌍",
    "\u0001\u001f\u007f\u2028\u2029\ufeff\uffff",
    "\\u0000",
    'quotes " and \\ back',
    "e\u0301 and é",
    {"b": 1, "a": [1, {"c": [False, 0, "", None]}]},
    {"__proto__": 1, "a.b": 2, "$ref": "x"},
    [[[[[[[[[[1]]]]]]]]]],
    "x" * 100_000,
    list(range(1000)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: repr(v)[:40])
async def test_input_and_metadata_come_back_equal(crew: Crew, value: Any) -> None:
    made = await crew.create({"name": "a", "input": value, "metadata": value})
    id = made["tasks"][0]["id"]
    expected = json.dumps(value)
    task = await crew.task(id, "input metadata")
    assert json.dumps(task["input"]) == expected
    assert json.dumps(task["metadata"]) == expected
    (lease,) = await crew.claim()
    assert json.dumps(lease["task"]["input"]) == expected


def graphql_literal(value: Any) -> str | None:
    if isinstance(value, dict):
        if not all(k.isidentifier() for k in value):
            return None
        parts = {k: graphql_literal(v) for k, v in value.items()}
        if None in parts.values():
            return None
        return "{" + ", ".join(f"{k}: {v}" for k, v in parts.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(graphql_literal(v) or "null" for v in value) + "]"
    if isinstance(value, float) and (abs(value) > 1e100 or 0 < abs(value) < 1e-100):
        return None
    return json.dumps(value)


@pytest.mark.parametrize("value", [v for v in VALUES if graphql_literal(v) is not None], ids=lambda v: repr(v)[:40])
async def test_json_that_stands_in_the_document_comes_back_equal(crew: Crew, value: Any) -> None:
    literal = graphql_literal(value)
    made = await crew.ask(
        'mutation { createTaskGroup(input: {name: "g", tasks: [{name: "a", channel: "c", input: %s}]}) '
        "{ tasks { input } } }" % literal
    )
    assert json.dumps(made["createTaskGroup"]["tasks"][0]["input"]) == json.dumps(value)


async def test_metadata_of_a_group_comes_back_equal(crew: Crew) -> None:
    for value in (0, "", False, {"a": [1, None]}, "世界"):
        made = await crew.create(metadata=value)
        query = "query($id: ID!) { taskGroup(id: $id) { metadata } }"
        found = (await crew.ask(query, id=made["taskGroup"]["id"]))["taskGroup"]
        assert json.dumps(found["metadata"]) == json.dumps(value)


@pytest.mark.parametrize("text", ["ü", "世界", "🌍", "a\tb", " ", "a" * 255, "🌍" * 255, "'; drop table task; --"])
async def test_words_are_kept_to_the_character(crew: Crew, text: str) -> None:
    made = await crew.create({"name": text, "channel": text, "workgroup": text, "ref": text}, name=text)
    task = await crew.task(made["tasks"][0]["id"], "name channel workgroup group { name }")
    assert task == {"name": text, "channel": text, "workgroup": text, "group": {"name": text}}
    (lease,) = await crew.claim(channels=(text,), workerId=text)
    assert lease["task"]["channel"] == text
    assert (await crew.task(made["tasks"][0]["id"], "workerId"))["workerId"] == text


async def test_a_name_may_have_a_thousand_characters(crew: Crew) -> None:
    made = await crew.create({"name": "ä" * 1000}, name="b" * 1000)
    assert (await crew.task(made["tasks"][0]["id"], "name"))["name"] == "ä" * 1000


async def test_a_task_is_as_it_was_asked_for(crew: Crew) -> None:
    retry = {"maxAttempts": 7, "delaySeconds": 1.5, "backoff": 2.5, "maxDelaySeconds": 99.5}
    made = await crew.create(
        {"name": "a", "workgroup": "w", "priority": -7, "progressWeight": 9, "isSeed": True, "retry": retry}
    )
    fields = (
        "name channel workgroup state priority progressWeight isSeed attempt remainingAttempts progress progressMessage "
        "workerId leaseExpiresAt startedAt finishedAt output heldBy errors { attempt } "
        "retry { maxAttempts delaySeconds backoff maxDelaySeconds }"
    )
    assert await crew.task(made["tasks"][0]["id"], fields) == {
        "name": "a",
        "channel": "c",
        "workgroup": "w",
        "state": "READY",
        "priority": -7,
        "progressWeight": 9,
        "isSeed": True,
        "attempt": 0,
        "remainingAttempts": 7,
        "progress": None,
        "progressMessage": None,
        "workerId": None,
        "leaseExpiresAt": None,
        "startedAt": None,
        "finishedAt": None,
        "output": None,
        "heldBy": [],
        "errors": [],
        "retry": retry,
    }


async def test_part_of_a_retry_policy_leaves_the_rest_at_its_defaults(crew: Crew) -> None:
    made = await crew.create({"name": "a", "retry": {"backoff": 3}})
    task = await crew.task(made["tasks"][0]["id"], "retry { maxAttempts delaySeconds backoff maxDelaySeconds }")
    assert task["retry"] == {"maxAttempts": 5, "delaySeconds": 30, "backoff": 3, "maxDelaySeconds": 3600}


async def test_creation_answers_only_the_id_when_no_more_is_asked(crew: Crew) -> None:
    made = await crew.ask(
        "mutation($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } tasks { id } } }",
        input={"name": "g", "tasks": [{"name": "a", "channel": "c"}]},
    )
    (task,) = made["createTaskGroup"]["tasks"]
    assert (await crew.task(task["id"]))["name"] == "a"


@pytest.mark.parametrize(
    ("head", "query"),
    [("CreateTaskGroupInput", CREATE), ("CreateTasksInput", CREATE_TASKS)],
)
async def test_creation_through_the_executor_answers_as_the_compiled_one(crew: Crew, head: str, query: str) -> None:
    """A directive on a field sends a document the long way; what it makes is the same."""
    slow = query.replace("{ id name state }", "{ id name state @include(if: true) }")
    group = (await crew.create())["taskGroup"]["id"]
    answers = []
    for text in (query, slow):
        tasks = [
            {"name": "a", "channel": "c", "ref": "a", "input": {"x": [1, 2.5]}},
            {"name": "b", "channel": "c", "parents": [{"ref": "a"}], "retry": {"maxAttempts": 1}},
        ]
        given = {"tasks": tasks, **({"name": "g"} if head == "CreateTaskGroupInput" else {"groupId": group})}
        (payload,) = (await crew.ask(text, input=given)).values()
        shown = []
        for task in payload["tasks"]:
            shown.append({k: v for k, v in task.items() if k != "id"})
            shown.append(await crew.task(task["id"], "name state input remainingAttempts parents { name }"))
        answers.append(shown)
    assert answers[0] == answers[1]
