"""Changing tasks and groups. A field that is not given stays as it is; null clears it, to what a new task would have.

What is on a task's ticket (channel, workgroup, key, priority, times, attempts) goes with it from place to place: one that waits is
taken out of its place and put where it belongs now. The ticket of one that runs, or rides along, is with its lease: of that only
the attempts can be changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from db import update as rows
from db.create import ParentRow
from db.key import lock_keys, merge_ready, tasks_with_keys
from db.pool import Connection
from db.reset import parents_of
from db.task import numbers_of_tasks
from db.update import ChangingRow, StandRow
from resolvers import check
from resolvers.core import Core
from resolvers.create import READY, SCHEDULED
from resolvers.delete import fold
from resolvers.draft import ALLOW, BLOCK, CANCEL, REJECT, RUN
from resolvers.errors import BadInput, Conflict, DuplicateKey, NotFound, Path
from resolvers.follow import After, cancel_under, lock_all_parents, recount

BLOCKED, RUNNING, MERGED = 0, 3, 4
WAITING = (BLOCKED, SCHEDULED, READY)
_SETTLED_OR_FAILED = (5, 6, 7)
_TRIES = 100
_TICKET = {"channel", "workgroup", "key", "priority", "run_after", "retry", "on_parent_failure"}
_BOUND = {"channel": "channel", "workgroup": "workgroup", "key": "key", "run_after": "runAfter"}
"""What cannot be changed while the task runs."""

Given = Mapping[str, Any]
"""Fields that were sent, by their names here; null is None."""


@dataclass(slots=True)
class Change:
    """A task's row after the change, but for the numbers of its channel and workgroup."""

    given: Given

    def of(self, old: ChangingRow, channels: dict[str, int], workgroups: dict[str, int]) -> ChangingRow:
        given = self.given
        new = replace(old)
        if "name" in given:
            new.name = given["name"]
        if "channel" in given:
            new.channel = channels[given["channel"]]
        if "workgroup" in given:
            new.workgroup = 0 if given["workgroup"] is None else workgroups[given["workgroup"]]
        if "priority" in given:
            new.rank = -given["priority"]
        for name in ("key", "input", "metadata", "run_after", "timeout", "weight", "is_seed", "on_parent_failure"):
            if name in given:
                setattr(new, name, given[name])
        for name in ("max_attempts", "retry_delay", "backoff", "max_delay"):
            if name in given.get("retry", ()):
                setattr(new, name, given["retry"][name])
        return new


def checked(given: Given, json_bytes: int) -> dict[str, Any]:
    """Each field as rows have it. Raises BadInput with the path of the first bad one."""
    path: Path = ("input",)
    made: dict[str, Any] = {}
    for name, field, longest in (
        ("name", "name", check.NAME_CHARACTERS),
        ("channel", "channel", check.WORD_CHARACTERS),
        ("workgroup", "workgroup", check.WORD_CHARACTERS),
        ("key", "key", check.NAME_CHARACTERS),
    ):
        if name not in given:
            continue
        if given[name] is None:
            if name in ("name", "channel"):
                raise BadInput(f"{field} is null, and every task has one: leave it out to keep it", (*path, field))
            made[name] = None
        else:
            made[name] = check.text(given[name], (*path, field), field, longest)
    for name in ("input", "metadata"):
        if name in given:
            value = given[name]
            made[name] = None if value is None else check.json_text(value, (*path, name), name, json_bytes)
    if "priority" in given:
        made["priority"] = check.whole(
            given["priority"] or 0, (*path, "priority"), "priority", -check.INT32, check.INT32
        )
    if "run_after" in given:
        made["run_after"] = check.instant(given["run_after"], (*path, "runAfter"), "runAfter")
    if "timeout_seconds" in given:
        seconds, here = given["timeout_seconds"], (*path, "timeoutSeconds")
        made["timeout"] = (
            None if seconds is None else check.number(seconds, here, "timeoutSeconds", 0.001, check.YEAR_SECONDS)
        )
    if "progress_weight" in given:
        weight = 1 if given["progress_weight"] is None else given["progress_weight"]
        made["weight"] = check.whole(weight, (*path, "progressWeight"), "progressWeight", 0, 1_000_000)
    if "is_seed" in given:
        made["is_seed"] = bool(given["is_seed"])
    if "on_parent_failure" in given:
        made["on_parent_failure"] = BLOCK if given["on_parent_failure"] is None else given["on_parent_failure"]
    if "retry" in given:
        made["retry"] = _retry(given["retry"], (*path, "retry"))
    return made


_POLICY = {"max_attempts": 5, "delay_seconds": 30.0, "backoff": 1.0, "max_delay_seconds": 3600.0}


def _retry(patch: Given | None, path: Path) -> dict[str, Any]:
    """Null is the policy of a new task, as a whole and field by field."""
    given = dict(_POLICY) if patch is None else {k: _POLICY[k] if v is None else v for k, v in patch.items()}
    made: dict[str, Any] = {}
    if "max_attempts" in given:
        here = (*path, "maxAttempts")
        made["max_attempts"] = check.whole(int(given["max_attempts"]), here, "maxAttempts", 1, 1_000_000)
    for name, to, field, low, high in (
        ("delay_seconds", "retry_delay", "delaySeconds", 0.0, check.YEAR_SECONDS),
        ("backoff", "backoff", "backoff", 1.0, 100.0),
        ("max_delay_seconds", "max_delay", "maxDelaySeconds", 0.0, check.YEAR_SECONDS),
    ):
        if name in given:
            made[to] = check.number(given[name], (*path, field), field, low, high)
    return made


async def update_task(core: Core, task_id: object, given: Given) -> int:
    """The task's number. Raises Conflict for what cannot be changed while it runs, DuplicateKey for a key that REJECT refuses."""
    uuid = check.uuid(task_id, ("input", "id"), "id")
    change = Change(checked(given, core.limits.max_input_bytes))
    channels = await core.channels.numbers([n for n in [change.given.get("channel")] if n is not None])
    workgroups = await core.workgroups.numbers([n for n in [change.given.get("workgroup")] if n is not None])

    async def work(connection: Connection) -> tuple[int, After]:
        after = After()
        parents: list[ParentRow] = []
        if "on_parent_failure" in change.given:
            # Before its own place: leases are locked first.
            parents = await _lock_parents(connection, core.ns, uuid, [])
        took_out = not _TICKET.isdisjoint(change.given)
        no, stood = await _lock(connection, core.ns, uuid, take_out=took_out)
        old = await rows.task_to_change(connection, core.ns, no)
        if old is None:
            raise _no_task(uuid)
        if "on_parent_failure" in change.given:
            # Those that it has adopted meanwhile.
            parents += await _lock_parents(connection, core.ns, uuid, [row.no for row in parents])
        if change.given:
            new = change.of(old, channels, workgroups)
            _refuse_bound(uuid, stood, old, new)
            await _change(connection, core.ns, after, Changing(no, stood, took_out, parents), old, new)
        return no, after

    no, after = await core.pool.run(work, transaction=True)
    after.tell(core)
    return no


@dataclass(slots=True)
class Changing:
    """A task that is locked."""

    no: int
    stood: StandRow
    took_out: bool
    """It stands nowhere, if it was ready or delayed."""
    parents: list[ParentRow]
    """All of them, locked, where it is told otherwise what their failure does."""

    def hangs_anew(self, old: ChangingRow, new: ChangingRow) -> bool:
        """Whether it is counted afresh for how many it waits."""
        if new.on_parent_failure == old.on_parent_failure:
            return False
        if self.stood.state == BLOCKED:
            return True
        waits = new.on_parent_failure != RUN and any(row.place != "succeeded" for row in self.parents)
        return waits and self.stood.state in WAITING


async def _lock_parents(connection: Connection, ns: int, uuid: UUID, without: list[int]) -> list[ParentRow]:
    found = await numbers_of_tasks(connection, ns, [uuid])
    return await lock_all_parents(connection, ns, await parents_of(connection, ns, found, without=without))


async def _lock(connection: Connection, ns: int, uuid: UUID, *, take_out: bool) -> tuple[int, StandRow]:
    for _ in range(_TRIES):
        found = await numbers_of_tasks(connection, ns, [uuid])
        if not found:
            raise _no_task(uuid)
        stood = await rows.lock_place(connection, ns, found[0], take_out=take_out)
        if stood is not None:
            return found[0], stood
    raise Conflict(f"task {uuid} changes its place all the time: try again", ("input", "id"))


def _no_task(uuid: UUID) -> NotFound:
    return NotFound(f"no task {uuid}: it never was, or is deleted", ("input", "id"))


def _refuse_bound(uuid: UUID, stood: StandRow, old: ChangingRow, new: ChangingRow) -> None:
    if stood.state not in (RUNNING, MERGED):
        return
    for name, field in _BOUND.items():
        if getattr(old, name) != getattr(new, name):
            how = "RUNNING" if stood.state == RUNNING else "MERGED into one that runs"
            raise Conflict(
                f"task {uuid} is {how}: its channel, workgroup, key and runAfter cannot be changed until that has ended; "
                "wait, or cancel or reset the one that runs first",
                ("input", field),
            )


async def _change(
    connection: Connection, ns: int, after: After, task: Changing, old: ChangingRow, new: ChangingRow
) -> None:
    no, stood = task.no, task.stood
    if (old.channel, old.key) != (new.channel, new.key):
        await _take_key(connection, ns, no, stood, old, new)
    if new.weight != old.weight:
        await fold(connection, ns)
    more = new.max_attempts - old.max_attempts
    if more and stood.state not in _SETTLED_OR_FAILED:
        stood.remaining = max(stood.remaining + more, 0 if stood.state == RUNNING else 1)
    if new.run_after != old.run_after and stood.state in WAITING:
        stood.run_at = _later(new.run_after, None if stood.run_at == old.run_after else stood.run_at)
    await rows.change_task(connection, ns, no, stood.state, new, stood.remaining, stood.run_at)
    hangs_anew = task.hangs_anew(old, new)
    if task.took_out and stood.state in (SCHEDULED, READY):
        placed = await rows.place_again(connection, ns, no, stood, blocked=hangs_anew)
        if placed.state == READY:
            after.places.append((placed.channel, placed.rank, no))
            if placed.merges:
                await merge_ready(connection, ns, [no])
        elif placed.state == SCHEDULED and placed.due_in is not None:
            after.due.append(placed.due_in)
    else:
        await rows.tell_of_update(connection, ns, no, stood)
    if hangs_anew:
        await recount(connection, ns, after, [no])
        if new.on_parent_failure == CANCEL:
            lost = [row.no for row in task.parents if row.place in ("failed", "cancelled")]
            await cancel_under(connection, ns, after, lost)


async def _take_key(
    connection: Connection, ns: int, no: int, stood: StandRow, old: ChangingRow, new: ChangingRow
) -> None:
    """Nobody makes, readies or claims tasks of either key until we commit."""
    keys = sorted({(row.channel, row.key) for row in (old, new) if row.key is not None})
    if not keys or new.on_duplicate == ALLOW:
        return
    await lock_keys(connection, ns, keys)
    if new.key is None or new.on_duplicate != REJECT or stood.state in _SETTLED_OR_FAILED:
        return
    others = [row for row in await tasks_with_keys(connection, ns, [(new.channel, new.key)]) if row.no != no]
    if others:
        raise DuplicateKey(
            f"task {others[0].id} of the same channel has the key {check.shown(new.key)} and has not ended: wait for it, or "
            "give this task another key",
            ("input", "key"),
        )


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((x for x in (one, other) if x is not None), default=None)


async def update_group(core: Core, group_id: object, given: Given) -> UUID:
    """The group's id."""
    uuid = check.uuid(group_id, ("input", "id"), "id")
    name, metadata = given.get("name"), given.get("metadata")
    if "name" in given:
        if name is None:
            raise BadInput("name is null, and every group has one: leave it out to keep it", ("input", "name"))
        check.text(name, ("input", "name"), "name", check.NAME_CHARACTERS)
    if metadata is not None:
        metadata = check.json_text(metadata, ("input", "metadata"), "metadata", core.limits.max_input_bytes)
    if given:
        named, labelled = ("name" in given, name), ("metadata" in given, metadata)
        if not await rows.change_group(core.pool, core.ns, uuid, name=named, metadata=labelled):
            raise NotFound(f"no task group {uuid}: it never was, or is deleted", ("input", "id"))
    return uuid
