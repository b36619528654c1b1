"""Waiting for what somebody else may cut off."""

from __future__ import annotations

import asyncio
from typing import TypeVar

Result = TypeVar("Result")


async def result_of(task: asyncio.Task[Result]) -> Result | None:
    """Its result, or None when it was cancelled. Who is cancelled while it waits here cancels it, too."""
    try:
        return await task
    except asyncio.CancelledError:
        here = asyncio.current_task()
        if task.cancelled() and not (here is not None and here.cancelling()):
            return None
        raise
