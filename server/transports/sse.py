"""GraphQL over Server-Sent Events, in the distinct-connections mode of graphql-sse: one operation for each request.

Each `next` carries a response; its `id` is the cursor behind it, where it has one, and a request that comes back with it as
`Last-Event-ID` goes on from there. What is refused is a `next` with errors, and `complete`, also where a document or its
variables are bad from the start: the protocol wants it so, since its clients, and browsers, take a status of 400 for a broken line
and never show why. A stream that just ends, without `complete`, is to be begun again.
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
_COMPLETE = b"event: complete\ndata:\n\n"


async def send_stream(
    operations: Operations,
    document: Document,
    params: Params,
    asker: Asker,
    last_event_id: str | None,
    receive: Receive,
    send: Send,
) -> None:
    """Answers with a stream."""
    async with aclosing(_messages(operations, document, params, asker, last_event_id)) as messages:
        sending = asyncio.ensure_future(_send_all(messages, send))
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)
        if not sending.cancelled():
            sending.result()


async def _messages(
    operations: Operations, document: Document, params: Params, asker: Asker, last_event_id: str | None
) -> AsyncGenerator[Told, None]:
    if document.node is None:
        raise RequestRefused.of(document)
    if document.is_subscription(params.operation_name):
        async with aclosing(operations.stream(document, params, asker, "sse", last_event_id)) as stream:
            async for told in stream:
                yield told
    else:
        body, _ = await operations.body(document, params, asker)
        yield Told(body, None)


async def _send_all(messages: AsyncGenerator[Told, None], send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await _write(send, b"")  # The head goes out with it.
    coming = asyncio.ensure_future(anext(messages))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE)
            if not done:
                await _write(send, b":\n\n")
                continue
            told = coming.result()
            id = b"id: %b\n" % told.cursor.encode() if told.cursor else b""
            await _write(send, b"event: next\n%bdata: %b\n\n" % (id, told.body))
            coming = asyncio.ensure_future(anext(messages))
    except StopAsyncIteration:
        await _write(send, _COMPLETE)
    except (Refusal, RequestRefused) as refusal:
        await _write(send, b"event: next\ndata: %b\n\n" % written({"errors": refusal.errors}) + _COMPLETE)
    except Draining:
        pass
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    await send({"type": "http.response.body", "body": b""})


async def _write(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
