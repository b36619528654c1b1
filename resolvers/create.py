"""Creating groups and tasks. Calls that come together are made by one statement; one that meets something already there
(its group, its task ids, parents by id) is then made alone, in a transaction that looks first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from db.create import (
    Batch,
    CreatedRow,
    NewGroupRow,
    NewLink,
    NewTaskRow,
    create_tasks,
    existing_tasks,
    groups_to_repeat,
    lock_parents,
    tasks_made_with_group,
)
from db.group import read_groups
from db.pool import Connection
from resolvers import check
from resolvers.core import Core
from resolvers.draft import Draft, drafts, new_id
from resolvers.errors import BadInput, Conflict, CrewError, NotFound, Path, TooLarge
from resolvers.gather import Gather

SCHEDULED, READY = 1, 2
_TRIES = 100


@dataclass(slots=True)
class Call:
    """The tasks of one group of one call: into a new group, or into one that is there."""

    group_id: UUID
    drafts: list[Draft]
    path: Path
    new_group: NewGroupRow | None = None
    group_no: int = 0
    spawned_by: int | None = None
    parent_delay: float | None = None
    """Continuations: at least so long after the parent, for tasks that hang from it."""

    @property
    def needs_a_look(self) -> bool:
        return any(draft.outside for draft in self.drafts)


@dataclass(slots=True)
class Made:
    """What a call made, or made before: its group, and its tasks in the order sent."""

    group_id: UUID
    tasks: list[tuple[int, UUID]]


@dataclass
class Creator:
    """Takes calls, gathers them, and makes them."""

    core: Core
    gather: Gather[list[Call], list[Made]] = field(init=False)

    def __post_init__(self) -> None:
        self.gather = Gather(self._flush, weigh=lambda calls: sum(1 + len(c.drafts) for c in calls), width=2)

    async def groups(self, groups: Sequence[Any], path: Path, *, many: bool) -> list[Made]:
        """createTaskGroup(s): each with its tasks; all of them or none."""
        total = sum(len(g.tasks or ()) for g in groups)
        if total > self.core.limits.max_batch or len(groups) > self.core.limits.max_batch:
            raise TooLarge(
                f"{len(groups)} groups with {total} tasks in one call; at most {self.core.limits.max_batch} of each are "
                "allowed: send them in several calls",
                path,
            )
        calls = [self._new_group(g, (*path, "groups", n) if many else path) for n, g in enumerate(groups)]
        _refuse_twice([(call.group_id, (*call.path, "id")) for call in calls])
        _refuse_twice([(d.id, (*d.path, "id")) for call in calls for d in call.drafts])
        return await self.gather.add(calls) if calls else []

    def _new_group(self, group: Any, path: Path) -> Call:
        group_id = new_id() if group.id is None else check.uuid(group.id, (*path, "id"), "id")
        row = NewGroupRow(
            group_id,
            check.text(group.name, (*path, "name"), "name", check.NAME_CHARACTERS),
            None
            if group.metadata is None
            else check.json_text(group.metadata, (*path, "metadata"), "metadata", self.core.limits.max_input_bytes),
        )
        tasks = drafts(
            group.tasks or (), (*path, "tasks"), self.core.limits.max_batch, self.core.limits.max_input_bytes
        )
        for draft in tasks:
            if draft.outside and group.id is None:
                parent, _, here = draft.outside[0]
                raise NotFound(f"no task {parent} in this group, which is new: name a task of this call by ref", here)
        return Call(group_id, tasks, path, new_group=row)

    async def tasks(self, group_id: object, tasks: Sequence[Any], path: Path) -> Made:
        """createTasks: into a group that is there."""
        group = check.uuid(group_id, (*path, "groupId"), "groupId")
        call = Call(
            group, drafts(tasks, (*path, "tasks"), self.core.limits.max_batch, self.core.limits.max_input_bytes), path
        )
        return (await self.gather.add([call]))[0]

    async def _flush(self, batch: list[list[Call]]) -> Sequence[list[Made] | BaseException]:
        refused = await self._find_groups([call for calls in batch for call in calls if call.new_group is None])
        answers: list[list[Made] | BaseException | None] = [
            next((refused[id(c)] for c in calls if id(c) in refused), None) for calls in batch
        ]
        plain = [n for n, calls in enumerate(batch) if answers[n] is None and not any(c.needs_a_look for c in calls)]
        if plain:
            try:
                made = await self._make_plain([call for n in plain for call in batch[n]])
                for n in plain:
                    answers[n] = [made.pop(0) for _ in batch[n]]
            except asyncpg.UniqueViolationError:
                pass
        for n, calls in enumerate(batch):
            if answers[n] is None:
                try:
                    answers[n] = await self._make_alone(calls)
                except Exception as error:
                    answers[n] = error
        return [a for a in answers if a is not None]

    async def _find_groups(self, calls: list[Call]) -> dict[int, CrewError]:
        if not calls:
            return {}
        rows = await read_groups(self.core.pool, self.core.ns, ids=list({c.group_id for c in calls}))
        numbers = {row.id: row.group_no for row in rows}
        refused: dict[int, CrewError] = {}
        for call in calls:
            call.group_no = numbers.get(call.group_id, 0)
            if not call.group_no:
                refused[id(call)] = NotFound(f"no task group {call.group_id}", (*call.path, "groupId"))
        return refused

    async def _make_plain(self, calls: list[Call]) -> list[Made]:
        batch = Batch()
        numbers_of = await self._numbers(calls)
        for call in calls:
            _fill(numbers_of, batch, call, There())
        rows = await self.core.pool.run(lambda connection: create_tasks(connection, self.core.ns, batch))
        self.tell(rows)
        numbers = iter(rows)
        return [Made(c.group_id, [(next(numbers).no, d.id) for d in c.drafts]) for c in calls]

    async def _make_alone(self, calls: list[Call]) -> list[Made]:
        """One caller's groups in one transaction, looking first; again when another made one of its ids meanwhile."""
        for _ in range(_TRIES):
            try:
                made, rows = await self.core.pool.run(lambda c: self._look_and_make(c, calls), transaction=True)
            except (asyncpg.UniqueViolationError, Moved):
                await asyncio.sleep(0)
                continue
            self.tell(rows)
            return made
        raise Conflict("the same ids are being made by other calls all the time: try again", calls[0].path)

    async def _look_and_make(self, connection: Connection, calls: list[Call]) -> tuple[list[Made], list[CreatedRow]]:
        made: list[Made | None] = []
        fresh: list[Call] = []
        there = await groups_to_repeat(connection, self.core.ns, [c.group_id for c in calls if c.new_group])
        repeats = {g.id: g for g in there}
        for call in calls:
            if call.new_group is not None and call.group_id in repeats:
                group = repeats[call.group_id]
                tasks = await tasks_made_with_group(connection, self.core.ns, group)
                made.append(Made(group.id, tasks))
            else:
                made.append(None)
                fresh.append(call)
        done, rows = await self.make_within(connection, fresh)
        return [m or done.pop(0) for m in made], rows

    async def make_within(self, connection: Connection, calls: list[Call]) -> tuple[list[Made], list[CreatedRow]]:
        """Make the calls' tasks in the transaction of `connection`: those whose ids are there already stay as they are.

        Raises Moved (run the transaction again) when a parent changed its place just now.
        """
        there = await self._already_there(connection, calls)
        await self._lock_parents(connection, calls, there)
        numbers_of = await self._numbers(calls)
        batch = Batch()
        for call in calls:
            _fill(numbers_of, batch, call, there)
        rows = await create_tasks(connection, self.core.ns, batch) if batch.tasks or batch.groups else []
        numbers = {task.id: row.no for task, row in zip(batch.tasks, rows, strict=True)} | there.made
        return [Made(c.group_id, [(numbers[d.id], d.id) for d in c.drafts]) for c in calls], rows

    async def _already_there(self, connection: Connection, calls: list[Call]) -> There:
        own = [d.id for c in calls for d in c.drafts if d.own_id]
        found = {row.id: row for row in await existing_tasks(connection, self.core.ns, own)} if own else {}
        for call in calls:
            for draft in call.drafts:
                row = found.get(draft.id)
                if row is not None and row.group_no != call.group_no:
                    raise Conflict(
                        f"task {draft.id} is there already, in another group: give this one a new id",
                        (*draft.path, "id"),
                    )
        return There(made={row.id: row.no for row in found.values()})

    async def _lock_parents(self, connection: Connection, calls: list[Call], there: There) -> None:
        """Lock every parent that is there, and note which have succeeded."""
        wanted = [
            (c, parent, path)
            for c in calls
            for d in c.drafts
            if d.id not in there.made
            for parent, path in _parents_there(c, d, there)
        ]
        if not wanted:
            return
        rows = await lock_parents(connection, self.core.ns, sorted({parent for _, parent, _ in wanted}))
        found = {row.id: row for row in rows}
        for call, parent, path in wanted:
            row = found.get(parent)
            if row is None:
                raise NotFound(f"no task {parent} to be a parent: create it first, or in this call with a ref", path)
            if row.group_no != call.group_no:
                raise BadInput(f"task {parent} is in another group: parents and children share one group", path)
            if row.place == "moved":
                raise Moved
        there.parents = {row.id: row.no for row in rows}
        there.succeeded = {row.no for row in rows if row.place == "done"}

    async def _numbers(self, calls: list[Call]) -> Numbers:
        """Give the names a number each, before any row is written."""
        return Numbers(
            await self.core.channels.numbers({d.channel for c in calls for d in c.drafts}),
            await self.core.workgroups.numbers(
                {d.workgroup for c in calls for d in c.drafts if d.workgroup is not None}
            ),
        )

    def tell(self, rows: list[CreatedRow]) -> None:
        """After the commit: whoever waits for such tasks, and the clock."""
        self.core.wake([(r.channel, r.rank, r.no) for r in rows if r.state == READY])
        due = min((r.due_in for r in rows if r.due_in is not None and r.state != READY), default=None)
        if due is not None:
            self.core.due(due)


@dataclass(slots=True)
class There:
    """What a call found there already: tasks with ids of its own, and parents of its new tasks."""

    made: dict[UUID, int] = field(default_factory=dict)
    parents: dict[UUID, int] = field(default_factory=dict)
    succeeded: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Numbers:
    """The numbers of the names in a batch."""

    channels: dict[str, int]
    workgroups: dict[str, int]


class Moved(Exception):
    """A parent changed its place between two looks: run the transaction again."""


def _refuse_twice(ids: list[tuple[UUID, Path]]) -> None:
    seen: set[UUID] = set()
    for given, path in ids:
        if given in seen:
            raise BadInput(f"id {given} is given twice in this call: each needs its own", path)
        seen.add(given)


def _parents_there(call: Call, draft: Draft, there: There) -> list[tuple[UUID, Path]]:
    """Ids of a new task's parents that are there already: named by id, or by the ref of one that an earlier call made."""
    inside = [(call.drafts[at].id, (*draft.path, "parents", nth, "ref")) for at, nth in draft.inside]
    return [(i, p) for i, p in inside if i in there.made] + [(i, p) for i, _, p in draft.outside]


def _fill(numbers: Numbers, batch: Batch, call: Call, there: There) -> None:
    """Add to a batch what a call has to make."""
    if call.new_group is not None:
        batch.groups.append(call.new_group)
    new = [n for n, d in enumerate(call.drafts) if d.id not in there.made]
    place_of = {n: len(batch.tasks) + at for at, n in enumerate(new, 1)}
    for n in new:
        d = call.drafts[n]
        child, open_parents, delay = place_of[n], 0, None
        existing = [(i, nth) for i, nth, _ in d.outside]
        for inside, nth in d.inside:
            if inside in place_of:
                batch.links.append(NewLink(place_of[inside], 0, child, nth))
                open_parents += 1
            else:
                existing.append((call.drafts[inside].id, nth))
        for parent, nth in existing:
            number = there.parents[parent]
            batch.links.append(NewLink(0, number, child, nth))
            open_parents += number not in there.succeeded
            if number == call.spawned_by:
                delay = call.parent_delay
        if call.spawned_by is not None and d.names_no_parent:
            batch.links.append(NewLink(0, call.spawned_by, child, 0))
            delay = call.parent_delay
        batch.tasks.append(
            NewTaskRow(
                id=d.id,
                new_group=0 if call.new_group is None else len(batch.groups),
                group_no=call.group_no,
                channel=numbers.channels[d.channel],
                workgroup=0 if d.workgroup is None else numbers.workgroups[d.workgroup],
                rank=d.rank,
                name=d.name,
                input=d.input,
                metadata=d.metadata,
                run_after=d.run_after,
                delay=d.delay,
                parent_delay=delay,
                max_attempts=d.max_attempts,
                retry_delay=d.retry_delay,
                backoff=d.backoff,
                max_delay=d.max_delay,
                weight=d.weight,
                is_seed=d.is_seed,
                spawned_by=call.spawned_by,
                open=open_parents,
            )
        )
