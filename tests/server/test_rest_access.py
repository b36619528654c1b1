"""The second Crew's REST protocol behind API keys: every path by every role, channels, and no web page."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from resolvers.access import Role
from server.transports.rest.routes import PATHS, PREFIX
from tests.support.access import bearer, make_key
from tests.support.crew import Crew, crew_on
from tests.support.second_crew import Rest

NOBODY = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
WORKERS = {
    ("POST", "/task_groups"),
    ("POST", "/task_group/{id}/tasks"),
    ("POST", "/task/{id}/release"),
    ("POST", "/channel/{channel:path}/acquire"),
}
ALL = [(method, path) for path, handlers in PATHS.items() for method in handlers]


def least(method: str, path: str) -> Role:
    if method == "GET":
        return Role.VIEWER
    return Role.WORKER if (method, path) in WORKERS else Role.ADMIN


async def send(crew: Crew, method: str, path: str, secret: str | None, **headers: str) -> httpx.Response:
    url = PREFIX + path.replace("{id}", NOBODY).replace("{channel:path}", "c")
    body = None if method == "GET" else {"workerId": "w"}
    return await crew.http.request(method, url, json=body, headers={**bearer(secret), **headers})


@pytest.fixture
async def secrets(crew: Crew) -> dict[Role, str]:
    return {role: await make_key(crew, role) for role in Role}


async def test_every_path_asks_for_its_role_and_changes_nothing_without(crew: Crew, secrets: dict[Role, str]):
    wrong = []
    for method, path in ALL:
        for role, secret in secrets.items():
            answer = await send(crew, method, path, secret)
            if (answer.status_code == 403) != (role < least(method, path)):
                wrong.append((method, path, role.name, answer.status_code))
            assert list(answer.json()) == ["message"] or answer.status_code == 200
        assert (await send(crew, method, path, None)).status_code == 401
        assert (await send(crew, method, path, "crew_nobody")).status_code == 401
    assert wrong == []
    assert len(ALL) > 15


async def test_a_key_of_some_channels_works_on_those_alone(crew: Crew, secrets: dict[Role, str]):
    admin = Rest(
        httpx.AsyncClient(transport=crew.http._transport, base_url="http://crew", headers=bearer(secrets[Role.ADMIN]))
    )
    await admin.group({"channel": "c"}, {"channel": "d"})
    only_c = await make_key(crew, Role.WORKER, channels=["c"])
    assert (await send(crew, "POST", "/channel/c/acquire", only_c)).json()["task"]
    assert (await send(crew, "POST", "/channel/d/acquire", only_c)).status_code == 403
    task = (await admin.acquire(channel="d"))["task"]
    answer = await send(crew, "POST", f"/task/{task['_id']}/release", only_c)
    assert answer.status_code == 403
    assert await admin.get(f"/task/{task['_id']}") == task
    await admin.http.aclose()


@pytest.mark.parametrize("more", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_a_page_of_another_site_is_refused(crew: Crew, more: dict[str, str]):
    for method, path in ALL:
        assert (await send(crew, method, path, None, **more)).status_code == 403


async def test_pages_that_are_allowed_may_call(dsn: str):
    async with crew_on(dsn, allowed_origins="https://app.example") as crew:
        origin = {"origin": "https://app.example"}
        asked = {**origin, "access-control-request-method": "PUT"}
        first = await crew.http.options(f"{PREFIX}/task/{NOBODY}", headers=asked)
        assert (first.status_code, first.headers["access-control-allow-methods"]) == (204, "GET, POST, PUT, DELETE")
        answer = await send(crew, "GET", "/channels", None, **origin)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")


async def test_namespaces_are_apart(crew: Crew):
    secret = await make_key(crew, Role.ADMIN, namespace="other")
    mine = await make_key(crew, Role.ADMIN)
    rest = [
        Rest(httpx.AsyncClient(transport=crew.http._transport, base_url="http://crew", headers=bearer(key)))
        for key in (secret, mine)
    ]
    _, (task,) = await rest[0].group({})
    assert await rest[1].acquire() == {"task": None}
    assert (await rest[0].acquire())["task"]["_id"] == task["_id"]
    answers: Any = await asyncio.gather(*(r.get("/task_groups/count") for r in rest))
    assert answers == [{"count": 1}, {"count": 0}]
    for one in rest:
        await one.http.aclose()
