"""updateTask and updateTaskGroup: a field left out stays, null clears, and the task stands where it belongs."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import CANCEL, group, id_of, state, t, work
from tests.support.refusals import far
from tests.support.steering import fold, progress, reset, update
from tests.support.wait import end_delays

FIELDS = (
    "name channel workgroup key input priority runAfter retry { maxAttempts delaySeconds backoff maxDelaySeconds } "
    "timeoutSeconds progressWeight isSeed onParentFailure metadata"
)
FULL: dict[str, Any] = {
    "name": "t",
    "channel": "c",
    "workgroup": "w",
    "key": "k",
    "input": {"a": 1},
    "priority": 3,
    "runAfter": "2090-01-01T00:00:00+00:00",
    "retry": {"maxAttempts": 7, "delaySeconds": 1.5, "backoff": 2.0, "maxDelaySeconds": 9.0},
    "timeoutSeconds": 5.0,
    "progressWeight": 4,
    "isSeed": True,
    "onParentFailure": "RUN",
    "metadata": {"b": 2},
}
OTHER: dict[str, Any] = {
    "name": "other",
    "channel": "d",
    "workgroup": "v",
    "key": "l",
    "input": [0],
    "priority": -2,
    "runAfter": "2091-01-01T00:00:00+00:00",
    "retry": {"maxAttempts": 2, "delaySeconds": 0.0, "backoff": 1.5, "maxDelaySeconds": 8.0},
    "timeoutSeconds": 6.0,
    "progressWeight": 0,
    "isSeed": False,
    "onParentFailure": "CANCEL",
    "metadata": "m",
}
CLEARED: dict[str, Any] = {
    "workgroup": None,
    "key": None,
    "input": None,
    "priority": 0,
    "runAfter": None,
    "retry": {"maxAttempts": 5, "delaySeconds": 30.0, "backoff": 1.0, "maxDelaySeconds": 3600.0},
    "timeoutSeconds": None,
    "progressWeight": 1,
    "isSeed": False,
    "onParentFailure": "BLOCK",
    "metadata": None,
}


async def full(crew: Crew) -> str:
    id: str = (await crew.create(FULL))["tasks"][0]["id"]
    assert await crew.task(id, FIELDS) == FULL
    return id


@pytest.mark.parametrize("field", FULL)
async def test_a_field_that_is_sent_changes_and_no_other_does(crew: Crew, field: str) -> None:
    id = await full(crew)
    assert await update(crew, id, FIELDS, **{field: OTHER[field]}) == {**FULL, field: OTHER[field]}
    assert await crew.task(id, FIELDS) == {**FULL, field: OTHER[field]}


@pytest.mark.parametrize("field", CLEARED)
async def test_null_clears_to_what_a_new_task_has(crew: Crew, field: str) -> None:
    id = await full(crew)
    assert await update(crew, id, FIELDS, **{field: None}) == {**FULL, field: CLEARED[field]}


async def test_all_at_once_and_nothing_at_all(crew: Crew) -> None:
    id = await full(crew)
    assert await update(crew, id, FIELDS, **OTHER) == OTHER
    assert await update(crew, id, FIELDS) == OTHER
    assert await update(crew, id, FIELDS, **CLEARED) == {**OTHER, **CLEARED}


@pytest.mark.parametrize("field", ["maxAttempts", "delaySeconds", "backoff", "maxDelaySeconds"])
async def test_of_a_retry_policy_only_what_is_sent_changes(crew: Crew, field: str) -> None:
    id = await full(crew)
    changed = {**FULL["retry"], field: OTHER["retry"][field]}
    assert (await update(crew, id, FIELDS, retry={field: OTHER["retry"][field]}))["retry"] == changed
    cleared = {**FULL["retry"], field: CLEARED["retry"][field]}
    assert (await update(crew, id, FIELDS, retry={field: None}))["retry"] == cleared


@pytest.mark.parametrize("paused", [False, True])
async def test_a_ready_task_is_claimed_where_it_stands_now(crew: Crew, paused: bool) -> None:
    await group(crew, t("a"), t("b"), t("c"))
    if paused:
        await crew.ask("mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }", ids=[id_of("c")])
    assert await update(crew, id_of("c"), "state priority", priority=5) == {"state": "READY", "priority": 5}
    assert await update(crew, id_of("b"), channel="d") == {"state": "READY"}
    if paused:
        await crew.ask("mutation($ids: [ID!]!) { resumeTasks(ids: $ids) { affected } }", ids=[id_of("c")])
    assert [x["task"]["name"] for x in await crew.claim(9)] == ["c", "a"]
    assert [x["task"]["name"] for x in await crew.claim(9, channels=("d",))] == ["b"]


async def test_who_waits_for_a_channel_gets_what_is_moved_there(crew: Crew) -> None:
    import asyncio

    await group(crew, t("a"))
    waiting = asyncio.ensure_future(crew.claim(channels=("d",), waitSeconds=20))
    while crew.services.dispatcher.waiting == 0:
        await asyncio.sleep(0)
    await update(crew, id_of("a"), channel="d")
    async with asyncio.timeout(5):
        assert [x["task"]["name"] for x in await waiting] == ["a"]


@pytest.mark.parametrize("how", ["BLOCKED", "SCHEDULED", "READY", "FAILED", "SUCCEEDED"])
async def test_its_new_place_goes_with_it_whatever_it_waits_for(crew: Crew, how: str) -> None:
    above = [t("p", priority=9)] if how == "BLOCKED" else []
    more: dict[str, Any] = {"delaySeconds": 1000} if how == "SCHEDULED" else {}
    await group(crew, *above, t("x", *(["p"] if above else []), **more))
    if how in ("FAILED", "SUCCEEDED"):
        (lease,) = await crew.claim()
        await (crew.complete(lease) if how == "SUCCEEDED" else crew.fail(lease, discard=True))
    assert await update(crew, id_of("x"), channel="d", workgroup="w", priority=4, key="k") == {"state": how}
    counts = "counts { state count }"
    named = f'c: channel(name: "c") {{ {counts} }} d: channel(name: "d") {{ {counts} }} w: workgroup(name: "w") {{ {counts} }}'
    query = f"{{ {named} }}"
    for _ in range(2):
        shown = await crew.ask(query)
        assert shown["d"]["counts"] == shown["w"]["counts"] == [{"state": how, "count": 1}]
        assert shown["c"]["counts"] == ([{"state": "READY", "count": 1}] if how == "BLOCKED" else [])
        await fold(crew)
    if how == "BLOCKED":
        await work(crew)
    if how == "SCHEDULED":
        await end_delays(crew)
    if how == "FAILED":
        await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=[id_of("x")])
    if how == "SUCCEEDED":
        await reset(crew, id_of("x"))
    assert await crew.claim() == []
    assert [x["task"]["name"] for x in await crew.claim(channels=("d",))] == ["x"]
    assert await crew.sql("select from runner where key = 'k' and no is not null") != []


async def test_a_ready_task_that_may_not_run_yet_is_scheduled_and_back(crew: Crew) -> None:
    g = await group(crew, t("a"))
    assert await update(crew, id_of("a"), runAfter=far(hours=1)) == {"state": "SCHEDULED"}
    assert await progress(crew, g) == ({"SCHEDULED": 1}, 0)
    assert await crew.claim() == []
    assert await update(crew, id_of("a"), runAfter=far(hours=2)) == {"state": "SCHEDULED"}
    assert await update(crew, id_of("a"), "state notBefore", runAfter=None) == {"state": "READY", "notBefore": None}
    assert await progress(crew, g) == ({"READY": 1}, 0)
    assert len(await crew.claim()) == 1


async def test_a_time_that_is_past_is_at_once(crew: Crew) -> None:
    await group(crew, t("a", delaySeconds=1000))
    assert await update(crew, id_of("a"), runAfter=far(hours=-1)) == {"state": "READY"}


async def test_a_blocked_task_waits_for_its_time_too(crew: Crew) -> None:
    await group(crew, t("p"), t("a", "p"))
    assert await update(crew, id_of("a"), runAfter=far(hours=1)) == {"state": "BLOCKED"}
    await work(crew)
    assert await state(crew, "a") == "SCHEDULED"


async def test_a_back_off_holds_though_the_own_time_is_cleared(crew: Crew) -> None:
    await group(crew, t("a"))
    await crew.fail(*await crew.claim(), retryDelaySeconds=1000)
    assert await update(crew, id_of("a"), runAfter=None) == {"state": "SCHEDULED"}
    later = far(hours=3)
    assert (await update(crew, id_of("a"), "notBefore", runAfter=later))["notBefore"] == later
    # The back-off was over sooner than that time, and is forgotten with it.
    assert await update(crew, id_of("a"), runAfter=None) == {"state": "READY"}


@pytest.mark.parametrize("field", ["channel", "workgroup", "key", "runAfter"])
@pytest.mark.parametrize("how", ["RUNNING", "MERGED"])
async def test_what_its_lease_was_given_for_cannot_be_changed_while_it_runs(crew: Crew, field: str, how: str) -> None:
    await group(crew, t("a", key="k", priority=int(how == "RUNNING")), t("b", key="k"))
    await crew.claim()
    id = id_of("a" if how == "RUNNING" else "b")
    before = await crew.task(id, FIELDS)
    with pytest.raises(Refused) as refused:
        await update(crew, id, **{"name": "other", field: OTHER[field]})
    assert (refused.value.code, refused.value.path) == ("CONFLICT", ["input", field])
    assert how in refused.value.message
    assert await crew.task(id, FIELDS) == before
    assert (await crew.task(id))["state"] == how


async def test_all_else_can_be_changed_while_it_runs_and_counts_from_the_next_attempt(crew: Crew) -> None:
    g = await group(crew, t("a", retry={"maxAttempts": 3, "delaySeconds": 0}))
    (lease,) = await crew.claim()
    allowed = {k: v for k, v in OTHER.items() if k not in ("channel", "workgroup", "key", "runAfter")}
    allowed["retry"] = {**OTHER["retry"], "maxAttempts": 6}
    shown = await update(crew, id_of("a"), f"state remainingAttempts {FIELDS}", channel="c", **allowed)
    assert shown["state"] == "RUNNING"
    assert shown["remainingAttempts"] == 5
    assert shown["priority"] == -2
    await crew.fail(lease)
    assert await crew.states(g) == {"other": "READY"}
    await crew.create({"name": "first"})
    assert [x["task"]["name"] for x in await crew.claim(9)] == ["first", "other"]


@pytest.mark.parametrize(("to", "remaining"), [(8, 7), (5, 4), (1, 1)])
async def test_attempts_are_given_and_taken(crew: Crew, to: int, remaining: int) -> None:
    await group(crew, t("a", retry={"delaySeconds": 0}))
    await crew.fail(*await crew.claim())
    shown = await update(crew, id_of("a"), "remainingAttempts", retry={"maxAttempts": to})
    assert shown == {"remainingAttempts": remaining}


async def test_a_task_that_is_given_the_key_of_a_running_one_rides_with_it(crew: Crew) -> None:
    g = await group(crew, t("a", key="k"), t("b"), t("c", key="l"))
    (lease,) = await crew.claim()
    assert await update(crew, id_of("b"), key="k") == {"state": "MERGED"}
    assert await update(crew, id_of("c"), key="k") == {"state": "MERGED"}
    await crew.complete(lease, output=1)
    assert await crew.states(g) == {"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "SUCCEEDED"}


async def test_a_key_that_is_in_use_is_refused_to_a_task_that_rejects(crew: Crew) -> None:
    await group(crew, t("a", key="k"), t("b", key="l", onDuplicate="REJECT"))
    with pytest.raises(Refused) as refused:
        await update(crew, id_of("b"), key="k")
    assert (refused.value.code, refused.value.path) == ("DUPLICATE_KEY", ["input", "key"])
    assert (await crew.task(id_of("b"), "key"))["key"] == "l"
    assert (await update(crew, id_of("b"), "key", key="m"))["key"] == "m"
    await crew.create({"name": "new", "key": "l", "onDuplicate": "REJECT"})
    with pytest.raises(Refused) as refused:
        await crew.create({"name": "new", "key": "m", "onDuplicate": "REJECT"})
    assert refused.value.code == "DUPLICATE_KEY"


@pytest.mark.parametrize(("to", "after"), [("RUN", "READY"), ("CANCEL", "CANCELLED"), ("BLOCK", "BLOCKED")])
async def test_a_blocked_task_goes_by_its_new_policy_at_once(crew: Crew, to: str, after: str) -> None:
    g = await group(crew, t("p"), t("a", "p"), t("below", "a"))
    await crew.fail(*await crew.claim(), discard=True)
    await update(crew, id_of("a"), onParentFailure=to)
    assert await crew.states(g) == {"p": "FAILED", "a": after, "below": "BLOCKED"}


async def test_a_ready_task_that_ran_however_its_parents_ended_waits_when_it_is_told_to(crew: Crew) -> None:
    await group(crew, t("p"), t("a", "p", onParentFailure="RUN"))
    await crew.fail(*await crew.claim(), discard=True)
    assert await state(crew, "a") == "READY"
    assert await update(crew, id_of("a"), onParentFailure="BLOCK") == {"state": "BLOCKED"}
    await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=[id_of("p")])
    assert list(await work(crew)) == ["p", "a"]


@pytest.mark.parametrize("folded", [True, False])
async def test_another_weight_counts_in_the_progress(crew: Crew, folded: bool) -> None:
    g = await group(crew, t("a"), t("b"), t("c", progressWeight=5))
    await work(crew, limit=1)
    if folded:
        await fold(crew)
    await update(crew, id_of("a"), progressWeight=3)
    assert await progress(crew, g) == ({"SUCCEEDED": 1, "READY": 2}, pytest.approx(3 / 9))
    await update(crew, id_of("c"), progressWeight=1)
    assert await progress(crew, g) == ({"SUCCEEDED": 1, "READY": 2}, pytest.approx(3 / 5))
    await fold(crew)
    assert await progress(crew, g) == ({"SUCCEEDED": 1, "READY": 2}, pytest.approx(3 / 5))
    await work(crew)
    assert await progress(crew, g) == ({"SUCCEEDED": 3}, 1)


async def test_a_cancelled_task_can_be_changed_and_begins_again_so(crew: Crew) -> None:
    await group(crew, t("a"))
    await crew.ask(CANCEL, ids=[id_of("a")])
    assert await update(crew, id_of("a"), channel="d", runAfter=far(hours=1)) == {"state": "CANCELLED"}
    assert await reset(crew, id_of("a")) == {"a": "SCHEDULED"}


async def test_each_change_is_an_event_and_no_change_is_none(crew: Crew) -> None:
    g = await group(crew, t("a"))
    (no,) = [r["no"] for r in await crew.sql("select no from task")]
    (last,) = [r["seq"] for r in await crew.sql("select max(seq) as seq from event")]
    await update(crew, id_of("a"))
    await update(crew, id_of("a"), name="b")
    await update(crew, id_of("a"), runAfter=far(hours=1))
    await update_group(crew, g)
    await update_group(crew, g, name="h")
    events = await crew.sql("select kind, was, state, nos from event where seq > $1 order by seq", last)
    assert [tuple(e) for e in events] == [(14, 2, 2, [no]), (14, 2, 1, [no]), (19, None, None, [])]


UPDATE_GROUP = (
    "mutation($input: UpdateTaskGroupInput!) { updateTaskGroup(input: $input) { taskGroup { name metadata } } }"
)


async def update_group(crew: Crew, id: str, **changes: Any) -> dict[str, Any]:
    return dict((await crew.ask(UPDATE_GROUP, input={"id": id, **changes}))["updateTaskGroup"]["taskGroup"])


async def test_a_group_changes_in_what_is_sent(crew: Crew) -> None:
    g = (await crew.create(name="g", metadata={"a": 1}))["taskGroup"]["id"]
    assert await update_group(crew, g) == {"name": "g", "metadata": {"a": 1}}
    assert await update_group(crew, g, name="h") == {"name": "h", "metadata": {"a": 1}}
    assert await update_group(crew, g, metadata=0) == {"name": "h", "metadata": 0}
    assert await update_group(crew, g, metadata=None) == {"name": "h", "metadata": None}


REFUSED: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"name": None}, "BAD_INPUT", ["name"]),
    ({"name": ""}, "BAD_INPUT", ["name"]),
    ({"name": "n" * 1001}, "BAD_INPUT", ["name"]),
    ({"channel": None}, "BAD_INPUT", ["channel"]),
    ({"channel": "a\0b"}, "BAD_INPUT", ["channel"]),
    ({"workgroup": ""}, "BAD_INPUT", ["workgroup"]),
    ({"key": ""}, "BAD_INPUT", ["key"]),
    ({"input": {"a": "\0"}}, "BAD_INPUT", ["input", "a"]),
    ({"input": "x" * ((1 << 20) + 1)}, "TOO_LARGE", ["input"]),
    ({"metadata": 10**30}, "BAD_INPUT", ["metadata"]),
    ({"priority": -(1 << 31)}, "BAD_INPUT", ["priority"]),
    ({"runAfter": "2031-01-31T09:30:00"}, "BAD_INPUT", ["runAfter"]),
    ({"runAfter": "9999-12-31T23:59:59Z"}, "BAD_INPUT", ["runAfter"]),
    ({"retry": {"maxAttempts": 0}}, "BAD_INPUT", ["retry", "maxAttempts"]),
    ({"retry": {"delaySeconds": -1}}, "BAD_INPUT", ["retry", "delaySeconds"]),
    ({"retry": {"backoff": 0}}, "BAD_INPUT", ["retry", "backoff"]),
    ({"retry": {"maxDelaySeconds": 1e18}}, "BAD_INPUT", ["retry", "maxDelaySeconds"]),
    ({"timeoutSeconds": 0}, "BAD_INPUT", ["timeoutSeconds"]),
    ({"progressWeight": -1}, "BAD_INPUT", ["progressWeight"]),
    ({"onParentFailure": "NEVER"}, "BAD_INPUT", ["onParentFailure"]),
    ({"id": "x"}, "BAD_INPUT", ["id"]),
    ({"id": id_of("nobody")}, "NOT_FOUND", ["id"]),
]


@pytest.mark.parametrize(("changes", "code", "path"), REFUSED, ids=[str(c)[:40] for c, _, _ in REFUSED])
async def test_what_cannot_be_taken_is_refused_and_nothing_changes(
    crew: Crew, changes: dict[str, Any], code: str, path: list[str]
) -> None:
    id = await full(crew)
    with pytest.raises(Refused) as refused:
        await crew.ask(
            "mutation($input: UpdateTaskInput!) { updateTask(input: $input) { task { id } } }",
            input={"id": id, "isSeed": False, **changes},
        )
    assert (refused.value.code, refused.value.path) == (code, ["input", *path])
    assert await crew.task(id, FIELDS) == FULL


async def test_what_cannot_be_taken_of_a_group_is_refused(crew: Crew) -> None:
    g = (await crew.create(name="g"))["taskGroup"]["id"]
    for id, changes, code, path in (
        (g, {"name": None}, "BAD_INPUT", ["input", "name"]),
        (g, {"name": ""}, "BAD_INPUT", ["input", "name"]),
        (g, {"metadata": "\0"}, "BAD_INPUT", ["input", "metadata"]),
        (str(uuid.uuid4()), {"name": "h"}, "NOT_FOUND", ["input", "id"]),
        (str(uuid.uuid4()), {}, "NOT_FOUND", ["input", "id"]),
        ("x", {}, "BAD_INPUT", ["input", "id"]),
    ):
        with pytest.raises(Refused) as refused:
            await update_group(crew, id, **changes)
        assert (refused.value.code, refused.value.path) == (code, path)
