"""As much of HTTP/1.1 as calls need: one POST after another to one address, over connections that are kept open.

A general client takes most of a millisecond of CPU for a request, this one a tenth of it (docs/adr/0021). Proxies are those
of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httptools

from crew_worker.errors import CrewError

# An idle connection is not used again after so long: whoever is on the other side may have forgotten it.
KEPT_SECONDS = 5.0
KEPT = 100


class HttpError(Exception):
    """There is no answer, or half of one."""


@dataclass(frozen=True)
class Response:
    """Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""


class Line(asyncio.Protocol):
    """One connection. One request at a time: `send`, then `answer`, or `head` and `parts`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport
        self._woken: asyncio.Future[None] | None = None
        self._whole_alone = True
        self._heard = self._unsent = 0.0
        self._broken = ""
        self.kept_since = 0.0
        self.begin()

    def begin(self) -> None:
        """No request is out, and none was answered. After start_tls, too."""
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._has_head = self._is_whole = self._keeps = False

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort(f"the answer is not HTTP: {error}")
            return
        if self._is_whole or not self._whole_alone:
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        # Without a length a body ends with the connection.
        if self._has_head and not {"content-length", "transfer-encoding"} & self._headers.keys():
            self._is_whole = True
        self._broken = self._broken or f"the connection was closed{f': {error}' if error else ''}"
        self._wake()

    # -- what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._has_head = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._is_whole = self._has_head
        self._keeps = self._parser.should_keep_alive()
        if not self._is_whole:  # 100 Continue, 103 Early Hints
            self._headers = {}

    # -- what a request calls

    def send(self, request: bytes, *, whole_alone: bool = True) -> None:
        """`whole_alone`: whoever waits is woken when the answer is whole, not at each part of it."""
        self.begin()
        self._whole_alone = whole_alone
        self._heard = self._loop.time()
        self._transport.write(request)
        self._unsent = self._transport.get_write_buffer_size()

    async def answer(self, silence: float) -> Response:
        """Raises HttpError, also after so many seconds without a byte."""
        while not self._is_whole:
            await self._news(silence)
        return Response(self._parser.get_status_code(), self._headers, b"".join(self._parts))

    async def head(self, silence: float) -> Response:
        """The answer without its body."""
        while not self._has_head:
            await self._news(silence)
        return Response(self._parser.get_status_code(), self._headers)

    async def parts(self, silence: float) -> AsyncIterator[bytes]:
        """The body, as it comes."""
        while self._parts or not self._is_whole:
            parts, self._parts = self._parts, []
            if parts:
                yield b"".join(parts)
            else:
                await self._news(silence)

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """TLS from here on."""
        made = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if made is None:
            raise HttpError("the connection was closed before it was secure")
        self._transport = made
        self.begin()

    @property
    def is_usable(self) -> bool:
        """For another request, now."""
        if self._broken or not self._keeps:
            return False
        return self._loop.time() - self.kept_since < KEPT_SECONDS

    def abort(self, why: str = "closed here") -> None:
        self._broken = self._broken or why
        self._transport.abort()
        self._wake()

    async def _news(self, silence: float) -> None:
        if self._broken:
            raise HttpError(self._broken)
        self._woken = self._loop.create_future()
        timer = self._loop.call_at(self._heard + silence, self._is_silent, silence)
        try:
            await self._woken
        finally:
            self._woken = None
            timer.cancel()

    def _is_silent(self, silence: float) -> None:
        """Bytes that came, or went, since the timer was set were no silence."""
        now, unsent = self._loop.time(), self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._heard = unsent, now
        if now - self._heard >= silence - 0.001:
            self.abort(f"nothing was heard for {silence:g} s")
        else:
            self._wake()

    def _wake(self) -> None:
        if self._woken and not self._woken.done():
            self._woken.set_result(None)


class Http:
    """One address. Lives in one event loop."""

    def __init__(self, url: str, headers: Mapping[str, str], *, opening: float = 10.0, trust_env: bool = True) -> None:
        """`opening`: seconds that a connection may take to open."""
        self._opening = opening
        split = urlsplit(url)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise CrewError(f"{url!r} is not the URL of a server: it should look like http://127.0.0.1:8000")
        self._is_secure, self._host = split.scheme == "https", split.hostname
        self._port = split.port or (443 if self._is_secure else 80)
        self._context = ssl.create_default_context() if self._is_secure else None
        proxies = getproxies() if trust_env and not proxy_bypass(self._host) else {}
        proxy = proxies.get(split.scheme) or proxies.get("all")
        self._proxy = urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else None
        if self._proxy and self._proxy.scheme not in ("http", "https"):
            raise CrewError(
                f"a proxy that speaks {self._proxy.scheme} cannot be used: name an HTTP proxy, or none (NO_PROXY)"
            )
        target = f"{split.path or '/'}{f'?{split.query}' if split.query else ''}"
        if self._proxy and not self._is_secure:
            target = f"http://{split.netloc}{target}"
        self._start = f"POST {target} HTTP/1.1\r\nhost: {split.netloc.rpartition('@')[2]}\r\n"
        if self._proxy and not self._is_secure:
            self._start += self._proxy_key()
        self._headers = dict(headers)
        self._fixed = self._head(self._headers)
        self._idle: list[Line] = []

    async def close(self) -> None:
        while self._idle:
            self._idle.pop().abort()

    async def post(self, body: bytes, *, silence: float) -> Response:
        """Raises HttpError: it may have arrived all the same. `silence`: seconds without a byte."""
        line = await self._line()
        try:
            line.send(b"%bcontent-length: %d\r\n\r\n%b" % (self._fixed, len(body), body))
            answer = await line.answer(silence)
        except BaseException:
            line.abort()
            raise
        self._keep(line)
        return answer

    @contextlib.asynccontextmanager
    async def stream(
        self, body: bytes, headers: Mapping[str, str], *, opening: float, silence: float
    ) -> AsyncIterator[tuple[Response, AsyncIterator[bytes]]]:
        """The head of an answer and its body as it comes, over a connection of its own. Raises HttpError."""
        line = await self._open()
        try:
            head = self._head({**self._headers, **headers})
            line.send(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body), whole_alone=False)
            yield await line.head(opening), line.parts(silence)
        finally:
            line.abort()

    def _head(self, headers: Mapping[str, str]) -> bytes:
        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise CrewError(f"{name} holds characters that a header cannot carry")
        return (self._start + "".join(f"{name}: {value}\r\n" for name, value in headers.items())).encode()

    def _keep(self, line: Line) -> None:
        line.kept_since = asyncio.get_running_loop().time()
        if line.is_usable and len(self._idle) < KEPT:
            self._idle.append(line)
        else:
            line.abort()

    async def _line(self) -> Line:
        while self._idle:
            line = self._idle.pop()
            if line.is_usable:
                return line
            line.abort()
        return await self._open()

    async def _open(self) -> Line:
        try:
            async with asyncio.timeout(self._opening):
                return await (self._through_proxy() if self._proxy else self._direct())
        except TimeoutError as error:
            raise HttpError(f"no connection in {self._opening:g} s") from error
        except (OSError, ssl.SSLError) as error:
            raise HttpError(f"no connection: {error}") from error

    async def _direct(self) -> Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: Line(loop), self._host, self._port, ssl=self._context)
        return line

    async def _through_proxy(self) -> Line:
        assert self._proxy
        loop = asyncio.get_running_loop()
        port = self._proxy.port or (443 if self._proxy.scheme == "https" else 80)
        secure = ssl.create_default_context() if self._proxy.scheme == "https" else None
        _, line = await loop.create_connection(lambda: Line(loop), self._proxy.hostname or "", port, ssl=secure)
        if self._context is None:
            return line
        there = f"{self._host}:{self._port}"
        line.send(f"CONNECT {there} HTTP/1.1\r\nhost: {there}\r\n{self._proxy_key()}\r\n".encode(), whole_alone=False)
        head = await line.head(self._opening)
        if head.status != 200:
            line.abort()
            raise HttpError(f"the proxy answered {head.status} to CONNECT {there}")
        await line.secure(self._context, self._host)
        return line

    def _proxy_key(self) -> str:
        assert self._proxy
        if self._proxy.username is None:
            return ""
        pair = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return f"proxy-authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
