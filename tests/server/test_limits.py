"""What a client may ask for, each limit by its own code; and the twelve attacks of graphql-cop."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from graphql import get_introspection_query

from resolvers.core import Limits
from server.app import limits_of
from server.settings import Settings
from tests.support.access import bearer, code_of, over_sse, socket_of
from tests.support.crew import CLAIM, CREATE, TASK, Crew, crew_on
from tests.support.streams import EVENTS, served

SMALL = {
    "max_depth": 5,
    "max_nodes": 1000,
    "max_fields": 30,
    "max_aliases": 3,
    "max_directives": 2,
    "max_tokens": 200,
    "max_page": 100,
    "max_batch": 10,
    "max_input_bytes": 1024,
    "max_body_bytes": 4096,
}


async def codes(crew: Crew, query: str, **variables: Any) -> list[str]:
    answer = (await crew.send(query, **variables)).json()
    return [error["extensions"]["code"] for error in answer.get("errors", ())]


FRAGMENTS = "{ ...A ...A } " + " ".join(
    f"fragment {a} on Query {{ ...{b} ...{b} }}" for a, b in zip("ABCDEFGHIJKLM", "BCDEFGHIJKLMN", strict=True)
)
BOMB = FRAGMENTS + " fragment N on Query { server { version } }"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ tasks { nodes { parents { parents { parents { id } } } } } }", "TOO_DEEP"),
        ("{ ...A } fragment A on Query { tasks { nodes { parents { ...B } } } } "
         "fragment B on Task { parents { parents { id } } }", "TOO_DEEP"),
        ("{ tasks(first: 50) { nodes { parents(first: 20) { id } } } }", "TOO_MANY_NODES"),
        ("{ tasks { nodes { parents { id } } } }", "TOO_MANY_NODES"),
        ("{ taskGroups(first: 100) { nodes { tasks(first: 10) { nodes { id } } } } }", "TOO_MANY_NODES"),
        ("{ a: __typename b: __typename c: __typename d: __typename }", "TOO_MANY_ALIASES"),
        ("{ __typename @skip(if: false) @skip(if: false) @skip(if: false) }", "TOO_MANY_DIRECTIVES"),
        ("query($x: Boolean = true @a @b @c) { __typename }", "TOO_MANY_DIRECTIVES"),
        ("{" + " __typename" * 31 + "}", "TOO_MANY_FIELDS"),
        (BOMB, "TOO_MANY_FIELDS"),
        ("{" + " __typename" * 250 + "}", "TOO_MANY_TOKENS"),
    ],
)  # fmt: skip
async def test_each_limit_of_a_document_has_a_code_of_its_own(dsn: str, query: str, code: str) -> None:
    async with crew_on(dsn, **SMALL) as crew:
        answer = (await crew.send(query)).json()
        assert [e["extensions"]["code"] for e in answer["errors"]] == [code]
        assert "data" not in answer
        assert "allowed" in answer["errors"][0]["message"] or code == "TOO_MANY_TOKENS"


@pytest.mark.parametrize(
    "query",
    [
        "{ tasks { nodes { parents(first: 1) { id } } } }",
        "{ tasks(first: 10) { nodes { parents(first: 50) { id } children(first: 49) { id } } } }",
        "{ a: __typename b: __typename c: __typename }",
        "{ tasks(first: 0) { nodes { parents { id } } } }",
    ],
)
async def test_what_keeps_the_limits_is_answered(dsn: str, query: str) -> None:
    async with crew_on(dsn, **SMALL) as crew:
        assert await codes(crew, query) == []


async def test_page_sizes_in_variables_count_as_they_are_sent(dsn: str) -> None:
    query = "query($n: Int, $m: Int = 20) { tasks(first: $n) { nodes { parents(first: $m) { id } } } }"
    async with crew_on(dsn, **SMALL) as crew:
        assert await codes(crew, query, n=10) == []
        assert await codes(crew, query, n=47) == []
        assert await codes(crew, query, n=48) == ["TOO_MANY_NODES"]
        assert await codes(crew, query, n=48.0) == ["TOO_MANY_NODES"]
        assert await codes(crew, query, n=48, m=19) == []
        assert await codes(crew, query) == ["TOO_MANY_NODES"], "50 by default"
        assert await codes(crew, query, n="x") == ["BAD_INPUT"]
        assert await codes(crew, query, n=-1) == ["BAD_INPUT"]


async def test_limits_of_calls_have_codes_and_paths(dsn: str) -> None:
    async with crew_on(dsn, **SMALL) as crew:
        tasks = [{"name": "a", "channel": "c"}]
        many = (await crew.send(CREATE, input={"name": "g", "tasks": tasks * 11})).json()["errors"][0]["extensions"]
        assert many == {"code": "TOO_LARGE", "path": ["input"]}
        large = [{**tasks[0], "input": "x" * 2000}]
        refused = (await crew.send(CREATE, input={"name": "g", "tasks": large})).json()["errors"][0]["extensions"]
        assert refused == {"code": "TOO_LARGE", "path": ["input", "tasks", 0, "input"]}
        response = await crew.send(CREATE, input={"name": "x" * 5000})
        assert (response.status_code, code_of(response.json())) == (413, "TOO_LARGE")
        assert await codes(crew, "{ tasks(first: 101) { nodes { id } } }") == ["BAD_INPUT"]
        assert (await crew.ask("{ taskGroups { nodes { id } } }"))["taskGroups"]["nodes"] == [], "nothing was made"


async def test_a_wait_is_cut_to_the_limit(dsn: str) -> None:
    async with crew_on(dsn, max_wait_seconds=0.2) as crew:
        given = {"workerId": "w", "channels": ["c"], "waitSeconds": 600}
        answer = await asyncio.wait_for(crew.ask(CLAIM, input=given), 10)
        assert answer["claimTasks"]["leases"] == []


async def test_every_limit_is_a_setting_and_shown() -> None:
    settings = Settings(**SMALL)  # type: ignore[arg-type]
    limits = limits_of(settings)
    assert all(getattr(limits, name) == value for name, value in SMALL.items())
    assert limits_of(Settings()) == Limits()


async def test_the_server_shows_its_limits(dsn: str) -> None:
    names = (await _fields("ServerLimits", dsn)) - {"__typename"}
    assert len(names) == len(Limits.__dataclass_fields__)
    async with crew_on(dsn, max_depth=7, max_connections=3) as crew:
        shown = (await crew.ask(f"{{ server {{ limits {{ {' '.join(names)} }} }} }}"))["server"]["limits"]
    assert (shown["maxDepth"], shown["maxConnections"], shown["maxNodes"]) == (7, 3, 3_000_000)


async def _fields(kind: str, dsn: str) -> set[str]:
    async with crew_on(dsn) as crew:
        found = await crew.ask("query($n: String!) { __type(name: $n) { fields { name } } }", n=kind)
    return {field["name"] for field in found["__type"]["fields"]}


# ---------------------------------------------------------------- connections and subscriptions


async def test_connections_of_a_client_are_limited_and_one_that_ends_makes_room(dsn: str) -> None:
    async with served(dsn, max_connections=2) as server:
        events = {"query": EVENTS}
        async with socket_of(server) as one:
            await one.recv()
            async with socket_of(server) as two:
                await two.recv()
                async with socket_of(server) as three:
                    with pytest.raises(Exception, match="TOO_MANY_CONNECTIONS") as closed:
                        await asyncio.wait_for(three.recv(), 10)
                    assert closed.value.rcvd.code == 4429  # type: ignore[attr-defined]
                assert await over_sse(server, None, events) == "TOO_MANY_CONNECTIONS"
            for _ in range(100):
                if (code := await over_sse(server, None, events)) is None:
                    break
                await asyncio.sleep(0.05)
            assert code is None


async def test_subscriptions_of_a_client_are_limited(dsn: str) -> None:
    async with served(dsn, max_subscriptions=2) as server, socket_of(server) as ws:
        await ws.recv()

        async def subscribe(id: str) -> dict[str, Any]:
            await ws.send(json.dumps({"type": "subscribe", "id": id, "payload": {"query": EVENTS}}))
            return json.loads(await asyncio.wait_for(ws.recv(), 10))

        assert [(await subscribe(id))["type"] for id in "ab"] == ["next", "next"]
        refused = await subscribe("c")
        assert (refused["type"], refused["payload"][0]["extensions"]["code"]) == ("error", "TOO_MANY_SUBSCRIPTIONS")
        async with httpx.AsyncClient() as http:
            headers = {"accept": "text/event-stream", **bearer(None)}
            response = await http.post(server.url, json={"query": EVENTS}, headers=headers)
            assert (response.status_code, response.headers["retry-after"]) == (429, "5")


# ---------------------------------------------------------------- the twelve attacks of graphql-cop


async def post(crew: Crew, body: Any, **headers: str) -> httpx.Response:
    return await crew.http.post(
        "/graphql", content=json.dumps(body), headers={"content-type": "application/json", **headers}
    )


async def test_alias_overloading(crew: Crew) -> None:
    aliases = " ".join(f"alias{n}: __typename" for n in range(101))
    assert await codes(crew, f"query cop {{ {aliases} }}") == ["TOO_MANY_ALIASES"]


async def test_array_batching(crew: Crew) -> None:
    response = await post(crew, [{"query": "query cop { __typename }"}] * 10)
    assert (response.status_code, code_of(response.json())) == (400, "BAD_REQUEST")


async def test_directive_overloading(crew: Crew) -> None:
    assert await codes(crew, f"query cop {{ __typename {'@aa' * 21} }}") == ["TOO_MANY_DIRECTIVES"]
    assert len(await codes(crew, f"query cop {{ __typename {'@aa' * 10} }}")) <= 6, "not an error for each"


async def test_circular_introspection(crew: Crew) -> None:
    circle = "name"
    for _ in range(8):
        circle = f"fields {{ type {{ {circle} }} }}"
    assert await codes(crew, f"query cop {{ __schema {{ types {{ {circle} }} }} }}") == ["GRAPHQL_VALIDATION_FAILED"]


async def test_field_duplication(crew: Crew) -> None:
    assert await codes(crew, "query cop {" + " __typename" * 500 + " }") == ["TOO_MANY_FIELDS"]


async def test_introspection_is_open_to_whoever_is_let_in(crew: Crew) -> None:
    """On purpose: the schema is public. Where there are keys it needs one, as everything does (tests/server/test_access.py)."""
    full = get_introspection_query(specified_by_url=True, directive_is_repeatable=True, input_value_deprecation=True)
    assert await codes(crew, full) == []


async def test_field_suggestions_tell_no_more_than_introspection_does(crew: Crew) -> None:
    answer = (await crew.send("query cop { servr { version } }")).json()
    assert [e["extensions"]["code"] for e in answer["errors"]] == ["GRAPHQL_VALIDATION_FAILED"]
    assert len(json.dumps(answer)) < 500


async def test_trace_mode(crew: Crew) -> None:
    for answer in (await post(crew, {"query": "query cop { __typename }"}, **{"x-apollo-tracing": "1"}),):
        assert answer.json() == {"data": {"__typename": "Query"}}, "no extensions"


async def test_graphiql_is_a_page_that_holds_nothing_and_may_load_nothing_foreign(crew: Crew) -> None:
    page = await crew.http.get("/graphql", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


async def test_unhandled_errors(crew: Crew) -> None:
    for query in ("qwerty cop { abc }", "query cop {", "\0", "query cop { task(id: 5) { id } }"):
        answer = (await crew.send(query)).json()
        assert not {"exception", "stacktrace", "traceback"} & set(json.dumps(answer).lower().split('"'))
        assert code_of(answer) in ("GRAPHQL_PARSE_FAILED", "BAD_INPUT", "GRAPHQL_VALIDATION_FAILED")


async def test_get_of_a_mutation(crew: Crew) -> None:
    response = await crew.http.get("/graphql", params={"query": "mutation cop { __typename }"})
    assert (response.status_code, code_of(response.json())) == (405, "METHOD_NOT_ALLOWED")


async def test_get_of_a_query_by_a_page_of_another_site(crew: Crew) -> None:
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}):
        response = await crew.http.get("/graphql", params={"query": "query cop { __typename }"}, headers=headers)
        assert (response.status_code, code_of(response.json())) == (403, "FORBIDDEN")


async def test_a_post_of_a_form(crew: Crew) -> None:
    response = await crew.http.post("/graphql", data={"query": "query cop { __typename }"})
    assert (response.status_code, code_of(response.json())) == (415, "UNSUPPORTED_MEDIA_TYPE")


# ---------------------------------------------------------------- what takes time


@pytest.mark.parametrize(
    "query",
    [
        "{ a" * 6000,
        "{ a(b: " + "[" * 9000 + "]" * 9000 + ") }",
        "{ __typename " + "... { " * 4000 + "__typename" + " }" * 4000 + " }",
        BOMB,
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "query(" + " ".join(f"$v{n}: Int" for n in range(4000)) + ") { __typename }",
    ],
    ids=["open braces", "lists", "inline fragments", "fragments that double", "a circle", "variables"],
)
async def test_a_document_made_to_take_long_is_refused_soon(crew: Crew, query: str) -> None:
    assert len(await asyncio.wait_for(codes(crew, query), 10)) >= 1
    assert (await crew.create({"name": "a"}))["tasks"][0]["name"] == "a"
    assert TASK
