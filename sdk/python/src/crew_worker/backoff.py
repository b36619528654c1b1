"""How long to wait before a call is sent again."""

import random

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 10.0


def pause(tries: int, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> float:
    """Seconds before try number `tries` + 1, doubling, jittered so that workers do not come in step."""
    return random.uniform(0.5, 1.0) * min(longest, first * 2.0 ** min(tries, 30))
