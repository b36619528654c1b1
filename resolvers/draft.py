"""New tasks as callers send them, checked: names, numbers, and a graph without cycles. Nothing here touches the database."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.create import NewTaskRow
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


@dataclass(slots=True, kw_only=True)
class Draft(NewTaskRow):
    """One new task, with names that have no numbers yet. `inside` holds the places of its parents in the same call, `outside` the
    ids of tasks that exist."""

    path: Path
    channel_name: str
    workgroup_name: str | None = None
    inside: Sequence[Inside] = ()
    outside: Sequence[Outside] = ()

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
    before = None
    for place, task in enumerate(tasks):
        before = _draft(task, (*path, place), longest, before)
        made.append(before)
    _refuse_twice(made, tasks)
    refs = _refs(made, tasks)
    if any(task.parents for task in tasks):
        ids = {draft.id: place for place, draft in enumerate(made)}
        for place, task in enumerate(tasks):
            _hang(made, place, task.parents or (), refs, ids)
        refuse_cycles(made)
    return made


def _refuse_twice(made: list[Draft], tasks: Sequence[Any]) -> None:
    """By their texts, of which a hash is had for less."""
    texts = [task.id.lower() for task in tasks if task.id is not None]
    if len(set(texts)) == len(texts):
        return
    seen: set[UUID] = set()
    for draft in made:
        if draft.id in seen:
            raise BadInput(f"id {draft.id} is given to two tasks of this call: each needs its own", (*draft.path, "id"))
        seen.add(draft.id)


def _refs(made: list[Draft], tasks: Sequence[Any]) -> dict[str, int]:
    """Ref → place."""
    refs: dict[str, int] = {}
    for place, task in enumerate(tasks):
        if task.ref is None:
            continue
        here = (*made[place].path, "ref")
        ref = check.text(task.ref, here, "ref", check.NAME_CHARACTERS)
        if ref in refs:
            raise BadInput(f"ref {check.shown(ref)} is used twice in this call: each needs its own", here)
        refs[ref] = place
    return refs


def _draft(task: Any, path: Path, longest: int, before: Draft | None) -> Draft:
    name, channel = task.name, task.channel
    # Most are called as the one before, for which that was good.
    if before is None or name != before.name:
        check.text(name, (*path, "name"), "name", check.NAME_CHARACTERS)
    if before is None or channel != before.channel_name:
        check.text(channel, (*path, "channel"), "channel")
    id = new_id() if task.id is None else check.uuid(task.id, (*path, "id"), "id")
    draft = Draft(id=id, name=name, path=path, channel_name=channel)
    if task.input is not None:
        draft.input = check.json_text(task.input, (*path, "input"), "input", longest)
    if task.metadata is not None:
        draft.metadata = check.json_text(task.metadata, (*path, "metadata"), "metadata", longest)
    if task.workgroup is not None:
        draft.workgroup_name = check.text(task.workgroup, (*path, "workgroup"), "workgroup")
    if task.priority:
        draft.rank = -check.whole(task.priority, (*path, "priority"), "priority", -check.INT32, check.INT32)
    if task.key is not None:
        draft.key = check.text(task.key, (*path, "key"), "key", check.NAME_CHARACTERS)
    if task.run_after is not None:
        if task.delay_seconds is not None:
            raise BadInput("runAfter and delaySeconds exclude each other: send one", (*path, "delaySeconds"))
        draft.run_after = check.instant(task.run_after, (*path, "runAfter"), "runAfter")
    if task.delay_seconds is not None:
        draft.delay = check.seconds(task.delay_seconds, (*path, "delaySeconds"), "delaySeconds")
    if task.retry is not None:
        _retry(draft, task.retry, (*path, "retry"))
    if task.progress_weight != 1:
        draft.weight = check.whole(task.progress_weight, (*path, "progressWeight"), "progressWeight", 0, 1_000_000)
    if task.timeout_seconds is not None:
        at = (*path, "timeoutSeconds")
        draft.timeout = check.number(task.timeout_seconds, at, "timeoutSeconds", 0.001, check.YEAR_SECONDS)
    draft.is_seed = task.is_seed
    draft.on_duplicate = task.on_duplicate._value_
    draft.on_parent_failure = task.on_parent_failure._value_
    return draft


def _retry(draft: Draft, retry: Any, path: Path) -> None:
    year = check.YEAR_SECONDS
    draft.max_attempts = check.whole(retry.max_attempts, (*path, "maxAttempts"), "maxAttempts", 1, 1_000_000)
    draft.retry_delay = check.number(retry.delay_seconds, (*path, "delaySeconds"), "delaySeconds", 0, year)
    draft.backoff = check.number(retry.backoff, (*path, "backoff"), "backoff", 1, 100)
    draft.max_delay = check.number(retry.max_delay_seconds, (*path, "maxDelaySeconds"), "maxDelaySeconds", 0, year)


def _hang(made: list[Draft], place: int, parents: Sequence[Any], refs: dict[str, int], ids: dict[UUID, int]) -> None:
    child = made[place]
    seen: set[object] = set()
    links_inside: list[Inside] = []
    links_outside: list[Outside] = []
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
            links_inside.append(Inside(inside, nth, subtree))
        else:
            links_outside.append(Outside(parent_id, nth, (*here, "id"), subtree))
    child.inside, child.outside = links_inside, links_outside


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
