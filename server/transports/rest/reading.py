"""What a body or a query string says, field by field. GraphQL checks the types of what it passes on; here that is done by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from resolvers import check
from resolvers.errors import BadInput, Path

_INT_CHARACTERS = 12


class Fields:
    """A JSON object. A field that is null is as one left out, except for `has`."""

    def __init__(self, given: Mapping[str, Any], path: Path = ()) -> None:
        self._given = given
        self._path = path

    def has(self, name: str) -> bool:
        return name in self._given

    def raw(self, name: str) -> Any:
        return self._given.get(name)

    def text(self, name: str) -> str | None:
        value: str | None = self._of(name, str, "a string")
        return value

    def name(self, name: str) -> str | None:
        """Text; an empty one is none, as the second Crew took it."""
        return self.text(name) or None

    def needed(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise BadInput(f"{name} is missing: send it as a string", (*self._path, name))
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._of(name, bool, "true or false")
        return default if value is None else value

    def number(self, name: str) -> float | None:
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        try:
            return float(value)
        except OverflowError:
            raise self._wrong(name, "a number of up to 308 digits") from None

    def whole(self, name: str, default: int) -> int:
        value = self.number(name)
        if value is None:
            return default
        if not value.is_integer():
            raise self._wrong(name, "a whole number")
        return int(value)

    def instant(self, name: str) -> datetime | None:
        """ISO 8601; without an offset it is UTC."""
        value = self.name(name)
        if value is None:
            return None
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise self._wrong(name, "an instant such as 2030-01-31T12:00:00Z") from None
        return check.instant(at if at.tzinfo else at.replace(tzinfo=UTC), (*self._path, name), name)

    def texts(self, name: str) -> list[str] | None:
        """A list of names; numbers are taken as their digits."""
        value = self._of(name, list, "a list")
        if value is None:
            return None
        for nth, one in enumerate(value):
            if isinstance(one, bool) or not isinstance(one, str | int):
                raise BadInput(f"{name} holds {check.shown(one)}; it must hold strings", (*self._path, name, nth))
        return [str(one) for one in value]

    def objects(self, name: str) -> Sequence[Fields]:
        value = self._of(name, list, "a list") or []
        for nth, one in enumerate(value):
            if not isinstance(one, dict):
                raise BadInput(f"{name} holds {check.shown(one)}; it must hold objects", (*self._path, name, nth))
        return [Fields(one, (*self._path, name, nth)) for nth, one in enumerate(value)]

    def _of(self, name: str, kind: type[Any], what: str) -> Any:
        value = self._given.get(name)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(name, what)
        return value

    def _wrong(self, name: str, what: str) -> BadInput:
        return BadInput(f"{name} is {check.shown(self._given[name])}; it must be {what}", (*self._path, name))


def whole(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A whole number of a query string."""
    text = query.get(name) or str(default)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(text) > _INT_CHARACTERS:
        raise BadInput(f"{name} is {check.shown(text)}; it must be a whole number", (name,))
    return check.whole(int(text), (name,), name, low, high)
