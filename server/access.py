"""Who is let in, and to which namespace; and that no web page gets in by itself: Host, Origin, CORS.

A page of another site may make a browser send requests to this server, and a name of its own may lead to it (DNS rebinding). The
first is told by Origin and Sec-Fetch-Site, the second by Host.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import Message, Scope, Send

from db.errors import OUTAGE, DatabaseUnavailable
from resolvers.access import Caller, Keyring
from resolvers.errors import Unauthenticated
from schema.context import Services
from server.namespaces import Namespaces
from server.refusal import Refusal
from server.settings import Settings

Headers = Mapping[bytes, bytes]
_REMEMBER = 1000
_FOREIGN = (b"cross-site", b"same-site")
_CHALLENGE = {"www-authenticate": 'Bearer realm="crew"'}


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and whom."""

    services: Services
    caller: Caller
    client: str
    """What connections are counted by: the key, or the address."""

    def stands(self) -> bool:
        """False when the key was revoked, has expired, or is needed by now."""
        return self.services.keys.stands(self.caller)


def is_loopback(host: str) -> bool:
    """Whether who listens there cannot be reached from another machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Seats:
    """At most so many at once of each client."""

    def __init__(self, most: int, code: str, what: str) -> None:
        self._most, self._code, self._what = most, code, what
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, client: str) -> Iterator[None]:
        """Raises Refusal."""
        if self._taken[client] >= self._most:
            message = (
                f"this client has {self._most} {self._what} on this server, and no more are allowed: end one first"
            )
            raise Refusal(429, self._code, message, {"retry-after": "5"})
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]


class Access:
    """Decides for all transports."""

    def __init__(self, settings: Settings, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._is_local = is_loopback(settings.host)
        self._hosts = {settings.host.lower(), "localhost", *(host.lower() for host in settings.allowed_hosts)}
        self._names_hosts = bool(settings.allowed_hosts)
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}
        self._good: set[bytes] = set()
        self.connections = Seats(settings.max_connections, "TOO_MANY_CONNECTIONS", "websockets and event streams")
        self.subscriptions = Seats(settings.max_subscriptions, "TOO_MANY_SUBSCRIPTIONS", "subscriptions")

    @property
    def _keys(self) -> Keyring:
        return self._namespaces.keys

    # -- where a request comes from ---------------------------------------------------------------------------------

    def check_source(self, headers: Headers) -> None:
        """Raises Refusal for what a page of another site, or a name that is not ours, has brought here."""
        host = headers.get(b"host", b"")
        if host not in self._good:
            self._check_host(host)
        origin = headers.get(b"origin")
        if origin is not None:
            if not self._is_own(origin, host) and not self.allows(origin):
                shown = origin.decode("latin-1")[:100]
                raise Refusal(
                    403, "FORBIDDEN", f"pages of {shown!r} may not call this server: name it in CREW_ALLOWED_ORIGINS"
                )
        elif headers.get(b"sec-fetch-site") in _FOREIGN and headers.get(b"sec-fetch-mode") != b"navigate":
            raise Refusal(403, "FORBIDDEN", "a page of another site may not call this server")

    def _check_host(self, raw: bytes) -> None:
        name = _name_of(raw.decode("latin-1"))
        if name and name not in self._hosts and not _is_address(name) and self._is_strict():
            raise Refusal(
                403,
                "FORBIDDEN",
                f"this server is not known as {name[:100]!r}: if it should be, name it in CREW_ALLOWED_HOSTS",
            )
        if len(self._good) < _REMEMBER and (name in self._hosts or _is_address(name)):
            self._good.add(raw)

    def _is_strict(self) -> bool:
        """A server for others, behind keys and under whatever name, has no need to look: a page has no key."""
        return self._is_local or self._names_hosts or not self._keys.needed

    @staticmethod
    def _is_own(origin: bytes, host: bytes) -> bool:
        scheme, _, rest = origin.lower().partition(b"://")
        port = b":443" if scheme == b"https" else b":80"
        return bool(host) and rest.removesuffix(port) == host.lower().removesuffix(port)

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may call, by CREW_ALLOWED_ORIGINS."""
        return bool(self._origins) and ("*" in self._origins or origin.decode("latin-1").lower() in self._origins)

    def with_cors(self, headers: Headers, send: Send) -> Send:
        """`send`, telling the browser that the page may read the answer; for allowed origins alone."""
        origin = headers.get(b"origin")
        if origin is None or not self.allows(origin):
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [
                    (b"access-control-allow-origin", origin),
                    (b"access-control-expose-headers", b"retry-after"),
                    (b"vary", b"origin"),
                ]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        return sending

    def preflight(self, headers: Headers) -> list[tuple[bytes, bytes]] | None:
        """What a browser that asks first is told; None where it is not to call."""
        origin = headers.get(b"origin")
        if origin is None or b"access-control-request-method" not in headers or not self.allows(origin):
            return None
        return [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type, crew-namespace, last-event-id"),
            (b"access-control-max-age", b"600"),
        ]

    # -- who asks ---------------------------------------------------------------------------------------------------

    async def asker(self, scope: Scope, headers: Headers) -> Asker:
        """By the headers `authorization` and `crew-namespace`. Raises Refusal."""
        try:
            caller = await self._keys.caller(_bearer(headers.get(b"authorization")))
            named = headers.get(b"crew-namespace")
            name = named.decode("latin-1") if named else caller.namespace or "default"
            if caller.namespace is not None and name != caller.namespace:
                raise Refusal(403, "FORBIDDEN", f"this API key is of namespace {caller.namespace!r}, and of no other")
            services = await self._namespaces.get(name)
        except Unauthenticated as error:
            raise Refusal(401, error.code, error.message, _CHALLENGE) from None
        except (DatabaseUnavailable, *OUTAGE):
            raise Refusal(503, "UNAVAILABLE", "the database cannot be reached: try again") from None
        if services is None:
            raise Refusal(
                404, "NOT_FOUND", f"no namespace {name[:80]!r}: leave Crew-Namespace out, or make a key for it"
            )
        address = scope.get("client")
        return Asker(services, caller, str(caller.key) if caller.key else str(address[0] if address else ""))


def _name_of(host: str) -> str:
    """Without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return "?"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bearer(header: bytes | None) -> str | None:
    kind, _, secret = (header or b"").decode("latin-1").partition(" ")
    return secret.strip() or None if kind.lower() == "bearer" else None


def headers_of(payload: Any) -> dict[bytes, bytes]:
    """What a websocket's `connection_init` says in place of headers, at its top or under `headers`."""
    found: dict[bytes, bytes] = {}
    for given in (payload, payload.get("headers")) if isinstance(payload, dict) else ():
        for name, value in given.items() if isinstance(given, dict) else ():
            if isinstance(value, str) and name.lower() in ("authorization", "crew-namespace"):
                found[name.lower().encode()] = value.encode("utf-8", "replace")
    return found
