"""A lean graphql-transport-ws client with one subscription, which can be cut off without a word."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import orjson

SUBSCRIBE = "subscription($input: ClaimedTasksInput!) { claimedTasks(input: $input) { leases { id task { id } } } }"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Socket:
    """One connection. Its frames are masked with zeros, which the protocol allows and costs nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def subscribed(host: str, port: int, given: dict[str, Any]) -> Socket:
        """Returns with the subscription's first message: it stands."""
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"GET /graphql HTTP/1.1\r\nhost: %b\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n"
            % host.encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise ConnectionError(head.decode(errors="replace"))
        made = Socket(reader, writer)
        made._tell({"type": "connection_init"})
        await made.next("connection_ack")
        made._tell({"type": "subscribe", "id": "1", "payload": {"query": SUBSCRIBE, "variables": {"input": given}}})
        await made.next("next")
        return made

    async def next(self, type: str) -> dict[str, Any]:
        """The next message of that type; pings are answered. Raises ConnectionError at the end."""
        while True:
            first, size = await self._reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8))
            body = await self._reader.readexactly(size)
            if first & 15 == PING:
                self._send(PONG, body)
            elif first & 15 == CLOSE:
                raise ConnectionError(f"closed: {body!r}")
            elif first & 15 == TEXT:
                message: dict[str, Any] = orjson.loads(body)
                if message["type"] == "ping":
                    self._tell({"type": "pong"})
                elif message["type"] == type:
                    return message
                else:
                    raise ConnectionError(f"{message} instead of {type}")

    def cut(self) -> None:
        """The connection is gone, without a closing handshake (RST)."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._writer.transport.abort()

    def _tell(self, message: dict[str, Any]) -> None:
        self._send(TEXT, orjson.dumps(message))

    def _send(self, kind: int, body: bytes) -> None:
        size = bytes([128 | len(body)]) if len(body) < 126 else bytes([128 | 126]) + len(body).to_bytes(2)
        self._writer.write(bytes([128 | kind]) + size + bytes(4) + body)
