"""GraphQL over HTTP: POST and GET on one path, as the specification of that name says, on our own schema.

A body is read by orjson, and by the slower exact reader where that would lose something: integers beyond 64 bits, lone
surrogates. What they hold is then refused with the path of the field, not as broken JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs

import orjson
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, execute
from starlette.types import Message, Receive, Scope, Send

from schema.compiled import Compiled, NotCovered
from schema.context import Context
from schema.errors import formatted, refused_request
from server import graphiql
from server.documents import Document, Documents

RESPONSE = "application/graphql-response+json"
JSON = "application/json"
_LONG_NUMBER = re.compile(rb"\d{19}")


Done = TypeVar("Done")


class Refusal(Exception):
    """A request that is not GraphQL over HTTP."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


class Params:
    """One operation to run."""

    __slots__ = ("operation_name", "query", "variables")

    def __init__(self, given: object) -> None:
        if not isinstance(given, dict):
            raise Refusal(400, "BAD_REQUEST", "the body must be a JSON object with a `query`")
        self.query: str = _typed(given, "query", str, "a string")
        if not self.query:
            raise Refusal(400, "BAD_REQUEST", "`query` is missing: send the text of a GraphQL document")
        self.variables: dict[str, Any] | None = _typed(given, "variables", dict, "an object")
        self.operation_name: str | None = _typed(given, "operationName", str, "a string")
        _typed(given, "extensions", dict, "an object")


def _typed(given: dict[str, Any], name: str, kind: type[Any], what: str) -> Any:
    value = given.get(name)
    if value is not None and not isinstance(value, kind):
        raise Refusal(400, "BAD_REQUEST", f"`{name}` must be {what}, not {type(value).__name__}")
    return value


class GraphQLOverHTTP:
    """The ASGI application of the path."""

    def __init__(self, schema: GraphQLSchema, context: Callable[[], Context], max_body: int) -> None:
        self._schema = schema
        self._documents = Documents(schema)
        self._context = context
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        accept = headers.get(b"accept", b"").decode("latin-1")
        if scope["method"] == "GET" and not scope["query_string"] and "text/html" in accept:
            await graphiql.response()(scope, receive, send)
            return
        media_type = JSON
        try:
            media_type = _media_type(accept)
            _refuse_other_namespace(headers)
            params = await self._params(scope, headers, receive)
            document = self._documents.get(params.query)
            if scope["method"] == "GET" and document.is_mutation(params.operation_name):
                raise Refusal(405, "METHOD_NOT_ALLOWED", "a mutation must be sent by POST", {"allow": "POST"})
            body, bad = await self._run(document, params, receive)
            if body is None:
                return
            status = 400 if bad and media_type == RESPONSE else 200
            await _send(send, status, media_type, body)
        except Refusal as refusal:
            body = _written({"errors": [{"message": str(refusal), "extensions": {"code": refusal.code}}]})
            await _send(send, refusal.status, media_type, body, refusal.headers)

    async def _params(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Params:
        if scope["method"] == "GET":
            return _from_query(scope["query_string"])
        if scope["method"] != "POST":
            raise Refusal(405, "METHOD_NOT_ALLOWED", "use POST, or GET for queries", {"allow": "GET, POST"})
        kind, _, rest = headers.get(b"content-type", b"").decode("latin-1").partition(";")
        if kind.strip().lower() != JSON:
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the content type must be {JSON}", {"accept": JSON})
        charset = rest.partition("charset=")[2].strip().strip('"').lower()
        if charset not in ("", "utf-8", "utf8"):
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the charset must be utf-8, not {charset[:40]}")
        return Params(_read(await self._body(headers, receive)))

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._max_body:
            raise Refusal(413, "TOO_LARGE", f"the body has {int(length)} bytes; at most {self._max_body} are allowed")
        parts: list[bytes] = []
        total = 0
        while True:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "BAD_REQUEST", "the body ended too soon")
            part = message.get("body", b"")
            total += len(part)
            if total > self._max_body:
                raise Refusal(413, "TOO_LARGE", f"the body is larger than the {self._max_body} bytes that are allowed")
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _run(self, document: Document, params: Params, receive: Receive) -> tuple[bytes | None, bool]:
        """The response body (None when the client has gone), and whether the request itself was bad."""
        if document.node is None:
            return _refused(document.errors, document.code), True
        running = self._answer(document, params)
        done = await (_unless_gone(running, receive) if document.may_wait else running)
        if done is None:
            return None, False
        data, errors = done
        if data is None and errors and all(e.path is None for e in errors):
            return _refused(errors, "BAD_INPUT"), True
        if errors:
            return _written({"errors": [formatted(e) for e in errors], "data": data}), False
        return _written({"data": data}), False

    async def _answer(self, document: Document, params: Params) -> tuple[dict[str, Any] | None, list[GraphQLError]]:
        """Data and errors: compiled where that is covered, and by the executor."""
        ready = _compiled_inputs(document, params)
        if ready is not None:
            compiled, inputs = ready
            try:
                return await compiled.run(self._context(), inputs)
            except Exception:
                # A query: the executor says what is wrong and where, and answers the rest.
                pass
        assert document.node is not None
        result = execute(
            self._schema,
            document.node,
            context_value=self._context(),
            variable_values=params.variables,
            operation_name=params.operation_name,
        )
        done = result if isinstance(result, ExecutionResult) else await result
        return done.data, done.errors or []


def _compiled_inputs(document: Document, params: Params) -> tuple[Compiled, dict[str, Any]] | None:
    compiled = document.compiled_operation(params.operation_name)
    if compiled is None:
        return None
    try:
        return compiled, compiled.inputs(params.variables)
    except NotCovered:
        return None


async def _unless_gone(result: Awaitable[Done], receive: Receive) -> Done | None:
    """The result, or None when the client goes away first: then what runs is cancelled."""
    running = asyncio.ensure_future(result)
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.wait({running})
        return None
    finally:
        gone.cancel()
        running.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _refused(errors: list[GraphQLError], code: str) -> bytes:
    return _written({"errors": [refused_request(e, code) for e in errors]})


def _written(answer: dict[str, Any]) -> bytes:
    """As JSON. An answer may quote what was sent, lone surrogates too: those are written as U+FFFD."""
    try:
        return orjson.dumps(answer)
    except TypeError:
        return orjson.dumps(_whole(answer))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_whole(k): _whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_whole(v) for v in value]
    return value


def _refuse_other_namespace(headers: dict[bytes, bytes]) -> None:
    """There is one namespace until someone makes another."""
    name = headers.get(b"crew-namespace")
    if name is not None and name != b"default":
        raise Refusal(404, "NOT_FOUND", f"no namespace {name.decode('latin-1')[:80]!r}: leave Crew-Namespace out")


def _media_type(accept: str) -> str:
    """What the client takes: the first of ours in its list."""
    if not accept:
        return JSON
    for part in accept.split(","):
        kind, _, weight = part.replace(" ", "").lower().partition(";")
        if weight.startswith("q=0") and not weight.strip("q=0."):
            continue
        if kind == RESPONSE:
            return RESPONSE
        if kind in (JSON, "application/*", "*/*"):
            return JSON
    raise Refusal(406, "NOT_ACCEPTABLE", f"accept {RESPONSE} or {JSON}")


def _from_query(query: bytes) -> Params:
    given: dict[str, Any] = {k: v[-1] for k, v in parse_qs(query.decode("latin-1"), keep_blank_values=True).items()}
    for name in ("variables", "extensions"):
        if given.get(name):
            given[name] = _read(given[name].encode())
        else:
            given.pop(name, None)
    if not given.get("operationName"):
        given.pop("operationName", None)
    return Params(given)


def _read(body: bytes) -> object:
    try:
        if _LONG_NUMBER.search(body):
            return json.loads(body, parse_constant=_no_constant)
        return orjson.loads(body)
    except ValueError:
        try:
            return json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "BAD_REQUEST", f"the body is not JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def _send(send: Send, status: int, media_type: str, body: bytes, more: dict[str, str] | None = None) -> None:
    headers = [
        (b"content-type", f"{media_type}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += [(name.encode(), value.encode()) for name, value in (more or {}).items()]
    await send(cast(Message, {"type": "http.response.start", "status": status, "headers": headers}))
    await send(cast(Message, {"type": "http.response.body", "body": body}))
