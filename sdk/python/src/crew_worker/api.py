"""The GraphQL endpoint, and what may go wrong on the way: a call is sent again until the server has answered it.

Weather (no answer, half an answer, 5xx, 429, UNAVAILABLE) is waited out. What the server says about the call itself is
an answer, good or bad. Every call of this package may be repeated: it carries a claimId, leases, or ids of its own.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from crew_worker.backoff import pause
from crew_worker.errors import NotCrew, Refused, Unavailable, retry_after
from crew_worker.http import Http, HttpError

Json = dict[str, Any]

log = logging.getLogger("crew_worker")

WEATHER_STATUSES = frozenset((408, 421, 425, 429))
KEY_CODES = frozenset(("UNAUTHENTICATED", "FORBIDDEN"))
# How often a call that the server stumbles over is sent again before that counts as its answer.
STUMBLES = 3
ACCEPT = "application/graphql-response+json, application/json"


class Weather(Exception):
    """There is no answer to go by; it may come when the call is sent again."""

    def __init__(self, reason: str, wait: float = 0.0, code: str = "") -> None:
        super().__init__(reason)
        self.wait, self.code = wait, code


@dataclass(frozen=True)
class Answer:
    """What the server said: the data of each field, and why a field, or all of it (`whole`), was refused."""

    data: Mapping[str, Any]
    refused: Mapping[str, Refused] = field(default_factory=dict)
    whole: Refused | None = None

    def get(self, name: str) -> Any:
        """The data of a field. Raises Refused."""
        if self.whole or name in self.refused:
            raise self.whole or self.refused[name]
        return self.data[name]


def _plain(value: Any) -> Any:
    """What orjson takes beyond JSON."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is no JSON")


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain)
_NO_MORE = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(value: Any) -> str:
    """As JSON; UUIDs as text, enums as their values. Raises TypeError or ValueError for what is none (a set, NaN, a loop)."""
    if value is None:
        return "null"
    try:
        text = orjson.dumps(value, option=_NO_MORE)
    except TypeError:
        return _ENCODER.encode(value)
    # Where orjson writes null there may have been NaN.
    return _ENCODER.encode(value) if b"null" in text else text.decode()


_DIGITS = bytes(ord("0") if byte in b"0123456789" else byte for byte in range(256))
_LONG, _LONG_BELOW_ZERO = b"0" * 20, b"-" + b"0" * 19


def decode(content: bytes | str) -> Any:
    """JSON. Raises ValueError. Long whole numbers stay exact, which orjson would round."""
    raw = content.encode() if isinstance(content, str) else content
    digits = raw.translate(_DIGITS)
    return json.loads(raw) if _LONG in digits or _LONG_BELOW_ZERO in digits else orjson.loads(raw)


def request_body(document: str, variables: Mapping[str, str]) -> bytes:
    """A request whose variables are JSON already, so that a result is encoded once however often it is sent."""
    inside = ",".join(f"{json.dumps(name)}:{text}" for name, text in variables.items())
    return f'{{"query":{json.dumps(document)},"variables":{{{inside}}}}}'.encode()


def endpoint(url: str) -> str:
    """The GraphQL endpoint of a server's URL, which may name it already."""
    return url if url.rstrip("/").endswith("/graphql") else f"{url.rstrip('/')}/graphql"


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


class Api:
    """One server. Lives in one event loop."""

    def __init__(
        self, url: str, *, key: str | None = None, namespace: str | None = None, silence: float = 10.0
    ) -> None:
        self.url = endpoint(url)
        self.headers = {"content-type": "application/json", "accept": ACCEPT}
        if key:
            self.headers["authorization"] = f"Bearer {key}"
        if namespace:
            self.headers["crew-namespace"] = namespace
        self.key, self.namespace, self.silence = key, namespace, silence
        # A proxy of the environment cannot reach this machine's own loopback.
        self.http = Http(self.url, self.headers, opening=silence, trust_env=not is_loopback(self.url))
        self.answered = False
        self.repeats = 0

    async def close(self) -> None:
        await self.http.close()

    async def ask(self, document: str, variables: Json, *, patience: float | None = None, wait: float = 0) -> Json:
        """The data of one operation. Raises Refused; Unavailable after `patience` seconds (None: never)."""
        body = request_body(document, {name: encode(value) for name, value in variables.items()})
        answer = await self.call(body, patience=patience, wait=wait)
        for refused in (answer.whole, *answer.refused.values()):
            if refused:
                raise refused
        return dict(answer.data)

    async def call(self, body: bytes, *, patience: float | None = None, wait: float = 0) -> Answer:
        """Sends it, and sends it again until it is answered. `wait` is how long the server may take on purpose."""
        give_up = None if patience is None else time.monotonic() + patience
        stumbled = 0
        for tries in itertools.count():
            try:
                return await self.once(body, wait=wait, last=stumbled >= STUMBLES)
            except Weather as weather:
                stumbled += weather.code == "INTERNAL"
                seconds = max(pause(tries), weather.wait)
                if give_up is not None and time.monotonic() + seconds > give_up:
                    raise Unavailable(f"no answer from {self.url} in {patience:g} s: {weather}") from weather
                log.log(logging.WARNING if tries == 5 else logging.DEBUG, "no answer from %s (%s)", self.url, weather)
                self.repeats += 1
                await asyncio.sleep(seconds)
        raise AssertionError("unreachable")

    async def once(self, body: bytes, *, wait: float = 0, last: bool = False) -> Answer:
        """One try. Raises Weather; with `last`, INTERNAL is an answer."""
        try:
            response = await self.http.post(body, silence=wait + self.silence)
        except HttpError as error:
            raise Weather(str(error)) from error
        return self.read(response.status, response.content, response.headers, last=last)

    def read(self, status: int, content: bytes, headers: Mapping[str, str], *, last: bool = False) -> Answer:
        try:
            said = decode(content)
        except ValueError:
            said = None
        if not isinstance(said, dict) or not (said.get("errors") or isinstance(said.get("data"), dict)):
            raise self._strange(status, headers)
        self.answered = True
        errors = said.get("errors") or []
        for error in errors:
            code = (error.get("extensions") or {}).get("code")
            if code == "UNAVAILABLE" or (code == "INTERNAL" and not last):
                raise Weather(error.get("message", code), retry_after(headers, 0.0), code)
        if status in WEATHER_STATUSES or status >= 500:
            raise Weather(f"status {status}", retry_after(headers, 0.0))
        data = said.get("data")
        if not isinstance(data, dict):
            return Answer({}, whole=refusal(errors[0]))
        return Answer(data, {str(error["path"][0]): refusal(error) for error in errors if error.get("path")})

    def _strange(self, status: int, headers: Mapping[str, str]) -> Exception:
        """No GraphQL: the weather, if this server was seen before or the status says so."""
        if status == 413:
            return Refused("the request is larger than something on the way allows", "TOO_LARGE")
        if self.answered or status == 200 or status >= 500 or status in WEATHER_STATUSES:
            return Weather(f"status {status} and no GraphQL", retry_after(headers, 0.0))
        return NotCrew(f"{self.url} answered {status} and no GraphQL: is it a Crew server?")


def refusal(error: Json) -> Refused:
    extensions = error.get("extensions") or {}
    return Refused(error.get("message", ""), extensions.get("code", "BAD_INPUT"), extensions.get("path") or ())
