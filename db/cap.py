"""Limits of channels and workgroups: the statements of sql/queries/cap.sql."""

from __future__ import annotations

from dataclasses import dataclass

from db.clock import Moved
from db.pool import Connection, Pool
from db.statements import statement

CHANNEL, WORKGROUP = 1, 2


@dataclass(slots=True)
class Rate:
    starts: int
    seconds: float


@dataclass(slots=True)
class Asked:
    """What is to change: a limit that is not `given` stays as it is, one that is None is lifted."""

    max_running: int | None = None
    rate: Rate | None = None
    max_running_given: bool = False
    rate_given: bool = False


async def set_cap(connection: Connection, ns: int, kind: int, ref: int, asked: Asked) -> bool:
    """Whether anything is limited now."""
    rate = asked.rate
    row = (
        await connection.fetch(
            statement("cap", "set_cap"),
            ns,
            kind,
            ref,
            asked.max_running_given,
            asked.max_running,
            asked.rate_given,
            rate.starts if rate else None,
            rate.seconds if rate else None,
        )
    )[0]
    return row["max_running"] is not None or row["starts"] is not None


async def lift_cap(connection: Connection, ns: int, kind: int, ref: int) -> None:
    await connection.fetch(statement("cap", "lift_cap"), ns, kind, ref)


async def take_turn(connection: Connection, ns: int) -> None:
    await connection.fetch(statement("cap", "take_turn"), ns)


async def admit(connection: Connection, ns: int, most: int) -> Moved:
    return Moved.of(await connection.fetch(statement("cap", "admit"), ns, most))


async def any_cap(pool: Pool, ns: int) -> bool:
    found: bool = (await pool.fetch(statement("cap", "any_cap"), ns))[0]["yes"]
    return found


async def forget_starts(pool: Pool, ns: int) -> int:
    gone: int = (await pool.fetch(statement("cap", "forget_starts"), ns))[0]["gone"]
    return gone
