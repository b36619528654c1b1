"""The inbox of crew.create_tasks: one function per statement of sql/queries/inbox.sql."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from db.pool import Connection, Pool
from db.statements import statement


@dataclass(slots=True)
class InboxRow:
    seq: int
    call: str


@dataclass(slots=True)
class RefusedCall:
    seq: int
    code: str
    message: str
    path: str


async def inbox_waits(pool: Pool, ns: int) -> bool:
    waits: bool = (await pool.fetch(statement("inbox", "inbox_waits"), ns))[0]["waits"]
    return waits


async def read_inbox(connection: Connection, ns: int, limit: int, tasks: int) -> list[InboxRow]:
    rows = await connection.fetch(statement("inbox", "read_inbox"), ns, limit, tasks)
    return [InboxRow(*row) for row in rows]


async def end_inbox(connection: Connection, ns: int, made: Sequence[int], refused: Sequence[RefusedCall]) -> None:
    await connection.fetch(
        statement("inbox", "end_inbox"),
        ns,
        made,
        [r.seq for r in refused],
        [r.code for r in refused],
        [r.message for r in refused],
        [r.path for r in refused],
    )


async def forget_refused(pool: Pool, ns: int, limit: int, seconds: float) -> int:
    gone: int = (await pool.fetch(statement("inbox", "forget_refused"), ns, limit, seconds))[0]["gone"]
    return gone
