"""Servers and their PostgreSQL are killed while workers run a thousand tasks: DAGs in which some have keys, and a tree in each
group that grows while it is worked on, with a join that waits for all of it. (DESIGN.md §3.1–3.6, 3.11)"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.crew import CREATE, Crew
from tests.support.process import ServerProcess, server_process
from tests.support.wait import until

GROUPS, TASKS, WORKERS = 20, 44, 8
GROWS = 2
"""The tree of a group: a root with two children, each with two more."""
SPAWNED = 2 + 4
LEASE_SECONDS = 20.0
CHANNELS = ["red", "green", "blue"]
EXCHANGE = """
mutation($done: CompleteTasksInput!, $claim: ClaimTasksInput!, $anyDone: Boolean!, $more: Boolean!) {
  completeTasks(input: $done) @include(if: $anyDone) { completed errors { lease code message } }
  claimTasks(input: $claim) @include(if: $more) { leases { id attempt task { id input } } }
}
"""
OPEN = "{ tasks(filter: {states: [BLOCKED, SCHEDULED, READY, RUNNING, MERGED, FAILED]}, first: 1) { nodes { id } } }"
Json = dict[str, Any]


def random_dag(rng: random.Random) -> list[Json]:
    """Tasks in random layers; each past the first layer has 1 to 3 parents in any earlier one. And a tree with its join."""
    layers: list[list[str]] = []
    tasks: list[Json] = []
    while len(tasks) < TASKS:
        size = min(rng.randint(3, 12), TASKS - len(tasks))
        above = [ref for layer in layers for ref in layer]
        layer = [f"t{len(tasks) + n}" for n in range(size)]
        for ref in layer:
            parents = rng.sample(above, min(rng.randint(1, 3), len(above))) if above else []
            key = {"key": f"k{rng.randint(1, 3)}"} if rng.random() < 0.3 else {}
            named = [{"ref": p} for p in parents]
            tasks.append({"ref": ref, "name": ref, "channel": rng.choice(CHANNELS), "parents": named, **key})
        layers.append(layer)
    tasks.append({"ref": "root", "name": "root", "channel": "green", "input": {"grows": GROWS}})
    tasks.append({"name": "join", "channel": "blue", "parents": [{"ref": "root", "waitFor": "SUBTREE"}]})
    return tasks


def children(lease: Json) -> list[Json]:
    grows = (lease["task"]["input"] or {}).get("grows", 0)
    return [{"name": "leaf", "channel": "green", "input": {"grows": grows - 1}} for _ in range(2)] if grows else []


@dataclass
class Field:
    """What all workers share: the server, what they saw, and when to stop."""

    url: str
    http: httpx.AsyncClient
    rng: random.Random
    ran: Counter[str] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    completed: set[str] = field(default_factory=set)
    repeats: int = 0
    refused: list[Any] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, query: str, variables: Json) -> Json:
        """Repeated until it is answered, as any worker must."""
        pause = 0.02
        while True:
            try:
                response = await self.http.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
                if response.status_code < 500:
                    answer: Json = response.json()
                    errors = answer.get("errors", [])
                    if not errors:
                        return answer["data"]
                    other = [e for e in errors if e.get("extensions", {}).get("code") != "UNAVAILABLE"]
                    assert not other, other
            except httpx.TransportError:
                pass
            self.repeats += 1
            await asyncio.sleep(pause * self.rng.uniform(0.5, 1.5))
            pause = min(pause * 2, 0.5)

    async def work(self, name: str) -> None:
        """Claim up to 4, run them, hand them in together with the next claim."""
        held: list[Json] = []
        while held or not self.over.is_set():
            claim = {
                "workerId": name,
                "channels": CHANNELS,
                "limit": 4,
                "claimId": str(uuid.uuid4()),
                "waitSeconds": 2,
                "leaseSeconds": LEASE_SECONDS,
            }
            results = [{"lease": x["id"], "output": {"by": name}, "children": children(x)} for x in held]
            done = {"results": results}
            more = not self.over.is_set()
            answer = await self.call(EXCHANGE, {"done": done, "claim": claim, "anyDone": bool(held), "more": more})
            if held:
                self.refused += answer["completeTasks"]["errors"]
                assert answer["completeTasks"]["completed"] == len(held), answer
                self.completed.update(lease["task"]["id"] for lease in held)
                self.changed.set()
            held = answer["claimTasks"]["leases"] if more else []
            for lease in held:
                self.ran[lease["task"]["id"]] += 1
                self.attempts[lease["attempt"]] += 1
            # A little work, so that a kill finds leases held.
            await asyncio.sleep(self.rng.uniform(0, 0.02))

    async def watch(self) -> None:
        """Until nothing is open any more: twins end without a worker."""
        while (await self.call(OPEN, {}))["tasks"]["nodes"]:
            await asyncio.sleep(0.1)
        self.over.set()

    async def until_completed(self, count: int) -> None:
        while len(self.completed) < count:
            self.changed.clear()
            await self.changed.wait()


async def one_server_and_its_database(server: ServerProcess, workers: Field) -> list[int]:
    """Three outages; how many tasks were completed when each began."""
    began = []
    await workers.until_completed(200)
    server.kill()
    began.append(len(workers.completed))
    await asyncio.to_thread(server.start)

    await workers.until_completed(400)
    killed = server.kill_postgres()
    began.append(len(workers.completed))

    await workers.until_completed(550)
    assert server.process.poll() is None
    assert server.postmaster != killed, "the server has started its PostgreSQL again"
    os.kill(server.postmaster, signal.SIGKILL)
    server.kill()
    began.append(len(workers.completed))
    await asyncio.to_thread(server.start)
    return began


async def three_servers_in_turn(server: ServerProcess, workers: Field) -> list[int]:
    """Each process dies once, the others go on, and it is started again; the database dies in between."""
    began = []
    for n, pid in enumerate(server.workers()):
        await workers.until_completed(150 * (n + 1))
        os.kill(pid, signal.SIGKILL)
        began.append(len(workers.completed))
        if n == 1:
            server.kill_postgres()
        await until(lambda pid=pid: _replaced(server, pid), 30)
    return began


async def _replaced(server: ServerProcess, pid: int) -> bool:
    now = server.workers()
    return pid not in now and len(now) == 3


WEATHER = {"1": one_server_and_its_database, "3": three_servers_in_turn}


async def create_all(workers: Field) -> int:
    """All the groups; the number of links sent."""
    links = 0
    for n in range(GROUPS):
        tasks = random_dag(workers.rng)
        links += sum(len(t.get("parents", ())) for t in tasks)
        made = await workers.call(CREATE, {"input": {"id": str(uuid.uuid4()), "name": f"g{n}", "tasks": tasks}})
        assert len(made["createTaskGroup"]["tasks"]) == TASKS + 2
    return links


# Of one channel and key, two that ran at once: one started after another had and before that one succeeded.
TOGETHER = """
with ended as (select u.no, min(e.seq) as seq from event e, unnest(e.nos) as u(no) where e.kind = 6 group by u.no),
began as (select u.no, min(e.seq) as seq from event e, unnest(e.nos) as u(no) where e.kind = 4 group by u.no),
ran as (select t.channel, t.key, t.no, b.seq as began, d.seq as ended
  from task t join began b using (no) join ended d using (no) where t.key is not null)
select count(*) from ran a join ran b using (channel, key)
where a.no <> b.no and b.began > a.began and b.began < a.ended
"""
# Links whose child started before its parent had succeeded, in the order of events.
EARLY = """
with ended as (select u.no, min(e.seq) as seq from event e, unnest(e.nos) as u(no) where e.kind = 6 group by u.no),
began as (select u.no, min(e.seq) as seq from event e, unnest(e.nos) as u(no) where e.kind in (4, 10) group by u.no)
select count(*) from edge g left join ended p on p.no = g.parent left join began c on c.no = g.child
where p.seq is null or c.seq is null or p.seq >= c.seq
"""
TWICE = """
select count(*) from (
  select u.no from event e, unnest(e.nos) as u(no) where e.kind = $1 group by u.no having count(*) > 1) x
"""


@pytest.mark.parametrize("processes", WEATHER)
async def test_a_thousand_tasks_each_run_once_in_order_while_everything_is_killed(processes: str):
    total = GROUPS * (TASKS + 2 + SPAWNED)
    with server_process(CREW_WORKERS=processes) as server:
        await asyncio.to_thread(server.start)
        async with httpx.AsyncClient(timeout=15) as http:
            workers = Field(server.url, http, random.Random(20))
            links = await create_all(workers)
            try:
                async with asyncio.timeout(60), asyncio.TaskGroup() as running:
                    weather = running.create_task(WEATHER[processes](server, workers))
                    running.create_task(workers.watch())
                    for n in range(WORKERS):
                        running.create_task(workers.work(f"worker-{n}"))
            except TimeoutError:
                pytest.fail(
                    f"{len(workers.completed)} of {total} completed; the server's log ends:\n{server.logged()[-3000:]}"
                )
        began = weather.result()
        assert all(count < total for count in began), began
        assert workers.repeats > 0

        assert workers.refused == []
        assert set(workers.ran.values()) == {1}, "no task was handed out twice"
        assert workers.completed == set(workers.ran)
        assert workers.attempts == {1: len(workers.completed)}

        db = await asyncpg.connect(server.dsn)
        try:
            place = await db.fetch("select state, attempt, count(*)::int as n from task_place group by state, attempt")
            assert [tuple(row) for row in place] == [(5, 1, total)]
            done = await db.fetchrow("select count(*)::int, count(distinct no)::int from done where outcome = 5")
            assert tuple(done) == (total, total)
            twins = await db.fetchval("select count(*) from done where merged_into is not null")
            assert (twins > 20, len(workers.completed) + twins) == (True, total)
            assert await db.fetchval(TOGETHER) == 0, "two of one key ran at once"
            adopted, named = await db.fetchrow(
                "select count(*) filter (where adopted), count(*) filter (where not adopted) from edge"
            )
            assert (adopted, named) == (GROUPS * SPAWNED, links + GROUPS * SPAWNED)
            assert await db.fetchval(EARLY) == 0
            assert await db.fetchval(TWICE, 4) == 0, "started twice"
            assert await db.fetchval(TWICE, 6) == 0, "succeeded twice"
            for table in ("ready", "parked", "scheduled", "blocked", "merged", "lease", "failed", "error"):
                assert await db.fetchval(f"select count(*) from {table}") == 0, table
        finally:
            await db.close()
        assert server.terminate() == 0


async def test_a_repeated_claim_leaves_the_other_ready_tasks_alone(crew: Crew):
    """What a worker does after an outage. (It once took every ready task, and gave them to nobody.)"""
    await crew.create(*({"name": f"t{n}"} for n in range(5)))
    claim_id = str(uuid.uuid4())
    first = await crew.claim(1, claimId=claim_id)
    again = await crew.claim(1, claimId=claim_id)
    assert [lease["id"] for lease in again] == [lease["id"] for lease in first]
    assert len(await crew.claim(10)) == 4
