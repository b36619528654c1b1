"""Creating groups and tasks: one function per statement of sql/queries/create.sql."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from db.claim import ClaimRequest
from db.pool import Connection
from db.statements import once, some, statement


@dataclass(slots=True)
class ParentRow:
    no: int
    id: UUID
    group_no: int
    place: str
    """succeeded, cancelled, failed or open (both locked), or moved (look again)."""


@dataclass(slots=True)
class CreatedRow:
    ord: int
    no: int
    group_no: int
    channel: int
    rank: int
    state: int
    due_in: float | None


@dataclass(slots=True)
class CreatedReadyRow:
    """All that was made."""

    ords: list[int] | None
    nos: list[int] | None
    groups: list[int] | None


@dataclass(slots=True)
class LeasedRow:
    no: int
    lease_no: int | None
    """None: the task is ready."""
    started_at: datetime


@dataclass(slots=True)
class ExistingTask:
    no: int
    id: UUID
    group_no: int


@dataclass(slots=True)
class ExistingGroup:
    id: UUID
    group_no: int
    made_upto: int


@dataclass(slots=True)
class NewGroupRow:
    id: UUID
    name: str
    metadata: str | None


@dataclass(slots=True)
class NewTaskRow:
    """A task to be made, by default an everyday one. `new_group` is its group's place (from 1) among the new ones, or 0 with
    `group_no` set."""

    id: UUID
    name: str
    new_group: int = 0
    group_no: int = 0
    channel: int = 0
    workgroup: int = 0
    rank: int = 0
    input: str | None = None
    metadata: str | None = None
    run_after: datetime | None = None
    delay: float | None = None
    parent_delay: float | None = None
    max_attempts: int = 5
    retry_delay: float = 30.0
    backoff: float = 1.0
    max_delay: float = 3600.0
    weight: int = 1
    is_seed: bool = False
    spawned_by: int | None = None
    open: int = 0
    key: str | None = None
    on_duplicate: int = 0
    """0 MERGE 1 RETURN_EXISTING 2 REJECT 3 ALLOW"""
    timeout: float | None = None
    on_parent_failure: int = 0
    """0 BLOCK 1 CANCEL 2 RUN"""

    @property
    def is_everyday(self) -> bool:
        """Waits for nothing, has no key, and the policy that tasks have unless told otherwise."""
        return (
            self.open == 0
            and self.key is None
            and self.delay is None
            and self.run_after is None
            and self.parent_delay is None
            and self.spawned_by is None
            and self.timeout is None
            and self.on_parent_failure == 0
            and self.max_attempts == 5
            and self.retry_delay == 30
            and self.backoff == 1
            and self.max_delay == 3600
            and self.weight == 1
            and not self.is_seed
        )

    @property
    def merges(self) -> bool:
        return self.key is not None and self.on_duplicate != 3


@dataclass(slots=True)
class NewLink:
    parent: int
    """Place (from 1) of a parent made in the same batch, or 0 with `parent_no` set."""
    parent_no: int
    child: int
    place: int
    subtree: bool = False
    adopted: bool = False


@dataclass(slots=True)
class Batch:
    """What one create_tasks statement makes."""

    groups: list[NewGroupRow] = field(default_factory=list)
    tasks: list[NewTaskRow] = field(default_factory=list)
    links: list[NewLink] = field(default_factory=list)

    @property
    def is_everyday(self) -> bool:
        return not self.links and all(x.is_everyday for x in self.tasks)

    @property
    def is_one_everyday(self) -> bool:
        """One everyday task for a group that is there."""
        return len(self.tasks) == 1 and not self.groups and self.is_everyday

    @property
    def is_plain(self) -> bool:
        """Nothing in it has a key, a time-out, a policy or a SUBTREE link."""
        return not any(
            x.key is not None or x.timeout is not None or x.on_parent_failure for x in self.tasks
        ) and not any(x.subtree for x in self.links)


READY = 2
"""A state, as CreatedRow has it."""


async def create_tasks(connection: Connection, ns: int, batch: Batch) -> list[CreatedRow]:
    """What was made, by `ord`: nothing of what was to go into a group that is gone.

    Raises asyncpg.UniqueViolationError, and makes nothing, when an id is there already.
    """
    t, links = batch.tasks, batch.links
    if batch.is_one_everyday:
        return await _create_ready_task(connection, ns, t[0])
    if batch.is_everyday:
        return await _create_ready(connection, ns, batch)
    args: tuple[list[Any], ...] = (
        *_new_groups(batch),
        [x.id for x in t],
        once([x.new_group for x in t]),
        once([x.group_no for x in t]),
        *_everyday_columns(t),
        some([x.run_after for x in t]),
        some([x.delay for x in t]),
        some([x.parent_delay for x in t]),
        once([x.max_attempts for x in t]),
        once([x.retry_delay for x in t]),
        once([x.backoff for x in t]),
        once([x.max_delay for x in t]),
        once([x.weight for x in t]),
        once([x.is_seed for x in t]),
        some([x.spawned_by for x in t]),
        once([x.open for x in t]),
        once([x.parent for x in links]),
        once([x.parent_no for x in links]),
        [x.child for x in links],
        once([x.place for x in links]),
    )
    if not batch.is_plain:
        full = (
            *args,
            some([x.key for x in t]),
            once([x.on_duplicate for x in t]),
            some([x.timeout for x in t]),
            once([x.on_parent_failure for x in t]),
            once([x.subtree for x in links]),
            once([x.adopted for x in links]),
        )
        return [CreatedRow(*row) for row in await connection.fetch(statement("create", "create_tasks_full"), ns, *full)]
    return [CreatedRow(*row) for row in await connection.fetch(statement("create", "create_tasks"), ns, *args)]


def _new_groups(batch: Batch) -> tuple[list[Any], ...]:
    return [x.id for x in batch.groups], [x.name for x in batch.groups], [x.metadata for x in batch.groups]


def _everyday_columns(t: list[NewTaskRow]) -> tuple[list[Any], ...]:
    return (
        once([x.channel for x in t]),
        once([x.workgroup for x in t]),
        once([x.rank for x in t]),
        once([x.name for x in t]),
        some([x.input for x in t]),
        some([x.metadata for x in t]),
    )


async def _create_ready(connection: Connection, ns: int, batch: Batch) -> list[CreatedRow]:
    t = batch.tasks
    args = (ns, [x.id for x in t], once([x.group_no for x in t]), *_everyday_columns(t))
    if batch.groups:
        full = (once([x.new_group for x in t]), *_new_groups(batch))
        rows = await connection.fetch(statement("create", "create_ready_tasks_full"), *args, *full)
    else:
        rows = await connection.fetch(statement("create", "create_ready_tasks"), *args)
    found = CreatedReadyRow(*rows[0])
    made = zip(found.ords or (), found.nos or (), found.groups or (), strict=True)
    return [CreatedRow(n, no, group, t[n - 1].channel, t[n - 1].rank, READY, None) for n, no, group in made]


async def _create_ready_task(connection: Connection, ns: int, t: NewTaskRow) -> list[CreatedRow]:
    rows = await connection.fetch(
        statement("create", "create_ready_task"),
        *(ns, t.id, t.group_no, t.channel, t.workgroup, t.rank, t.name, t.input, t.metadata),
    )
    return [CreatedRow(1, row["no"], t.group_no, t.channel, t.rank, READY, None) for row in rows]


async def create_leased_task(connection: Connection, ns: int, t: NewTaskRow, claim: ClaimRequest) -> LeasedRow | None:
    """An everyday task for a group that is there, and its lease; None: nothing is made, for the group is gone or locked.

    Raises asyncpg.UniqueViolationError, and makes nothing, when its id is there already or another server took the claim id.
    """
    rows = await connection.fetch(
        statement("create", "create_leased_task"),
        *(ns, t.id, t.group_no, t.channel, t.workgroup, t.rank, t.name, t.input, t.metadata),
        *(claim.worker, claim.seconds, claim.claim_id, claim.asked, claim.offer),
    )
    return LeasedRow(*rows[0]) if rows else None


async def lock_parents(
    connection: Connection, ns: int, ids: list[UUID] | None = None, *, nos: list[int] | None = None
) -> list[ParentRow]:
    rows = await connection.fetch(statement("create", "lock_parents"), ns, ids or [], nos or [])
    return [ParentRow(*row) for row in rows]


async def lock_groups(connection: Connection, ns: int, nos: list[int]) -> None:
    await connection.fetch(statement("create", "lock_groups"), ns, nos)


async def existing_tasks(connection: Connection, ns: int, ids: list[UUID]) -> list[ExistingTask]:
    return [ExistingTask(*row) for row in await connection.fetch(statement("create", "existing_tasks"), ns, ids)]


async def groups_to_repeat(connection: Connection, ns: int, ids: list[UUID]) -> list[ExistingGroup]:
    return [ExistingGroup(*row) for row in await connection.fetch(statement("create", "groups_to_repeat"), ns, ids)]


async def tasks_made_with_group(connection: Connection, ns: int, group: ExistingGroup) -> list[tuple[int, UUID]]:
    rows: list[Any] = await connection.fetch(
        statement("create", "tasks_made_with_group"), ns, group.group_no, group.made_upto
    )
    return [(row["no"], row["id"]) for row in rows]
