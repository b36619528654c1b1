"""The public GraphQL API over HTTP, and what can go wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from server.terminal.text import Json, printable

TIMEOUT = httpx.Timeout(60, connect=5)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TRY_LATER = "UNAVAILABLE"


class Failure(Exception):
    """Why there is no answer, as {code, message, path} each; `path` leads to the bad field."""

    def __init__(self, errors: Sequence[Json]) -> None:
        super().__init__("\n".join(told(error) for error in errors))
        self.errors = list(errors)


class Refused(Failure):
    """The server answered with errors: the same call would be refused again."""


class Away(Failure):
    """The server, or its database, cannot be reached now."""


def told(error: Json) -> str:
    """`NOT_FOUND: no workgroup 'a' (at name)`."""
    where = ".".join(str(step) for step in error["path"])
    return printable(f"{error['code']}: {error['message']}" + (f" (at {where})" if where else ""))


class Client:
    """One server. `ask` answers the data of one operation, or raises Refused or Away."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self.http, self.url = http, url

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        # Written here, for httpx would not take what is no Unicode text; the server says which field holds it.
        body = json.dumps({"query": document, "variables": variables})
        try:
            response = self.http.post(self.url, content=body)
            answer = _read(response)
        except httpx.HTTPError as error:
            raise Away([_failure("UNREACHABLE", self._unreachable(error))]) from error
        if answer is None:
            raise self._strange(response)
        errors = [_plain(error) for error in answer.get("errors") or ()]
        if any(error["code"] == _TRY_LATER for error in errors):
            raise Away(errors)
        if errors:
            raise Refused(errors)
        data: dict[str, Any] = answer["data"]
        return data

    def _unreachable(self, error: httpx.HTTPError) -> str:
        why = f"no answer from {self.url} ({str(error) or type(error).__name__})"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return f"{why}: start a server with `crew serve`, or name another one with --url or CREW_URL"
        return f"{why}: it may have taken the call all the same; look, and repeat it"

    def _strange(self, response: httpx.Response) -> Failure:
        said = f"{self.url} answered {response.status_code} {response.reason_phrase}, and no GraphQL"
        if response.status_code == 429 or response.status_code >= 500:
            return Away([_failure("UNREACHABLE", f"{said}: try again")])
        return Refused([_failure("NOT_CREW", f"{said}: is it a Crew server? Name one with --url or CREW_URL")])


@contextmanager
def client(url: str, api_key: str | None) -> Iterator[Client]:
    """A client of the endpoint `url`, with the key as its bearer token."""
    headers = {"content-type": "application/json", "accept": "application/graphql-response+json, application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    # A proxy of the environment cannot reach this machine's own loopback.
    through_proxy = urlsplit(url).hostname not in _LOOPBACK
    with httpx.Client(timeout=TIMEOUT, headers=headers, trust_env=through_proxy) as http:
        yield Client(http, url)


def _read(response: httpx.Response) -> dict[str, Any] | None:
    """The body, if it is what a GraphQL server answers."""
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) and (body.get("errors") or isinstance(body.get("data"), dict)) else None


def _plain(error: Json) -> dict[str, Any]:
    extensions = error.get("extensions") or {}
    code = extensions.get("code", "INTERNAL")
    return _failure(code, error.get("message", ""), extensions.get("path") or ())


def _failure(code: str, message: str, path: Sequence[str | int] = ()) -> dict[str, Any]:
    return {"code": code, "message": message, "path": list(path)}
