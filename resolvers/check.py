"""Checks of what callers send. Each takes a value and its path, and answers it in the shape that rows need."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from asyncpg.pgproto.pgproto import UUID as QuickUUID

from resolvers.errors import BadInput, Path, TooLarge

NAME_CHARACTERS = 1000
WORD_CHARACTERS = 255
JSON_BYTES = 1 << 20
YEAR_SECONDS = 366 * 86_400.0
INT32 = (1 << 31) - 1


def shown(value: object) -> str:
    """A value as a message may quote it: short, and printable whatever it holds."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def text(value: str, path: Path, what: str, longest: int = WORD_CHARACTERS) -> str:
    """A name: 1 to `longest` characters, none of them U+0000 or a lone surrogate."""
    if not value:
        raise BadInput(f"{what} is empty; give it 1 to {longest} characters", path)
    if len(value) > longest:
        raise BadInput(f"{what} has {len(value)} characters; at most {longest} are allowed: shorten it", path)
    return characters(value, path, what)


def characters(value: str, path: Path, what: str) -> str:
    """Text of any length that PostgreSQL can keep to the character."""
    if "\0" in value:
        raise BadInput(f"{what} holds U+0000 at character {value.index(chr(0))}, which cannot be kept: remove it", path)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadInput(
                f"{what} holds a lone surrogate at character {error.start}: send whole characters", path
            ) from None
    return value


def uuid(value: object, path: Path, what: str) -> UUID:
    try:
        # Read and written in a tenth of the time that the library's takes, and equal to it. It passes over dashes and takes no
        # more and no less than 32 digits, so that in 36 characters there are none but these four.
        made = QuickUUID(value) if isinstance(value, str) and len(value) == 36 and value[8:24:5] == "----" else None
    except ValueError:
        made = None
    if made is None:
        raise BadInput(
            f"{what} is {shown(value)}; it must be a UUID such as 018f5a3e-7c11-7a55-8d3c-0242ac120002", path
        )
    return made


def whole(value: int, path: Path, what: str, low: int, high: int) -> int:
    if not low <= value <= high:
        raise BadInput(f"{what} is {value}; it must be between {low} and {high}", path)
    return value


def number(value: float, path: Path, what: str, low: float, high: float) -> float:
    if math.isnan(value) or not low <= value <= high:
        raise BadInput(f"{what} is {value:g}; it must be between {low:g} and {high:g}", path)
    return float(value)


def seconds(value: float | None, path: Path, what: str, high: float = 10 * YEAR_SECONDS) -> float | None:
    return None if value is None else number(value, path, what, 0, high)


def instant(value: datetime | None, path: Path, what: str) -> datetime | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise BadInput(f"{what} is {value.isoformat()}, without a UTC offset: add one, such as Z", path)
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        raise BadInput(f"{what} is {value.isoformat()}; it must lie within 100 years from now", path) from None
    if abs(utc - datetime.now(UTC)) > timedelta(days=36_600):
        raise BadInput(f"{what} is {value.isoformat()}; it must lie within 100 years from now", path)
    return utc


def json_text(value: Any, path: Path, what: str, longest: int = JSON_BYTES) -> str:
    """A JSON value as the text to keep. It comes back equal, or is refused."""
    try:
        packed = orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        _refuse_json(value, path, what)
        raise BadInput(f"{what} cannot be kept as JSON", path) from None
    if len(packed) > longest:
        raise TooLarge(
            f"{what} is {len(packed)} bytes of JSON; at most {longest} are allowed: keep it elsewhere and send a reference",
            path,
        )
    if b"\\u0000" in packed or b"null" in packed:
        _refuse_json(value, path, what)
    return packed.decode()


def _refuse_json(value: Any, path: Path, what: str, depth: int = 0) -> None:
    """Raise for the first part of a value that could not be kept exactly, with its path."""
    if depth > 200:
        raise BadInput(f"{what} is nested more than 200 deep", path[:50])
    if isinstance(value, str):
        characters(value, path, what)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise BadInput(f"{what} holds the integer {shown(value)}, beyond 64 bits: send it as a string", path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"{what} holds {value}, which JSON does not have", path)
    elif isinstance(value, dict):
        for key, part in value.items():
            characters(str(key), (*path, str(key)), what)
            _refuse_json(part, (*path, str(key)), what, depth + 1)
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            _refuse_json(part, (*path, place), what, depth + 1)
