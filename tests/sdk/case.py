"""Runs one case of sdk/conformance.json with the Python SDK. sdk/js/tests/case.ts does the same for JavaScript."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from crew_worker import Crew, Discard, Draft, Group, Output, RateLimited, Refused, Retry, RetryPolicy, Task, TaskError
from crew_worker.ids import new_id
from crew_worker.testing import Memory, Stored

Json = dict[str, Any]
CASES: list[Json] = json.loads((Path(__file__).parents[2] / "sdk" / "conformance.json").read_text())["cases"]
NODES = (
    "query($id: ID!) { taskGroup(id: $id) { graph { nodes { id name channel state attempt remainingAttempts output "
    "progress progressMessage heldBy metadata errors { attempt error } } } } }"
)
CANCEL = "mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }"
SECONDS = 20
OPTIONS = {
    "concurrency": "concurrency",
    "prefetch": "prefetch",
    "leaseSeconds": "lease_seconds",
    "waitSeconds": "wait_seconds",
    "stopSeconds": "stop_seconds",
    "silenceSeconds": "silence_seconds",
    "transport": "transport",
}


@dataclass
class Script:
    """Handlers that do as the case says, and what they saw."""

    suffix: str
    steps: dict[str, list[Json]]
    ran: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    stopped: list[str] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)

    def own(self, name: str) -> str:
        """A channel or workgroup of this run's own; the empty one stays as it is."""
        return name and f"{name}-{self.suffix}"

    def register(self, crew: Crew) -> None:
        for channel, steps in self.steps.items():
            decorate = crew.task(self.own(channel), concurrency=steps[0].get("concurrency"))
            decorate(self._plain(channel) if steps[0].get("plain") else self._async(channel))

    def _plain(self, channel: str) -> Callable[[Task], Any]:
        return lambda task: self._outcome(self._next(channel, task), task)

    def _next(self, channel: str, task: Task) -> Json:
        self.tries[task.id] += 1
        self.ran[channel] += 1
        steps = self.steps[channel]
        return steps[min(self.tries[task.id], len(steps)) - 1]

    def _async(self, channel: str) -> Callable[[Task], Any]:
        async def handle(task: Task) -> Any:
            step = self._next(channel, task)
            self.now[channel] += 1
            self.most[channel] = max(self.most[channel], self.now[channel])
            try:
                if "progress" in step:
                    task.progress(*step["progress"])
                await asyncio.sleep(step.get("wait", 0))
                return self._outcome(step, task)
            except asyncio.CancelledError:
                self.stopped.append(task.name)
                raise
            finally:
                self.now[channel] -= 1

        return handle

    def _outcome(self, step: Json, task: Task) -> Any:
        self._children(step.get("spawn", ()), lambda channel, **options: task.spawn(channel, **options))
        if "error" in step:
            raise Exception(*([step["error"]] if step["error"] else []))
        if "taskError" in step:
            raise TaskError(step["taskError"])
        if "discard" in step:
            raise Discard(step["discard"])
        if "retry" in step:
            raise Retry(**step["retry"])
        if "rateLimited" in step:
            raise RateLimited(step["rateLimited"])
        if "rateLimitedBy" in step:
            raise RateLimited.from_response(Response(step["rateLimitedBy"]))
        if "output" in step:
            said = step["output"]
            children = self._children(said["children"], lambda channel, **options: Draft(channel, **options))
            return Output(said["value"], children=children, children_delay=said["childrenDelay"])
        if "echo" in step:
            return self._echo(step["echo"], task)
        return {1, 2, 3} if step.get("strange") else step["return"]

    def _echo(self, what: str, task: Task) -> Any:
        if what == "task":
            names = ("name", "channel", "attempt", "workgroup", "key", "metadata")
            bare = {name: getattr(task, name) for name in names}
            cut = {name: bare[name].removesuffix(f"-{self.suffix}") for name in ("channel", "workgroup")}
            return {**bare, **cut}
        return getattr(task, what)

    def _children(self, given: Any, make: Callable[..., Draft[Any]]) -> list[Draft[Any]]:
        made: dict[str, Draft[Any]] = {}
        for child in given:
            made[child["name"]] = plan(child, made, lambda channel, **options: make(self.own(channel), **options))
        return list(made.values())


@dataclass
class Response:
    headers: dict[str, str]
    status_code: int = 429


def plan(given: Json, made: dict[str, Draft[Any]], make: Callable[..., Draft[Any]]) -> Draft[Any]:
    options = {k: v for k, v in given.items() if k not in ("channel", "after", "afterSubtree", "retry")}
    if "retry" in given:
        options["retry"] = RetryPolicy(**given["retry"])
    draft = make(given["channel"], **options)
    link(given, draft, made)
    return draft


def link(given: Json, draft: Draft[Any], made: dict[str, Draft[Any]]) -> None:
    draft.after(*(made[name] for name in given.get("after", ()) if name in made))
    draft.after_subtree(*(made[name] for name in given.get("afterSubtree", ()) if name in made))


class Run:
    def __init__(self, case: Json, url: str, port_with: Callable[[list[Json]], str]) -> None:
        self.case = case
        self.script = Script(new_id()[-12:], case["handlers"])
        through = port_with(case["faults"]) if "faults" in case else url
        given = {OPTIONS[name]: value for name, value in case.get("worker", {}).items()}
        self.worker = Crew(through, **{"deliver_seconds": 5, **given})
        self.looker = Crew(url)
        self.producer = Crew(through if case.get("producerThrough") else url)
        self.script.register(self.worker)
        self.group = self.producer.group(case["name"])
        self.drafts: dict[str, Draft[Any]] = {}

    async def run(self) -> None:
        async with self.looker, self.producer, self.worker, self.working() as work:
            began = time.monotonic()
            if self.case.get("refused"):
                await self.refused()
                return
            await asyncio.sleep(self.case.get("sendAfter", 0))
            await self.on(self.case.get("sendOn"))
            self.planned()
            await self.group.send()
            await self.meanwhile()
            await self.results()
            await self.expected(work)
            assert time.monotonic() - began >= self.case.get("least", 0)
            await self.seen()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[asyncio.Task[None]]:
        work = asyncio.create_task(self.worker.work())
        await asyncio.sleep(0)
        try:
            yield work
            self.worker.stop()
            await asyncio.wait_for(work, 15)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def planned(self) -> Group:
        for given in self.case["tasks"]:
            made = {k: self.script.own(v) if k == "workgroup" else v for k, v in given.items()}
            self.drafts[given["name"]] = plan(
                made, {}, lambda channel, **options: self.group.task(self.script.own(channel), **options)
            )
        for given in self.case["tasks"]:
            link(given, self.drafts[given["name"]], self.drafts)
        return self.group

    async def refused(self) -> None:
        with pytest.raises(Refused) as refused:
            await self.planned().send()
        assert refused.value.code == self.case["refused"]
        assert await self.graph() == []

    async def meanwhile(self) -> None:
        for name, state in self.case.get("when", {}).items():
            await self.until({name: {"state": state}})
            async with asyncio.timeout(SECONDS):
                # It may be leased, and the lease on its way to the worker still.
                while state == "RUNNING" and not self.script.tries[self.drafts[name].id]:
                    await asyncio.sleep(0.02)
            if self.case["do"] == "stop":
                self.worker.stop()
            else:
                await self.cancel(self.drafts[name].id)
        if "seen" in self.case:
            await self.until(self.case["seen"])

    async def results(self) -> None:
        if wanted := self.case.get("finished"):
            assert await said(self.group.finished(1 if wanted == "TimeoutError" else SECONDS)) in (wanted, self.group)
        for name, value in self.case.get("results", {}).items():
            if isinstance(value, dict) and "$fails" in value:
                assert await said(self.drafts[name].result(SECONDS)) == value["$fails"]
            else:
                assert await self.drafts[name].result(SECONDS) == value

    async def expected(self, work: asyncio.Task[None]) -> None:
        if self.case.get("do") == "stop":
            await asyncio.wait_for(asyncio.shield(work), 15)
        await self.until({name: {"heldBy": ["WORKGROUP_SUSPENDED"]} for name in self.case.get("held", ())})
        await self.until(self.case["expect"])
        found = await self.nodes()
        if "total" in self.case:
            assert len(found) == self.case["total"]

    async def seen(self) -> None:
        script, case = self.script, self.case
        async with asyncio.timeout(SECONDS):
            while len(script.stopped) < len(case.get("stopped", ())):
                await asyncio.sleep(0.02)
        assert {name: script.ran[name] for name in case.get("ran", {})} == case.get("ran", {})
        assert {name: script.most[name] for name in case.get("most", {})} == case.get("most", {})
        assert script.stopped == case.get("stopped", [])
        await self.on(case.get("transport"))

    async def on(self, transport: str | None) -> None:
        async with asyncio.timeout(SECONDS):
            while transport and self.worker.transport != transport:
                await asyncio.sleep(0.02)

    async def until(self, wanted: Json) -> None:
        give_up = time.monotonic() + SECONDS
        while not matches(wanted, found := await self.nodes()):
            if time.monotonic() > give_up:
                raise AssertionError(f"wanted {wanted}, found {found}; ran {self.script.ran}")
            await asyncio.sleep(0.02)

    async def nodes(self) -> Json:
        found = {node["name"]: node for node in await self.graph()}
        return {name: found.get(name) for name in {*found, *self.case["expect"]}}

    async def graph(self) -> list[Json]:
        group = (await self.looker.ask(NODES, {"id": self.group.id}))["taskGroup"]
        return group["graph"]["nodes"] if group else []

    async def cancel(self, id: str) -> None:
        await self.looker.ask(CANCEL, {"ids": [id]})


class RunInMemory(Run):
    """The same on the double."""

    def __init__(self, case: Json) -> None:
        super().__init__(case, "memory", lambda faults: "memory")

    async def run(self) -> None:
        self.memory = Memory(skip_delays=False)
        self.worker.options = replace(self.worker.options, transport="long-poll")
        for crew in (self.worker, self.looker, self.producer):
            crew._apis[asyncio.get_running_loop()] = self.memory
        await super().run()

    async def graph(self) -> list[Json]:
        return [self.node(task) for task in self.memory.tasks.values() if task.group_id == self.group.id]

    def node(self, task: Stored) -> Json:
        names = ("id", "name", "channel", "state", "attempt", "output", "progress", "metadata", "errors")
        held = ["WORKGROUP_SUSPENDED"] if self.memory.held(task) else []
        more = {"remainingAttempts": task.remaining, "progressMessage": task.message, "heldBy": held}
        return {**{name: getattr(task, name) for name in names}, **more}

    async def cancel(self, id: str) -> None:
        self.memory.cancel(id)


async def said(work: Any) -> Any:
    """What it answered, or the name of what it raised."""
    try:
        answer = await work
    except Exception as error:
        return type(error).__name__
    return answer


def matches(wanted: Any, found: Any) -> bool:
    """Objects by the fields that are wanted, lists one by one, all else exactly (0 is not false)."""
    if isinstance(wanted, dict) and "$any" in wanted:
        return found is not None
    if isinstance(wanted, dict) and "$has" in wanted:
        return wanted["$has"] in json.dumps(found)
    if isinstance(wanted, dict) and "$in" in wanted:
        return found in wanted["$in"]
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(matches(value, found.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(matches, wanted, found))
    return wanted == found and isinstance(wanted, bool) == isinstance(found, bool)
