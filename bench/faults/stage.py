"""What every part needs: a server with a PostgreSQL of its own, a look at both from outside, and how a figure is given."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from bench.client import Client
from bench.throughput import NOOP
from tests.support.process import ServerProcess, server_process

PROGRESS = "query($g: ID!) { taskGroup(id: $g) { progress { total counts { state count } } } }"
TICKS = os.sysconf("SC_CLK_TCK")
LOST = "lost"
"""The unit of what must be none: tasks that did not run to exactly one end."""
Result = TypeVar("Result")
_NAMED = re.compile(r"^\w+ /\* (\w+) \*/")


@dataclass(frozen=True)
class Pair:
    """One figure of one round: without the fault (None where that says nothing), and under it."""

    name: str
    unit: str
    calm: float | None
    fault: float


Part = Callable[[bool], Generator[list[Pair], None, None]]
"""Quick or not → the pairs of one round after the other, for ever."""


def each_round(measure: Callable[[bool], list[Pair]]) -> Part:
    """A part whose rounds have nothing in common."""

    def rounds(quick: bool) -> Generator[list[Pair], None, None]:
        while True:
            yield measure(quick)

    return rounds


@contextmanager
def served(**settings: str) -> Iterator[ServerProcess]:
    """A fresh database in a PostgreSQL of its own, with fsync on, and a server process that owns it."""
    with server_process(**settings) as server:
        server.start()
        yield server


def client(server: ServerProcess) -> Client:
    return Client("127.0.0.1", server.port)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def counts(server: ServerProcess, group: str) -> dict[str, int]:
    """How many tasks of the group are in each state, as the API tells."""
    async with client(server) as asking:
        progress = (await asking.ask(PROGRESS, {"g": group}))["taskGroup"]["progress"]
    return {c["state"]: c["count"] for c in progress["counts"]}


def cpu(pid: int) -> float:
    """Seconds of CPU that the process has used so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def with_database(server: ServerProcess, work: Callable[[Any], Awaitable[Result]]) -> Result:
    connection = await asyncpg.connect(server.dsn, command_timeout=3600)
    try:
        return await work(connection)
    finally:
        await connection.close()


async def forget_statements(server: ServerProcess) -> None:
    await with_database(
        server,
        lambda c: c.execute("create extension if not exists pg_stat_statements; select pg_stat_statements_reset()"),
    )


async def statements(server: ServerProcess) -> dict[str, tuple[int, float]]:
    """Each of the server's statements → how often it ran since `forget_statements`, and its longest run in milliseconds."""
    rows = await with_database(
        server,
        lambda c: c.fetch("select query, sum(calls)::int, max(max_exec_time) from pg_stat_statements group by 1"),
    )
    return {name[1]: (calls, longest) for query, calls, longest in rows if (name := _NAMED.match(query))}


async def settled(server: ServerProcess, seconds: float = 3) -> None:
    """What was created is folded and vacuumed before anything is measured."""
    await with_database(server, lambda c: c.execute("vacuum analyze"))
    await asyncio.sleep(seconds)


def task(**given: object) -> dict[str, object]:
    return {"name": NOOP, "channel": NOOP, **given}
