"""Runs loops: what one raises is logged, and it goes on after a pause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from db.errors import OUTAGE, DatabaseUnavailable

log = structlog.get_logger("crew.loop")


async def forever(name: str, step: Callable[[], Awaitable[None]]) -> None:
    """`step` again and again; it does its own waiting."""
    while True:
        try:
            await step()
        except (DatabaseUnavailable, *OUTAGE) as error:
            log.warning("the database cannot be reached", loop=name, error=str(error))
            await asyncio.sleep(random.uniform(0.5, 1.0))
        except Exception:
            log.exception("a loop failed; it goes on", loop=name)
            await asyncio.sleep(random.uniform(0.5, 1.0))


async def pause(seconds: float) -> None:
    """About so long: several servers should not come in step."""
    await asyncio.sleep(seconds * random.uniform(0.9, 1.1))
