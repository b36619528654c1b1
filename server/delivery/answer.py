"""What an operator's answer means. A 2xx with a JSON object is the only success; all else is an error that a person can read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from server.operations import read
from server.refusal import Refusal

_EXCERPT = 500
_LIMITED = (429, 503)
_LONGEST_WAIT = 366 * 86_400.0
NO_REASON = "the operator reported an error of null"


@dataclass(slots=True)
class Done:
    output: Any = None
    children: list[Any] = field(default_factory=list)
    children_delay: float | None = None
    workgroup_delay: float | None = None


@dataclass(slots=True)
class Failed:
    error: Any
    workgroup_delay: float | None = None
    keep_attempt: bool = False
    """It was a rate limit, not the task."""


@dataclass(slots=True)
class Answer:
    """An HTTP response, its body read to the end; None where it was larger than is allowed."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes | None


def verdict(answer: Answer, secrets: Sequence[str] = ()) -> Done | Failed:
    """`secrets` are never quoted."""
    if answer.status in _LIMITED:
        wait = retry_after(answer.headers)
        error = f"the operator answered {_status(answer)}{_excerpt(answer, secrets)}"
        return Failed(error, wait, keep_attempt=answer.status == 429 and wait is not None)
    if 300 <= answer.status < 400:
        to = _hidden(answer.headers.get("location", "nowhere"), secrets)[:200]
        return Failed(f"the operator answered {_status(answer)} to {to}; redirects are not followed")
    if not 200 <= answer.status < 300:
        return Failed(f"the operator answered {_status(answer)}{_excerpt(answer, secrets)}")
    return _success(answer, secrets)


def _success(answer: Answer, secrets: Sequence[str]) -> Done | Failed:
    if answer.body is None:
        return Failed(f"the operator answered {_status(answer)} with a body that is too large")
    if not answer.body.strip():
        return Failed(f"the operator answered {_status(answer)} without a body; a JSON object is needed, {{}} at least")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        return Failed(f"the operator answered {_status(answer)} with {kind[:100]}, not JSON{_excerpt(answer, secrets)}")
    try:
        given = read(answer.body)
    except Refusal:
        return Failed(
            f"the operator answered {_status(answer)} with a body that is not JSON{_excerpt(answer, secrets)}"
        )
    if not isinstance(given, dict):
        return Failed(f"the operator answered {_status(answer)} with JSON that is not an object")
    return _read(given)


def _read(given: dict[str, Any]) -> Done | Failed:
    """That `error` is there makes it a failure, whatever it is."""
    delays = {}
    for name in ("childrenDelaySeconds", "workgroupDelaySeconds"):
        value = given.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return Failed(f"the operator's answer holds a {name} that is not a number")
        delays[name] = None if not value else float(value)
    workgroup_delay = delays["workgroupDelaySeconds"]
    if "error" in given:
        return Failed(NO_REASON if given["error"] is None else given["error"], workgroup_delay)
    children = given.get("children") or []
    if not isinstance(children, list):
        return Failed("the operator's answer holds children that are not a list")
    return Done(given.get("output"), children, delays["childrenDelaySeconds"], workgroup_delay)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds, from either form. A date is compared with the answer's own, where it has one: two clocks need not agree."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), _LONGEST_WAIT)
    at = _date(text)
    if at is None:
        return None
    since = _date(headers.get("date", "")) or now or datetime.now(UTC)
    return min(max(math.ceil((at - since).total_seconds()), 0), _LONGEST_WAIT)


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _status(answer: Answer) -> str:
    try:
        return f"{answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        return str(answer.status)


def _excerpt(answer: Answer, secrets: Sequence[str]) -> str:
    """The beginning of the body, in one line."""
    if not answer.body:
        return ""
    text = _hidden(answer.body[: 10 * _EXCERPT].decode("utf-8", "replace"), secrets).replace("\0", "")
    line = " ".join(text.split())
    if not line:
        return ""
    return f": {line}" if len(line) <= _EXCERPT else f": {line[:_EXCERPT]}…"


def _hidden(text: str, secrets: Sequence[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
