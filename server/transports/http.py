"""GraphQL over HTTP: POST and GET on one path, as the specification of that name says; streams go on to sse.py."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import lru_cache, partial
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from resolvers.wait import result_of
from server import graphiql
from server.access import Access
from server.operations import Operations, Params, RequestRefused, read, written
from server.reads import Reads
from server.refusal import Refusal
from server.transports import sse

RESPONSE = "application/graphql-response+json"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"


Done = TypeVar("Done")


class GraphQLOverHTTP:
    """The ASGI application of the path."""

    def __init__(self, operations: Operations, access: Access, max_body: int) -> None:
        self._operations = operations
        self._access = access
        self._max_body = max_body
        self._reads: Reads[tuple[bytes, bool]] = Reads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        accept = headers.get(b"accept", b"").decode("latin-1")
        if scope["method"] == "GET" and not scope["query_string"] and "text/html" in accept:
            await graphiql.response()(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and (allowed := self._access.preflight(headers)) is not None:
            send = self._access.with_cors(headers, send)
            await send({"type": "http.response.start", "status": 204, "headers": allowed})
            await send({"type": "http.response.body", "body": b""})
            return
        if b"origin" in headers:
            send = self._access.with_cors(headers, send)
        media_type = JSON
        try:
            self._access.check_source(headers)
            media_type = _media_type(accept)
            asker = await self._access.asker(scope, headers)
            sent, params = await self._params(scope, headers, receive)
            document = self._operations.documents.get(params.query)
            if scope["method"] == "GET" and document.is_mutation(params.operation_name):
                raise Refusal(405, "METHOD_NOT_ALLOWED", "a mutation must be sent by POST", {"allow": "POST"})
            if scope["method"] == "GET" and document.may_change(params.operation_name):
                raise Refusal(405, "METHOD_NOT_ALLOWED", "this subscription must be sent by POST", {"allow": "POST"})
            if media_type == EVENT_STREAM:
                last = headers.get(b"last-event-id", b"").decode("latin-1") or None
                with self._access.connections.one(asker.client):
                    with self._access.subscriptions.one(asker.client):
                        await sse.send_stream(self._operations, document, params, asker, last, receive, send)
                return
            if document.is_subscription(params.operation_name):
                raise Refusal(
                    406,
                    "NOT_ACCEPTABLE",
                    f"a subscription needs `accept: {EVENT_STREAM}`, or a websocket; or use the query of the same name",
                )
            run = partial(self._operations.body, document, params, asker)
            done: tuple[bytes, bool] | None
            if document.only_reads(params.operation_name):
                done = await self._reads.answer((asker.services.core.ns, asker.caller, sent), run)
            else:
                done = await (unless_gone(run(), receive) if document.may_wait else run())
            if done is not None:
                body, bad = done
                await send_body(send, 400 if bad and media_type == RESPONSE else 200, media_type, body)
        except RequestRefused as refusal:
            await send_body(
                send, 400 if media_type == RESPONSE else 200, media_type, written({"errors": refusal.errors})
            )
        except Refusal as refusal:
            await send_refusal(send, refusal, JSON if media_type == EVENT_STREAM else media_type)

    async def _params(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> tuple[bytes, Params]:
        """As sent, and read."""
        if scope["method"] == "GET":
            return scope["query_string"], _from_query(scope["query_string"])
        if scope["method"] != "POST":
            raise Refusal(405, "METHOD_NOT_ALLOWED", "use POST, or GET for queries", {"allow": "GET, POST"})
        kind, _, rest = headers.get(b"content-type", b"").decode("latin-1").partition(";")
        if kind.strip().lower() != JSON:
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the content type must be {JSON}", {"accept": JSON})
        charset = rest.partition("charset=")[2].strip().strip('"').lower()
        if charset not in ("", "utf-8", "utf8"):
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the charset must be utf-8, not {charset[:40]}")
        body = await whole_body(headers, receive, self._max_body)
        return body, Params(read(body))


async def whole_body(headers: dict[bytes, bytes], receive: Receive, most: int) -> bytes:
    """What was sent. Raises Refusal when that is more than `most` bytes."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > most:
        raise Refusal(413, "TOO_LARGE", f"the body has {int(length)} bytes; at most {most} are allowed")
    parts: list[bytes] = []
    total = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "BAD_REQUEST", "the body ended too soon")
        part = message.get("body", b"")
        total += len(part)
        if total > most:
            raise Refusal(413, "TOO_LARGE", f"the body is larger than the {most} bytes that are allowed")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def unless_gone(result: Coroutine[Any, Any, Done], receive: Receive) -> Done | None:
    """The result, or None when the client goes away first: then what runs is cancelled."""
    running = asyncio.create_task(result)
    gone = asyncio.create_task(_disconnect(receive))
    gone.add_done_callback(lambda _: running.cancel())
    try:
        return await result_of(running)
    finally:
        gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@lru_cache(256)
def _media_type(accept: str) -> str:
    """What the client takes: the first of ours in its list."""
    if not accept:
        return JSON
    for part in accept.split(","):
        kind, _, weight = part.replace(" ", "").lower().partition(";")
        if weight.startswith("q=0") and not weight.strip("q=0."):
            continue
        if kind in (RESPONSE, EVENT_STREAM):
            return kind
        if kind in (JSON, "application/*", "*/*"):
            return JSON
    raise Refusal(406, "NOT_ACCEPTABLE", f"accept {RESPONSE}, {JSON} or {EVENT_STREAM}")


def _from_query(query: bytes) -> Params:
    given: dict[str, Any] = {k: v[-1] for k, v in parse_qs(query.decode("latin-1"), keep_blank_values=True).items()}
    for name in ("variables", "extensions"):
        if given.get(name):
            given[name] = read(given[name].encode())
        else:
            given.pop(name, None)
    if not given.get("operationName"):
        given.pop("operationName", None)
    return Params(given)


async def send_body(send: Send, status: int, media_type: str, body: bytes, more: dict[str, str] | None = None) -> None:
    headers = [
        (b"content-type", f"{media_type}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += [(name.encode(), value.encode()) for name, value in (more or {}).items()]
    await send(cast(Message, {"type": "http.response.start", "status": status, "headers": headers}))
    await send(cast(Message, {"type": "http.response.body", "body": body}))


async def send_refusal(send: Send, refusal: Refusal, media_type: str = JSON) -> None:
    body = written({"errors": refusal.errors})
    await send_body(send, refusal.status, media_type, body, refusal.headers)
