"""A TCP proxy in front of PostgreSQL whose line can be cut without a word, as a dead network does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """`dsn` leads through it. While `black_hole` is set nothing passes either way, and nothing is closed."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._user, self._database = parts.username, parts.path.lstrip("/")
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self.connections = 0

    @property
    def dsn(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://{self._user}@127.0.0.1:{port}/{self._database}?sslmode=disable"

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
            await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(dsn)
    proxy._server = await asyncio.start_server(proxy._carry, "127.0.0.1", 0)
    try:
        yield proxy
    finally:
        proxy.mend()
        proxy._server.close()
