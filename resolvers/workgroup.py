"""Suspending and resuming workgroups: one row, however many tasks it holds."""

from __future__ import annotations

from functools import partial

from db.clock import channels_of_workgroups, resume_workgroup, suspend_workgroups, unpark
from resolvers import check
from resolvers.core import Core
from resolvers.errors import NotFound
from resolvers.follow import move

BATCH = 1000
"""Tasks moved aside or back by one statement (some 10 ms)."""


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
    """End a suspension. When this returns the workgroup's tasks can be claimed."""
    word = checked_name(name)
    number = (await core.workgroups.known([word])).get(word)
    if number is None:
        raise NotFound(f"no workgroup {check.shown(name)}: none of its tasks was ever created", ("name",))
    await resume_workgroup(core.pool, core.ns, number)
    await release_held(core, [number])


async def release_held(core: Core, workgroups: list[int]) -> None:
    """What stood aside for these workgroups goes back among the ready, and waiting claims look for it.

    In a statement of its own after the end of the suspension, batch by batch; a batch that another moves is skipped.
    """
    for workgroup in workgroups:
        moved_all = False
        while not moved_all:
            moved = await move(core, partial(unpark, ns=core.ns, workgroup=workgroup, limit=BATCH))
            core.wake(moved.places)
            moved_all = moved.count < BATCH
    core.wake(await channels_of_workgroups(core.pool, core.ns, workgroups))


def checked_name(name: str) -> str:
    return check.text(name, ("name",), "name")


def checked_place(after: str | None) -> str | None:
    return None if after is None else check.characters(after, ("after",), "after")
