"""Creating groups and tasks. Calls that come together are made by one statement; one that meets something already there
(its group, its task ids, parents by id, keys) is then made alone, in a transaction that looks first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
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
from db.join import MemberRow, feed, subtree_members
from db.join import adopt as adopt_tasks
from db.key import KeyedRow, lock_keys, merge_ready, remember_keys, tasks_with_keys
from db.pause import park_paused, pause_groups
from db.pool import Connection, Pool
from resolvers import check
from resolvers.adopt import Tree, adopt
from resolvers.core import Core
from resolvers.draft import CANCEL, REJECT, RETURN_EXISTING, RUN, Draft, Inside, drafts, new_id, refuse_cycles
from resolvers.errors import BadInput, Conflict, CrewError, DuplicateKey, NotFound, Path, TooLarge
from resolvers.follow import After, cancel_under
from resolvers.gather import Gather

Result = TypeVar("Result")
SCHEDULED, READY, FAILED = 1, 2, 6
_TRIES = 100
ADOPTED_PLACE = (1 << 31) - 1
"""Where adopted parents stand among all: after those that were named."""


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
    joins: list[int] = field(default_factory=list)
    """Continuations: blocked tasks that wait for the parent and all it spawns."""
    is_paused: bool = False
    """A new group is born paused."""

    @property
    def needs_a_look(self) -> bool:
        return self.is_paused or any(draft.outside or draft.key is not None for draft in self.drafts)


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
        calls = [self.into_new(g, (*path, "groups", n) if many else path) for n, g in enumerate(groups)]
        _refuse_twice([(call.group_id, (*call.path, "id")) for call in calls])
        _refuse_twice([(d.id, (*d.path, "id")) for call in calls for d in call.drafts])
        return await self.gather.add(calls) if calls else []

    def into_new(self, group: Any, path: Path) -> Call:
        """A group and its tasks, checked."""
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
                link = draft.outside[0]
                raise NotFound(
                    f"no task {link.parent} in this group, which is new: name a task of this call by ref", link.path
                )
        return Call(group_id, tasks, path, new_group=row, is_paused=bool(group.is_paused))

    async def tasks(self, group_id: object, tasks: Sequence[Any], path: Path) -> Made:
        """createTasks: into a group that is there."""
        return (await self.gather.add([self.into_old(group_id, tasks, path)]))[0]

    def into_old(self, group_id: object, tasks: Sequence[Any], path: Path) -> Call:
        """Tasks for a group that is there, checked."""
        group = check.uuid(group_id, (*path, "groupId"), "groupId")
        limits = self.core.limits
        return Call(group, drafts(tasks, (*path, "tasks"), limits.max_batch, limits.max_input_bytes), path)

    async def _flush(self, batch: list[list[Call]]) -> Sequence[list[Made] | BaseException]:
        refused = await self.find_groups(
            self.core.pool, [call for calls in batch for call in calls if call.new_group is None]
        )
        answers: list[list[Made] | BaseException | None] = [
            next((refused[id(c)] for c in calls if id(c) in refused), None) for calls in batch
        ]
        plain = [n for n, calls in enumerate(batch) if answers[n] is None and not any(c.needs_a_look for c in calls)]
        if plain:
            try:
                made = await self._make_plain([call for n in plain for call in batch[n]])
                for n in plain:
                    found = [made.pop(0) for _ in batch[n]]
                    answers[n] = next((f for f in found if isinstance(f, CrewError)), None) or [
                        f for f in found if isinstance(f, Made)
                    ]
            except asyncpg.UniqueViolationError:
                pass
        for n, calls in enumerate(batch):
            if answers[n] is None:
                try:
                    answers[n] = await self._make_alone(calls)
                except Exception as error:
                    answers[n] = error
        return [a for a in answers if a is not None]

    async def find_groups(self, on: Pool | Connection, calls: list[Call]) -> dict[int, CrewError]:
        """Gives calls into groups that are there the numbers of these; the refusals of others, by the id() of each."""
        if not calls:
            return {}
        rows = await read_groups(on, self.core.ns, ids=list({c.group_id for c in calls}))
        numbers = {row.id: row.group_no for row in rows}
        refused: dict[int, CrewError] = {}
        for call in calls:
            call.group_no = numbers.get(call.group_id, 0)
            if not call.group_no:
                refused[id(call)] = _no_group(call)
        return refused

    async def _make_plain(self, calls: list[Call]) -> list[Made | CrewError]:
        batch = Batch()
        numbers_of = await self._numbers(calls)
        for call in calls:
            _fill(numbers_of, batch, call, There())
        rows = await self.core.pool.run(lambda connection: create_tasks(connection, self.core.ns, batch))
        _after(rows, After()).tell(self.core)
        numbers = {row.ord: row.no for row in rows}
        ords = iter(range(1, len(batch.tasks) + 1))
        made: list[Made | CrewError] = []
        for call in calls:
            tasks = [(numbers.get(next(ords), 0), d.id) for d in call.drafts]
            made.append(Made(call.group_id, tasks) if all(no for no, _ in tasks) else _no_group(call))
        return made

    async def _make_alone(self, calls: list[Call]) -> list[Made]:
        """One caller's groups in one transaction."""

        async def work(connection: Connection, after: After) -> list[Made]:
            return await self.look_and_make(connection, calls, after)

        return await self.transact(work, calls[0].path)

    async def transact(self, work: Callable[[Connection, After], Awaitable[Result]], path: Path = ()) -> Result:
        """One transaction that looks first, and tells what follows; again when another made one of its ids meanwhile."""

        async def once(connection: Connection) -> tuple[Result, After]:
            after = After()
            return await work(connection, after), after

        for _ in range(_TRIES):
            try:
                answer, after = await self.core.pool.run(once, transaction=True)
            except (asyncpg.UniqueViolationError, Moved):
                await asyncio.sleep(0)
                continue
            after.tell(self.core)
            return answer
        raise Conflict("the same ids are being made by other calls all the time: try again", path)

    async def look_and_make(self, connection: Connection, calls: list[Call], after: After) -> list[Made]:
        """In the transaction of `connection`: groups that are there already stay as they are. Raises as make_within."""
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
        done = await self.make_within(connection, fresh, after)
        return [m or done.pop(0) for m in made]

    async def make_within(self, connection: Connection, calls: list[Call], after: After) -> list[Made]:
        """Make the calls' tasks in the transaction of `connection`: those whose ids are there already stay as they are.

        Raises Moved (run the transaction again) when a parent changed its place just now.
        """
        ns = self.core.ns
        there = await self._already_there(connection, calls)
        await self._lock_parents(connection, calls, there)
        numbers_of = await self._numbers(calls)
        await self._settle_keys(connection, calls, there, numbers_of)
        if len(calls) > 1 and any(_crosses(call, there) for call in calls):
            raise Alone("joins that may come to wait for each other are told apart one call at a time", ())
        adoptions = [(call, await self._adopt(connection, call, there)) for call in calls]
        batch = Batch()
        for call in calls:
            _fill(numbers_of, batch, call, there)
        rows = await create_tasks(connection, ns, batch) if batch.tasks or batch.groups else []
        if len(rows) < len(batch.tasks):
            raise _no_group(next(c for c in calls if c.new_group is None))
        numbers = {task.id: row.no for task, row in zip(batch.tasks, rows, strict=True)} | there.made
        _after(rows, after)
        pairs = [(numbers[c.drafts[at].id], old) for c, tree in adoptions if tree for at, old in tree.adopted_by]
        while pairs:
            moved = await adopt_tasks(connection, ns, pairs)
            pairs = [pair for pair in pairs if pair[1] in moved]
        feeds = [pair for _, tree in adoptions if tree for pair in tree.feeds]
        if feeds:
            await feed(connection, ns, [(_number(numbers, x), _number(numbers, join)) for x, join in feeds])
        # After the adoptions: a join goes with what it has adopted.
        await self._follow(connection, calls, batch, rows, there, after)
        return [Made(c.group_id, [_answer(d, numbers, there) for d in c.drafts]) for c in calls]

    async def _follow(
        self,
        connection: Connection,
        calls: list[Call],
        batch: Batch,
        rows: list[CreatedRow],
        there: There,
        after: After,
    ) -> None:
        """What goes with new tasks: keys, parents that have failed, groups born paused."""
        ns = self.core.ns
        made = list(zip(batch.tasks, rows, strict=True))
        keyed = [row.no for task, row in made if task.key is not None]
        if keyed:
            await remember_keys(connection, ns, keyed)
        merging = [row.no for task, row in made if task.merges and row.state == READY]
        if merging:
            await merge_ready(connection, ns, merging)
        if there.dooming:
            await cancel_under(connection, ns, after, sorted(there.dooming))
        paused = [c.group_id for c in calls if c.is_paused]
        if paused:
            groups = [g.group_no for g in await groups_to_repeat(connection, ns, paused)]
            await pause_groups(connection, ns, groups)
            await park_paused(connection, ns, tasks=[], groups=groups)

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
        """Lock every parent that is there, and note how it stands; with all that a late join is to wait for."""
        wanted = [
            (c, parent, path, subtree)
            for c in calls
            for d in c.drafts
            if d.id not in there.made
            for parent, path, subtree in _parents_there(c, d, there)
        ]
        if not wanted:
            return
        await self._lock(connection, there, [(c, parent, path) for c, parent, path, _ in wanted])
        late = {there.parents[p] for _, p, _, subtree in wanted if subtree and there.stands[p] == "succeeded"}
        if late:
            await self._lock_members(connection, calls, there, sorted(late))

    async def _lock(self, connection: Connection, there: There, wanted: list[tuple[Call, UUID, Path]]) -> None:
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
        there.parents |= {row.id: row.no for row in rows}
        there.stands |= {row.id: row.place for row in rows}

    async def _lock_members(self, connection: Connection, calls: list[Call], there: There, roots: list[int]) -> None:
        """What these have spawned so far is locked as parents are: none of it spawns unseen before we commit."""
        if len(calls) > 1:
            raise Alone("a late SUBTREE link is made in a transaction of its own", ())
        members = await subtree_members(connection, self.core.ns, roots)
        if members:
            rows = await lock_parents(connection, self.core.ns, sorted({m.id for m in members}))
            again = await subtree_members(connection, self.core.ns, roots)
            if len(again) != len(members) or any(row.place == "moved" for row in rows):
                raise Moved
            there.parents |= {row.id: row.no for row in rows}
            there.stands |= {row.id: row.place for row in rows}
        for member in members:
            there.members.setdefault(member.root, []).append(member)

    async def _settle_keys(self, connection: Connection, calls: list[Call], there: There, numbers_of: Numbers) -> None:
        """Lock the keys; REJECT refuses, RETURN_EXISTING is answered with what is there."""
        new = [(c, d) for c in calls for d in c.drafts if d.key is not None and d.id not in there.made]
        if not new:
            return
        keys = sorted({(numbers_of.channels[d.channel], d.key) for _, d in new if d.key is not None})
        await lock_keys(connection, self.core.ns, keys)
        oldest: dict[tuple[int, str], KeyedRow | Draft] = {}
        if any(d.on_duplicate in (RETURN_EXISTING, REJECT) for _, d in new):
            for row in reversed(await tasks_with_keys(connection, self.core.ns, keys)):
                oldest[row.channel, row.key] = row
        for call, draft in new:
            key = (numbers_of.channels[draft.channel], draft.key or "")
            first = oldest.get(key)
            if first is not None and draft.on_duplicate == REJECT:
                raise DuplicateKey(
                    f"task {first.id} of channel {check.shown(draft.channel)} has the key {check.shown(draft.key)} and has "
                    "not ended: wait for it, or send another key or another onDuplicate",
                    (*draft.path, "key"),
                )
            if first is not None and draft.on_duplicate == RETURN_EXISTING:
                there.instead[draft.id] = first.id
                if isinstance(first, KeyedRow):
                    there.made[first.id] = first.no
                    there.groups[first.id] = first.group_no
                else:
                    there.groups[first.id] = call.group_no if any(first is d for d in call.drafts) else -1
            else:
                oldest.setdefault(key, draft)
        if there.instead:
            await self._hang_from_existing(connection, calls, there)

    async def _hang_from_existing(self, connection: Connection, calls: list[Call], there: There) -> None:
        """Links to a task that RETURN_EXISTING answered with another go to that one: lock it, and look for cycles again."""
        wanted: list[tuple[Call, UUID, Path]] = []
        for call in calls:
            places = {d.id: n for n, d in enumerate(call.drafts)}
            for draft, link in ((d, x) for d in call.drafts if d.id not in there.instead for x in d.inside):
                other = there.instead.get(call.drafts[link.parent].id)
                if other is None:
                    continue
                path = (*draft.path, "parents", link.place, "ref")
                if there.groups[other] != call.group_no or (call.new_group and other in there.made):
                    raise BadInput(
                        f"this parent was answered with task {other}, which is in another group (RETURN_EXISTING): "
                        "parents and children share one group, use MERGE",
                        path,
                    )
                if other == draft.id:
                    raise BadInput("a task cannot be its own parent", path)
                if other in there.made:
                    wanted.append((call, other, path))
            refuse_cycles([replace(d, inside=_inside(call, d, there, places)) for d in call.drafts])
        if wanted:
            await self._lock(connection, there, wanted)

    async def _adopt(self, connection: Connection, call: Call, there: There) -> Tree | None:
        """SUBTREE: None when no join is concerned."""
        new = _new(call, there)
        outside = {n: [(there.parents[x[0]], x[2]) for x in _existing(call, call.drafts[n], there)] for n in new}
        if not call.joins and not any(subtree for links in outside.values() for _, subtree in links):
            return None
        places = {call.drafts[n].id: n for n in new}
        inside = {n: [x.parent for x in _inside(call, call.drafts[n], there, places)] for n in new}
        tree = Tree(call.drafts, new, inside, outside, call.spawned_by, call.joins, there.members)
        await adopt(connection, self.core.ns, tree)
        for at, member in tree.adopts_old:
            there.adopts.setdefault(call.drafts[at].id, []).append(member.id)
        for at, place in tree.adopts_new:
            there.adopts.setdefault(call.drafts[at].id, []).append(call.drafts[place].id)
        return tree

    async def _numbers(self, calls: list[Call]) -> Numbers:
        """Give the names a number each, before any row is written."""
        return Numbers(
            await self.core.channels.numbers({d.channel for c in calls for d in c.drafts}),
            await self.core.workgroups.numbers(
                {d.workgroup for c in calls for d in c.drafts if d.workgroup is not None}
            ),
        )


@dataclass(slots=True)
class There:
    """What a call found there already: tasks with ids of its own, tasks of its keys, and parents of its new tasks."""

    made: dict[UUID, int] = field(default_factory=dict)
    instead: dict[UUID, UUID] = field(default_factory=dict)
    """Tasks that RETURN_EXISTING answers with another one."""
    groups: dict[UUID, int] = field(default_factory=dict)
    """The group numbers of those others."""
    parents: dict[UUID, int] = field(default_factory=dict)
    stands: dict[UUID, str] = field(default_factory=dict)
    """How each parent stands: succeeded, failed, cancelled or open."""
    dooming: set[int] = field(default_factory=set)
    """Parents that have failed or are cancelled, of new tasks that go with them."""
    members: dict[int, list[MemberRow]] = field(default_factory=dict)
    """What parents of late joins have spawned."""
    adopts: dict[UUID, list[UUID]] = field(default_factory=dict)
    """What late joins adopt, of that and of the call's own tasks."""


@dataclass(slots=True)
class Numbers:
    """The numbers of the names in a batch."""

    channels: dict[str, int]
    workgroups: dict[str, int]


class Alone(CrewError):
    """These calls cannot share a transaction: make each in one of its own."""


class Moved(Exception):
    """A parent changed its place between two looks: run the transaction again."""


def _no_group(call: Call) -> NotFound:
    return NotFound(f"no task group {call.group_id}", (*call.path, "groupId"))


def _refuse_twice(ids: list[tuple[UUID, Path]]) -> None:
    seen: set[UUID] = set()
    for given, path in ids:
        if given in seen:
            raise BadInput(f"id {given} is given twice in this call: each needs its own", path)
        seen.add(given)


def _parents_there(call: Call, draft: Draft, there: There) -> list[tuple[UUID, Path, bool]]:
    """Ids of a new task's parents that are there already: named by id, or by the ref of one that an earlier call made."""
    inside = [(call.drafts[x.parent].id, (*draft.path, "parents", x.place, "ref"), x.subtree) for x in draft.inside]
    return [x for x in inside if x[0] in there.made] + [(x.parent, x.path, x.subtree) for x in draft.outside]


def _crosses(call: Call, there: There) -> bool:
    """Old joins adopt its tasks, which hang from more than their spawner: from tasks, say, that another join waits for."""
    return bool(call.joins) and any(
        there.parents.get(x.parent, call.spawned_by) != call.spawned_by for d in call.drafts for x in d.outside
    )


def _number(numbers: dict[UUID, int], task: int | UUID) -> int:
    return task if isinstance(task, int) else numbers[task]


def _answer(draft: Draft, numbers: dict[UUID, int], there: There) -> tuple[int, UUID]:
    given = there.instead.get(draft.id, draft.id)
    return numbers[given], given


def _after(rows: list[CreatedRow], after: After) -> After:
    after.places += [(r.channel, r.rank, r.no) for r in rows if r.state == READY]
    after.due += [r.due_in for r in rows if r.due_in is not None and r.state != READY]
    return after


def _new(call: Call, there: There) -> list[int]:
    """The places of the drafts that are to be made."""
    return [n for n, d in enumerate(call.drafts) if d.id not in there.made and d.id not in there.instead]


def _fill(numbers: Numbers, batch: Batch, call: Call, there: There) -> None:
    """Add to a batch what a call has to make."""
    if call.new_group is not None:
        batch.groups.append(call.new_group)
    place_of = {call.drafts[n].id: len(batch.tasks) + at for at, n in enumerate(_new(call, there), 1)}
    for n in _new(call, there):
        d = call.drafts[n]
        child, delay = place_of[d.id], None
        links: dict[tuple[int, int], NewLink] = {}
        for link in _inside(call, d, there, place_of):
            links.setdefault((link.parent, 0), NewLink(link.parent, 0, child, link.place, link.subtree))
        for parent in there.adopts.get(d.id, ()):
            if parent in place_of:
                at = place_of[parent]
                links.setdefault((at, 0), NewLink(at, 0, child, ADOPTED_PLACE, True, True))
        open_parents = len(links)
        for parent, place, subtree, adopted in _existing(call, d, there):
            number = there.parents[parent]
            if (0, number) in links:
                links[0, number].subtree |= subtree
                continue
            links[0, number] = NewLink(0, number, child, place, subtree, adopted)
            stands = there.stands[parent]
            open_parents += stands == "open" or (stands != "succeeded" and d.on_parent_failure != RUN)
            if stands in ("failed", "cancelled") and d.on_parent_failure == CANCEL:
                there.dooming.add(number)
            if number == call.spawned_by:
                delay = call.parent_delay
        if call.spawned_by is not None and d.names_no_parent:
            links[0, call.spawned_by] = NewLink(0, call.spawned_by, child, 0)
            delay = call.parent_delay
        batch.links += links.values()
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
                key=d.key,
                on_duplicate=d.on_duplicate,
                timeout=d.timeout,
                on_parent_failure=d.on_parent_failure,
            )
        )


def _inside(call: Call, draft: Draft, there: There, places: dict[UUID, int]) -> list[Inside]:
    """Links to parents that have a place here, of which one may stand in for another (RETURN_EXISTING)."""
    ids = [(there.instead.get(call.drafts[x.parent].id, call.drafts[x.parent].id), x) for x in draft.inside]
    return [Inside(places[i], x.place, x.subtree) for i, x in ids if i in places]


def _existing(call: Call, draft: Draft, there: There) -> list[tuple[UUID, int, bool, bool]]:
    """Links of a new task to tasks that are there: parent, place, subtree, adopted."""
    found = [(x.parent, x.place, x.subtree, False) for x in draft.outside]
    for link in draft.inside:
        parent = call.drafts[link.parent].id
        parent = there.instead.get(parent, parent)
        if parent in there.made:
            found.append((parent, link.place, link.subtree, False))
    return found + [(i, ADOPTED_PLACE, True, True) for i in there.adopts.get(draft.id, ()) if i in there.parents]
