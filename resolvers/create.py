"""Creating groups and tasks. Calls that come together are made by one statement; one that meets something already there
(its group, its task ids, parents by id, keys) is then made alone, in a transaction that looks first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from db.claim import ClaimedRow, ClaimRequest
from db.create import (
    Batch,
    CreatedRow,
    NewGroupRow,
    create_leased_task,
    create_tasks,
    existing_tasks,
    groups_to_repeat,
    lock_groups,
    lock_parents,
    tasks_made_with_group,
)
from db.group import read_groups
from db.join import adopt as adopt_tasks
from db.join import feed, subtree_members
from db.key import KeyedRow, lock_keys, merge_ready, remember_keys, tasks_with_keys
from db.pause import park_paused, pause_groups
from db.pool import Connection, Pool
from resolvers import check
from resolvers.adopt import Tree, adopt
from resolvers.call import (
    Call,
    Made,
    Numbers,
    There,
    answer_to,
    claimed_at_once,
    crosses,
    fill,
    links_inside,
    links_outside,
    number_of,
    parents_there,
    to_make,
)
from resolvers.core import Core
from resolvers.draft import REJECT, RETURN_EXISTING, Draft, drafts, new_id, refuse_cycles
from resolvers.errors import BadInput, Conflict, CrewError, DuplicateKey, NotFound, Path, TooLarge
from resolvers.follow import After, cancel_under
from resolvers.gather import Gather

Result = TypeVar("Result")
SCHEDULED, READY, RUNNING, FAILED = 1, 2, 3, 6
_TRIES = 100
APART = 4
"""So many at once; more would take the connections from what waits for nobody."""


@dataclass
class Creator:
    """Takes calls, gathers them, and makes them."""

    core: Core
    gather: Gather[list[Call], list[Made]] = field(init=False)
    _apart: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(APART))

    def __post_init__(self) -> None:
        self.gather = Gather(self._flush, weigh=_weight, width=2, beside=500)

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
        return await self._made(calls) if calls else []

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
        return (await self._made([self.into_old(group_id, tasks, path)]))[0]

    async def _made(self, calls: list[Call]) -> list[Made]:
        """By the statement that makes what others ask for, too; apart where something has to be looked at, or waited for."""
        if not any(call.needs_a_look for call in calls):
            with suppress(Moved):
                return await self.gather.add(calls)
        async with self._apart:
            return await self._make_alone(calls)

    def into_old(self, group_id: object, tasks: Sequence[Any], path: Path) -> Call:
        """Tasks for a group that is there, checked."""
        group = check.uuid(group_id, (*path, "groupId"), "groupId")
        limits = self.core.limits
        return Call(group, drafts(tasks, (*path, "tasks"), limits.max_batch, limits.max_input_bytes), path)

    async def _flush(self, batch: list[list[Call]]) -> Sequence[list[Made] | BaseException]:
        old = [call for calls in batch for call in calls if call.new_group is None]
        numbers = self.core.groups.numbers
        for call in old:
            call.is_known = bool(call.drafts) and call.group_id in numbers
            call.group_no = numbers[call.group_id] if call.is_known else 0
        answers = await self._make(batch, await self._look_up([c for c in old if not c.is_known]))
        again = [n for n, calls in enumerate(batch) if isinstance(answers[n], Moved) and calls[0].is_known]
        if again:
            # The group may be gone, and its id name a new one.
            parts = [batch[n] for n in again]
            refused = await self._look_up([call for calls in parts for call in calls])
            for n, answer in zip(again, await self._make(parts, refused), strict=True):
                answers[n] = answer
        return answers

    async def _look_up(self, calls: list[Call]) -> dict[int, CrewError]:
        refused = await self.find_groups(self.core.pool, calls)
        self.core.groups.remember({c.group_no: c.group_id for c in calls if c.group_no})
        return refused

    async def _make(self, batch: list[list[Call]], refused: dict[int, CrewError]) -> list[list[Made] | BaseException]:
        answers: list[list[Made] | BaseException | None] = [
            next((refused[id(c)] for c in calls if id(c) in refused), None) for calls in batch
        ]
        plain = [n for n, answer in enumerate(answers) if answer is None]
        if plain:
            try:
                made = await self._make_plain([call for n in plain for call in batch[n]])
                for n in plain:
                    found = [made.pop(0) for _ in batch[n]]
                    answers[n] = next((f for f in found if isinstance(f, Moved)), None) or [
                        f for f in found if isinstance(f, Made)
                    ]
            except asyncpg.UniqueViolationError:
                pass
        return [Moved() if a is None else a for a in answers]

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

    async def lock_groups(self, connection: Connection, calls: list[Call]) -> None:
        """Of calls into groups that are there: whoever deletes one is waited for."""
        nos = sorted({c.group_no for c in calls if c.new_group is None})
        if nos:
            await lock_groups(connection, self.core.ns, nos)

    async def _make_plain(self, calls: list[Call]) -> list[Made | Moved]:
        """Moved: its group is locked, or gone."""
        batch = Batch()
        numbers_of = await self._numbers(calls)
        for call in calls:
            fill(numbers_of, batch, call, There())
        rows = await self._hand_over(calls, batch)
        if rows is None:
            rows = await self.core.pool.run(lambda connection: create_tasks(connection, self.core.ns, batch))
        _after(rows, After()).tell(self.core)
        if batch.groups:
            new = {row.group_no: batch.tasks[row.ord - 1].new_group for row in rows}
            self.core.groups.remember({no: batch.groups[place - 1].id for no, place in new.items() if place})
        numbers = {row.ord: row.no for row in rows}
        ords = iter(range(1, len(batch.tasks) + 1))
        made: list[Made | Moved] = []
        for call in calls:
            tasks = [(numbers.get(next(ords), 0), d.id) for d in call.drafts]
            made.append(Made(call.group_id, tasks) if all(no for no, _ in tasks) else Moved())
        return made

    async def _hand_over(self, calls: list[Call], batch: Batch) -> list[CreatedRow] | None:
        """One everyday task that a claim waits for is made and leased by one commit. None where that cannot be; nothing is made."""
        if not batch.is_one_everyday:
            return None
        (draft,) = (draft for call in calls for draft in call.drafts)
        made: list[CreatedRow] = []

        async def make(request: ClaimRequest) -> ClaimedRow | None:
            row = await self.core.pool.run(lambda c: create_leased_task(c, self.core.ns, draft, request))
            if row is None:
                return None
            state = READY if row.lease_no is None else RUNNING
            made.append(CreatedRow(1, row.no, draft.group_no, draft.channel, draft.rank, state, None))
            return claimed_at_once(draft, row, request)

        await self.core.hand_over(draft.channel_name, make)
        return made or None

    async def _make_alone(self, calls: list[Call]) -> list[Made]:
        """One caller's groups in one transaction."""

        async def work(connection: Connection, after: After) -> list[Made]:
            refused = await self.find_groups(connection, [c for c in calls if c.new_group is None])
            for error in refused.values():
                raise error
            await self.lock_groups(connection, calls)
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
        if len(calls) > 1 and any(crosses(call, there) for call in calls):
            raise Alone("joins that may come to wait for each other are told apart one call at a time", ())
        adoptions = [(call, await self._adopt(connection, call, there)) for call in calls]
        batch = Batch()
        for call in calls:
            fill(numbers_of, batch, call, there)
        rows = await create_tasks(connection, ns, batch) if batch.tasks or batch.groups else []
        if len(rows) < len(batch.tasks):
            raise Moved  # Its group is gone.
        numbers = {task.id: row.no for task, row in zip(batch.tasks, rows, strict=True)} | there.made
        _after(rows, after)
        pairs = [(numbers[c.drafts[at].id], old) for c, tree in adoptions if tree for at, old in tree.adopted_by]
        while pairs:
            moved = await adopt_tasks(connection, ns, pairs)
            pairs = [pair for pair in pairs if pair[1] in moved]
        feeds = [pair for _, tree in adoptions if tree for pair in tree.feeds]
        if feeds:
            await feed(connection, ns, [(number_of(numbers, x), number_of(numbers, join)) for x, join in feeds])
        # After the adoptions: a join goes with what it has adopted.
        await self._follow(connection, calls, batch, rows, there, after)
        return [Made(c.group_id, [answer_to(d, numbers, there) for d in c.drafts]) for c in calls]

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
        # Those that were drawn here, too: a commit whose answer was lost may have made them.
        ids = [d.id for c in calls for d in c.drafts]
        found = {row.id: row for row in await existing_tasks(connection, self.core.ns, ids)} if ids else {}
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
            for parent, path, subtree in parents_there(c, d, there)
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
        keys = sorted({(numbers_of.channels[d.channel_name], d.key) for _, d in new if d.key is not None})
        await lock_keys(connection, self.core.ns, keys)
        oldest: dict[tuple[int, str], KeyedRow | Draft] = {}
        if any(d.on_duplicate in (RETURN_EXISTING, REJECT) for _, d in new):
            for row in reversed(await tasks_with_keys(connection, self.core.ns, keys)):
                oldest[row.channel, row.key] = row
        for call, draft in new:
            key = (numbers_of.channels[draft.channel_name], draft.key or "")
            first = oldest.get(key)
            if first is not None and draft.on_duplicate == REJECT:
                raise DuplicateKey(
                    f"task {first.id} of channel {check.shown(draft.channel_name)} has the key {check.shown(draft.key)} and has "
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
            refuse_cycles([replace(d, inside=links_inside(call, d, there, places)) for d in call.drafts])
        if wanted:
            await self._lock(connection, there, wanted)

    async def _adopt(self, connection: Connection, call: Call, there: There) -> Tree | None:
        """SUBTREE: None when no join is concerned."""
        new = to_make(call, there)
        outside = {n: [(there.parents[x[0]], x[2]) for x in links_outside(call, call.drafts[n], there)] for n in new}
        if not call.joins and not any(subtree for links in outside.values() for _, subtree in links):
            return None
        places = {call.drafts[n].id: n for n in new}
        inside = {n: [x.parent for x in links_inside(call, call.drafts[n], there, places)] for n in new}
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
            await self.core.channels.numbers({d.channel_name for c in calls for d in c.drafts}),
            await self.core.workgroups.numbers(
                {d.workgroup_name for c in calls for d in c.drafts if d.workgroup_name is not None}
            ),
        )


def _weight(calls: list[Call]) -> int:
    return sum(1 + len(call.drafts) for call in calls)


class Alone(CrewError):
    """These calls cannot share a transaction: make each in one of its own."""


class Moved(Exception):
    """A parent changed its place between two looks, or a group is gone: run the transaction again. Of calls that are made together:
    this one is to be made apart."""


def _no_group(call: Call) -> NotFound:
    return NotFound(f"no task group {call.group_id}", (*call.path, "groupId"))


def _refuse_twice(ids: list[tuple[UUID, Path]]) -> None:
    seen: set[UUID] = set()
    for given, path in ids:
        if given in seen:
            raise BadInput(f"id {given} is given twice in this call: each needs its own", path)
        seen.add(given)


def _after(rows: list[CreatedRow], after: After) -> After:
    after.places += [(r.channel, r.rank, r.no) for r in rows if r.state == READY]
    after.due += [r.due_in for r in rows if r.due_in is not None and r.state != READY]
    return after
