"""What graphs and keys cost: 10,000 tasks in random layers, a join of 10,000 parents, a growing tree, and keyed tasks, as
multiples of the time that 10,000 independent tasks take, created and drained through HTTP.

    python -m bench.graphs [--rounds 3] [--batches 100 500] [--save]

And what people do to 100,000 tasks at once, in seconds. One server process and a fresh database for each round, as in
throughput.py; the shapes take turns within a round. Ratios inside one run count.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import uuid

import uvloop

from bench.client import Client
from bench.results import Figure, Round, add_argument, figures, save, spread
from bench.throughput import GROUP, NOOP, PAYLOAD, TURN, crew, fresh_database
from db.migrate import migrate

TASKS = 10_000
MANY = 100_000
MANY_TASKS = f"what people do to {MANY:,} tasks"
LAYERS = 20
Task = dict[str, object]


def plain(n: int) -> Task:
    return {"ref": f"t{n}", "name": "noop", "channel": NOOP, "input": PAYLOAD}


def independent() -> list[Task]:
    return [plain(n) for n in range(TASKS)]


def layered() -> list[Task]:
    """Each task past the first layer has 1 to 3 parents in the layer above."""
    rng, size = random.Random(7), TASKS // LAYERS
    tasks = [plain(n) for n in range(TASKS)]
    for n in range(size, TASKS):
        above = range((n // size - 1) * size, n // size * size)
        tasks[n]["parents"] = [{"ref": f"t{p}"} for p in rng.sample(above, rng.randint(1, 3))]
    return tasks


def joined() -> list[Task]:
    last = plain(TASKS - 1)
    last["parents"] = [{"ref": f"t{n}"} for n in range(TASKS - 1)]
    return [*(plain(n) for n in range(TASKS - 1)), last]


def keyed() -> list[Task]:
    """Each with a key of its own."""
    return [plain(n) | {"key": f"k{n}"} for n in range(TASKS)]


def one_in_a_hundred_keyed() -> list[Task]:
    return [plain(n) | ({"key": f"k{n}"} if n % 100 == 0 else {}) for n in range(TASKS)]


def seeds() -> list[Task]:
    """100 tasks that spawn 99 each, and a join of all that."""
    roots = [plain(n) | {"input": {"spawns": 99}} for n in range(100)]
    return [*roots, plain(100) | {"parents": [{"ref": f"t{n}", "waitFor": "SUBTREE"} for n in range(100)]}]


SHAPES = {
    "independent": independent,
    f"DAG, {LAYERS} random layers": layered,
    "join of 9,999 parents": joined,
    "tree with a SUBTREE join": seeds,
    "1 % keyed": one_in_a_hundred_keyed,
    "all keyed": keyed,
}


def result(lease: dict[str, dict[str, object]]) -> Task:
    done: Task = {"lease": lease["id"], "output": {"ok": True}}
    given = lease["task"]["input"]
    if isinstance(given, dict) and "spawns" in given:
        done["children"] = [{"name": "noop", "channel": NOOP, "input": PAYLOAD} for _ in range(given["spawns"])]
    return done


async def drain(client: Client, batch: int) -> int:
    done = 0
    results: list[Task] = []
    while True:
        claim = {"workerId": "w", "channels": [NOOP], "limit": batch, "claimId": str(uuid.uuid4())}
        data = await client.ask(TURN, {"done": {"results": results}, "claim": claim})
        done += int(data["completeTasks"]["completed"])
        if not data["claimTasks"]["leases"]:
            return done
        results = [result(lease) for lease in data["claimTasks"]["leases"]]


async def shapes(host: str, port: int, batch: int) -> dict[str, tuple[float, float]]:
    """Seconds to create and to drain each."""
    found = {}
    async with Client(host, port) as client:
        await client.ask(GROUP, {"input": {"name": "warm", "tasks": independent()[:500]}})
        await drain(client, batch)
        for name, make in SHAPES.items():
            tasks = make()
            start = time.perf_counter()
            await client.ask(GROUP, {"input": {"name": name, "tasks": tasks}})
            created = time.perf_counter()
            assert await drain(client, batch) >= TASKS, name
            found[name] = (created - start, time.perf_counter() - created)
    return found


async def many(host: str, port: int) -> dict[str, float]:
    """Seconds for what people do to a group of 100,000 ready tasks."""
    found = {}
    async with Client(host, port) as client:
        group = str(uuid.uuid4())
        await client.ask(GROUP, {"input": {"id": group, "name": "many"}})
        for _ in range(0, MANY, TASKS):
            await client.ask(
                "mutation($input: CreateTasksInput!) { createTasks(input: $input) { tasks { id } } }",
                {"input": {"groupId": group, "tasks": independent()}},
            )
        calls = {
            "pauseTaskGroup": "mutation($g: ID!) { pauseTaskGroup(id: $g) { affected } }",
            "resumeTaskGroup": "mutation($g: ID!) { resumeTaskGroup(id: $g) { affected } }",
            "pauseChannel": f'mutation {{ pauseChannel(name: "{NOOP}") {{ channel {{ isPaused }} }} }}',
            "resumeChannel": f'mutation {{ resumeChannel(name: "{NOOP}") {{ channel {{ isPaused }} }} }}',
            "cancelTasks": "mutation($g: ID!) { cancelTasks(filter: {groupId: $g}) { affected } }",
        }
        for name, call in calls.items():
            start = time.perf_counter()
            await client.ask(call, {"g": group} if "$g" in call else {})
            found[name] = time.perf_counter() - start
    return found


def one_round(batches: list[int]) -> Round:
    """Seconds."""
    found: Round = {}
    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        with crew(dsn) as (host, port), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for batch in batches:
                took = runner.run(shapes(host, port, batch))
                for n, what in enumerate(("created", "drained")):
                    found[f"{what}, batches of {batch}", "s"] = {name: seconds[n] for name, seconds in took.items()}
            found[MANY_TASKS, "s"] = runner.run(many(host, port))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--batches", type=int, nargs="+", default=[100, 500])
    add_argument(arguments)
    given = arguments.parse_args()
    rounds = []
    for n in range(given.rounds):
        print(f"round {n + 1} of {given.rounds} …", file=sys.stderr, flush=True)
        rounds.append(one_round(given.batches))
    kept = figures(rounds)
    show(kept)
    if given.save:
        save("graphs", kept)


def show(figures: list[Figure]) -> None:
    print(f"times the cost of {TASKS:,} independent tasks, medians (lowest – highest)")
    for figure in figures[:-1]:
        for name in figure.series:
            print(f"{figure.name:24} {name:28} {spread(figure.ratio(name, 'independent'))}")
    print(f"seconds for {figures[-1].name}")
    for name, taken in figures[-1].series.items():
        print(f"{name:16} {spread(taken)}")


if __name__ == "__main__":
    main()
