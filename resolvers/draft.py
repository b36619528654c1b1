"""New tasks as callers send them, checked: names, numbers, and a graph without cycles. Nothing here touches the database."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from resolvers import check
from resolvers.errors import BadInput, Path, TooLarge

MERGE, RETURN_EXISTING, REJECT, ALLOW = range(4)
"""on_duplicate, as rows have it."""
BLOCK, CANCEL, RUN = range(3)
"""on_parent_failure, as rows have it."""


@dataclass(slots=True)
class Inside:
    """A link to a parent of the same call."""

    parent: int
    """Its place among the drafts."""
    place: int
    """Its place among the child's parents."""
    subtree: bool = False


@dataclass(slots=True)
class Outside:
    """A link to a parent that exists."""

    parent: UUID
    place: int
    path: Path
    subtree: bool = False


@dataclass(slots=True)
class Draft:
    """One new task. `inside` holds the places of its parents in the same call, `outside` the ids of tasks that exist."""

    path: Path
    id: UUID
    own_id: bool
    """The sender made the id: a repeat of the call finds the task by it."""
    name: str
    channel: str
    workgroup: str | None
    rank: int
    input: str | None
    metadata: str | None
    run_after: datetime | None
    delay: float | None
    max_attempts: int
    retry_delay: float
    backoff: float
    max_delay: float
    weight: int
    is_seed: bool
    key: str | None
    on_duplicate: int
    timeout: float | None
    on_parent_failure: int
    inside: list[Inside] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)

    @property
    def merges(self) -> bool:
        return self.key is not None and self.on_duplicate != ALLOW

    @property
    def names_no_parent(self) -> bool:
        return not self.inside and not self.outside


def new_id() -> UUID:
    """A UUIDv7: made here, because PostgreSQL has uuidv7() from 18 on only."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def drafts(tasks: Sequence[Any], path: Path, most: int, longest: int = check.JSON_BYTES) -> list[Draft]:
    """Check the new tasks of one call. Raises BadInput with the path of the first bad field."""
    if len(tasks) > most:
        raise TooLarge(f"{len(tasks)} tasks in one call; at most {most} are allowed: send them in several calls", path)
    made: list[Draft] = []
    refs: dict[str, int] = {}
    ids: dict[UUID, int] = {}
    for place, task in enumerate(tasks):
        here = (*path, place)
        draft = _draft(task, here, longest)
        if draft.id in ids:
            raise BadInput(f"id {draft.id} is given to two tasks of this call: each needs its own", (*here, "id"))
        ids[draft.id] = place
        if task.ref is not None:
            ref = check.text(task.ref, (*here, "ref"), "ref", check.NAME_CHARACTERS)
            if ref in refs:
                raise BadInput(f"ref {check.shown(ref)} is used twice in this call: each needs its own", (*here, "ref"))
            refs[ref] = place
        made.append(draft)
    for place, task in enumerate(tasks):
        if task.parents:
            _hang(made, place, task.parents, refs, ids)
    refuse_cycles(made)
    return made


def _draft(task: Any, path: Path, json_bytes: int) -> Draft:
    retry = task.retry
    if task.run_after is not None and task.delay_seconds is not None:
        raise BadInput("runAfter and delaySeconds exclude each other: send one", (*path, "delaySeconds"))
    attempts, delay, backoff, longest = 5, 30.0, 1.0, 3600.0
    if retry is not None:
        here = (*path, "retry")
        attempts = check.whole(retry.max_attempts, (*here, "maxAttempts"), "maxAttempts", 1, 1_000_000)
        delay = check.number(retry.delay_seconds, (*here, "delaySeconds"), "delaySeconds", 0, check.YEAR_SECONDS)
        backoff = check.number(retry.backoff, (*here, "backoff"), "backoff", 1, 100)
        longest = check.number(
            retry.max_delay_seconds, (*here, "maxDelaySeconds"), "maxDelaySeconds", 0, check.YEAR_SECONDS
        )
    return Draft(
        path=path,
        id=new_id() if task.id is None else check.uuid(task.id, (*path, "id"), "id"),
        own_id=task.id is not None,
        name=check.text(task.name, (*path, "name"), "name", check.NAME_CHARACTERS),
        channel=check.text(task.channel, (*path, "channel"), "channel"),
        workgroup=None if task.workgroup is None else check.text(task.workgroup, (*path, "workgroup"), "workgroup"),
        rank=-check.whole(task.priority, (*path, "priority"), "priority", -check.INT32, check.INT32)
        if task.priority
        else 0,
        input=None if task.input is None else check.json_text(task.input, (*path, "input"), "input", json_bytes),
        metadata=None
        if task.metadata is None
        else check.json_text(task.metadata, (*path, "metadata"), "metadata", json_bytes),
        run_after=None if task.run_after is None else check.instant(task.run_after, (*path, "runAfter"), "runAfter"),
        delay=None
        if task.delay_seconds is None
        else check.seconds(task.delay_seconds, (*path, "delaySeconds"), "delaySeconds"),
        max_attempts=attempts,
        retry_delay=delay,
        backoff=backoff,
        max_delay=longest,
        weight=1
        if task.progress_weight == 1
        else check.whole(task.progress_weight, (*path, "progressWeight"), "progressWeight", 0, 1_000_000),
        is_seed=task.is_seed,
        key=None if task.key is None else check.text(task.key, (*path, "key"), "key", check.NAME_CHARACTERS),
        on_duplicate=task.on_duplicate._value_,
        timeout=None
        if task.timeout_seconds is None
        else check.number(task.timeout_seconds, (*path, "timeoutSeconds"), "timeoutSeconds", 0.001, check.YEAR_SECONDS),
        on_parent_failure=task.on_parent_failure._value_,
    )


def _hang(made: list[Draft], place: int, parents: Sequence[Any], refs: dict[str, int], ids: dict[UUID, int]) -> None:
    child = made[place]
    seen: set[object] = set()
    for nth, parent in enumerate(parents):
        here = (*child.path, "parents", nth)
        if (parent.id is None) == (parent.ref is None):
            raise BadInput(
                "a parent is named by id (a task that exists) or by ref (one of this call): give just one", here
            )
        inside: int | None
        if parent.ref is not None:
            inside = refs.get(parent.ref)
            if inside is None:
                raise BadInput(
                    f"no task of this call has the ref {check.shown(parent.ref)}; name a task that exists by its id",
                    (*here, "ref"),
                )
            last = "ref"
        else:
            parent_id = check.uuid(parent.id, (*here, "id"), "parent id")
            inside = ids.get(parent_id)
            last = "id"
        named: object = inside if inside is not None else parent_id
        if named in seen:
            raise BadInput("this parent is named twice: name it once", (*here, last))
        seen.add(named)
        if inside == place:
            raise BadInput("a task cannot be its own parent", (*here, last))
        subtree = bool(parent.wait_for.value)
        if inside is not None:
            child.inside.append(Inside(inside, nth, subtree))
        else:
            child.outside.append(Outside(parent_id, nth, (*here, "id"), subtree))


def refuse_cycles(made: list[Draft]) -> None:
    """Kahn: take away tasks whose parents are all gone; what is left lies on a cycle or behind one."""
    open_parents = [len(d.inside) for d in made]
    children: list[list[int]] = [[] for _ in made]
    for place, draft in enumerate(made):
        for link in draft.inside:
            children[link.parent].append(place)
    free = [place for place, n in enumerate(open_parents) if n == 0]
    left = len(made)
    while free:
        left -= 1
        for child in children[free.pop()]:
            open_parents[child] -= 1
            if open_parents[child] == 0:
                free.append(child)
    if left:
        _raise_cycle(made, open_parents)


def _raise_cycle(made: list[Draft], open_parents: list[int]) -> None:
    """Walk up from any task that is left: the first one met twice closes the cycle."""
    place = next(p for p, n in enumerate(open_parents) if n)
    walked: list[tuple[int, int]] = []
    seen: dict[int, int] = {}
    while place not in seen:
        seen[place] = len(walked)
        link = next(x for x in made[place].inside if open_parents[x.parent])
        walked.append((place, link.place))
        place = link.parent
    cycle = walked[seen[place] :]
    names = " ← ".join(check.shown(made[p].name) for p, _ in [*cycle[:10], cycle[0]])
    child, nth = cycle[0]
    raise BadInput(
        f"these tasks wait for each other: {names}; remove one of the links", (*made[child].path, "parents", nth)
    )
