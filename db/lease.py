"""What workers do with their leases, as rows: one function per statement of sql/queries/lease.sql."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from db.claim import Place
from db.pool import Connection, Pool
from db.statements import once, some, statement


@dataclass(slots=True)
class StandingRow:
    lease_no: int
    until: datetime
    no: int
    attempt: int


@dataclass(slots=True)
class Completion:
    lease_no: int
    no: int
    output: str | None = None
    child_delay: float | None = None
    makes: bool = False
    """It makes tasks: what waits for it with all that it spawns is not freed yet."""


@dataclass(slots=True)
class FreedRow:
    """Children that went on."""

    channels: list[int] | None
    """With `ranks` and `nos`: those that are ready."""
    ranks: list[int] | None
    nos: list[int] | None
    merging: list[int] | None
    """Of the ready ones, those with a key: they may have to ride with a runner."""
    due_in: float | None

    def freed(self) -> list[Place]:
        return list(zip(self.channels or (), self.ranks or (), self.nos or (), strict=True))


@dataclass(slots=True)
class CompletedRow(FreedRow):
    ords: list[int] | None
    groups: list[int] | None
    """The group numbers of `ords`."""
    keyed: list[int] | None
    """Items left out because they have keys."""
    again: int
    joins: list[int] | None
    """Blocked joins that still count one of these, because it makes tasks: settle_children is told of them, once for each."""
    feeders: list[int] | None
    """With `fed`, in pairs: what makes tasks, and the joins that adopt them."""
    fed: list[int] | None


@dataclass(slots=True)
class Failure:
    lease_no: int
    no: int
    error: str
    delay: float | None
    workgroup_delay: float | None
    keep: bool
    discard: bool


@dataclass(slots=True)
class FailedRow:
    ord: int
    is_twin: bool
    no: int
    channel: int
    rank: int
    workgroup: int
    workgroup_delay: float | None
    state: int
    """READY, SCHEDULED or FAILED; 0 for a keyed one that was left alone."""
    due_in: float


@dataclass(slots=True)
class ReleasedRow:
    ord: int
    no: int
    channel: int
    rank: int
    keyed: bool


@dataclass(slots=True)
class ExtendedRow:
    ords: list[int] | None
    until: datetime | None
    suspended: list[int] | None


@dataclass(slots=True)
class EndedItem:
    ord: int
    completed: bool
    failed: bool
    cancelled: bool
    stands: bool


@dataclass(slots=True)
class StandingWithRow:
    lease_no: int | None
    """The lease that a worker has on a task."""
    failed: bool
    """Without one: its last attempt at it ended in an error that it reported itself."""


async def standing_leases(connection: Connection, ns: int, lease_nos: list[int]) -> list[StandingRow]:
    rows = await connection.fetch(statement("lease", "standing_leases"), ns, lease_nos)
    return [StandingRow(*row) for row in rows]


async def free_leases(connection: Connection, ns: int, lease_nos: Iterable[int]) -> set[tuple[int, int]]:
    """Lease numbers and tasks, those that nobody else has in hand; locked until the transaction ends."""
    return {
        (no, task) for no, task in await connection.fetch(statement("lease", "free_leases"), ns, sorted(set(lease_nos)))
    }


async def complete_tasks(
    connection: Connection, ns: int, items: Sequence[Completion], *, keyed: bool = False, waits: bool = True
) -> CompletedRow:
    """`keyed`: those with keys too, whose twins have been brought in, in a transaction that settles freed ones after. `waits`: for
    leases that others have in hand; else these are passed over, unless there is something that makes tasks."""
    args = (
        ns,
        sorted({x.lease_no for x in items}),
        once([x.lease_no for x in items]),
        [x.no for x in items],
        some([x.output for x in items]),
        some([x.child_delay for x in items]),
    )
    makes = [x.makes for x in items]
    if waits or keyed or any(makes):
        rows = await connection.fetch(statement("lease", "complete_tasks_full"), *args, makes, keyed)
    else:
        rows = await connection.fetch(statement("lease", "complete_tasks"), *args)
    return CompletedRow(*rows[0])


async def fail_tasks(connection: Connection, ns: int, items: list[Failure], *, keyed: bool = False) -> list[FailedRow]:
    """`keyed`: those with keys too, whose twins have been brought in."""
    rows = await connection.fetch(
        statement("lease", "fail_tasks"),
        ns,
        sorted({x.lease_no for x in items}),
        [x.lease_no for x in items],
        [x.no for x in items],
        [x.error for x in items],
        [x.delay for x in items],
        [x.workgroup_delay for x in items],
        [x.keep for x in items],
        [x.discard for x in items],
        keyed,
    )
    return [FailedRow(*row) for row in rows]


async def release_leases(
    connection: Connection, ns: int, items: list[tuple[int, int]], *, waits: bool = True
) -> list[ReleasedRow]:
    """`waits`: as in complete_tasks."""
    rows = await connection.fetch(
        statement("lease", "release_leases_full") if waits else statement("lease", "release_leases"),
        ns,
        sorted({x[0] for x in items}),
        [x[0] for x in items],
        [x[1] for x in items],
    )
    return [ReleasedRow(*row) for row in rows]


async def extend_leases(
    connection: Connection, ns: int, items: list[tuple[int, int]], seconds: float, *, waits: bool = True
) -> ExtendedRow:
    """`waits`: as in complete_tasks."""
    rows = await connection.fetch(
        statement("lease", "extend_leases_full") if waits else statement("lease", "extend_leases"),
        ns,
        sorted({x[0] for x in items}),
        [x[0] for x in items],
        [x[1] for x in items],
        seconds,
    )
    return ExtendedRow(*rows[0])


async def report_progress(
    connection: Connection, ns: int, items: list[tuple[int, float | None, str | None, int]]
) -> None:
    """Items: task number, fraction, message, lease number."""
    await connection.fetch(
        statement("lease", "report_progress"),
        ns,
        [x[0] for x in items],
        [x[1] for x in items],
        [x[2] for x in items],
        [x[3] for x in items],
    )


async def ended_items(connection: Connection, ns: int, items: list[tuple[int, int]]) -> list[EndedItem]:
    rows = await connection.fetch(statement("lease", "ended_items"), ns, [x[0] for x in items], [x[1] for x in items])
    return [EndedItem(*row) for row in rows]


async def standing_with(pool: Pool, ns: int, no: int, worker: int) -> StandingWithRow:
    rows = await pool.fetch(statement("lease", "standing_with"), ns, no, worker)
    return StandingWithRow(*rows[0])


async def workgroups_of(connection: Connection, ns: int, nos: list[int]) -> dict[int, int]:
    """The workgroups of those tasks that have one."""
    rows = await connection.fetch(statement("lease", "workgroups_of"), ns, nos)
    return {row["no"]: row["workgroup"] for row in rows}
