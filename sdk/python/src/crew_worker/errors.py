"""What a handler raises to say how its attempt ended, and what a caller of Crew may have to catch.

Raised by handlers                    Raised to callers
TaskError     fails the attempt       CrewError
├── Retry     … and says when next    ├── Refused      the server will not take it: BAD_INPUT, NOT_FOUND, …
├── Discard   … and there is no next  ├── Unavailable  no answer in the time that was given
└── RateLimited  the workgroup waits  ├── NotCrew      what answers there is no Crew server
                                      ├── TaskFailed   the task whose result was waited for has not succeeded
                                      └── GroupStuck   nothing in the group goes on by itself
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, Self

RATE_LIMIT_SECONDS = 30.0


class TaskError(Exception):
    """Fails the attempt with `data`, any JSON value; the task's own retry policy says what follows."""

    def __init__(self, data: Any = "") -> None:
        super().__init__(data)
        self.data = data


class Retry(TaskError):
    """Fails the attempt and asks for the next one in `after` seconds; `count=False` does not count this attempt."""

    def __init__(self, data: Any = "retry", *, after: float | None = None, count: bool = True) -> None:
        super().__init__(data)
        self.after, self.count = after, count


class Discard(TaskError):
    """Fails the task for good, whatever attempts remain."""


class HasHeaders(Protocol):
    """A response of httpx, requests, aiohttp, …"""

    @property
    def headers(self) -> Mapping[str, str]: ...


class RateLimited(TaskError):
    """The service behind this task's workgroup wants quiet for `seconds`: all of the workgroup waits, no attempt is counted."""

    def __init__(self, seconds: float = RATE_LIMIT_SECONDS, data: Any = "rate limited") -> None:
        super().__init__(data)
        self.seconds = seconds

    @classmethod
    def from_response(cls, response: HasHeaders, *, default: float = RATE_LIMIT_SECONDS) -> Self:
        """As the response's Retry-After says (seconds or a date), else `default` seconds."""
        status = getattr(response, "status_code", getattr(response, "status", None))
        seconds = retry_after(response.headers, default)
        return cls(seconds, {"status": status, "message": f"rate limited for {seconds:g} s"})


def retry_after(headers: Mapping[str, str], default: float) -> float:
    """Seconds to stay away, by the Retry-After header."""
    named = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    try:
        return max(0.0, float(named))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(named).timestamp() - time.time())
    except (ValueError, TypeError):
        return default


class CrewError(Exception):
    """Anything this package raises to its callers."""


class Refused(CrewError):
    """The server answered that it will not take a call: sending it again would not help."""

    def __init__(self, message: str, code: str = "BAD_INPUT", path: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.message, self.code, self.path = message, code, tuple(path)

    def __str__(self) -> str:
        where = ".".join(str(step) for step in self.path)
        return f"{self.code}: {self.message}" + (f" (at {where})" if where else "")


class Unavailable(CrewError):
    """No answer in the time that was given. The call may have been taken all the same: repeat it with its ids."""


class NotCrew(CrewError):
    """Something answers at the URL, but it is no Crew server."""


class TaskFailed(CrewError):
    """A task whose result was waited for is FAILED or CANCELLED."""

    def __init__(self, name: str, state: str, errors: Sequence[Any] = ()) -> None:
        super().__init__(f"{name} is {state}" + (f": {errors[-1]}" if errors else ""))
        self.name, self.state, self.errors = name, state, list(errors)


class GroupStuck(CrewError):
    """Nothing in the group goes on by itself: tasks are FAILED, or BLOCKED below one that is."""

    def __init__(self, name: str, failed: Sequence[TaskFailed]) -> None:
        super().__init__(f"{name} waits for people: " + "; ".join(map(str, failed)))
        self.name, self.failed = name, list(failed)
