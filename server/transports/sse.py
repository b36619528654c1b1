"""GraphQL over Server-Sent Events, in the distinct-connections mode of graphql-sse: one operation for each request.

Each `next` carries a response; its `id` is the cursor behind it, where it has one, and a request that comes back with it as
`Last-Event-ID` goes on from there. A stream that just ends, without `complete`, is to be begun again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import Receive, Send

from server.access import Asker
from server.documents import Document
from server.operations import Draining, Operations, Params, RequestRefused, Told, written
from server.refusal import Refusal

KEEP_ALIVE = 10.0
"""A comment after so long a silence."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


async def send_stream(
    operations: Operations,
    document: Document,
    params: Params,
    asker: Asker,
    last_event_id: str | None,
    receive: Receive,
    send: Send,
) -> None:
    """Answers with a stream. Raises Refusal and RequestRefused, before anything is sent, for what is wrong from the start."""
    if document.node is None:
        raise RequestRefused.of(document)
    async with aclosing(_messages(operations, document, params, asker, last_event_id)) as messages:
        first = asyncio.ensure_future(anext(messages))
        sending = asyncio.ensure_future(_send_all(messages, first, send))
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending, first):
                task.cancel()
            await asyncio.gather(gone, sending, first, return_exceptions=True)
        if not sending.cancelled():
            sending.result()


async def _messages(
    operations: Operations, document: Document, params: Params, asker: Asker, last_event_id: str | None
) -> AsyncGenerator[Told, None]:
    if document.is_subscription(params.operation_name):
        async with aclosing(operations.stream(document, params, asker, "sse", last_event_id)) as stream:
            async for told in stream:
                yield told
    else:
        body, _ = await operations.body(document, params, asker)
        yield Told(body, None)


async def _send_all(messages: AsyncGenerator[Told, None], first: asyncio.Future[Told], send: Send) -> None:
    """The first message decides: what it raises is a plain refusal. After it, errors are messages."""
    coming = first
    begun = False
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE)
            if not done:
                if not begun:
                    begun = True
                    await _begin(send)
                await _write(send, b":\n\n")
                continue
            try:
                told = coming.result()
            except StopAsyncIteration:
                break
            except (Refusal, RequestRefused) as refusal:
                if not begun:
                    raise
                errors = refusal.errors if isinstance(refusal, RequestRefused) else [refusal.error]
                await _write(send, b"event: next\ndata: %b\n\n" % written({"errors": errors}))
                break
            if not begun:
                begun = True
                await _begin(send)
            id = b"id: %b\n" % told.cursor.encode() if told.cursor else b""
            await _write(send, b"event: next\n%bdata: %b\n\n" % (id, told.body))
            coming = asyncio.ensure_future(anext(messages))
        await _write(send, b"event: complete\ndata:\n\n")
    except Draining:
        if not begun:
            await _begin(send)
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    await send({"type": "http.response.body", "body": b""})


async def _begin(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


async def _write(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
