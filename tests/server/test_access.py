"""Who may do what: every operation, by every role, over every transport; keys that end; namespaces."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import websockets

from resolvers import access as deciding
from resolvers.access import Role
from tests.support.access import TRANSPORTS, bearer, code_of, make_key, over_http, over_websocket, socket_of
from tests.support.counted import calls
from tests.support.crew import CLAIM, COMPLETE, CREATE, EXTEND, FAIL, RELEASE, Crew
from tests.support.operations import Operation, all_operations
from tests.support.streams import EVENTS, PUSH, Served, served
from tests.support.wait import until

FOR_WORKERS = {
    *("createTaskGroup", "createTaskGroups", "createTasks"),
    *("claimTasks", "completeTasks", "failTasks", "extendLeases", "releaseLeases", "claimedTasks"),
}
QUERY = {"query": "{ server { version } }"}
KEYS = "{ apiKeys { id name role channels namespace createdAt expiresAt lastUsedAt } }"
MAKE = "mutation($input: ApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id name role channels namespace } } }"
REVOKE = "mutation($id: ID!) { revokeApiKey(id: $id) { id } }"


@pytest.fixture
async def server_here(dsn: str) -> AsyncIterator[Served]:
    async with served(dsn) as server:
        yield server


async def ask(server: Served, secret: str | None, query: str, **variables: Any) -> dict[str, Any]:
    """The whole answer."""
    async with httpx.AsyncClient(timeout=20) as http:
        body = {"query": query, "variables": variables}
        answer: dict[str, Any] = (await http.post(server.url, json=body, headers=bearer(secret))).json()
        return answer


def needed(operation: Operation) -> Role:
    """As the contract says of the roles."""
    if operation.field in FOR_WORKERS:
        return Role.WORKER
    return Role.ADMIN if operation.kind == "mutation" else Role.VIEWER


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_every_operation_is_open_to_the_roles_that_may_and_closed_to_all_others(
    server_here: Served, transport: str
) -> None:
    secrets: dict[str, str | None] = {role.name: await make_key(server_here, role) for role in Role}
    secrets |= {"nobody": None, "a stranger": "crew_nonsense"}
    operations = [o for o in all_operations() if transport != "http" or o.kind != "subscription"]
    seen, expected = {}, {}
    for operation in operations:
        for who, secret in secrets.items():
            code = await TRANSPORTS[transport](server_here, secret, operation.params)
            seen[operation.kind, operation.field, who] = code if code in ("UNAUTHENTICATED", "FORBIDDEN") else "open"
            if who in Role.__members__:
                expected[operation.kind, operation.field, who] = (
                    "open" if Role[who] >= needed(operation) else "FORBIDDEN"
                )
            else:
                expected[operation.kind, operation.field, who] = "UNAUTHENTICATED"
    assert {k: v for k, v in seen.items() if v != expected[k]} == {}
    assert {o.field for o in operations} >= (FOR_WORKERS if transport != "http" else FOR_WORKERS - {"claimedTasks"})
    assert len(seen) == len(operations) * len(secrets)


async def test_a_document_needs_what_the_most_of_its_fields_needs(server_here: Served) -> None:
    viewer = await make_key(server_here, Role.VIEWER)
    fragment = 'mutation { ...F } fragment F on Mutation { pauseChannel(name: "c") { channel { name } } }'
    for query in (fragment, 'mutation { ... { pauseChannel(name: "c") { channel { name } } } }'):
        assert code_of(await ask(server_here, viewer, query)) == "FORBIDDEN"
    both = {"query": f"query A {{ server {{ version }} }} {fragment}".replace("mutation", "mutation B")}
    assert await over_http(server_here, viewer, {**both, "operationName": "A"}) is None
    assert await over_http(server_here, viewer, {**both, "operationName": "B"}) == "FORBIDDEN"
    admin = await make_key(server_here, Role.ADMIN)
    channels = (await ask(server_here, admin, "{ channels { name isPaused } }"))["data"]["channels"]
    assert channels == [], "nothing was changed"


# ---------------------------------------------------------------- channels


async def test_a_worker_works_on_the_channels_of_its_key_alone(server_here: Served) -> None:
    admin = await make_key(server_here, Role.ADMIN)
    worker = await make_key(server_here, Role.WORKER, channels=["a"])
    tasks = [{"name": f"{c}{n}", "channel": c} for c in "ab" for n in range(2)]
    made = await ask(server_here, worker, CREATE, input={"name": "g", "tasks": tasks})
    assert len(made["data"]["createTaskGroup"]["tasks"]) == 4, "it creates tasks in any channel"

    claim = {"workerId": "w", "limit": 2}
    refused = await ask(server_here, worker, CLAIM, input={**claim, "channels": ["a", "b"]})
    assert refused["errors"][0]["extensions"] == {"code": "FORBIDDEN", "path": ["input", "channels", 1]}
    assert (
        await over_websocket(
            server_here, worker, {"query": PUSH, "variables": {"input": {"workerId": "w", "channels": ["b"]}}}
        )
        == "FORBIDDEN"
    )

    answer = await ask(server_here, admin, CLAIM, input={**claim, "channels": ["b"]})
    others = [lease["id"] for lease in answer["data"]["claimTasks"]["leases"]]
    answer = await ask(server_here, worker, CLAIM, input={**claim, "channels": ["a"]})
    own = [lease["id"] for lease in answer["data"]["claimTasks"]["leases"]]
    assert (len(own), len(others)) == (2, 2)
    for query, given, path in (
        (COMPLETE, {"results": [{"lease": own[0]}, {"lease": others[0]}]}, ["input", "results", "1", "lease"]),
        (FAIL, {"failures": [{"lease": others[0], "error": ""}]}, ["input", "failures", "0", "lease"]),
        (EXTEND, {"leases": [own[0], others[0]]}, ["input", "leases", "1"]),
        (RELEASE, {"leases": others}, ["input", "leases", "0"]),
    ):
        refused = await ask(server_here, worker, query, input=given)
        assert refused["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert [str(step) for step in refused["errors"][0]["extensions"]["path"]] == path
    holding = {"workerId": "w", "channels": ["a"], "holding": others}
    assert await over_websocket(server_here, worker, {"query": PUSH, "variables": {"input": holding}}) == "FORBIDDEN"
    done = await ask(server_here, worker, COMPLETE, input={"results": [{"lease": own[0]}, {"lease": "x"}]})
    assert (done["data"]["completeTasks"]["completed"], len(done["data"]["completeTasks"]["errors"])) == (1, 1)
    kept = await ask(server_here, admin, COMPLETE, input={"results": [{"lease": others[0]}, {"lease": others[1]}]})
    assert kept["data"]["completeTasks"]["completed"] == 2, "what was refused changed nothing"


# ---------------------------------------------------------------- keys come and go


async def test_from_the_first_key_on_every_request_needs_one_for_good(server_here: Served) -> None:
    assert await over_http(server_here, None, QUERY) is None
    assert await over_http(server_here, "crew_anything", QUERY) is None, "a server without keys does not look"
    async with socket_of(server_here) as open_socket:
        assert json.loads(await open_socket.recv()) == {"type": "connection_ack"}
        made = (await ask(server_here, None, MAKE, input={"name": "first", "role": "ADMIN"}))["data"]["createApiKey"]
        await open_socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": QUERY}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(open_socket.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
    secret = made.pop("secret")
    assert made == {
        "apiKey": {"id": made["apiKey"]["id"], "name": "first", "role": "ADMIN", "channels": None, "namespace": None}
    }
    for over in TRANSPORTS.values():
        assert await over(server_here, None, QUERY) == "UNAUTHENTICATED"
        assert await over(server_here, secret, QUERY) is None
    assert (await ask(server_here, secret, REVOKE, id=made["apiKey"]["id"]))["data"]["revokeApiKey"]
    for given in (None, secret):
        assert await over_http(server_here, given, QUERY) == "UNAUTHENTICATED"


async def test_a_key_is_listed_as_it_was_made(server_here: Served) -> None:
    given = {"name": "w", "role": "WORKER", "channels": ["b", "a", "b"], "namespace": "tenant"}
    made = await ask(server_here, None, MAKE, input={**given, "expiresAt": "2100-01-01T00:00:00Z"})
    assert made["data"]["createApiKey"]["apiKey"]["channels"] == ["a", "b"]
    admin = await make_key(server_here, Role.ADMIN)
    row = (await ask(server_here, admin, KEYS))["data"]["apiKeys"][0]
    assert datetime.fromisoformat(row.pop("createdAt")) < datetime.now(UTC) + timedelta(minutes=1)
    assert row == {
        **given,
        "id": made["data"]["createApiKey"]["apiKey"]["id"],
        "channels": ["a", "b"],
        "expiresAt": "2100-01-01T00:00:00+00:00",
        "lastUsedAt": None,
    }


async def test_only_the_hash_of_a_secret_is_kept(server_here: Served) -> None:
    secret = await make_key(server_here, Role.ADMIN)
    pool = server_here.services.core.pool
    (row,) = await pool.fetch("select k.*::text as all_of_it, hash from api_key k")
    assert secret not in row["all_of_it"]
    assert row["hash"] == deciding.hashed(secret)
    assert len(secret) > 45


async def test_a_refusal_over_http_says_how_to_ask(server_here: Served) -> None:
    await make_key(server_here, Role.ADMIN)
    async with httpx.AsyncClient() as http:
        response = await http.post(server_here.url, json=QUERY)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, 'Bearer realm="crew"')
        basic = await http.post(server_here.url, json=QUERY, auth=("a", "b"))
        assert basic.status_code == 401
        assert (await http.get(server_here.url.replace("graphql", "healthz"))).status_code == 200
        page = await http.get(server_here.url, headers={"accept": "text/html"})
        assert page.status_code == 200, "GraphiQL's page holds nothing"


@pytest.mark.parametrize(
    "payload",
    [
        lambda s: {"authorization": f"Bearer {s}"},
        lambda s: {"Authorization": f"bearer {s}"},
        lambda s: {"headers": {"Authorization": f"Bearer {s}"}},
    ],
    ids=["as the SDKs do", "in any case", "under headers"],
)
async def test_a_websocket_takes_its_key_from_connection_init(server_here: Served, payload: Any) -> None:
    secret = await make_key(server_here, Role.VIEWER)
    async with socket_of(server_here, payload(secret)) as ws:
        assert json.loads(await ws.recv()) == {"type": "connection_ack"}
    async with socket_of(server_here, None, authorization=f"Bearer {secret}") as ws:
        assert json.loads(await ws.recv()) == {"type": "connection_ack"}, "or from the header"
    for bad in (None, [], "x", {"authorization": 5}, {"headers": "x"}, payload("crew_wrong")):
        async with socket_of(server_here, bad) as ws:  # type: ignore[arg-type]
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await asyncio.wait_for(ws.recv(), 10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401


async def test_an_expired_key_is_refused(server_here: Served) -> None:
    admin = await make_key(server_here, Role.ADMIN)
    past, soon = datetime.now(UTC) - timedelta(seconds=5), datetime.now(UTC) + timedelta(seconds=2)
    for until_when in (past, soon):
        secret = await make_key(server_here, Role.VIEWER, expires_at=until_when)

        async def refused(secret: str = secret) -> bool:
            return await over_http(server_here, secret, QUERY) == "UNAUTHENTICATED"

        await until(refused, 10)
    assert len((await ask(server_here, admin, KEYS))["data"]["apiKeys"]) == 3


async def test_a_key_revoked_at_one_server_is_refused_by_another_within_seconds(dsn: str) -> None:
    async with served(dsn) as one, served(dsn) as two:
        admin = await make_key(one, Role.ADMIN)
        assert await over_http(two, admin, QUERY) is None, "a key made elsewhere counts at once"
        worker = await make_key(one, Role.WORKER)
        assert await over_http(two, worker, QUERY) is None
        rows = (await ask(one, admin, KEYS))["data"]["apiKeys"]
        (id,) = [row["id"] for row in rows if row["role"] == "WORKER"]
        assert (await ask(one, admin, REVOKE, id=id))["data"] == {"revokeApiKey": {"id": id}}
        assert await over_http(one, worker, QUERY) == "UNAUTHENTICATED"

        async def refused() -> bool:
            return await over_http(two, worker, QUERY) == "UNAUTHENTICATED"

        await until(refused, deciding.STALE + 1)
        again = await ask(one, admin, REVOKE, id=id)
        assert again["errors"][0]["extensions"] == {"code": "NOT_FOUND", "path": ["id"]}


async def test_a_stream_ends_when_its_key_is_revoked(server_here: Served) -> None:
    admin, viewer = await make_key(server_here, Role.ADMIN), await make_key(server_here, Role.VIEWER)
    rows = (await ask(server_here, admin, KEYS))["data"]["apiKeys"]
    (id,) = [row["id"] for row in rows if row["role"] == "VIEWER"]
    async with socket_of(server_here, bearer(viewer)) as ws:
        await ws.recv()
        await ws.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": EVENTS}}))
        assert json.loads(await asyncio.wait_for(ws.recv(), 10))["type"] == "next"
        await ask(server_here, admin, REVOKE, id=id)
        await ask(server_here, admin, CREATE, input={"name": "secret", "tasks": []})
        told = json.loads(await asyncio.wait_for(ws.recv(), 15))
        assert (told["type"], code_of({"errors": told["payload"]})) == ("error", "UNAUTHENTICATED")


async def test_a_key_adds_no_statement_to_a_request(server_here: Served) -> None:
    secret = await make_key(server_here, Role.WORKER)
    crew = Crew(httpx.AsyncClient(), server_here.services, "")
    async with crew.http as http:
        before = await calls(crew)
        for _ in range(50):
            for given in (secret, "crew_wrong"):
                await http.post(server_here.url, json={"query": "{ __typename }"}, headers=bearer(given))
        ran = await calls(crew) - before
    assert ran["api_keys"] <= 8, "a wrong one costs the database no more"


async def test_keys_are_read_again_only_when_their_mark_is_another(crew: Crew) -> None:
    keys = deciding.Keyring(crew.services.core.pool, open_to_all=True)

    async def reads(mark: str) -> int:
        """While five beats bring this mark."""
        before = (await calls(crew))["api_keys"]
        for _ in range(5):
            keys.confirm(mark, time.monotonic())
            assert await keys.caller(None) == deciding.ANYONE
        await keys.read()  # After one that has begun.
        return (await calls(crew))["api_keys"] - before - 1

    await keys.read()
    assert await reads("") == 0
    assert await reads("made or revoked elsewhere") == 1


async def test_use_is_noted(server_here: Served) -> None:
    admin = await make_key(server_here, Role.ADMIN)
    assert (await ask(server_here, admin, KEYS))["data"]["apiKeys"][0]["lastUsedAt"] is None
    await server_here.services.keys.write_down_uses()
    assert (await ask(server_here, admin, KEYS))["data"]["apiKeys"][0]["lastUsedAt"] is not None


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"name": ""}, ["input", "name"]),
        ({"channels": []}, ["input", "channels"]),
        ({"channels": ["a", ""]}, ["input", "channels", 1]),
        ({"namespace": ""}, ["input", "namespace"]),
    ],
)
async def test_a_key_that_cannot_be_made_is_refused_with_its_path(
    server_here: Served, more: dict[str, Any], path: list[Any]
) -> None:
    answer = await ask(server_here, None, MAKE, input={"name": "k", "role": "WORKER", **more})
    assert answer["errors"][0]["extensions"] == {"code": "BAD_INPUT", "path": path}
    assert (await ask(server_here, None, KEYS))["data"]["apiKeys"] == []


async def test_beyond_loopback_nobody_gets_in_without_a_key(dsn: str) -> None:
    for settings, code in (({}, "UNAUTHENTICATED"), ({"no_keys": True}, None)):
        async with served(dsn, host="0.0.0.0", **settings) as server:
            assert await over_http(server, None, QUERY) == code


# ---------------------------------------------------------------- namespaces


async def test_a_namespace_is_a_world_of_its_own(server_here: Served) -> None:
    admin = await make_key(server_here, Role.ADMIN)
    made = await ask(server_here, admin, MAKE, input={"name": "t", "role": "ADMIN", "namespace": "tenant"})
    tenant = made["data"]["createApiKey"]["secret"]
    tasks = [{"name": "a", "channel": "c"}]
    await ask(server_here, tenant, CREATE, input={"name": "g", "tasks": tasks})
    claim = {"workerId": "w", "channels": ["c"]}
    assert (await ask(server_here, admin, CLAIM, input=claim))["data"]["claimTasks"]["leases"] == []
    assert (await ask(server_here, admin, "{ taskGroups { nodes { name } } }"))["data"]["taskGroups"]["nodes"] == []
    (lease,) = (await ask(server_here, tenant, CLAIM, input=claim))["data"]["claimTasks"]["leases"]
    wrong = await ask(server_here, admin, COMPLETE, input={"results": [{"lease": lease["id"]}]})
    assert wrong["data"]["completeTasks"]["errors"][0]["code"] == "UNKNOWN"
    done = await ask(server_here, tenant, COMPLETE, input={"results": [{"lease": lease["id"]}]})
    assert done["data"]["completeTasks"]["completed"] == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_header_names_a_namespace_and_a_bound_key_enters_no_other(
    server_here: Served, transport: str
) -> None:
    over = TRANSPORTS[transport]
    admin = await make_key(server_here, Role.ADMIN)
    bound = await make_key(server_here, Role.ADMIN, namespace="tenant")
    header = {"crew-namespace": "tenant"}
    assert await over(server_here, admin, QUERY, **header) is None
    assert await over(server_here, bound, QUERY, **header) is None
    assert await over(server_here, bound, QUERY, **{"crew-namespace": "default"}) == "FORBIDDEN"
    assert await over(server_here, admin, QUERY, **{"crew-namespace": "nowhere"}) == "NOT_FOUND"


async def test_a_bound_key_makes_and_sees_keys_of_its_namespace_alone(server_here: Served) -> None:
    await make_key(server_here, Role.ADMIN)
    bound = await make_key(server_here, Role.ADMIN, namespace="tenant")
    made = await ask(server_here, bound, MAKE, input={"name": "k", "role": "VIEWER"})
    assert made["data"]["createApiKey"]["apiKey"]["namespace"] == "tenant"
    refused = await ask(server_here, bound, MAKE, input={"name": "k", "role": "ADMIN", "namespace": "default"})
    assert refused["errors"][0]["extensions"] == {"code": "FORBIDDEN", "path": ["input", "namespace"]}
    rows = (await ask(server_here, bound, KEYS))["data"]["apiKeys"]
    assert [row["namespace"] for row in rows] == ["tenant", "tenant"]
    pool = server_here.services.core.pool
    (other,) = await pool.fetch("select id from api_key where ns is null")
    assert code_of(await ask(server_here, bound, REVOKE, id=str(other["id"]))) == "NOT_FOUND"


async def test_leases_of_a_namespace_run_out_by_themselves(server_here: Served) -> None:
    tenant = await make_key(server_here, Role.ADMIN, namespace="tenant")
    tasks = [{"name": "a", "channel": "c"}]
    await ask(server_here, tenant, CREATE, input={"name": "g", "tasks": tasks})
    claim = {"workerId": "w", "channels": ["c"], "leaseSeconds": 1, "waitSeconds": 10}
    for attempt in (1, 2):
        (lease,) = (await ask(server_here, tenant, CLAIM, input=claim))["data"]["claimTasks"]["leases"]
        assert lease["attempt"] == attempt
