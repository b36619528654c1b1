"""Workers of both SDKs as processes: what they tell about themselves, and how they end at one signal and at two."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from crew_worker.sync import Crew
from tests.support import javascript
from tests.support.process import ServerProcess, free_port, wait_for
from tests.support.programs import command, surroundings, with_crew_worker

PYTHON = """
import asyncio, os
from crew_worker import Crew

crew = Crew(health=("127.0.0.1", int(os.environ["PORT"])))

@crew.task(os.environ["CHANNEL"])
async def work(task):
    await asyncio.sleep(task.input)
    return task.input

crew.run()
"""
JAVASCRIPT = """
import { setTimeout } from "node:timers/promises";
import { Crew } from "crew-worker";

const crew = new Crew(undefined, { health: { port: Number(process.env.PORT) } });
crew.task(process.env.CHANNEL, async (task) => {
  await setTimeout(task.input * 1000, undefined, { signal: task.signal });
  return task.input;
});
await crew.run();
"""
TASK = "query($id: ID!) { task(id: $id) { state attempt remainingAttempts output errors { error } } }"


class Working:
    """One worker process, and the health endpoint that it has."""

    def __init__(self, program: str, folder: Path, url: str) -> None:
        self.channel = f"stopping {program}"
        self.port = free_port()
        self.url = url
        more = {"PORT": str(self.port), "CHANNEL": self.channel}
        self.process = subprocess.Popen(
            command(program), cwd=folder, env={**surroundings(url), **more}, stderr=subprocess.DEVNULL
        )
        wait_for(self.up, "the worker's health endpoint")

    def up(self) -> bool:
        try:
            return self.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False)


@pytest.fixture(params=["work.py", "work.mjs"])
def working(request: pytest.FixtureRequest, tmp_path: Path, served: ServerProcess) -> Iterator[Working]:
    (tmp_path / "work.py").write_text(PYTHON)
    (tmp_path / "work.mjs").write_text(JAVASCRIPT)
    if request.param.endswith(".mjs"):
        javascript.built()
        with_crew_worker(tmp_path)
    worker = Working(request.param, tmp_path, served.url)
    yield worker
    worker.process.kill()
    worker.process.wait()


def test_a_worker_tells_what_it_does(working: Working):
    with Crew(working.url) as crew:
        crew.group("told").task(working.channel, 0).result(20)
    told = json.loads(working.get("/healthz").text)
    assert (told["status"], told["running"], told["undelivered"]) == ("ok", 0, 0)
    assert (
        f'crew_worker_tasks_total{{channel="{working.channel}",outcome="completed"}} 1' in working.get("/metrics").text
    )
    assert working.get("/elsewhere").status_code == 404


def test_one_signal_lets_what_runs_finish(working: Working):
    with Crew(working.url) as crew:
        group = crew.group("one signal")
        task = group.task(working.channel, 1.0)
        group.send()
        wait_for(lambda: json.loads(working.get("/healthz").text)["running"] == 1, "the task runs")
        working.process.send_signal(signal.SIGTERM)
        assert working.process.wait(20) == 0
        assert crew.ask(TASK, {"id": task.id})["task"] | {"errors": []} == {
            "state": "SUCCEEDED",
            "attempt": 1,
            "remainingAttempts": 4,
            "output": 1.0,
            "errors": [],
        }


def test_two_signals_cut_handlers_off(working: Working):
    with Crew(working.url) as crew:
        group = crew.group("two signals")
        task = group.task(working.channel, 60)
        group.send()
        wait_for(lambda: json.loads(working.get("/healthz").text)["running"] == 1, "the task runs")
        working.process.send_signal(signal.SIGTERM)
        wait_for(lambda: working.get("/healthz").status_code == 503, "it says that it stops")
        working.process.send_signal(signal.SIGTERM)
        assert working.process.wait(20) == 0
        found = crew.ask(TASK, {"id": task.id})["task"]
        assert (found["state"], found["remainingAttempts"]) == ("READY", 5)
        assert found["errors"] == [{"error": "the worker was stopped"}]
