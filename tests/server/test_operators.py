"""Operators: channels delivered by HTTP POST to a stub; what it answers, and what becomes of the task."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from server.delivery.signing import signed
from tests.support.crew import Crew, crew_on
from tests.support.stub import Cut, Received, Stub, reply, stub
from tests.support.wait import move_clock, until

CREATE = (
    "mutation($input: OperatorInput!) { createOperator(input: $input) { operator { id channel url headerNames isPaused "
    "maxRunning timeoutSeconds createdAt } signingSecret } }"
)
UPDATE = (
    "mutation($input: UpdateOperatorInput!) { updateOperator(input: $input) "
    "{ operator { id url headerNames isPaused maxRunning timeoutSeconds } signingSecret } }"
)
DELETE = "mutation($id: ID!) { deleteOperator(id: $id) { id } }"
TASK = "state output attempt remainingAttempts workerId errors { error workerId }"
KEY = "a key for these tests"


@pytest.fixture
async def operator() -> AsyncIterator[Stub]:
    async with stub() as made:
        yield made


@pytest.fixture
async def crew(dsn: str) -> AsyncIterator[Crew]:
    async with crew_on(dsn, operator_private_targets=True, secret_key=KEY) as crew:
        yield crew


async def create(crew: Crew, operator: Stub, **more: Any) -> dict[str, Any]:
    return (await crew.ask(CREATE, input={"channel": "c", "url": operator.url, **more}))["createOperator"]


async def update(crew: Crew, made: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {"id": made["operator"]["id"], **more}
    return (await crew.ask(UPDATE, input=given))["updateOperator"]["operator"]


async def one_task(crew: Crew, **more: Any) -> str:
    made = await crew.create({"name": "a", "retry": {"delaySeconds": 3600}, **more})
    return made["tasks"][0]["id"]


async def ended(crew: Crew, id: str, state: str = "SUCCEEDED") -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        task = await crew.task(id, TASK)
        return task if task["state"] == state else None

    return await until(look)


async def failed(crew: Crew, id: str) -> Any:
    """What the first attempt is said to have failed of."""

    async def look() -> list[Any]:
        return (await crew.task(id, TASK))["errors"]

    return (await until(look))[0]["error"]


# ---------------------------------------------------------------- what is delivered


async def test_a_task_is_delivered_and_ends_by_the_answer(crew: Crew, operator: Stub):
    made = await create(crew, operator)
    group = await crew.create({"name": "a", "channel": "d", "input": 0, "ref": "a"}, name="the group")
    first = group["tasks"][0]["id"]
    (child,) = await crew.create_tasks(
        group["taskGroup"]["id"], {"name": "b", "input": {"x": ""}, "parents": [{"id": first}]}
    )
    operator.replies.append(reply(body={"output": False}))
    await crew.complete((await crew.claim(channels=("d",)))[0], output={"y": None})
    task = await ended(crew, child["id"])
    assert (task["output"], task["attempt"]) == (False, 1)
    assert task["workerId"] == f"operator {made['operator']['id']}"
    (got,) = operator.received
    assert (got.method, got.path, got.headers["content-type"]) == ("POST", "/hook", "application/json")
    assert got.body == {
        "taskId": child["id"],
        "groupId": group["taskGroup"]["id"],
        "name": "b",
        "channel": "c",
        "attempt": 1,
        "input": {"x": ""},
        "parents": [
            {"taskId": first, "name": "a", "channel": "d", "state": "SUCCEEDED", "input": 0, "output": {"y": None}}
        ],
    }


async def test_a_delivery_is_signed_as_standard_webhooks_says(crew: Crew, operator: Stub):
    made = await create(crew, operator)
    id = await one_task(crew)
    await ended(crew, id)
    (got,) = operator.received
    secret = made["signingSecret"]
    assert secret.startswith("whsec_")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert len(key) == 32
    at = int(got.headers["webhook-timestamp"])
    assert abs(at - datetime.now(UTC).timestamp()) < 60
    assert got.headers["webhook-id"] == f"{id}.1"
    assert got.headers["webhook-signature"] == signed(key, f"{id}.1", at, got.raw)


def test_the_signature_is_that_of_the_specification():
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = signed(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_headers_are_sent(crew: Crew, operator: Stub):
    made = await create(crew, operator, headers={"Authorization": "Bearer s3cret", "X-One": ""})
    assert made["operator"]["headerNames"] == ["Authorization", "X-One"]
    await ended(crew, await one_task(crew))
    assert (operator.received[0].headers["authorization"], operator.received[0].headers["x-one"]) == (
        "Bearer s3cret",
        "",
    )
    assert (await update(crew, made, headers=None))["headerNames"] == []
    await ended(crew, await one_task(crew))
    assert "authorization" not in operator.received[1].headers


async def test_an_operator_is_a_worker_over_webhook(crew: Crew, operator: Stub):
    made = await create(crew, operator)
    await ended(crew, await one_task(crew))
    await crew.services.write_down_workers()
    workers = (await crew.ask("{ workers { id channels transport } }"))["workers"]
    assert workers == [
        {"id": f"operator {made['operator']['id']}", "channels": ["c"], "transport": "webhook"},
    ]


async def test_children_and_delays_of_an_answer(crew: Crew, operator: Stub):
    await create(crew, operator)
    children = [
        {"ref": "x", "name": "x", "channel": "d", "input": [0], "retry": {"maxAttempts": 2}},
        {"name": "y", "channel": "d", "parents": [{"ref": "x"}], "onParentFailure": "RUN"},
    ]
    answer = {"output": 1, "children": children, "childrenDelaySeconds": 60, "workgroupDelaySeconds": 50.5}
    operator.replies.append(reply(201, answer))
    made = await crew.create({"name": "a", "workgroup": "g"})
    await ended(crew, made["tasks"][0]["id"])
    assert await crew.states(made["taskGroup"]["id"]) == {"a": "SUCCEEDED", "x": "SCHEDULED", "y": "BLOCKED"}
    (hold,) = await crew.sql("select extract(epoch from until - now())::int as s from hold")
    assert 40 <= hold["s"] <= 51


# ---------------------------------------------------------------- what is no success


@pytest.mark.parametrize("error", ["no", "", 0, False, {"code": 1}])
async def test_that_error_is_there_is_failure_whatever_it_is(crew: Crew, operator: Stub, error: Any):
    await create(crew, operator)
    operator.replies.append(reply(body={"output": 1, "error": error}))
    id = await one_task(crew)
    assert await failed(crew, id) == error
    task = await crew.task(id, TASK)
    assert (task["state"], task["remainingAttempts"], task["output"]) == ("SCHEDULED", 4, None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(204, b"", ""), "answered 204 No Content without a body"),
        (reply(200, b" \n", "application/json"), "answered 200 OK without a body"),
        (
            reply(200, b"<h1>Log in</h1>", "text/html; charset=utf-8"),
            "answered 200 OK with text/html, not JSON: <h1>Log in</h1>",
        ),
        (reply(200, b'{"output": 1', "application/json"), 'answered 200 OK with a body that is not JSON: {"output": 1'),
        (reply(200, b"\xff\xfe", ""), "answered 200 OK with a body that is not JSON"),
        (reply(200, b"[1]"), "with JSON that is not an object"),
        (reply(200, b"null"), "with JSON that is not an object"),
        (reply(404, b"no such\n\n  page", "text/plain"), "answered 404 Not Found: no such page"),
        (reply(500, b"", ""), "answered 500 Internal Server Error"),
        (reply(599, {"output": 1}), 'answered 599: {"output": 1}'),
        (reply(500, b"x" * 2000, "text/plain"), f"answered 500 Internal Server Error: {'x' * 500}…"),
        (
            reply(302, b"", "", location="http://127.0.0.1/else"),
            "answered 302 Found to http://127.0.0.1/else; redirects are not",
        ),
        (reply(307, b"", "", location="/hook"), "answered 307 Temporary Redirect to /hook"),
        (reply(body={"childrenDelaySeconds": "long"}), "holds a childrenDelaySeconds that is not a number"),
        (reply(body={"children": {}, "output": 1}), "succeeds"),
        (reply(body={"children": {"name": "x"}}), "children that are not a list"),
        (reply(body={"children": [{"name": "x"}]}), "channel"),
        (
            reply(body={"children": [{"name": "x", "channel": "d", "parents": [{"ref": "z"}]}]}),
            "(at children.0.parents.0.ref)",
        ),
        (reply(body={"childrenDelaySeconds": -1}), "childrenDelaySeconds is -1"),
        (reply(body={"error": 1, "workgroupDelaySeconds": -1}), "workgroupDelaySeconds is -1"),
        (Cut(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}"), "broke: "),
        (Cut(b""), "broke: "),
        (Cut(b"SSH-2.0-OpenSSH_9.2\r\n"), "broke: "),
    ],
)
async def test_anything_else_is_an_error_that_can_be_read(crew: Crew, operator: Stub, answer: bytes, said: str):
    await create(crew, operator)

    operator.replies.append(answer)
    id = await one_task(crew)
    if said == "succeeds":
        assert (await ended(crew, id))["output"] == 1
        return
    error = await failed(crew, id)
    assert isinstance(error, str)
    assert said in error
    task = await crew.task(id, TASK)
    assert (task["state"], task["remainingAttempts"]) == ("SCHEDULED", 4)
    assert len(operator.received) == 1


async def test_an_operator_that_is_not_there_is_an_error(crew: Crew, operator: Stub):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    await crew.ask(CREATE, input={"channel": "c", "url": f"http://127.0.0.1:{port}/"})
    assert "cannot be reached: " in await failed(crew, await one_task(crew))


async def test_a_name_that_does_not_resolve_is_an_error(crew: Crew):
    await crew.ask(CREATE, input={"channel": "c", "url": "http://nobody.invalid/"})
    assert "the name nobody.invalid cannot be resolved" in await failed(crew, await one_task(crew))


async def test_a_late_answer_is_an_error_and_then_ignored(crew: Crew, operator: Stub):
    answered = asyncio.Event()

    async def late(_: Received) -> bytes:
        await answered.wait()
        return reply(body={"output": "late"})

    operator.replies.append(late)
    made = await create(crew, operator, timeoutSeconds=1)
    id = await one_task(crew)
    assert await failed(crew, id) == f"the operator at {operator.url} did not answer within 1 s"
    answered.set()
    await update(crew, made, timeoutSeconds=60)
    operator.replies.append(reply(body={"output": "second"}))
    await move_clock(crew, "update scheduled set run_at = now()")
    assert (await ended(crew, id))["output"] == "second"


async def test_an_answer_for_a_task_that_was_cancelled_changes_nothing(crew: Crew, operator: Stub):
    answered = asyncio.Event()

    async def waits(_: Received) -> bytes:
        await answered.wait()
        return reply(body={"output": 1})

    operator.replies.append(waits)
    await create(crew, operator)
    id = await one_task(crew)
    await ended(crew, id, "RUNNING")
    await until(lambda: asyncio.sleep(0, operator.received))
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[id])
    answered.set()
    next_one = await one_task(crew)
    await ended(crew, next_one)
    assert (await crew.task(id, TASK))["state"] == "CANCELLED"


# ---------------------------------------------------------------- rate limits


async def suspended_for(crew: Crew) -> list[int]:
    return [r["s"] for r in await crew.sql("select round(extract(epoch from until - now()))::int as s from hold")]


@pytest.mark.parametrize(("status", "left"), [(429, 5), (503, 4)])
@pytest.mark.parametrize("form", ["seconds", "date", "date without a date of its own"])
async def test_retry_after_suspends_the_workgroup(crew: Crew, operator: Stub, status: int, left: int, form: str):
    now = datetime.now(UTC)
    more = {"retry_after": "90"}
    if form == "date":
        # An operator whose clock is an hour behind.
        now -= timedelta(hours=1)
        more = {"date": format_datetime(now, usegmt=True)}
    if form != "seconds":
        more |= {"retry_after": format_datetime(now + timedelta(seconds=90), usegmt=True)}
    operator.replies.append(reply(status, b"slow down", "text/plain", **more))
    await create(crew, operator, maxRunning=1)
    made = await crew.create(
        {"name": "a", "workgroup": "g"}, {"name": "b", "workgroup": "g"}, {"name": "c", "workgroup": "other"}
    )
    a, b, c = (t["id"] for t in made["tasks"])
    assert "slow down" in await failed(crew, a)
    await ended(crew, c)
    (seconds,) = await suspended_for(crew)
    assert 80 <= seconds <= 91
    assert (await crew.task(a, TASK))["remainingAttempts"] == left
    assert (await crew.task(b, "heldBy"))["heldBy"] == ["WORKGROUP_SUSPENDED"]
    assert len(operator.received) == 2


@pytest.mark.parametrize("value", ["soon", "", "-5", "Thu, 99 Foo 2020 00:00:00 GMT"])
async def test_a_retry_after_that_says_nothing_is_an_error_like_any_other(crew: Crew, operator: Stub, value: str):
    operator.replies.append(reply(429, b"", "", retry_after=value))
    await create(crew, operator)
    id = await one_task(crew, workgroup="g")
    assert "429 Too Many Requests" in await failed(crew, id)
    assert await suspended_for(crew) == []
    assert (await crew.task(id, TASK))["remainingAttempts"] == 4


# ---------------------------------------------------------------- how many, and whether


async def test_no_more_than_max_running_are_delivered_at_once(crew: Crew, operator: Stub):
    go = asyncio.Event()

    async def waits(_: Received) -> bytes:
        await go.wait()
        return reply()

    operator.default = waits
    made = await create(crew, operator, maxRunning=3)
    group = await crew.create(*({"name": f"t{n}"} for n in range(8)))
    await until(lambda: asyncio.sleep(0, len(operator.received) == 3))
    states = list((await crew.states(group["taskGroup"]["id"])).values())
    assert (states.count("RUNNING"), states.count("READY")) == (3, 5)
    await update(crew, made, maxRunning=5)
    await until(lambda: asyncio.sleep(0, len(operator.received) == 5))
    go.set()
    for task in group["tasks"]:
        await ended(crew, task["id"])
    assert operator.most_at_once == 5


async def test_a_paused_operator_delivers_nothing_until_it_is_resumed(crew: Crew, operator: Stub):
    made = await create(crew, operator, isPaused=True)
    id = await one_task(crew)
    leases = await crew.claim()
    assert [lease["task"]["id"] for lease in leases] == [id], "a worker may have it"
    await crew.release(*leases)
    assert (await update(crew, made, isPaused=False))["isPaused"] is False
    await ended(crew, id)
    await update(crew, made, isPaused=True)
    await until(lambda: asyncio.sleep(0, crew.services.dispatcher.waiting == 0))
    later = await one_task(crew)
    assert (await crew.task(later, TASK))["state"] == "READY"
    assert len(operator.received) == 1


async def test_a_deleted_operator_delivers_no_more(crew: Crew, operator: Stub):
    made = await create(crew, operator)
    await ended(crew, await one_task(crew))
    id = made["operator"]["id"]
    assert (await crew.ask(DELETE, id=id))["deleteOperator"] == {"id": id}
    await until(lambda: asyncio.sleep(0, crew.services.dispatcher.waiting == 0))
    await one_task(crew)
    assert len(operator.received) == 1
    assert (await crew.ask("{ operators { id } }"))["operators"] == []


# ---------------------------------------------------------------- a URL for all channels


async def test_a_base_url_delivers_every_channel_that_has_no_operator(dsn: str, operator: Stub):
    async with stub() as base:
        url = f"http://127.0.0.1:{base.port}/execute/"
        async with crew_on(dsn, operator_private_targets=True, operator_base_url=url, operator_token="t0ken") as crew:
            await create(crew, operator)
            own, other = await one_task(crew), await one_task(crew, channel="send mail/ä")
            await ended(crew, own)
            await ended(crew, other)
    assert [r.body["taskId"] for r in operator.received] == [own]
    (got,) = base.received
    assert (got.body["taskId"], got.path) == (other, "/execute/send%20mail%2F%C3%A4")
    assert got.headers["authorization"] == "Bearer t0ken"
    at = int(got.headers["webhook-timestamp"])
    assert got.headers["webhook-signature"] == signed(b"t0ken", got.headers["webhook-id"], at, got.raw)


async def test_a_paused_operator_keeps_its_channel_from_the_base_url(dsn: str, operator: Stub):
    async with crew_on(dsn, operator_private_targets=True, operator_base_url=operator.url) as crew:
        made = await create(crew, operator, isPaused=True)
        held, other = await one_task(crew), await one_task(crew, channel="d")
        await ended(crew, other)
        assert [r.body["taskId"] for r in operator.received] == [other]
        await crew.ask(DELETE, id=made["operator"]["id"])
        await ended(crew, held)
        assert operator.received[-1].path == "/hook/c"


# ---------------------------------------------------------------- several servers, and their ends


async def test_several_servers_keep_to_one_limit_and_one_takes_over(dsn: str, operator: Stub):
    go = asyncio.Event()

    async def waits(_: Received) -> bytes:
        await go.wait()
        return reply()

    operator.default = waits
    async with crew_on(dsn, operator_private_targets=True) as other:
        async with crew_on(dsn, operator_private_targets=True) as crew:
            await create(crew, operator, maxRunning=2)
            group = await other.create(*({"name": f"t{n}"} for n in range(6)))
            await until(lambda: asyncio.sleep(0, len(operator.received) == 2))
            await other.services.dispatcher.floor()
            assert len(operator.received) == 2
            go.set()
            for task in group["tasks"][:2]:
                await ended(other, task["id"])
        for task in group["tasks"]:
            await ended(other, task["id"])
    assert operator.most_at_once <= 2
    assert len(operator.received) == 6


async def test_a_delivery_that_is_cut_is_made_again_when_its_lease_has_run_out(
    dsn: str, operator: Stub, monkeypatch: pytest.MonkeyPatch
):
    cut = asyncio.Event()

    async def never(_: Received) -> bytes:
        cut.set()
        await asyncio.sleep(600)
        return b""

    operator.replies.append(never)
    async with crew_on(dsn, operator_private_targets=True) as crew:
        await create(crew, operator)
        id = await one_task(crew)
        await cut.wait()
        # As in a crash: nothing is waited for.
        monkeypatch.setattr("server.loops.operators._END_SECONDS", 0.0)
    async with crew_on(dsn, operator_private_targets=True) as crew:
        assert (await crew.task(id, TASK))["state"] == "RUNNING"
        operator.replies.append(reply(body={"output": "again"}))
        await move_clock(crew, "update lease set until = now() - interval '1 s'")
        task = await ended(crew, id)
    assert (task["output"], task["attempt"]) == ("again", 2)
    assert task["errors"][0]["error"]["code"] == "LEASE_EXPIRED"
    assert [r.body["attempt"] for r in operator.received] == [1, 2]


async def test_a_server_that_stops_waits_a_little_for_what_is_under_way(dsn: str, operator: Stub):
    started = asyncio.Event()

    async def soon(_: Received) -> bytes:
        started.set()
        await asyncio.sleep(0.3)
        return reply(body={"output": "in time"})

    operator.replies.append(soon)
    async with crew_on(dsn, operator_private_targets=True) as crew:
        await create(crew, operator)
        id = await one_task(crew)
        await started.wait()
        crew.services.drain()
    async with crew_on(dsn) as crew:
        assert (await crew.task(id, TASK))["output"] == "in time"


async def test_leases_are_kept_while_a_delivery_lasts(dsn: str, operator: Stub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.loops.operators.KEEP_EVERY", 0.05)
    go = asyncio.Event()

    async def waits(_: Received) -> bytes:
        await go.wait()
        return reply()

    operator.replies.append(waits)
    async with crew_on(dsn, operator_private_targets=True) as crew:
        await create(crew, operator)
        id = await one_task(crew)
        await until(lambda: asyncio.sleep(0, operator.received))
        await crew.sql("update lease set until = now() + interval '5 s'")

        async def kept() -> bool:
            (left,) = await crew.sql("select extract(epoch from until - now())::int as s from lease")
            return left["s"] > 20

        await until(kept)
        go.set()
        await ended(crew, id)
