"""Random calls by every role: each is answered, and never by "something went wrong" or "try again"."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from resolvers.access import Role
from tests.support.access import bearer, make_key
from tests.support.crew import CLAIM, COMPLETE, CREATE
from tests.support.exercised import not_counted
from tests.support.fuzz import Call, Fuzz, Known
from tests.support.streams import Served, served

SECONDS = 10
AT_ONCE = 8
MOST_SHOWN = 10
WEIGHTS = {"nobody": 1, "VIEWER": 2, "WORKER": 4, "ADMIN": 12}
OURS = {"INTERNAL", "UNAVAILABLE"}
SETTINGS = {"max_wait_seconds": 0.3, "secret_key": "a long random text", "operator_private_targets": True}
BEGINNING = """mutation {
  a: createTaskGroup(input: {name: "c0", tasks: [
    {name: "c0", channel: "c0", ref: "r0", workgroup: "g0"}, {name: "c0", channel: "c0", ref: "r1", key: "k0"},
    {name: "c1", channel: "c1", parents: [{ref: "r0"}, {ref: "r1", waitFor: SUBTREE}]}
  ]}) { taskGroup { __typename id } tasks { __typename id } }
  b: claimTasks(input: {workerId: "w0", channels: ["c0"]}) { leases { __typename id } }
  c: createSchedule(input: {name: "c0", cron: "* * * * *", group: {name: "c0", tasks: [{name: "c0", channel: "c0"}]}})
    { schedule { __typename id } }
  d: createOperator(input: {channel: "c2", url: "http://127.0.0.1:9/"}) { operator { __typename id } }
}"""

# graphql-core cancels the fields beside one that failed, and never awaits what some of them had not begun.
pytestmark = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
async def server_here(dsn: str) -> AsyncIterator[Served]:
    async with served(dsn, **SETTINGS) as server:
        yield server


class Run:
    """Calls of one seed, several at a time."""

    def __init__(self, server: Served, seed: int, keys: dict[str, str | None], spared: frozenset[str]) -> None:
        self.server, self.seed, self.keys = server, seed, keys
        self.known = Known(spared)
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0

    async def calls(self, many: int) -> None:
        numbers = iter(range(many))
        base = self.server.url.removesuffix("/graphql")
        async with httpx.AsyncClient(base_url=base, timeout=SECONDS) as http:
            await self._one(http, "ADMIN", Call("POST", "/graphql", json.dumps({"query": BEGINNING}).encode(), {}))
            assert self.codes == {"fine": 1}
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._some(http, numbers))
            assert (await http.get("/healthz")).json()["healthy"]
            await self._as_ever(http)

    async def _as_ever(self, http: httpx.AsyncClient) -> None:
        """A task is made, claimed and completed."""

        async def ask(query: str, given: Any) -> Any:
            body = {"query": query, "variables": {"input": given}}
            return (await http.post("/graphql", json=body, headers=bearer(self.keys["ADMIN"]))).json()["data"]

        await ask(CREATE, {"name": "g", "tasks": [{"name": "t", "channel": "afterwards"}]})
        claimed = await ask(CLAIM, {"workerId": "w", "channels": ["afterwards"], "waitSeconds": 5})
        leases = [{"lease": lease["id"]} for lease in claimed["claimTasks"]["leases"]]
        assert (await ask(COMPLETE, {"results": leases}))["completeTasks"]["completed"] == 1

    async def _some(self, http: httpx.AsyncClient, numbers: Any) -> None:
        for n in numbers:
            random = Random(f"{self.seed}/{n}")
            (who,) = random.choices(list(self.keys), list(WEIGHTS.values()))
            call = Fuzz(random, self.known).call()
            try:
                await self._one(http, who, call)
            except Exception as error:
                self.wrong.append(f"call {n} of seed {self.seed}, as {who}: {call}\n{error!r:.2000}")

    async def _one(self, http: httpx.AsyncClient, who: str, call: Call) -> None:
        headers = {"content-type": "application/json", **bearer(self.keys[who]), **call.headers}
        began = time.monotonic()
        response = await http.request(call.method, call.path, content=call.body, headers=headers)
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert response.status_code < 500, response.text
        if call.method == "HEAD" or not response.content:
            return
        answer = response.json()
        if call.path != "/graphql":
            assert response.status_code == 200 or answer["message"], response.text
            self.codes[f"REST {response.status_code}"] += 1
        else:
            self._check(answer)
        self.known.learn(answer)

    def _check(self, answer: dict[str, Any]) -> None:
        errors = answer.get("errors", [])
        assert errors or "data" in answer, answer
        for error in errors:
            assert isinstance(error["message"], str), error
            assert error["message"], error
            assert error["extensions"]["code"] not in OURS, error
            self.codes[error["extensions"]["code"]] += 1
        self.codes["fine"] += not errors


async def fuzzed(server: Served, seed: int, many: int) -> Run:
    keys = {who: None if who == "nobody" else await make_key(server, Role[who]) for who in WEIGHTS}
    rows = await server.services.core.pool.fetch("select id from api_key")
    run = Run(server, seed, keys, frozenset(str(row["id"]) for row in rows))
    with capture_logs([structlog.processors.format_exc_info]) as logs, not_counted():
        try:
            await run.calls(many)
        finally:
            print(f"seed {seed}: {dict(run.codes)}; the slowest took {run.slowest:.2f} s")
            gc.collect()
    assert not run.wrong, "\n\n".join(run.wrong[:MOST_SHOWN])
    assert [entry for entry in logs if entry["log_level"] != "info"] == []
    return run


@pytest.mark.parametrize("seed", range(3))
async def test_random_calls_are_answered_properly(server_here: Served, seed: int) -> None:
    run = await fuzzed(server_here, seed, 300)
    assert run.codes["fine"] > 30, "not all are refused"


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_many_random_calls_are_answered_properly(server_here: Served) -> None:
    """CREW_FUZZ_SEED repeats a run, but for what the calls that ran at once did to each other."""
    seed = int(os.environ.get("CREW_FUZZ_SEED") or Random().getrandbits(32))
    await fuzzed(server_here, seed, 10_000)
