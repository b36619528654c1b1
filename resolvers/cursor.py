"""A cursor: a place in the event log, as text that says nothing to clients.

A place is the last tick that is wholly done and, in the next one, the row to go on with and the item in it. The tick's mark goes
along: a log that was lost and written anew has other marks, and the cursor is refused instead of leading somewhere else.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import NamedTuple

from resolvers.errors import BadInput, Path

_LAYOUT = struct.Struct(">BqiqI")
_VERSION = 1


class Place(NamedTuple):
    """Places compare by their order in the log."""

    tick: int
    seq: int = 0
    item: int = 0


class Cursor(NamedTuple):
    place: Place
    mark: int

    def __str__(self) -> str:
        tick, seq, item = self.place
        return base64.urlsafe_b64encode(_LAYOUT.pack(_VERSION, tick, self.mark, seq, item)).decode().rstrip("=")


def read_cursor(text: str, path: Path) -> Cursor:
    """Raises BadInput for what no server gave out."""
    try:
        version, tick, mark, seq, item = _LAYOUT.unpack(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, struct.error, ValueError):
        version = tick = 0
    if version != _VERSION or tick < 1:
        raise BadInput(f"{text!r:.80} is not a cursor: send one as the server gave it, or none to begin now", path)
    return Cursor(Place(tick, seq, item), mark)
