"""One delivery: a POST to an operator, and what came of it."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpcore

from resolvers.target import TargetForbidden
from server.delivery.answer import Answer, Done, Failed, verdict
from server.delivery.connecting import CheckedBackend
from server.delivery.signing import signed
from server.operations import written

_CONNECT_SECONDS = 10.0
_KEEP_SECONDS = 3.0
"""Shorter than common servers keep an idle connection (5 s): one that closes it just now would fail a delivery."""
_SHORT = 4
"""A value of so few characters is not hidden in what an operator answers: it would be found everywhere."""


@dataclass(slots=True)
class Target:
    """Where a channel is delivered, and how."""

    channel: int
    name: str
    """The channel's."""
    worker: str
    url: str
    max_running: int
    timeout: float
    headers: list[tuple[str, str]] = field(default_factory=list, repr=False)
    secret: bytes | None = field(default=None, repr=False)


class Poster:
    """Keeps connections. `most` is the largest answer in bytes."""

    def __init__(self, *, allow_private: bool, most: int, version: str) -> None:
        self._most = most
        self._agent = f"Crew/{version}"
        self._allow_private = allow_private

    @cached_property
    def _pool(self) -> httpcore.AsyncConnectionPool:
        """Made when it is needed: reading the certificates takes a while."""
        return httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=None,
            max_keepalive_connections=100,
            keepalive_expiry=_KEEP_SECONDS,
            network_backend=CheckedBackend(allow_private=self._allow_private),
        )

    async def close(self) -> None:
        if "_pool" in self.__dict__:
            await self._pool.aclose()

    async def deliver(self, target: Target, id: str, task: dict[str, Any]) -> Done | Failed:
        """Whatever comes in after the time-out is not read any more."""
        body = written(task)
        try:
            async with asyncio.timeout(target.timeout):
                answer = await self._exchange(target, self._headers(target, id, body), body)
        except (TimeoutError, httpcore.TimeoutException) as error:
            if isinstance(error, httpcore.ConnectTimeout):
                return Failed(f"the operator at {target.url} could not be connected to within {_CONNECT_SECONDS:g} s")
            return Failed(f"the operator at {target.url} did not answer within {target.timeout:g} s")
        except TargetForbidden as error:
            return Failed(f"not delivered: {error}")
        except httpcore.ConnectError as error:
            return Failed(f"the operator at {target.url} cannot be reached: {_said(error)}")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
            return Failed(f"the connection to the operator at {target.url} broke: {_said(error)}")
        return verdict(answer, _secrets(target))

    def _headers(self, target: Target, id: str, body: bytes) -> list[tuple[bytes, bytes]]:
        seconds = int(time.time())
        given = [
            ("user-agent", self._agent),
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("webhook-id", id),
            ("webhook-timestamp", str(seconds)),
            *target.headers,
        ]
        if target.secret is not None:
            given.append(("webhook-signature", signed(target.secret, id, seconds, body)))
        return [(name.encode(), value.encode()) for name, value in given]

    async def _exchange(self, target: Target, headers: list[tuple[bytes, bytes]], body: bytes) -> Answer:
        url = httpcore.URL(target.url)
        host = [(b"host", _host(url))]
        timeout = {"connect": _CONNECT_SECONDS}
        async with self._pool.stream(
            "POST", url, headers=[*host, *headers], content=body, extensions={"timeout": timeout}
        ) as response:
            parts, total = list[bytes](), 0
            async for part in response.aiter_stream():
                total += len(part)
                if total > self._most:
                    break
                parts.append(part)
            named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(response.status, named, None if total > self._most else b"".join(parts))


def _host(url: httpcore.URL) -> bytes:
    host = b"[" + url.host + b"]" if b":" in url.host else url.host
    return host if url.port is None else host + b":" + str(url.port).encode()


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _secrets(target: Target) -> list[str]:
    """What an operator might send back to us."""
    found = [value for _, value in target.headers]
    found += [value.split(" ", 1)[1] for value in found if " " in value]
    return [value for value in found if len(value) > _SHORT]
