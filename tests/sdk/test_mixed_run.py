"""Python and JavaScript workers on the same campaigns, each killed and restarted at random: all is done, each task once."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from crew_worker import Crew, Draft, Group, RetryPolicy
from tests.support.process import ROOT, ServerProcess
from tests.support.programs import command, surroundings, with_crew_worker

PROGRAMS = ("worker.py", "worker.mjs", "worker.py", "worker.mjs")
RETRY = RetryPolicy(attempts=50, delay=0.1)
BRANCH = ("create_adset", "upload_video", "create_creative", "create_ad")
EVENTS = (
    "query($after: Cursor, $limit: Int) { taskEvents(after: $after, limit: $limit) "
    "{ cursor events { kind taskId groupId } } }"
)
NODES = "query($id: ID!) { taskGroup(id: $id) { graph { nodes { id name state output } } } }"


class Fleet:
    """Workers that are killed at random and started again."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._log = (folder / "log").open("ab")
        self._workers = [self._start(program) for program in PROGRAMS]
        self.killed: Counter[str] = Counter()

    def _start(self, program: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(program), cwd=self._folder, env=surroundings(self._url), stdout=self._log, stderr=self._log
        )

    async def trouble(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5))
            n = random.randrange(len(PROGRAMS))
            self._end(self._workers[n])
            self.killed[PROGRAMS[n]] += 1
            self._workers[n] = self._start(PROGRAMS[n])

    def _end(self, worker: subprocess.Popen[bytes]) -> None:
        worker.kill()
        worker.wait()

    def close(self) -> None:
        for worker in self._workers:
            self._end(worker)
        self._log.close()


def plan(crew: Crew, name: str) -> Group:
    """The picture of DESIGN.md; what hangs under create_adset is made as the work goes on."""
    group = crew.group(name)

    def step(channel: str, *parents: Draft[Any], **options: Any) -> Draft[Any]:
        return group.task(channel, options.pop("input", None), retry=RETRY, **options).after(*parents)

    campaign = step("create_campaign")
    adsets = [step("create_adset", campaign, input=n, name=f"create_adset of {n}") for n in range(2)]
    verified = step("verify_assets").after_subtree(*adsets)
    step("send_slack", step("unpause_campaign", verified))
    return group


async def run(folder: Path, url: str, campaigns: int) -> tuple[Counter[str], Counter[str]]:
    """How often each program was killed, and by whom tasks were done."""
    done_by: Counter[str] = Counter()
    async with Crew(url) as crew:
        cursor = (await crew.ask(EVENTS))["taskEvents"]["cursor"]
        groups = [plan(crew, f"campaign {n}") for n in range(campaigns)]
        await asyncio.gather(*(group.send() for group in groups))
        fleet = Fleet(folder, url)
        trouble = asyncio.create_task(fleet.trouble())
        try:
            await asyncio.gather(*(group.finished(timeout=100) for group in groups))
        finally:
            trouble.cancel()
            fleet.close()
        succeeded = await successes(crew, cursor, {group.id for group in groups})
        for group in groups:
            nodes = (await crew.ask(NODES, {"id": group.id}))["taskGroup"]["graph"]["nodes"]
            assert sorted(node["name"] for node in nodes) == sorted(
                ["create_campaign", "verify_assets", "unpause_campaign", "send_slack"]
                + [f"{channel} of {n}" for n in range(2) for channel in BRANCH]
            )
            assert {node["state"] for node in nodes} == {"SUCCEEDED"}
            assert {id: n for id, n in succeeded.items() if id in {node["id"] for node in nodes}} == {
                node["id"]: 1 for node in nodes
            }
            done_by.update(node["output"]["by"] for node in nodes)
    return fleet.killed, done_by


async def successes(crew: Crew, cursor: str, groups: set[str]) -> Counter[str]:
    """How often each task of these groups was completed, by the event log."""
    found: Counter[str] = Counter()
    while True:
        batch = (await crew.ask(EVENTS, {"after": cursor, "limit": 5000}))["taskEvents"]
        if not batch["events"]:
            return found
        cursor = batch["cursor"]
        found.update(e["taskId"] for e in batch["events"] if e["kind"] == "SUCCEEDED" and e["groupId"] in groups)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tests/sdk/mixed", tmp_path / "mixed")
    with_crew_worker(tmp_path / "mixed")
    return tmp_path / "mixed"


async def test_all_campaigns_are_done_and_each_task_once(folder: Path, served: ServerProcess):
    killed, done_by = await run(folder, served.url, campaigns=12)
    assert killed.total() > 0
    assert set(done_by) == {"python", "javascript"}


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_many_campaigns_over_minutes(folder: Path, served: ServerProcess):
    for _ in range(10):
        killed, _ = await run(folder, served.url, campaigns=40)
        assert set(killed) == set(PROGRAMS)
