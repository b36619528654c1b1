"""Races of claims: copies of one claim, clients that go away.

Forced: one transaction is stopped in the middle, the other is seen to wait for it (or not to).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from resolvers.draft import new_id
from tests.support.crew import CLAIM, Crew
from tests.support.races import (
    LONG,
    Stage,
    connected,
    servers_wait_for_locks,
    two_servers,
    until,
)

# -- claims ----------------------------------------------------------------------------------------------------------


async def test_two_claims_at_once_never_take_one_task_twice(stage: Stage) -> None:
    no = await stage.graph({f"t{n}": () for n in range(10)})
    async with stage.a.transaction():
        first = await stage.claim(4, stage.a)
        second = await stage.claim(10, stage.b)
    assert (len(first), len(second)) == (4, 6)
    assert {r.no for r in first} | {r.no for r in second} == set(no.values())


async def test_a_repeated_claim_takes_nothing_more(stage: Stage) -> None:
    """Nothing is wanted: no row may leave the ready ones, and none may leave them without a lease."""
    claim_id = new_id()
    no = await stage.graph({"x": (), "y": (), "z": ()})
    (first,) = await stage.claim(1, claim_id=claim_id)
    assert await stage.claim(1, claim_id=claim_id) == []
    assert sorted(r["no"] for r in await stage.eye.fetch("select no from ready")) == sorted({*no.values()} - {first.no})
    assert await stage.claim(0) == []
    assert await stage.count("ready") == 2


@pytest.mark.parametrize("worker", ["known", "new"])
async def test_two_copies_of_a_claim_that_wait_in_one_server_get_the_same_leases(crew: Crew, worker: str) -> None:
    claim_id = str(new_id())
    if worker == "known":
        await crew.claim(1)
    copies = [asyncio.create_task(crew.claim(2, claimId=claim_id, waitSeconds=LONG)) for _ in range(2)]
    await until(lambda: waiting_with(crew, askers=2), "both copies wait as one")
    await crew.create({"name": "x"}, {"name": "y"}, {"name": "z"})
    first, second = await asyncio.gather(*copies)
    assert first == second
    assert len(first) == 2
    assert await crew.sql("select from claim") != []
    assert len(await crew.sql("select from ready")) == 1
    again = await crew.claim(2, claimId=claim_id)
    assert [lease["id"] for lease in again] == [lease["id"] for lease in first]
    assert len(await crew.sql("select from ready")) == 1


async def test_two_copies_of_a_claim_that_come_at_once_with_a_new_worker_get_the_same_leases(crew: Crew) -> None:
    await crew.create({"name": "x"}, {"name": "y"})
    claim_id = str(new_id())
    copies = [crew.claim(1, claimId=claim_id, waitSeconds=LONG) for _ in range(2)]
    first, second = await asyncio.wait_for(asyncio.gather(*copies), 10)
    assert len(first) == 1
    assert [lease["id"] for lease in first] == [lease["id"] for lease in second]
    assert len(await crew.sql("select from ready")) == 1


async def test_a_copy_of_a_claim_is_answered_when_its_wait_is_over_though_the_first_asker_has_gone(crew: Crew) -> None:
    claim_id = str(new_id())
    await crew.claim(1)
    client = Client(crew, claimId=claim_id, waitSeconds=1)
    await until(lambda: waiting_with(crew, askers=1), "the first copy waits")
    copy = asyncio.create_task(crew.claim(1, claimId=claim_id, waitSeconds=1))
    await until(lambda: waiting_with(crew, askers=2), "both copies wait as one")
    await client.hang_up()
    assert await asyncio.wait_for(copy, 5) == []


async def waiting_with(crew: Crew, *, askers: int) -> bool:
    return [w.askers for ws in crew.services.dispatcher._waiting.values() for w in ws] == [askers]


async def test_two_copies_of_a_claim_on_two_servers_at_once_get_the_same_leases(dsn: str) -> None:
    """Both statements are stopped at the claim id; the one that comes second meets a unique violation."""
    async with two_servers(dsn) as (one, two, a, eye):
        await one.create({"name": "x"}, {"name": "y"}, {"name": "z"})
        await two.claim(1, channels=("nothing here",))
        claim_id = str(new_id())
        holds = a.transaction()
        await holds.start()
        await a.execute("insert into claim (ns, claim_id, lease_no, asked) values (1, $1, 0, '')", claim_id)
        copies = [asyncio.create_task(s.claim(1, claimId=claim_id, waitSeconds=LONG)) for s in (one, two)]
        await servers_wait_for_locks(eye, 2)
        await holds.rollback()
        first, second = await asyncio.gather(*copies)
        assert len(first) == 1
        assert [lease["id"] for lease in first] == [lease["id"] for lease in second]
        assert (await eye.fetchval("select count(*) from lease"), await eye.fetchval("select count(*) from ready")) == (
            1,
            2,
        )


@pytest.mark.parametrize("more", [0, 1])
async def test_a_copy_of_a_claim_that_waits_at_another_server_is_answered_the_same_leases(dsn: str, more: int) -> None:
    """A worker whose connection broke asks again, at another server, while both copies wait; `more` tasks stay ready."""
    async with two_servers(dsn) as (one, two, _, eye):
        claim_id = str(new_id())
        await one.create({"name": "seen"})
        await one.complete(*await one.claim(1))
        first = asyncio.create_task(one.claim(1, claimId=claim_id, waitSeconds=LONG))
        second = asyncio.create_task(two.claim(1, claimId=claim_id, waitSeconds=2))
        for server in (one, two):
            await until(lambda server=server: all_tried(server), "both copies have looked and wait")
        await one.create({"name": "x"}, *[{"name": "y"}] * more)
        leases, again = await asyncio.gather(first, second)
        if not leases:
            leases, again = again, leases
        assert len(leases) == 1
        assert [lease["id"] for lease in again] == [lease["id"] for lease in leases]
        assert await eye.fetchval("select count(*) from ready") == more


async def all_tried(crew: Crew) -> bool:
    """A claim waits, and no round is in hand: those in a round are not counted as waiting."""
    return crew.services.dispatcher.waiting == 1 and crew.services.dispatcher.idle


async def test_a_unique_violation_of_one_claim_id_does_not_cost_the_others_of_the_round(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await one.create(*[{"name": f"t{n}"} for n in range(4)])
        claim_id = str(new_id())
        holds = a.transaction()
        await holds.start()
        await a.execute("insert into claim (ns, claim_id, lease_no, asked) values (1, $1, 0, '')", claim_id)
        copies = [asyncio.create_task(one.claim(1, claimId=claim_id, waitSeconds=LONG))]
        await servers_wait_for_locks(eye, 1)
        copies += [asyncio.create_task(two.claim(1, claimId=claim_id, waitSeconds=LONG))]
        copies += [asyncio.create_task(two.claim(1, workerId=f"w{n}", waitSeconds=LONG)) for n in range(2)]
        await servers_wait_for_locks(eye, 2)
        await holds.rollback()
        leases = await asyncio.gather(*copies)
        assert [len(x) for x in leases] == [1, 1, 1, 1]
        assert leases[0][0]["id"] == leases[1][0]["id"]
        assert len({x[0]["id"] for x in leases}) == 3
        assert await eye.fetchval("select count(*) from ready") == 1


class Client:
    """A client of the HTTP view that can hang up."""

    def __init__(self, crew: Crew, **claim: Any) -> None:
        given = {"workerId": "w", "channels": ["c"], "limit": 1, "waitSeconds": LONG, **claim}
        self._body = json.dumps({"query": CLAIM, "variables": {"input": given}}).encode()
        self._sent = False
        self._gone = asyncio.Event()
        transport: Any = crew.http._transport
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/graphql", "raw_path": b"/graphql", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"crew"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1), "server": ("crew", 80),
        }  # fmt: skip
        self._request = asyncio.create_task(transport.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._gone.is_set(), message

    async def hang_up(self) -> None:
        """The server has noticed when this returns."""
        self._gone.set()
        await self._request


async def test_a_client_that_goes_away_while_it_waits_is_dropped_and_takes_nothing(crew: Crew) -> None:
    await crew.create({"name": "first"})
    await crew.complete(*await crew.claim(1))
    client = Client(crew)
    await until(lambda: all_tried(crew), "the claim waits")
    await client.hang_up()
    assert crew.services.dispatcher.waiting == 0
    await crew.create({"name": "x"})
    assert await crew.sql("select from lease") == []
    (lease,) = await crew.claim(1)
    assert lease["attempt"] == 1


async def test_a_client_that_goes_away_in_a_round_gives_its_leases_back_uncounted(crew: Crew) -> None:
    made = await crew.create({"name": "x"})
    async with connected(crew.dsn, 2) as (a, eye):
        async with a.transaction():
            await a.execute("lock table claim, lease in share mode")
            client = Client(crew)
            await servers_wait_for_locks(eye)
            await client.hang_up()
        await until(lambda: eye.fetchval("select count(*) > 0 from event where kind = 12"), "it was released")
        (row,) = await eye.fetch("select attempt, remaining, failures from ready")
        assert tuple(row) == (0, 5, 0)
        assert await eye.fetchval("select count(*) from lease") == 0
    assert (await crew.task(made["tasks"][0]["id"]))["state"] == "READY"
    (lease,) = await crew.claim(1)
    assert lease["attempt"] == 1


async def test_a_round_in_which_one_client_goes_away_serves_the_others(crew: Crew) -> None:
    await crew.create({"name": "x"}, {"name": "y"})
    await crew.claim(1, channels=("other",))
    async with connected(crew.dsn, 2) as (a, eye):
        async with a.transaction():
            await a.execute("lock table lease in share mode")
            client = Client(crew)
            other = asyncio.create_task(crew.claim(1, waitSeconds=LONG))
            await servers_wait_for_locks(eye)
            await client.hang_up()
        assert len(await other) == 1
        await until(lambda: eye.fetchval("select count(*) = 1 from event where kind = 12"), "one was released")
        assert await eye.fetchval("select sum(attempt) from ready") == 0
        assert await eye.fetchval("select count(*) from lease") == 1


async def test_a_claim_with_an_id_whose_client_goes_away_in_a_round_can_be_asked_for_again(crew: Crew) -> None:
    await crew.create({"name": "x"}, {"name": "y"})
    claim_id = str(new_id())
    async with connected(crew.dsn, 2) as (a, eye):
        async with a.transaction():
            await a.execute("lock table claim, lease in share mode")
            client = Client(crew, claimId=claim_id)
            await servers_wait_for_locks(eye)
            await client.hang_up()
        await until(lambda: eye.fetchval("select count(*) = 1 from lease"), "the round ended")
        (lease,) = await crew.claim(1, waitSeconds=LONG, claimId=claim_id)
        assert lease["attempt"] == 1
        assert await eye.fetchval("select count(*) from ready") == 1
