"""An ads API as campaigns meet it: it fails now and then, and limits its rate by token. No network here."""

import itertools
import random
import time

from crew_worker import RateLimited

_ids = itertools.count(1)
_quiet_until: dict[str, float] = {}


class AdsApiError(Exception):
    """What the API says when it has one of its moments."""


def call(kind: str, token: str, **fields: object) -> str:
    """Makes a thing and answers its id. Raises AdsApiError one time in six, RateLimited now and then."""
    if (left := _quiet_until.get(token, 0.0) - time.monotonic()) > 0:
        raise RateLimited(left)
    if random.random() < 0.05:
        _quiet_until[token] = time.monotonic() + 1
        raise RateLimited(1)
    if random.random() < 0.15:
        raise AdsApiError(f"{kind}: an unknown error occurred")
    return f"{kind}-{next(_ids)}"
