"""What the second Crew's REST protocol refuses: with a message, and with nothing done."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.crew import Crew, crew_on
from tests.support.second_crew import Answered, Rest

NOBODY = "018f5a3e-7c11-7a55-8d3c-0242ac120002"


@pytest.fixture
def rest(crew: Crew) -> Rest:
    return Rest(crew.http)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/channel/c/acquire", {}, 400),
        ("POST", "/channel/c/acquire", {"workerId": ""}, 400),
        ("POST", "/channel/c/acquire", {"workerId": 7}, 400),
        ("POST", "/channel/c/acquire", [], 400),
        ("POST", f"/channel/{'c' * 300}/acquire", {"workerId": "w"}, 400),
        ("POST", f"/task/{NOBODY}/release", {"workerId": "w", "output": 1}, 404),
        ("POST", "/task/nothing/release", {"workerId": "w"}, 400),
        ("GET", f"/task/{NOBODY}", None, 404),
        ("GET", f"/task_group/{NOBODY}", None, 404),
        ("GET", f"/task_group/{NOBODY}/tasks", None, 404),
        ("POST", f"/task_group/{NOBODY}/tasks", {"name": "n", "channel": "c"}, 404),
        ("POST", f"/task_group/{NOBODY}/retry", None, 404),
        ("POST", "/task_groups", {}, 400),
        ("POST", "/task_groups", {"name": "n", "isPaused": "yes"}, 400),
        ("GET", "/task_groups?limit=x", None, 400),
        ("GET", "/task_groups?limit=-1", None, 400),
        ("GET", "/task_groups?skip=99999999999999999999", None, 400),
        ("PUT", "/channels", {}, 405),
        ("GET", "/channel/c/acquire", None, 405),
        ("GET", "/nothing/here", None, 404),
    ],
)
async def test_what_cannot_be_is_refused_with_a_message(rest: Rest, method: str, path: str, body: Any, status: int):
    with pytest.raises(Answered) as refused:
        await rest.ask(method, path, body)
    assert refused.value.status == status
    assert list(refused.value.body) == ["message"]
    assert refused.value.body["message"]


BEYOND = [
    pytest.param({"priority": 10**400}, id="a number beyond doubles"),
    pytest.param({"errorDelayInSeconds": -(10**400)}, id="a delay beyond doubles"),
    {"runAfter": "0001-01-01T00:00:00+14:00"},
    {"runAfter": "9999-12-31T23:59:59-14:00"},
]


@pytest.mark.parametrize(
    "more",
    [
        {"name": None},
        {"channel": ""},
        {"priority": "high"},
        {"priority": 1.5},
        {"priority": True},
        {"runAfter": "tomorrow"},
        {"remainingAttempts": -1},
        {"isSeed": 1},
        {"parentIds": ["x"]},
        {"parentIds": [NOBODY]},
        {"name": "a\0b"},
        {"errorDelayInSeconds": -1},
        *BEYOND,
    ],
)
async def test_a_task_that_cannot_be_is_refused_and_not_made(rest: Rest, more: dict[str, Any]):
    group, _ = await rest.group()
    with pytest.raises(Answered) as refused:
        await rest.post(f"/task_group/{group}/tasks", {"name": "t", "channel": "c", **more})
    assert refused.value.status in (400, 404)
    assert await rest.get(f"/task_group/{group}/tasks") == []


@pytest.mark.parametrize("change", BEYOND)
async def test_a_change_that_cannot_be_is_refused_and_not_made(rest: Rest, change: dict[str, Any]):
    _, (task,) = await rest.group({})
    with pytest.raises(Answered) as refused:
        await rest.ask("PUT", f"/task/{task['_id']}", {"name": "other", **change})
    assert refused.value.status == 400
    assert await rest.get(f"/task/{task['_id']}") == task


async def test_what_a_web_page_can_send_without_asking_is_refused(rest: Rest, crew: Crew):
    await rest.group({})
    sent = await crew.http.post(
        "/api/v1/channel/c/acquire", content=b'{"workerId": "w"}', headers={"content-type": "text/plain"}
    )
    assert (sent.status_code, list(sent.json())) == (415, ["message"])
    assert (await rest.acquire())["task"]


async def test_a_body_that_is_too_large_is_refused(dsn: str):
    async with crew_on(dsn, max_body_bytes=2000) as crew:
        with pytest.raises(Answered) as refused:
            await Rest(crew.http).post("/task_groups", {"name": "n" * 3000})
        assert refused.value.status == 413
