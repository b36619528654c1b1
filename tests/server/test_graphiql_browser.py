"""GraphiQL in a real browser that can reach no other host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Error, Page

from server import graphiql
from tests.support.browser import opened
from tests.support.streams import Served, served
from tests.support.wait import until

pytestmark = pytest.mark.skipif(not graphiql.FILES.is_dir(), reason="GraphiQL is not installed: make setup")
CREATE = 'mutation { createTaskGroup(input: {name: "g", tasks: [{name: "a", channel: "c"}]}) { taskGroup { id } } }'
KEY = "Bearer of good news"


@dataclass
class GraphiQL:
    """The open page, in the words of a person who uses it."""

    page: Page
    server: Served

    async def choose(self, example: str) -> None:
        await self.page.get_by_role("tab", name=example).click()
        await self.ready(example)

    async def ready(self, operation: str) -> None:
        """GraphiQL is slow to see which operation its button runs."""

        async def seen() -> bool:
            return await self.page.evaluate("localStorage.getItem('graphiql:operationName')") == operation

        await until(seen)

    async def write(self, editor: str, text: str) -> None:
        """Put text into `Variables` or `Headers`."""
        await self.page.get_by_role("button", name=editor, exact=True).click()
        await self.page.locator(".graphiql-editor-tool .CodeMirror:visible").click()
        await self.page.keyboard.press("Control+a")
        await self.page.keyboard.insert_text(text)

    async def run(self) -> None:
        """Press the button that runs or stops."""
        await self.page.locator(".graphiql-execute-button").click()

    async def shown(self, text: str) -> dict[str, Any]:
        """The answer on the right, once it holds this text."""

        async def seen() -> str | None:
            script = "document.querySelector('.graphiql-response .CodeMirror').CodeMirror.getValue()"
            answer = await self.page.evaluate(script)
            return answer if text in answer else None

        return json.loads(await until(seen))

    async def answer(self, text: str) -> dict[str, Any]:
        await self.run()
        return (await self.shown(text))["data"]


@pytest.fixture
async def here(dsn: str) -> AsyncIterator[GraphiQL]:
    async with served(dsn) as server, opened() as (page, asked, wrong):
        await page.goto(server.url)
        yield GraphiQL(page, server)
        assert {urlsplit(url).netloc for url in asked} == {urlsplit(server.url).netloc}
        assert wrong == []


async def test_the_examples_create_a_campaign_and_work_on_it(here: GraphiQL) -> None:
    await here.choose("CreateCampaign")
    made = (await here.answer('"Publish the ad"'))["createTaskGroup"]
    assert {t["name"]: t["state"] for t in made["tasks"]} == {
        "Cut the film": "READY",
        "Write the copy": "READY",
        "Publish the ad": "BLOCKED",
    }
    await here.choose("ClaimTasks")
    leases = (await here.answer('"leases"'))["claimTasks"]["leases"]
    assert {lease["task"]["name"] for lease in leases} == {"Cut the film", "Write the copy"}
    await here.choose("CompleteTasks")
    await here.write("Variables", json.dumps({"lease": leases[0]["id"]}))
    assert (await here.answer('"completed"'))["completeTasks"] == {"completed": 1, "errors": []}
    await here.choose("Progress")
    (group,) = (await here.answer('"fraction"'))["taskGroups"]["nodes"]
    assert (group["id"], group["progress"]["total"]) == (made["taskGroup"]["id"], 3)


async def test_the_watching_example_shows_events_and_stops(here: GraphiQL) -> None:
    await here.choose("WatchTasks")
    first = await here.answer('"cursor"')
    assert first["taskEvents"]["events"] == []
    async with httpx.AsyncClient() as http:
        await http.post(here.server.url, json={"query": CREATE})
    (made, created) = (await here.shown('"CREATED"'))["data"]["taskEvents"]["events"]
    assert (made["kind"], created["kind"]) == ("GROUP_CREATED", "CREATED")
    assert created["task"] == {"name": "a", "state": "READY"}
    await here.run()

    async def free() -> bool:
        return here.server.services.log.listeners == 0

    await until(free)


async def test_what_happened_last_stays_on_the_page_through_quiet_spells(here: GraphiQL) -> None:
    here.server.services.log.quiet = 0.05
    received: list[str] = []
    here.page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: received.append(frame)))
    await here.choose("WatchTasks")
    await here.answer('"cursor"')
    async with httpx.AsyncClient() as http:
        await http.post(here.server.url, json={"query": CREATE})
    await here.shown('"CREATED"')
    received.clear()

    async def three_more() -> bool:
        return len(received) >= 3

    await until(three_more)
    assert all('"events":[]' in frame for frame in received)
    await here.shown('"CREATED"')


async def test_headers_go_with_requests_and_open_the_websocket(here: GraphiQL) -> None:
    sent: list[dict[str, Any]] = []
    here.page.on("websocket", lambda ws: ws.on("framesent", lambda frame: sent.append(json.loads(frame))))
    await here.choose("Progress")
    await here.write("Headers", json.dumps({"Authorization": KEY}))
    async with here.page.expect_request(lambda r: "Progress" in (r.post_data or "")) as request:
        await here.run()
    assert (await (await request.value).all_headers())["authorization"] == KEY
    await here.choose("WatchTasks")
    await here.write("Headers", json.dumps({"Authorization": KEY}))
    await here.answer('"cursor"')
    assert sent[0] == {"type": "connection_init", "payload": {"Authorization": KEY}}
    assert sent[1]["type"] == "subscribe"


async def test_a_server_that_stops_is_told_in_words(here: GraphiQL) -> None:
    await here.choose("WatchTasks")
    await here.answer('"cursor"')
    here.server.services.drain()
    error = await here.shown('"errors"')
    assert (
        error["errors"][0]["message"]
        == "The websocket was closed (1012: The server stops: connect again). Run it again."
    )


async def test_a_subscription_that_is_refused_shows_why(here: GraphiQL) -> None:
    await here.choose("WatchTasks")
    await here.page.locator(".graphiql-query-editor .CodeMirror").click()
    await here.page.keyboard.press("Control+a")
    await here.page.keyboard.insert_text('subscription Bad { taskEvents(after: "x") { cursor } }')
    await here.ready("Bad")
    await here.run()
    assert (await here.shown("BAD_INPUT"))["errors"][0]["extensions"]["code"] == "BAD_INPUT"


async def test_documentation_history_and_dialogs_open_under_the_policy(here: GraphiQL) -> None:
    for name, shows in (
        ("Show Documentation Explorer", "Subscription"),
        ("Show History", "History"),
        ("Open settings dialog", "Theme"),
        ("Open short keys dialog", "Short Keys"),
    ):
        await here.page.get_by_role("button", name=name).click()
        await here.page.get_by_text(shows).first.wait_for()
        await here.page.keyboard.press("Escape")


async def test_other_hosts_would_be_noticed_and_are_not_reached() -> None:
    async with opened() as (page, asked, _):
        with pytest.raises(Error, match="ERR_PROXY_CONNECTION_FAILED"):
            await page.goto("http://elsewhere.invalid/")
        assert asked == ["http://elsewhere.invalid/"]
