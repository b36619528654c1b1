"""Races, forced: several raw connections on one database, and eyes that see which of them waits for a lock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from db.claim import ClaimedRow, ClaimRequest, claim_tasks
from db.clock import expire_leases, overdue_leases
from db.create import Batch, NewGroupRow, NewLink, NewTaskRow, create_tasks
from db.lease import Completion, Failure, complete_tasks
from db.pool import SESSION
from resolvers.draft import new_id
from tests.support.crew import Crew, crew_on

NS, CHANNEL, WORKER, OTHER_WORKER, WORKGROUP = 1, 1001, 2001, 2002, 3001
START = (CHANNEL, -(1 << 31), 0)
STATES = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED"]
PLACES = (
    "ready",
    "parked",
    "scheduled",
    "blocked",
    "lease",
    "done",
    "failed",
    "error",
    "hold",
    "pause",
    "merged",
    "runner",
    "keyed",
    "claim",
    "edge",
    "event",
)

Found = TypeVar("Found")
Connection = asyncpg.Connection
Call = Callable[[], Awaitable[Any]]


async def until(look: Callable[[], Awaitable[Found]], what: str, seconds: float = 5.0) -> Found:
    """What `look` finds, once it finds something."""
    give_up = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.002)


async def waits_for_lock(eye: Connection, pid: int) -> None:
    await until(
        lambda: eye.fetchval("select wait_event_type = 'Lock' from pg_stat_activity where pid = $1", pid),
        f"backend {pid} waits for a lock",
    )


async def servers_wait_for_locks(eye: Connection, n: int = 1) -> None:
    """`n` statements of Crew servers on this database wait for locks."""
    await until(
        lambda: eye.fetchval(
            "select count(*) >= $1 from pg_stat_activity where datname = current_database()"
            " and application_name = 'crew' and wait_event_type = 'Lock'",
            n,
        ),
        f"{n} server statements wait for locks",
    )


@contextlib.asynccontextmanager
async def connected(dsn: str, n: int) -> AsyncIterator[list[Connection]]:
    opened: list[Connection] = []
    try:
        for _ in range(n):
            opened.append(await asyncpg.connect(dsn, server_settings={**SESSION, "application_name": "race"}))
        # The template's heartbeat is as old as the test session: nothing would expire.
        await opened[0].execute("update namespace set alive_at = now()")
        yield opened
    finally:
        for connection in opened:
            connection.terminate()


@dataclass
class Stage:
    """Two that race, `a` and `b`, a third, `c`, and an eye. Nobody else works on the database: no loops."""

    a: Connection
    b: Connection
    c: Connection
    eye: Connection

    async def waiting(
        self, call: Coroutine[Any, Any, Found], connection: Connection | None = None
    ) -> asyncio.Task[Found]:
        """Start a call on `b` (or another); it is returned when it waits for a lock. Fails when it does not."""
        pid = (connection or self.b).get_server_pid()
        task = asyncio.create_task(call)
        waits = asyncio.create_task(waits_for_lock(self.eye, pid))
        await asyncio.wait([task, waits], return_when=asyncio.FIRST_COMPLETED)
        if not waits.done():
            waits.cancel()
            raise AssertionError(f"it did not wait: {task.result()}")
        waits.result()
        return task

    async def graph(
        self, tasks: Mapping[str, Sequence[str]], connection: Connection | None = None, **more: Any
    ) -> dict[str, int]:
        """A group of tasks, name → names of its parents; the number of each."""
        rows = await create_tasks(connection or self.c, NS, batch_of(tasks, **more))
        return {name: row.no for name, row in zip(tasks, rows, strict=True)}

    async def claim(self, limit: int = 1, connection: Connection | None = None, **more: Any) -> list[ClaimedRow]:
        return (await claim_tasks(connection or self.c, NS, [START], [request(limit, **more)]))[0]

    async def claim_all(self, *numbers: int) -> dict[int, ClaimedRow]:
        """One lease for all that is ready, which is these."""
        rows = {row.no: row for row in await self.claim(1000)}
        assert set(rows) == set(numbers)
        return rows

    async def place(self, no: int) -> str:
        return STATES[await self.eye.fetchval("select state from task_place where ns = 1 and no = $1", no)]

    async def count(self, table: str, where: str = "true") -> int:
        return await self.eye.fetchval(f"select count(*)::int from {table} where {where}")

    async def everything(self) -> dict[str, list[str]]:
        """All rows of all places: to show that nothing changed."""
        return await everything(self.eye)


async def everything(eye: Connection) -> dict[str, list[str]]:
    return {table: sorted(row[0] for row in await eye.fetch(f"select x::text from {table} x")) for table in PLACES}


@contextlib.asynccontextmanager
async def stage_on(dsn: str, *, names: bool = True) -> AsyncIterator[Stage]:
    """Without `names`: servers have made the names already."""
    async with connected(dsn, 4) as (a, b, c, eye):
        if names:
            await _make_names(eye)
        yield Stage(a, b, c, eye)


async def _make_names(eye: Connection) -> None:
    await eye.execute("insert into channel (ns, channel, name) values (1, 1001, 'c')")
    await eye.execute("insert into worker (ns, worker, name) values (1, 2001, 'w'), (1, 2002, 'v')")
    await eye.execute("insert into workgroup (ns, workgroup, name) values (1, 3001, 'g')")


def request(limit: int = 1, worker: int = WORKER, seconds: float = 60, claim_id: UUID | None = None) -> ClaimRequest:
    return ClaimRequest(worker, limit, seconds, claim_id, f"{limit} of ('c',)")


def batch_of(
    tasks: Mapping[str, Sequence[str]],
    *,
    group_id: UUID | None = None,
    ids: Sequence[UUID] = (),
    workgroup: int = 0,
    delay: float | None = None,
    max_attempts: int = 5,
) -> Batch:
    names = list(tasks)
    batch = Batch(groups=[NewGroupRow(group_id or new_id(), "g", None)])
    for child, name in enumerate(names, 1):
        batch.tasks.append(
            new_task(
                name,
                id=ids[child - 1] if ids else new_id(),
                new_group=1,
                workgroup=workgroup,
                delay=delay,
                max_attempts=max_attempts,
                open=len(tasks[name]),
            )
        )
        batch.links += [NewLink(names.index(p) + 1, 0, child, nth) for nth, p in enumerate(tasks[name])]
    return batch


def new_task(name: str, **more: Any) -> NewTaskRow:
    plain: dict[str, Any] = {
        "id": new_id(), "new_group": 0, "group_no": 0, "channel": CHANNEL, "workgroup": 0, "rank": 0, "name": name,
        "input": None, "metadata": None, "run_after": None, "delay": None, "parent_delay": None, "max_attempts": 5,
        "retry_delay": 0.0, "backoff": 1.0, "max_delay": 0.0, "weight": 1, "is_seed": False, "spawned_by": None, "open": 0,
    }  # fmt: skip
    return NewTaskRow(**{**plain, **more})


def hung_under(name: str, group_no: int, *parents: int, open: int | None = None) -> Batch:
    """A task under tasks that exist: what createTasks with parents by id makes after lock_parents."""
    still_open = len(parents) if open is None else open
    return Batch(
        tasks=[new_task(name, group_no=group_no, open=still_open)],
        links=[NewLink(0, p, 1, nth) for nth, p in enumerate(parents)],
    )


def completions(*rows: ClaimedRow) -> list[Completion]:
    return [Completion(r.lease_no, r.no, None, None) for r in rows]


def failures(*rows: ClaimedRow) -> list[Failure]:
    return [Failure(r.lease_no, r.no, '"no"', None, None, False, False) for r in rows]


async def sweep(connection: Connection, silence: float, limit: int) -> int:
    """Take back leases that ran out; how many tasks they held."""
    async with connection.transaction():
        overdue = await overdue_leases(connection, NS, silence, limit)
        return len(await expire_leases(connection, NS, [row.lease_no for row in overdue]))


def pairs(*rows: ClaimedRow) -> list[tuple[int, int]]:
    return [(r.lease_no, r.no) for r in rows]


async def complete(connection: Connection, *rows: ClaimedRow) -> Any:
    return await complete_tasks(connection, NS, completions(*rows))


FORK = {"x": (), "y": (), "child": ("x", "y")}
LONG = 5.0


@contextlib.asynccontextmanager
async def two_servers(dsn: str) -> AsyncIterator[tuple[Crew, Crew, Connection, Connection]]:
    """Two servers, a connection to stop them with, and an eye."""
    async with crew_on(dsn) as one, crew_on(dsn) as two, connected(dsn, 2) as (a, eye):
        yield one, two, a, eye


async def group_of(stage: Stage, no: int) -> tuple[UUID, int]:
    """The group's id, and its number."""
    row = await stage.eye.fetchrow("select id, group_no from task where no = $1", no)
    return row["id"], row["group_no"]


@contextlib.asynccontextmanager
async def stopped(a: Connection, hold: str, *args: Any) -> AsyncIterator[None]:
    """Until the end of the block what `hold` locks is held, and then given free as it was."""
    transaction = a.transaction()
    await transaction.start()
    await a.execute(hold, *args)
    try:
        yield
    finally:
        await transaction.rollback()


async def in_turn(a: Connection, eye: Connection, hold: str, *calls: Call) -> list[Any]:
    """The calls' answers; each waits behind the one before for what `hold` locks."""
    tasks = []
    async with stopped(a, hold):
        for n, call in enumerate(calls, 1):
            tasks.append(asyncio.ensure_future(call()))
            await servers_wait_for_locks(eye, n)
    return await asyncio.gather(*tasks, return_exceptions=True)
