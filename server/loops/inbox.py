"""The inbox: takes in what applications asked for in transactions of their own, within a second of their commit."""

from __future__ import annotations

from resolvers.inbox import Inbox
from server.loops.run import pause


async def take_in(inbox: Inbox) -> None:
    """Looked at, and not told of: a NOTIFY would make the commits of the applications wait for each other."""
    if not await inbox.take():
        await pause(inbox.core.rhythm.floor / 2)
