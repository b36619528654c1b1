"""Ids of the sender's own (UUIDv7): they make a call safe to repeat, and sort by the time they were made."""

import os
import time

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_DRAWN = 256
_chances: list[str] = []
"""Drawn ahead, since asking the system takes longer than the rest of an id: 20 hexadecimal digits each, for one id."""
if hasattr(os, "register_at_fork"):
    # A child must not make its parent's ids.
    os.register_at_fork(after_in_child=_chances.clear)


def new_id() -> str:
    """A UUIDv7: 48 bits of milliseconds, then chance."""
    try:
        chance = _chances.pop()
    except IndexError:
        chance = _draw()
    moment = f"{time.time_ns() // 1_000_000:012x}"
    variant = _VARIANT[chance[3]]
    return f"{moment[:8]}-{moment[8:]}-7{chance[:3]}-{variant}{chance[4:7]}-{chance[7:19]}"


def _draw() -> str:
    drawn = os.urandom(10 * _DRAWN).hex()
    _chances.extend(drawn[at : at + 20] for at in range(20, len(drawn), 20))
    return drawn[:20]
