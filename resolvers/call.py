"""The tasks of one call, numbered and linked: what is new of it, and where its links lead. Nothing here touches the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from db.claim import ClaimedRow, ClaimRequest
from db.create import Batch, LeasedRow, NewGroupRow, NewLink
from db.join import MemberRow
from resolvers.draft import CANCEL, RUN, Draft, Inside
from resolvers.errors import Path

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
    is_known: bool = False
    """Its group's number was remembered, not looked up."""

    @property
    def needs_a_look(self) -> bool:
        return self.is_paused or any(draft.outside or draft.key is not None for draft in self.drafts)


@dataclass(slots=True)
class Made:
    """What a call made, or made before: its group, and its tasks in the order sent."""

    group_id: UUID
    tasks: list[tuple[int, UUID]]


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


def parents_there(call: Call, draft: Draft, there: There) -> list[tuple[UUID, Path, bool]]:
    """Ids of a new task's parents that are there already: named by id, or by the ref of one that an earlier call made."""
    inside = [(call.drafts[x.parent].id, (*draft.path, "parents", x.place, "ref"), x.subtree) for x in draft.inside]
    return [x for x in inside if x[0] in there.made] + [(x.parent, x.path, x.subtree) for x in draft.outside]


def crosses(call: Call, there: There) -> bool:
    """Old joins adopt its tasks, which hang from more than their spawner: from tasks, say, that another join waits for."""
    return bool(call.joins) and any(
        there.parents.get(x.parent, call.spawned_by) != call.spawned_by for d in call.drafts for x in d.outside
    )


def number_of(numbers: dict[UUID, int], task: int | UUID) -> int:
    return task if isinstance(task, int) else numbers[task]


def answer_to(draft: Draft, numbers: dict[UUID, int], there: There) -> tuple[int, UUID]:
    given = there.instead.get(draft.id, draft.id)
    return numbers[given], given


def to_make(call: Call, there: There) -> list[int]:
    """The places of the drafts that are to be made."""
    if not (there.made or there.instead):
        return list(range(len(call.drafts)))
    return [n for n, d in enumerate(call.drafts) if d.id not in there.made and d.id not in there.instead]


def fill(numbers: Numbers, batch: Batch, call: Call, there: There) -> None:
    """Add to a batch what a call has to make."""
    if call.new_group is not None:
        batch.groups.append(call.new_group)
    places = to_make(call, there)
    new_group = 0 if call.new_group is None else len(batch.groups)
    hang = [n for n in places if call.spawned_by is not None or there.adopts or not call.drafts[n].names_no_parent]
    place_of = {call.drafts[n].id: len(batch.tasks) + at for at, n in enumerate(places, 1)} if hang else {}
    for n in places:
        d = call.drafts[n]
        d.new_group, d.group_no, d.spawned_by = new_group, call.group_no, call.spawned_by
        d.channel = numbers.channels[d.channel_name]
        d.workgroup = 0 if d.workgroup_name is None else numbers.workgroups[d.workgroup_name]
        d.open, d.parent_delay = 0, None
        batch.tasks.append(d)
    for n in hang:
        d = call.drafts[n]
        links, d.open, d.parent_delay = _links(call, d, there, place_of)
        batch.links += links


def claimed_at_once(d: Draft, row: LeasedRow, claim: ClaimRequest) -> ClaimedRow | None:
    """The lease of an everyday task that was made and leased by one statement, as a claim reads it."""
    if row.lease_no is None:
        return None
    return ClaimedRow(
        ord=1,
        lease_no=row.lease_no,
        seconds=claim.seconds,
        attempt=1,
        remaining=d.max_attempts - 1,
        channel_no=d.channel,
        channel=d.channel_name,
        merges=False,
        no=row.no,
        id=d.id,
        group_no=d.group_no,
        rank=d.rank,
        name=d.name,
        workgroup=d.workgroup_name,
        key=None,
        input=d.input,
        metadata=d.metadata,
        timeout=None,
        has_parents=False,
        started_at=row.started_at,
        again=0,
        opens_in=None,
        until=row.started_at + timedelta(seconds=claim.seconds),
    )


def _links(call: Call, d: Draft, there: There, place_of: dict[UUID, int]) -> tuple[list[NewLink], int, float | None]:
    """The links of a new task, how many of its parents it still waits for, and how long after its spawner."""
    child, delay = place_of[d.id], None
    links: dict[tuple[int, int], NewLink] = {}
    for link in links_inside(call, d, there, place_of):
        links.setdefault((link.parent, 0), NewLink(link.parent, 0, child, link.place, link.subtree))
    for parent in there.adopts.get(d.id, ()):
        if parent in place_of:
            at = place_of[parent]
            links.setdefault((at, 0), NewLink(at, 0, child, ADOPTED_PLACE, True, True))
    open_parents = len(links)
    for parent, place, subtree, adopted in links_outside(call, d, there):
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
    return list(links.values()), open_parents, delay


def links_inside(call: Call, draft: Draft, there: There, places: dict[UUID, int]) -> list[Inside]:
    """Links to parents that have a place here, of which one may stand in for another (RETURN_EXISTING)."""
    if not draft.inside:
        return []
    ids = [(there.instead.get(call.drafts[x.parent].id, call.drafts[x.parent].id), x) for x in draft.inside]
    return [Inside(places[i], x.place, x.subtree) for i, x in ids if i in places]


def links_outside(call: Call, draft: Draft, there: There) -> list[tuple[UUID, int, bool, bool]]:
    """Links of a new task to tasks that are there: parent, place, subtree, adopted."""
    if draft.names_no_parent and not there.adopts:
        return []
    found = [(x.parent, x.place, x.subtree, False) for x in draft.outside]
    for link in draft.inside:
        parent = call.drafts[link.parent].id
        parent = there.instead.get(parent, parent)
        if parent in there.made:
            found.append((parent, link.place, link.subtree, False))
    return found + [(i, ADOPTED_PLACE, True, True) for i in there.adopts.get(draft.id, ()) if i in there.parents]
