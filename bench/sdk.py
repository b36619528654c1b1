"""Tasks a second, and CPU for each task, of both SDKs that drain no-op tasks, beside the server's own ceiling.

    python -m bench.sdk [--rounds 3] [--tasks 20000] [--concurrency 1000] [--save]

The ceiling is a client that does nothing but send, in two loops of batches of 500, as two couriers of a worker with 1,000 slots do:
what the server and PostgreSQL can do here.
Each round has a fresh database and a fresh server process; who drains takes turns in it. CPU is the worker process's own, user and
system, from its first task to its end. Ratios inside one run count.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.results import Figure, Round, each_round, parser, save, spread
from bench.throughput import NOOP, created_in_bulk, crew, drained, fresh_database
from db.migrate import migrate
from tests.support import javascript
from tests.support.process import ROOT

PYTHON = """
import asyncio, json, os, time
from crew_worker import Crew

tasks = int(os.environ["TASKS"])
crew = Crew(concurrency=int(os.environ["CONCURRENCY"]), transport=os.environ["TRANSPORT"])
done, began, cpu = 0, 0.0, 0.0

@crew.task(os.environ["CHANNEL"])
async def noop(task):
    global done, began, cpu
    if done == 0:
        began, cpu = time.perf_counter(), time.process_time()
    done += 1
    if done == tasks:
        crew.stop()
    return {"ok": True}

asyncio.run(crew.work())
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "done": done}))
"""
JAVASCRIPT = """
import { Crew, silent } from "crew-worker";

const { TASKS, CONCURRENCY, TRANSPORT, CHANNEL } = process.env;
const crew = new Crew(undefined, { concurrency: Number(CONCURRENCY), transport: TRANSPORT, logger: silent });
let done = 0;
let began, cpu;
crew.task(CHANNEL, async () => {
  if (done === 0) [began, cpu] = [performance.now(), process.cpuUsage()];
  if (++done === Number(TASKS)) crew.stop();
  return { ok: true };
});
await crew.work();
const { user, system } = process.cpuUsage(cpu);
console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000, cpu: (user + system) / 1e6, done }));
"""
CEILING = "the server's ceiling"
RATE, CPU = ("drained", "tasks/s"), ("CPU of the worker process", "µs/task")


def by_sdk(program: str, folder: Path, url: str, tasks: int, concurrency: int, transport: str) -> tuple[float, float]:
    run = [sys.executable, program] if program.endswith(".py") else [javascript.node(), program]
    given = {"CREW_URL": url, "TASKS": str(tasks), "CONCURRENCY": str(concurrency), "TRANSPORT": transport}
    environment = {**os.environ, **given, "CHANNEL": NOOP, "PYTHONPATH": str(ROOT / "sdk/python/src")}
    found = json.loads(
        subprocess.run(run, cwd=folder, env=environment, check=True, capture_output=True, timeout=300).stdout
    )
    assert found["done"] == tasks, found
    return tasks / found["seconds"], found["cpu"] / tasks * 1e6


def by_ceiling(host: str, port: int, tasks: int) -> tuple[float, float]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        cpu = time.process_time()
        rate = runner.run(drained(host, port, tasks, 500, 2))
        return rate, (time.process_time() - cpu) / tasks * 1e6


def one_round(n: int, folder: Path, tasks: int, concurrency: int) -> Round:
    programs = [(p, t) for t in ("long-poll", "websocket") for p in ("worker.py", "worker.mjs")]
    names = {"worker.py": "Python", "worker.mjs": "JavaScript"}
    turns = ["", *(f"{p} {t}" for p, t in programs)]
    turns = turns[n % len(turns) :] + turns[: n % len(turns)]
    found: Round = {RATE: {}, CPU: {}}
    with fresh_database() as dsn:
        asyncio.run(migrate(dsn))
        with crew(dsn) as (host, port):
            for turn in turns:
                asyncio.run(created_in_bulk(host, port, tasks, 500))
                if turn:
                    program, transport = turn.split()
                    who = f"{names[program]}, {transport}"
                    rate, cpu = by_sdk(program, folder, f"http://{host}:{port}", tasks, concurrency, transport)
                else:
                    who = CEILING
                    rate, cpu = by_ceiling(host, port, tasks)
                found[RATE][who], found[CPU][who] = rate, cpu
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tasks", type=int, default=20_000)
    arguments.add_argument("--concurrency", type=int, default=1000)
    given = arguments.parse_args()
    javascript.built()
    with tempfile.TemporaryDirectory(prefix="crew-bench-sdk-") as home:
        folder = Path(home)
        (folder / "worker.py").write_text(PYTHON)
        (folder / "worker.mjs").write_text(JAVASCRIPT)
        (folder / "node_modules").mkdir()
        (folder / "node_modules" / "crew-worker").symlink_to(javascript.SDK)
        kept = each_round(given.rounds, lambda n: one_round(n, folder, given.tasks, given.concurrency))
    show(*kept)
    if given.save:
        save("sdk", kept)


def show(rates: Figure, cpu: Figure) -> None:
    print(f"{'':24} {'tasks/s (lowest – highest)':>30} {'of the ceiling':>15} {'CPU µs/task':>12}")
    for who, values in rates.series.items():
        ratio = statistics.median(rates.ratio(who, CEILING))
        print(f"{who:24} {spread(values, 0):>30} {ratio:>15.2f} {cpu.median(who):>12.0f}")


if __name__ == "__main__":
    main()
