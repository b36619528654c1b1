"""What each lever gives: the server of today beside one with that lever taken out (bench/taken_out.py).

    python -m bench.ablation [--rounds 3] [--only LEVER …] [--save]

The two have a PostgreSQL each and take turns of seconds. Three levers are no matter of the server: that workers complete and claim
by one request is taken out of the client; and statements alone (bench/statements_alone.py) show what narrow tables give over a wide
one whose state is updated, and what completing and claiming in one commit would give over the two that they are.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

import asyncpg
import uvloop

from bench import statements_alone
from bench.client import Client
from bench.fanout import BATCH, by_websocket, measured
from bench.faults.snapshot import Drain
from bench.faults.stage import client, quantile, settled
from bench.faults.suspend import new_group, pick_up
from bench.growth import CLAIM, COMPLETE
from bench.http import LIST, OPERATIONS, hundred_tasks, rate, request
from bench.results import WITH, WITHOUT, Figure, Round, each_round, parser, save, spread
from bench.throughput import GROUP, NOOP, created_in_bulk, created_one_by_one, drained, new_task
from tests.support.process import ServerProcess, server_process

HOST = "127.0.0.1"

SECONDS = 2.0
LARGE = {"text": "x" * 50, "numbers": list(range(1000))}
Measure = Callable[[ServerProcess], Awaitable[float]]


@dataclass(frozen=True)
class Lever:
    """`taken_out`: its name in bench.taken_out; None: `measures` of a server that has it are held against `instead`."""

    said: str
    measures: dict[tuple[str, str], Measure]
    """What is measured and its unit → how."""
    taken_out: str | None = None
    instead: Measure | None = None


# -- what is measured ---------------------------------------------------------------------------------------------------


async def trivial(server: ServerProcess) -> float:
    return await rate(server.port, request(server.port, "/graphql", "{ __typename }"), SECONDS)


async def listed(server: ServerProcess) -> float:
    await hundred_tasks(server.port)
    return await rate(server.port, request(server.port, "/graphql", OPERATIONS[LIST][0]), SECONDS)


async def created(server: ServerProcess) -> float:
    return await created_one_by_one(HOST, server.port, 10, SECONDS)


def turns(batch: int, clients: int) -> Measure:
    """Claim + complete in batches; what is left over is drained afterwards."""

    async def measure(server: ServerProcess) -> float:
        await created_in_bulk(HOST, server.port, 20_000, 500)
        found = await drained(HOST, server.port, 1 << 60 if batch < 100 else 20_000, batch, clients, SECONDS)
        await drained(HOST, server.port, 1 << 60, 500, 2)
        return found

    return measure


async def in_two_requests(server: ServerProcess) -> float:
    """As turns(1, 1), where the completion and the claim are requests of their own."""
    await created_in_bulk(HOST, server.port, 20_000, 500)
    done, start = 0, time.perf_counter()
    async with client(server) as asking:
        while time.perf_counter() < start + SECONDS:
            claim = {"workerId": "w0", "channels": [NOOP], "limit": 1, "claimId": str(uuid.uuid4())}
            (lease,) = (await asking.ask(CLAIM, {"claim": claim}))["claimTasks"]["leases"]
            await asking.ask(COMPLETE, {"done": {"results": [{"lease": lease["id"], "output": {"ok": True}}]}})
            done += 1
    found = done / (time.perf_counter() - start)
    await drained(HOST, server.port, 1 << 60, 500, 2)
    return found


async def under_a_snapshot(server: ServerProcess) -> float:
    """The last tenth of a drain while another transaction holds a snapshot."""
    tasks = 20_000
    await created_in_bulk(HOST, server.port, tasks + 2000, 500)
    await settled(server, 1)
    other = await asyncpg.connect(server.dsn)
    try:
        transaction = other.transaction(isolation="repeatable_read")
        await transaction.start()
        await other.fetchval("select count(*) from namespace")
        async with client(server) as asking:
            drain = Drain(asking)
            found = [await drain.rate(tasks // 10) for _ in range(10)]
    finally:
        await other.close()
    await drained(HOST, server.port, 1 << 60, 500, 2)
    return found[-1]


async def bursts(server: ServerProcess) -> float:
    """Of one burst after another, for longer than the server's vacuum waits, the drain of the last."""
    until = time.perf_counter() + 25
    while time.perf_counter() < until:
        await created_in_bulk(HOST, server.port, 10_000, 500)
        found = await drained(HOST, server.port, 10_000, 100, 2)
    return found


async def with_large_inputs(server: ServerProcess) -> float:
    async with Client(HOST, server.port) as creating:
        for _ in range(8):
            tasks = [{**new_task(), "input": LARGE}] * 250
            await creating.ask(GROUP, {"input": {"name": "large", "tasks": tasks}})
    return await drained(HOST, server.port, 2000, 250, 1)


async def told(server: ServerProcess) -> float:
    """Microseconds of the server's CPU for an event to each of 200 subscribers."""
    alone, _ = await measured(server, by_websocket, 0, BATCH, 10)
    used, seen = await measured(server, by_websocket, 200, BATCH, 10)
    return (used - alone) / seen.events * 1e6


async def picked_up(server: ServerProcess) -> float:
    """Milliseconds, the median of so many."""
    async with client(server) as creating, client(server) as claiming:
        group = await new_group(creating, "pick-up")
        return quantile([await pick_up(creating, claiming, group, "apart") for _ in range(150)], 0.5)


PER_S = "tasks/s"
LEVERS = [
    Lever("an HTTP view of our own", {("a query of __typename", "requests/s"): trivial}, "own_view"),
    Lever(
        "documents parsed and validated once",
        {("a query of __typename", "requests/s"): trivial, ("create one by one, 10 clients", PER_S): created},
        "kept_documents",
    ),
    Lever(
        "operations compiled",
        {
            ("create one by one, 10 clients", PER_S): created,
            ("claim + complete, batches of 500, 2 clients", PER_S): turns(500, 2),
            (LIST, "requests/s"): listed,
        },
        "compiled_operations",
    ),
    Lever(
        "gathering",
        {
            ("create one by one, 10 clients", PER_S): created,
            ("claim + complete one by one, 10 clients", PER_S): turns(1, 10),
        },
        "gathering",
    ),
    Lever(
        "complete and claim in one request",
        {("claim + complete one by one, 1 client", PER_S): turns(1, 1)},
        instead=in_two_requests,
    ),
    Lever(
        "the remembered key",
        {("last tenth of a drain of 20,000 under a snapshot", PER_S): under_a_snapshot},
        "remembered_key",
    ),
    Lever(
        "a lease row per batch",
        {("claim + complete, batches of 500, 2 clients", PER_S): turns(500, 2)},
        "lease_row_per_batch",
    ),
    Lever("our own vacuum", {("drain of the last of many bursts of 10,000", PER_S): bursts}, "own_vacuum"),
    Lever(
        "inputs passed through as text",
        {("claim + complete with inputs of 4 kB, batches of 250", PER_S): with_large_inputs},
        "outputs_as_text",
    ),
    Lever(
        "one serialisation per event and selection",
        {("CPU of an event to each of 200 subscribers, in batches of 50", "µs"): told},
        "one_serialisation",
    ),
    Lever("a task made and leased by one commit", {("pick-up by long poll, p50", "ms"): picked_up}, "handing_over"),
]


# -- in turn ------------------------------------------------------------------------------------------------------------


def of(lever: Lever, rounds: int) -> list[Figure]:
    print(f"{lever.said} …", file=sys.stderr, flush=True)
    with ExitStack() as open:
        whole = open.enter_context(server_process())
        whole.start()
        other = whole
        if lever.taken_out:
            other = open.enter_context(server_process())
            other.program = ("bench.taken_out", lever.taken_out)
            other.start()

        async def one(n: int) -> Round:
            found: Round = {}
            for (what, unit), measure in lever.measures.items():
                both = {WITH: (measure, whole), WITHOUT: (lever.instead or measure, other)}
                values = {who: await how(server) for who, (how, server) in list(both.items())[:: -1 if n % 2 else 1]}
                found[f"{lever.said}: {what}", unit] = {who: values[who] for who in both}
            return found

        async def warm() -> None:
            for server in {whole, other}:
                if lever.taken_out != "own_view":
                    await created_in_bulk(HOST, server.port, 5000, 500)
                    await drained(HOST, server.port, 1 << 60, 500, 2)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(warm())
            return each_round(rounds, lambda n: runner.run(one(n)))


def show(found: list[Figure]) -> None:
    for figure in found:
        (given,) = figure.series.keys() - {WITHOUT}
        ratio = spread(figure.ratio(given, WITHOUT))
        print(
            f"{figure.name}, {figure.unit}: {spread(figure.series[given])} over {spread(figure.series[WITHOUT])} = {ratio}"
        )


def main() -> None:
    alone = list(statements_alone.LEVERS)
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="+", choices=[*[lever.said for lever in LEVERS], *alone])
    given = arguments.parse_args()
    found = [f for lever in LEVERS if not given.only or lever.said in given.only for f in of(lever, given.rounds)]
    wanted = [name for name in alone if not given.only or name in given.only]
    if wanted:
        found += statements_alone.measured(wanted, given.rounds)
    show(found)
    if given.save:
        save("ablation", found)


if __name__ == "__main__":
    main()
