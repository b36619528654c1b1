"""An explicit null means the default, in every input and argument that has one; and so does leaving it out."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType, build_schema, print_ast

from schema.root import sdl
from tests.support.crew import CLAIM, EXTEND, FAIL, Crew, Refused
from tests.support.streams import pushed

Given = dict[str, Any]
RETRY = "retry { maxAttempts delaySeconds backoff maxDelaySeconds }"


async def new_task(crew: Crew, given: Given, fields: str) -> dict[str, Any]:
    made = await crew.create({"name": "t", **given})
    return await crew.task(made["tasks"][0]["id"], fields)


async def retry(crew: Crew, given: Given) -> Any:
    return (await new_task(crew, {"retry": given}, RETRY))["retry"]


async def task_field(crew: Crew, given: Given, field: str) -> Any:
    return (await new_task(crew, given, field))[field]


async def claimed(crew: Crew, given: Given) -> list[Any]:
    await crew.create({"name": "a"}, {"name": "b"})
    wanted = {"workerId": "w", "channels": ["c"], **given}
    leases = (await crew.ask(CLAIM, input=wanted))["claimTasks"]["leases"]
    now = (await crew.sql("select now() as now"))[0]["now"]
    return [round((datetime.fromisoformat(x["expiresAt"]) - now).total_seconds(), -1) for x in leases]


async def wait_seconds(crew: Crew, given: Given) -> Any:
    wanted = {"workerId": "w", "channels": ["c"], **given}
    return (await crew.ask(CLAIM, input=wanted))["claimTasks"]["leases"]


async def failed(crew: Crew, given: Given) -> tuple[str, int]:
    await crew.create({"name": "a"})
    (lease,) = await crew.claim()
    answer = await crew.ask(FAIL, input={"failures": [{"lease": lease["id"], "error": "no", **given}]})
    (task,) = answer["failTasks"]["tasks"]
    return task["state"], task["remainingAttempts"]


async def extended(crew: Crew, given: Given) -> float:
    await crew.create({"name": "a"})
    (lease,) = await crew.claim(leaseSeconds=1)
    answer = await crew.ask(EXTEND, input={"leases": [lease["id"]], **given})
    now = (await crew.sql("select now() as now"))[0]["now"]
    until = datetime.fromisoformat(answer["extendLeases"]["expiresAt"])
    return round((until - now).total_seconds(), -1)


async def pushed_leases(crew: Crew, given: Given) -> list[float]:
    """The seconds, after it is confirmed, of each lease that comes."""
    await crew.create({"name": "a"}, {"name": "b"})
    async with pushed(crew, **given) as reader:
        await reader.next()
        leases = (await reader.next())["leases"]
        ids = [lease["id"] for lease in leases]
        async with pushed(crew, "w", holding=ids, **given) as again:
            await again.next()
            rows = await crew.sql("select extract(epoch from until - now())::float8 as left from lease")
            return [round(row["left"], -1) for row in rows]


async def duplicate(crew: Crew, given: Given) -> str:
    await crew.create({"name": "a", "key": "k"}, {"name": "b", "key": "k", **given})
    (lease,) = await crew.claim()
    (b,) = (await crew.ask('{ tasks(filter: {nameContains: "b"}) { nodes { state } } }'))["tasks"]["nodes"]
    assert lease["task"]["name"] == "a"
    return b["state"]


async def link(crew: Crew, given: Given) -> Any:
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a", **given}]})
    query = "query($id: ID!) { taskGroup(id: $id) { graph { edges { waitFor } } } }"
    return (await crew.ask(query, id=made["taskGroup"]["id"]))["taskGroup"]["graph"]["edges"]


async def born_paused(crew: Crew, given: Given) -> bool:
    made = await crew.create({"name": "a"}, **given)
    query = "query($id: ID!) { taskGroup(id: $id) { isPaused } }"
    return (await crew.ask(query, id=made["taskGroup"]["id"]))["taskGroup"]["isPaused"]


async def schedule(crew: Crew, given: Given) -> Given:
    query = "mutation($input: ScheduleInput!) { createSchedule(input: $input) { schedule { timeZone isPaused catchUp overlap } } }"
    made = await crew.ask(query, input={"name": "s", "cron": "0 0 * * *", "group": {"name": "g"}, **given})
    return made["createSchedule"]["schedule"]


async def operator(crew: Crew, given: Given) -> Given:
    query = "mutation($input: OperatorInput!) { createOperator(input: $input) { operator { isPaused maxRunning timeoutSeconds } } }"
    made = await crew.ask(query, input={"channel": "nobody", "url": "https://hooks.example/", **given})
    return made["createOperator"]["operator"]


OPERATOR = {"isPaused": False, "maxRunning": 10, "timeoutSeconds": 60}
SCHEDULE = {"timeZone": "UTC", "isPaused": False, "catchUp": "ONE", "overlap": "ALLOW"}
INPUTS: dict[str, tuple[Callable[[Crew, Given], Awaitable[Any]], str, Any]] = {
    "RetryInput.maxAttempts": (
        retry,
        "maxAttempts",
        {"maxAttempts": 5, "delaySeconds": 30, "backoff": 1, "maxDelaySeconds": 3600},
    ),
    "RetryInput.delaySeconds": (
        retry,
        "delaySeconds",
        {"maxAttempts": 5, "delaySeconds": 30, "backoff": 1, "maxDelaySeconds": 3600},
    ),
    "RetryInput.backoff": (
        retry,
        "backoff",
        {"maxAttempts": 5, "delaySeconds": 30, "backoff": 1, "maxDelaySeconds": 3600},
    ),
    "RetryInput.maxDelaySeconds": (
        retry,
        "maxDelaySeconds",
        {"maxAttempts": 5, "delaySeconds": 30, "backoff": 1, "maxDelaySeconds": 3600},
    ),
    "NewTask.priority": (lambda crew, given: task_field(crew, given, "priority"), "priority", 0),
    "NewTask.progressWeight": (lambda crew, given: task_field(crew, given, "progressWeight"), "progressWeight", 1),
    "NewTask.isSeed": (lambda crew, given: task_field(crew, given, "isSeed"), "isSeed", False),
    "NewTask.onDuplicate": (duplicate, "onDuplicate", "MERGED"),
    "NewTask.onParentFailure": (
        lambda crew, given: task_field(crew, given, "onParentFailure"),
        "onParentFailure",
        "BLOCK",
    ),
    "ParentInput.waitFor": (link, "waitFor", [{"waitFor": "TASK"}]),
    "CreateTaskGroupInput.isPaused": (born_paused, "isPaused", False),
    "ClaimTasksInput.limit": (claimed, "limit", [60]),
    "ClaimTasksInput.leaseSeconds": (claimed, "leaseSeconds", [60]),
    "ClaimTasksInput.waitSeconds": (wait_seconds, "waitSeconds", []),
    "ClaimedTasksInput.limit": (pushed_leases, "limit", [60]),
    "ClaimedTasksInput.leaseSeconds": (pushed_leases, "leaseSeconds", [60]),
    "FailTaskInput.keepAttempt": (failed, "keepAttempt", ("SCHEDULED", 4)),
    "FailTaskInput.discard": (failed, "discard", ("SCHEDULED", 4)),
    "ExtendLeasesInput.leaseSeconds": (extended, "leaseSeconds", 60),
    "ScheduleInput.timeZone": (schedule, "timeZone", SCHEDULE),
    "ScheduleInput.isPaused": (schedule, "isPaused", SCHEDULE),
    "ScheduleInput.catchUp": (schedule, "catchUp", SCHEDULE),
    "ScheduleInput.overlap": (schedule, "overlap", SCHEDULE),
    "OperatorInput.isPaused": (operator, "isPaused", OPERATOR),
    "OperatorInput.maxRunning": (operator, "maxRunning", OPERATOR),
    "OperatorInput.timeoutSeconds": (operator, "timeoutSeconds", OPERATOR),
}
"""How the default of each field shows: an action, the field, and what comes of the default."""


def has_default(given: Any) -> bool:
    return given.default is not None and print_ast(given.default.literal) != "null"


def fields_with_a_default() -> set[str]:
    return {
        f"{kind.name}.{name}"
        for kind in build_schema(sdl()).type_map.values()
        if isinstance(kind, GraphQLInputObjectType)
        for name, given in kind.fields.items()
        if has_default(given)
    }


def test_every_default_of_an_input_is_tested_here() -> None:
    assert INPUTS.keys() == fields_with_a_default()


@pytest.mark.parametrize("name", INPUTS)
async def test_null_in_an_input_means_the_default(crew: Crew, name: str) -> None:
    act, field, expected = INPUTS[name]
    assert await act(crew, {field: None}) == expected


@pytest.mark.parametrize("name", INPUTS)
async def test_a_field_left_out_of_an_input_means_the_default(crew: Crew, name: str) -> None:
    act, _, expected = INPUTS[name]
    assert await act(crew, {}) == expected


@pytest.mark.parametrize(
    "field",
    ["id", "ref", "parents", "workgroup", "input", "runAfter", "delaySeconds", "retry", "metadata"],
)
async def test_null_for_what_has_no_default_is_as_if_left_out(crew: Crew, field: str) -> None:
    fields = f"state workgroup input runAfter notBefore metadata parentCount {RETRY}"
    assert await new_task(crew, {field: None}, fields) == await new_task(crew, {}, fields)


async def test_null_for_the_fields_of_a_group_is_as_if_left_out(crew: Crew) -> None:
    made = await crew.create(id=None, metadata=None)
    query = "query($id: ID!) { taskGroup(id: $id) { name metadata progress { total } } }"
    group = (await crew.ask(query, id=made["taskGroup"]["id"]))["taskGroup"]
    assert group == {"name": "g", "metadata": None, "progress": {"total": 0}}


async def test_null_for_the_tasks_of_a_group_is_none(crew: Crew) -> None:
    answer = await crew.ask('mutation { createTaskGroup(input: {name: "g", tasks: null}) { tasks { id } } }')
    assert answer["createTaskGroup"]["tasks"] == []


async def test_null_for_the_optional_fields_of_a_completion_is_as_if_left_out(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "g"})
    (lease,) = await crew.claim()
    done = await crew.complete(lease, output=None, children=None, childrenDelaySeconds=None, workgroupDelaySeconds=None)
    assert done["completed"] == 1
    assert done["errors"] == []


async def test_null_for_the_delays_of_a_failure_is_as_if_left_out(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "g", "retry": {"delaySeconds": 0}})
    (lease,) = await crew.claim()
    done = await crew.fail(lease, retryDelaySeconds=None, workgroupDelaySeconds=None)
    assert [t["state"] for t in done["tasks"]] == ["READY"]


ARGUMENTS = {
    "Query.tasks(orderBy)": ("{{ tasks{0} {{ nodes {{ name }} }} }}", "orderBy: null"),
    "Query.tasks(first)": ("{{ tasks{0} {{ nodes {{ name }} }} }}", "first: null"),
    "Query.taskGroups(orderBy)": ("{{ taskGroups{0} {{ nodes {{ name }} }} }}", "orderBy: null"),
    "Query.taskGroups(first)": ("{{ taskGroups{0} {{ nodes {{ name }} }} }}", "first: null"),
    "Query.channels(first)": ("{{ channels{0} {{ name }} }}", "first: null"),
    "Query.workgroups(suspendedOnly)": ("{{ workgroups{0} {{ name }} }}", "suspendedOnly: null"),
    "Query.workgroups(first)": ("{{ workgroups{0} {{ name }} }}", "first: null"),
    "Query.workers(aliveOnly)": ("{{ workers{0} {{ id }} }}", "aliveOnly: null"),
    "Query.workers(first)": ("{{ workers{0} {{ id }} }}", "first: null"),
    "Query.taskEvents(limit)": ("{{ taskEvents{0} {{ events {{ kind }} }} }}", "limit: null"),
    "Query.taskEvents(waitSeconds)": ("{{ taskEvents{0} {{ events {{ kind }} }} }}", "waitSeconds: null"),
    "Query.throughput(seconds)": ("{{ throughput{0} {{ failed }} }}", "seconds: null"),
    "Query.throughput(buckets)": ("{{ throughput{0} {{ failed }} }}", "buckets: null"),
    "Task.errors(last)": ('{{ task(id: "{1}") {{ errors{0} {{ error }} }} }}', "last: null"),
    "Task.parents(first)": ('{{ task(id: "{1}") {{ parents{0} {{ name }} }} }}', "first: null"),
    "Task.children(first)": ('{{ task(id: "{1}") {{ children{0} {{ name }} }} }}', "first: null"),
    "TaskGroup.tasks(orderBy)": ('{{ taskGroup(id: "{2}") {{ tasks{0} {{ nodes {{ name }} }} }} }}', "orderBy: null"),
    "TaskGroup.tasks(first)": ('{{ taskGroup(id: "{2}") {{ tasks{0} {{ nodes {{ name }} }} }} }}', "first: null"),
    "TaskGroup.graph(limit)": ('{{ taskGroup(id: "{2}") {{ graph{0} {{ nodes {{ name }} }} }} }}', "limit: null"),
}
ELSEWHERE = {
    "Lease.parents(first)",
    "Mutation.retryTasks(attempts)",
    "Mutation.cancelTasks(descendants)",
    "Mutation.retryTaskGroup(attempts)",
    "Mutation.deleteExpiredTaskGroups(unfinished)",
    "Schedule.nextTimes(first)",
}


def test_every_default_of_an_argument_is_tested_here() -> None:
    found = {
        f"{kind.name}.{name}({argument})"
        for kind in build_schema(sdl()).type_map.values()
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__")
        for name, field in kind.fields.items()
        for argument, given in field.args.items()
        if has_default(given)
    }
    assert ARGUMENTS.keys() | ELSEWHERE == found


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_null_for_an_argument_means_the_default(crew: Crew, name: str) -> None:
    await crew.create({"name": "b0", "workgroup": "v"}, name="h")
    made = await crew.create(
        {"name": "a1", "ref": "a", "workgroup": "w", "retry": {"delaySeconds": 0}, "priority": 5},
        {"name": "a2", "parents": [{"ref": "a"}], "channel": "d"},
    )
    for error in ("one", "two"):
        await crew.fail(*await crew.claim(), error=error)
    template, null = ARGUMENTS[name]
    task_id, group_id = made["tasks"][0]["id"], made["taskGroup"]["id"]
    plain = await crew.ask(template.format("", task_id, group_id))
    assert await crew.ask(template.format(f"({null})", task_id, group_id)) == plain
    assert str(plain) != str({})


async def test_null_for_the_attempts_of_a_retry_means_two(crew: Crew) -> None:
    made = await crew.create({"name": "a"})
    await crew.fail(*await crew.claim(), discard=True)
    answer = await crew.ask(
        "mutation($ids: [ID!], $n: Int) { retryTasks(ids: $ids, attempts: $n) { tasks { remainingAttempts } } }",
        ids=[made["tasks"][0]["id"]],
        n=None,
    )
    assert answer["retryTasks"]["tasks"] == [{"remainingAttempts": 2}]


async def test_null_for_the_descendants_of_a_cancel_means_none(crew: Crew) -> None:
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}]})
    answer = await crew.ask(
        "mutation($ids: [ID!], $d: Boolean) { cancelTasks(ids: $ids, descendants: $d) { affected } }",
        ids=[made["tasks"][0]["id"]],
        d=None,
    )
    assert answer["cancelTasks"] == {"affected": 1}
    assert await crew.states(made["taskGroup"]["id"]) == {"a": "CANCELLED", "b": "BLOCKED"}


async def test_null_for_how_many_parents_of_a_lease_means_the_default(crew: Crew) -> None:
    await crew.create({"name": "p", "ref": "p"}, {"name": "a", "parents": [{"ref": "p"}]})
    await crew.complete(*await crew.claim())
    answer = await crew.ask(
        'mutation { claimTasks(input: {workerId: "w", channels: ["c"]}) { leases { parents(first: null) { name } } } }'
    )
    assert answer["claimTasks"]["leases"] == [{"parents": [{"name": "p"}]}]


async def test_null_for_what_is_required_is_refused(crew: Crew) -> None:
    for field in ("name", "channel"):
        with pytest.raises(Refused) as refused:
            await crew.create({"name": "a", "id": str(uuid.uuid4()), field: None})
        assert refused.value.code == "BAD_INPUT"
        assert refused.value.path[:3] == ["input", "tasks", 0]
    assert (await crew.sql("select count(*)::int as n from task_group"))[0]["n"] == 0
