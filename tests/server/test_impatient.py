"""What goes out on a connection, and when: the head of a response with the first part of its body."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from server.impatient import _HeadWithBody
from tests.support.streams import served

HEAD, CONTINUE = b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire:
    """A transport that notes what goes out together."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.sent.append(b"".join(parts))

    def close(self) -> None:
        self.closed = True


def response(wire: Any) -> _HeadWithBody:
    return _HeadWithBody(wire)


def test_the_head_goes_out_with_the_first_part_of_the_body() -> None:
    wire = Wire()
    answer = response(wire)
    for part in (HEAD, b"", HEAD, b"more"):
        answer.write(part)
    assert wire.sent == [HEAD, HEAD, b"more"]


def test_a_client_that_asks_before_it_sends_is_answered_at_once() -> None:
    wire = Wire()
    answer = response(wire)
    answer.write(CONTINUE)
    assert wire.sent == [CONTINUE]
    answer.write(HEAD)
    answer.write(b"body")
    assert wire.sent == [CONTINUE, HEAD + b"body"]


def test_a_response_that_breaks_off_before_its_body_loses_no_head() -> None:
    wire = Wire()
    answer = response(wire)
    answer.write(HEAD)
    answer.close()
    assert wire.sent == [HEAD]
    assert wire.closed


async def test_an_event_stream_begins_before_its_first_event(dsn: str) -> None:
    body = b'{"query":"subscription { taskEvents { cursor } }"}'
    head = f"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\ncontent-length: {len(body)}\r\n"
    async with served(dsn) as server:
        place = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
