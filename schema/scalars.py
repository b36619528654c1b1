"""Scalars. JSON values travel as text: what was sent is kept, and what is answered is not parsed again."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NewType

import orjson
import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

JSON = NewType("JSON", object)
"""Inward any value; outward the text of one."""
Cursor = NewType("Cursor", str)


def _parse_instant(value: object) -> datetime:
    if isinstance(value, str) and len(value) >= 20 and value[10] in "Tt":
        try:
            parsed = datetime.fromisoformat(value.upper())
        except ValueError:
            parsed = None
        if parsed is not None and parsed.tzinfo is not None:
            return parsed
    raise GraphQLError(f"{value!r:.80} is not an RFC 3339 instant with a UTC offset, such as 2026-01-31T09:30:00Z")


def _parse_cursor(value: object) -> str:
    if isinstance(value, str):
        return value
    raise GraphQLError(f"{value!r:.80} is not a cursor: send one as the server gave it")


def _show_instant(value: Any) -> str:
    text: str = value.isoformat()
    return text


SCALARS: dict[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description=(
            "An instant, RFC 3339 with a UTC offset. The server's clock (PostgreSQL's) is the only one that counts."
        ),
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc3339",
        serialize=_show_instant,
        parse_value=_parse_instant,
    ),
    Cursor: strawberry.scalar(
        name="Cursor",
        description=(
            "A durable place in the event log, opaque to clients. It survives reconnects, restarts and another server answering, "
            "and serves with any filter and over any transport. Events after a cursor are never skipped and never repeated, "
            "whatever order their transactions committed in, and every reader sees the same order."
        ),
        serialize=str,
        parse_value=_parse_cursor,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description=(
            "Any JSON value. Comes back equal to what was sent: integers of up to 64 bits exactly (larger ones are refused "
            "with BAD_INPUT), decimals as doubles, text to the character (U+0000 and lone surrogates are refused), falsy "
            "values as they are."
        ),
        serialize=orjson.Fragment,
        parse_value=lambda value: value,
    ),
}
