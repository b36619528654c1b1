"""Suspending and resuming workgroups: one row, however many tasks it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import TypeVar

from db.clock import channels_of_workgroups, parked_free, resume_workgroup, suspend_workgroups, unpark
from resolvers import check
from resolvers.core import Core
from resolvers.errors import NotFound
from resolvers.follow import move

FIRST = 1000
"""So many come back at once (some 10 ms); the rest follows in steps."""
STEP = 200
"""Tasks moved aside or back by one statement (some 2 ms), with a rest after each: others want the CPU."""
_ROUNDS = 50
_LONGEST_REST = 0.1
Result = TypeVar("Result")


async def suspend(core: Core, name: str, seconds: float, reason: str | None) -> None:
    """No task of the workgroup is handed out for so long; makes the workgroup when no task has named it yet."""
    word = checked_name(name)
    length = check.seconds(seconds, ("seconds",), "seconds") or 0.0
    if reason is not None:
        check.text(reason, ("reason",), "reason", check.NAME_CHARACTERS)
    number = (await core.workgroups.numbers([word]))[word]
    held = await core.pool.run(lambda c: suspend_workgroups(c, core.ns, [(number, length, reason)]))
    for row in held:
        core.due(row.due_in)


async def resume(core: Core, name: str) -> None:
    """End a suspension. When this returns the workgroup's tasks can be claimed, or the first of them: see release_held."""
    word = checked_name(name)
    number = (await core.workgroups.known([word])).get(word)
    if number is None:
        raise NotFound(f"no workgroup {check.shown(name)}: none of its tasks was ever created", ("name",))
    await resume_workgroup(core.pool, core.ns, number)
    await release_held(core, [number])


async def release_held(core: Core, workgroups: list[int]) -> None:
    """What stood aside for these workgroups goes back among the ready, and waiting claims look for it: the first of each now, in
    statements of their own after the end of the suspension; what is left by and by (release_rest)."""
    for workgroup in workgroups:
        if await _bring_back(core, workgroup, FIRST) == FIRST:
            core.freed.set()
    core.wake(await channels_of_workgroups(core.pool, core.ns, workgroups))


async def release_rest(core: Core) -> bool:
    """Some steps of what stands aside though nothing holds it, of each workgroup in turn; whether more may be left."""
    free = await parked_free(core.pool, core.ns)
    for _ in range(_ROUNDS):
        free = [workgroup for workgroup in free if await gently(_bring_back(core, workgroup, STEP)) == STEP]
    return bool(free)


async def gently(step: Awaitable[Result], rest: float = 1.0) -> Result:
    """Does the step, and rests for `rest` times as long as it took."""
    began = time.monotonic()
    done = await step
    await asyncio.sleep(min((time.monotonic() - began) * rest, _LONGEST_REST))
    return done


async def _bring_back(core: Core, workgroup: int, most: int) -> int:
    """How many were moved; what another moves is skipped."""
    moved = await move(core, partial(unpark, ns=core.ns, workgroup=workgroup, limit=most))
    core.wake(moved.places)
    return moved.count


def checked_name(name: str) -> str:
    return check.text(name, ("name",), "name")


def checked_place(after: str | None) -> str | None:
    return None if after is None else check.characters(after, ("after",), "after")
