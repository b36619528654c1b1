"""Many tasks that cannot be claimed: blocked, scheduled, suspended, finished. Beside a server with none, in turn.

Filled by SQL, in the channel that is claimed from, and without events: what is measured is claiming past them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import uvloop

from bench.client import Client
from bench.faults.stage import Pair, client, quantile, served, settled, with_database
from bench.growth import CLAIM, COMPLETE
from bench.throughput import NOOP, TURN, created_in_bulk
from tests.support.process import ServerProcess

BATCH = 100
CHUNK = 1_000_000
"""Of one transaction."""
TURNS, SPELLS = 40, 5

SETUP = """
insert into channel (ns, name) values (1, 'noop') on conflict do nothing;
insert into workgroup (ns, name) values (1, 'suspended');
insert into hold (ns, workgroup, until) select 1, workgroup, now() + interval '1 day' from workgroup;
"""
# Ids in the order of their creation, as the server makes them. $1 how many $2 whether of the suspended workgroup
TASKS = """
with base as (
  select nextval('group_no') as group_no, (select channel from channel where name = 'noop') as channel,
    case when $2 then (select workgroup from workgroup where name = 'suspended') else 0 end as workgroup),
grouped as (
  insert into task_group (ns, group_no, id, name, made_upto)
  select 1, group_no, gen_random_uuid(), 'crowd', 0 from base),
made as (
  insert into task (ns, no, id, group_no, channel, workgroup, name, max_attempts, retry_delay, backoff, max_delay)
  select 1, n.no, (lpad(to_hex(n.no), 12, '0') || '7' || substr(md5(n.no::text), 1, 19))::uuid, b.group_no, b.channel, b.workgroup,
    'noop', 5, 30, 1, 3600
  from base b cross join (select nextval('task_no') as no from generate_series(1, $1::int)) n
  returning no, group_no, channel, workgroup)
"""
PLACES = {
    "blocked": "insert into blocked (ns, no, open, channel, rank, workgroup, group_no, attempt, remaining, failures) "
    "select 1, no, 1, channel, 0, workgroup, group_no, 0, 5, 0 from made",
    "scheduled": "insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures) "
    "select 1, now() + interval '1 day' + no * interval '1 ms', no, channel, 0, workgroup, group_no, 0, 5, 0 from made",
    "suspended": "insert into parked (ns, workgroup, rank, no, channel, group_no, attempt, remaining, failures, ready_at) "
    "select 1, workgroup, 0, no, channel, group_no, 0, 5, 0, now() from made",
    "finished": "insert into done (ns, no, outcome, attempt, remaining, started_at, output) "
    "select 1, no, 5, 1, 4, now(), '{\"ok\": true}' from made",
}


@dataclass
class Seen:
    """Of one server in one round."""

    claims: list[float] = field(default_factory=list)
    """Milliseconds each."""
    done: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.done / self.seconds


async def fill(server: ServerProcess, crowd: dict[str, int]) -> None:
    async def work(connection: Any) -> None:
        await connection.execute(SETUP)
        for place, count in crowd.items():
            for begun in range(0, count, CHUNK):
                await connection.execute(TASKS + PLACES[place], min(CHUNK, count - begun), place == "suspended")

    await with_database(server, work)


def claim() -> dict[str, object]:
    return {"workerId": "w", "channels": [NOOP], "limit": BATCH, "claimId": str(uuid.uuid4())}


async def claims(asking: Client, seen: Seen) -> None:
    """Claims alone, timed one by one."""
    for _ in range(TURNS):
        start = time.perf_counter()
        leases = (await asking.ask(CLAIM, {"claim": claim()}))["claimTasks"]["leases"]
        seen.claims.append((time.perf_counter() - start) * 1000)
        if len(leases) != BATCH:
            raise RuntimeError(f"{len(leases)} tasks claimed instead of {BATCH}")
        await asking.ask(COMPLETE, {"done": {"results": [{"lease": x["id"]} for x in leases]}})


async def turns(asking: Client, seen: Seen) -> None:
    """Claim and complete in one document, as workers do."""
    results: list[dict[str, str]] = []
    start = time.perf_counter()
    for turn in range(TURNS + 1):
        limit = claim() if turn < TURNS else claim() | {"limit": 1}
        data = await asking.ask(TURN, {"done": {"results": results}, "claim": limit})
        seen.done += data["completeTasks"]["completed"]
        results = [{"lease": x["id"]} for x in data["claimTasks"]["leases"]]
    seen.seconds += time.perf_counter() - start
    await asking.ask(COMPLETE, {"done": {"results": results}})


async def beside(servers: dict[str, ServerProcess]) -> dict[str, Seen]:
    """All of them take turns, so that the machine's moods are the same for all."""
    found = {name: Seen() for name in servers}
    for server in servers.values():
        await created_in_bulk("127.0.0.1", server.port, (SPELLS + 1) * 2 * TURNS * BATCH + 500, 500)
        await settled(server)
    for spell in range(SPELLS + 1):
        for name, server in sorted(servers.items(), reverse=spell % 2 == 1):
            async with client(server) as asking:
                seen = found[name] if spell else Seen()
                await claims(asking, seen)
                await turns(asking, seen)
    return found


def crowded(crowds: dict[str, dict[str, int]]) -> Generator[list[Pair], None, None]:
    """`crowds`: what it is called → how many in which place. Filled once, for all rounds."""
    with ExitStack() as running:
        servers = {name: running.enter_context(served()) for name in ("", *crowds)}
        for name, server in servers.items():
            uvloop.run(fill(server, crowds.get(name, {})))
        while True:
            found = uvloop.run(beside(servers))
            yield [pair for name in crowds for pair in pairs(name, found[""], found[name])]


def pairs(name: str, calm: Seen, fault: Seen) -> list[Pair]:
    return [
        Pair(f"claim of {BATCH} with {name}, median", "ms", quantile(calm.claims, 0.5), quantile(fault.claims, 0.5)),
        Pair(f"claim of {BATCH} with {name}, p99", "ms", quantile(calm.claims, 0.99), quantile(fault.claims, 0.99)),
        Pair(f"claim and complete with {name}", "tasks/s", calm.rate, fault.rate),
    ]


def waiting(quick: bool) -> Generator[list[Pair], None, None]:
    many = 100_000 if quick else 1_000_000
    places = ("blocked", "scheduled", "suspended")
    each: dict[str, dict[str, int]] = {f"{many:,} {place} tasks": {place: many} for place in places}
    return crowded({**each, f"{many:,} of each of these": dict.fromkeys(places, many)})


def finished(quick: bool) -> Generator[list[Pair], None, None]:
    many = 300_000 if quick else 10_000_000
    return crowded({f"{many:,} finished tasks kept": {"finished": many}})
