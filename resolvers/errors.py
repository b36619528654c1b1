"""What a call may be refused with. Codes are stable.

CrewError
├── BadInput          BAD_INPUT        a field holds what is not allowed
│   └── TooLarge      TOO_LARGE        a field, a batch or a body is over its limit
├── TooBroad          TOO_BROAD        a list would look at more than one call may: narrow it
├── NotFound          NOT_FOUND        no such task, group, …
├── Unauthenticated   UNAUTHENTICATED  a key is needed, and this is none that counts
├── Forbidden         FORBIDDEN        the key that was sent does not allow it
├── Conflict          CONFLICT         it is there already, and is something else
├── DuplicateKey      DUPLICATE_KEY    a task of this channel and key has not ended
├── CursorExpired     CURSOR_EXPIRED   the event log does not go on from this cursor: read afresh
├── TooSlow           TOO_SLOW         a subscriber that did not keep up: go on from its last cursor
└── Unavailable       UNAVAILABLE      the database cannot be reached; try again
"""

from __future__ import annotations

Path = tuple[str | int, ...]


class CrewError(Exception):
    """A refusal: says what was given, what is allowed and what to do. Nothing was changed."""

    code = "INTERNAL"

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class BadInput(CrewError):
    code = "BAD_INPUT"


class TooLarge(BadInput):
    code = "TOO_LARGE"


class TooBroad(CrewError):
    code = "TOO_BROAD"


class NotFound(CrewError):
    code = "NOT_FOUND"


class Unauthenticated(CrewError):
    code = "UNAUTHENTICATED"


class Forbidden(CrewError):
    code = "FORBIDDEN"


class Conflict(CrewError):
    code = "CONFLICT"


class InvalidChildren(CrewError):
    code = "INVALID_CHILDREN"


class DuplicateKey(CrewError):
    code = "DUPLICATE_KEY"


class CursorExpired(CrewError):
    code = "CURSOR_EXPIRED"


class TooSlow(CrewError):
    code = "TOO_SLOW"


class Unavailable(CrewError):
    code = "UNAVAILABLE"
