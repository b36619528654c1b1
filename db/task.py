"""Reading tasks: the statements of sql/queries/task.sql."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.pool import Connection, Pool
from db.statements import statement

TOTAL_COUNT_STOPS_AT = 10_000


@dataclass(slots=True)
class TaskRow:
    """A task as people read it; JSON columns as text."""

    no: int
    id: UUID
    group_no: int
    group_id: UUID
    name: str
    channel: str
    workgroup: str | None
    key: str | None
    state: int
    priority: int
    input: str | None
    output: str | None
    metadata: str | None
    run_after: datetime | None
    not_before: datetime | None
    holds: int
    """Bits: 1 paused itself, 2 its group, 4 its channel, 8 its workgroup suspended."""
    attempt: int
    remaining: int
    max_attempts: int
    retry_delay: float
    backoff: float
    max_delay: float
    timeout: float | None
    on_parent_failure: int
    weight: int
    is_seed: bool
    progress: float | None
    progress_message: str | None
    spawned_by: int | None
    merged_into: int | None
    worker_id: str | None
    lease_expires_at: datetime | None
    created_at: datetime
    ready_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(slots=True)
class ErrorRow:
    no: int
    attempt: int
    error: str
    worker_id: str | None
    started_at: datetime | None
    at: datetime


@dataclass(slots=True)
class ParentResultRow:
    no: int
    task_id: UUID
    name: str
    channel: str
    state: int
    input: str | None
    output: str | None


@dataclass(slots=True)
class LinkRow:
    no: int
    other: int


@dataclass(slots=True)
class LinkCountRow:
    no: int
    parents: int
    children: int
    results: int
    """Of parents that a copy has none of: what was kept of them."""


@dataclass(slots=True)
class EdgeRow:
    parent: int
    child: int
    parent_id: UUID
    child_id: UUID
    subtree: bool
    adopted: bool


@dataclass(slots=True)
class Filter:
    """What a list of tasks is narrowed to; None is no narrowing."""

    states: list[int] | None = None
    channels: list[str] | None = None
    workgroups: list[str] | None = None
    group_id: UUID | None = None
    worker_id: str | None = None
    name_contains: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    key: str | None = None

    @property
    def names_nothing(self) -> bool:
        return all(given is None for given in self.args())

    def args(self) -> tuple[object, ...]:
        return (
            self.states,
            self.channels,
            self.workgroups,
            self.group_id,
            self.worker_id,
            self.name_contains,
            self.created_after,
            self.created_before,
            self.key,
        )


async def read_tasks(
    pool: Pool, ns: int, *, nos: list[int] | None = None, ids: list[UUID] | None = None, lean: bool = False
) -> list[TaskRow]:
    """Lean: `not_before`, `holds` and the progress are left out."""
    sql = statement("task", "read_tasks") if lean else statement("task", "read_tasks_full")
    rows = await pool.fetch(sql, ns, nos or [], ids or [])
    return [TaskRow(*row) for row in rows]


async def errors_of_tasks(pool: Pool, ns: int, nos: list[int]) -> list[ErrorRow]:
    return [ErrorRow(*row) for row in await pool.fetch(statement("task", "errors_of_tasks"), ns, nos)]


async def links_to_parents(pool: Pool, ns: int, nos: list[int], first: int) -> list[LinkRow]:
    return [LinkRow(*row) for row in await pool.fetch(statement("task", "links_to_parents"), ns, nos, first)]


async def links_to_children(pool: Pool, ns: int, nos: list[int], first: int) -> list[LinkRow]:
    return [LinkRow(*row) for row in await pool.fetch(statement("task", "links_to_children"), ns, nos, first)]


async def count_links(pool: Pool, ns: int, nos: list[int]) -> list[LinkCountRow]:
    return [LinkCountRow(*row) for row in await pool.fetch(statement("task", "count_links"), ns, nos)]


async def parent_results(pool: Pool, ns: int, nos: list[int], first: int) -> list[ParentResultRow]:
    return [ParentResultRow(*row) for row in await pool.fetch(statement("task", "parent_results"), ns, nos, first)]


async def links_among(pool: Pool, ns: int, nos: list[int]) -> list[EdgeRow]:
    return [EdgeRow(*row) for row in await pool.fetch(statement("task", "links_among"), ns, nos)]


async def matching_tasks(pool: Pool, ns: int, narrowed: Filter) -> list[int]:
    return [row["no"] for row in await pool.fetch_planned(statement("task", "matching_tasks"), ns, *narrowed.args())]


async def numbers_of_tasks(pool: Pool | Connection, ns: int, ids: list[UUID]) -> list[int]:
    return [row["no"] for row in await pool.fetch(statement("task", "numbers_of_tasks"), ns, ids)]
