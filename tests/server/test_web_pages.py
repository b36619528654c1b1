"""No web page reaches a server by itself: not from another site, and not under a name of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import websockets

from resolvers.access import Role
from server.settings import Settings
from tests.support.access import TRANSPORTS, bearer, make_key, over_http, socket_of
from tests.support.streams import PUSH, Served, served

QUERY = {"query": "{ server { version } }"}


@pytest.fixture
async def server_here(dsn: str) -> AsyncIterator[Served]:
    async with served(
        dsn, allowed_hosts="crew.internal", allowed_origins="https://App.example, https://b.example"
    ) as server:
        yield server


async def refused(server: Served, transport: str, **headers: str) -> bool:
    """Whether a request with these headers is refused, over this transport."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        code = await TRANSPORTS[transport](server, None, QUERY, **given)
    except websockets.InvalidStatus as error:
        return error.response.status_code == 403
    assert code in (None, "FORBIDDEN")
    return code == "FORBIDDEN"


@pytest.mark.parametrize("transport", ["http", "sse"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "crew"]
)
async def test_a_name_that_is_not_the_servers_is_refused(server_here: Served, transport: str, host: str) -> None:
    assert await refused(server_here, transport, host=host)


async def test_a_websocket_under_another_name_is_refused(server_here: Served) -> None:
    upgrade = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
    upgrade |= {"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-protocol": "graphql-transport-ws"}
    async with httpx.AsyncClient() as http:
        response = await http.get(server_here.url, headers={**upgrade, "host": "evil.example"})
        assert response.status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7", "crew.internal"]
)
async def test_its_own_names_and_addresses_are_taken(server_here: Served, host: str) -> None:
    assert not await refused(server_here, "http", host=host)


async def test_behind_keys_a_server_for_others_is_taken_under_any_name(dsn: str) -> None:
    async with served(dsn, host="0.0.0.0", no_keys=True) as server:
        assert await over_http(server, None, QUERY, host="crew.example") == "FORBIDDEN"
        secret = await make_key(server, Role.VIEWER)
        assert await over_http(server, secret, QUERY, host="crew.example") is None
        assert await over_http(server, None, QUERY, host="crew.example") == "UNAUTHENTICATED"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1", "http://127.0.0.1:9", "null", "https://app.example.evil.example", ""],
)
async def test_a_page_of_another_site_is_refused(server_here: Served, transport: str, origin: str) -> None:
    assert await refused(server_here, transport, origin=origin)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_its_own_page_and_those_allowed_are_let_in(server_here: Served, transport: str) -> None:
    for origin in (f"http://{server_here.host}:{server_here.port}", "https://app.example", "https://b.example"):
        assert not await refused(server_here, transport, origin=origin)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_what_a_page_of_another_site_sends_without_an_origin_is_refused(server_here: Served, site: str) -> None:
    assert await refused(server_here, "http", sec_fetch_site=site, sec_fetch_mode="no-cors")
    assert not await refused(server_here, "http", sec_fetch_site="same-origin", sec_fetch_mode="cors")
    async with httpx.AsyncClient() as http:
        followed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "accept": "text/html"}
        assert (await http.get(server_here.url, headers=followed)).status_code == 200, "a link to GraphiQL"


async def test_get_claims_nothing(server_here: Served) -> None:
    params = {"query": PUSH, "variables": json.dumps({"input": {"workerId": "w", "channels": ["c"]}})}
    async with httpx.AsyncClient() as http:
        response = await http.get(server_here.url, params=params, headers={"accept": "text/event-stream"})
        assert (response.status_code, response.headers["allow"]) == (405, "POST")


# ---------------------------------------------------------------- CORS

ASKING = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


async def test_cors_is_off_by_default(dsn: str) -> None:
    assert Settings().allowed_origins == ()
    async with served(dsn) as server, httpx.AsyncClient() as http:
        response = await http.options(server.url, headers={"origin": "https://app.example", **ASKING})
        assert response.status_code == 403
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_an_allowed_origin_may_ask_and_read(server_here: Served) -> None:
    async with httpx.AsyncClient() as http:
        ask = await http.options(server_here.url, headers={"origin": "https://app.example", **ASKING})
        assert ask.status_code == 204
        assert ask.headers["access-control-allow-origin"] == "https://app.example"
        assert "authorization" in ask.headers["access-control-allow-headers"]
        for accept in ("application/json", "text/event-stream"):
            headers = {"origin": "https://app.example", "accept": accept}
            answer = await http.post(server_here.url, json=QUERY, headers=headers)
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert "access-control-allow-credentials" not in answer.headers
        denied = await http.options(server_here.url, headers={"origin": "https://evil.example", **ASKING})
        assert denied.status_code == 403
        assert "access-control-allow-origin" not in denied.headers
        plain = await http.post(server_here.url, json=QUERY)
        assert "access-control-allow-origin" not in plain.headers


async def test_a_star_allows_every_origin_and_a_key_is_needed_all_the_same(dsn: str) -> None:
    async with served(dsn, allowed_origins="*") as server:
        secret = await make_key(server, Role.VIEWER)
        assert await over_http(server, secret, QUERY, origin="https://any.example") is None
        assert await over_http(server, None, QUERY, origin="https://any.example") == "UNAUTHENTICATED"
        async with socket_of(server, bearer(secret), origin="https://any.example") as ws:
            told: dict[str, Any] = json.loads(await ws.recv())
            assert told == {"type": "connection_ack"}
