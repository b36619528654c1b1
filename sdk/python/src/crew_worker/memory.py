"""A task server in memory, by the rules of the real one, for tests of handlers and of DAGs. `testing` is its face.

What it leaves out: leases never run out, time-outs are not kept, and it takes only what this package sends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from crew_worker.api import Answer, Api, Json
from crew_worker.documents import CREATE_GROUP, CREATE_TASKS, EVENTS_POLL, FAILED_TASKS, GROUP, TASK
from crew_worker.errors import Refused

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
RETRY = {"maxAttempts": 5, "delaySeconds": 30.0, "backoff": 1.0, "maxDelaySeconds": 3600.0}


@dataclass(eq=False)
class Stored:
    """A task as the server has it."""

    given: Json
    group_id: str
    seq: int
    run_after: float
    state: str = "BLOCKED"
    attempt: int = 0
    failures: int = 0
    output: Any = None
    errors: list[Json] = field(default_factory=list)
    progress: float | None = None
    message: str | None = None
    spawned_by: Stored | None = None
    links: list[tuple[Stored, bool]] = field(default_factory=list)
    """Parents, and whether their subtrees are waited for too."""
    into: Stored | None = None
    """The running task of the same channel and key that it rides with."""
    remaining: int = 0

    def __post_init__(self) -> None:
        self.id: str = self.given["id"]
        self.name: str = self.given["name"]
        self.channel: str = self.given["channel"]
        self.workgroup: str | None = self.given.get("workgroup")
        self.key: str | None = self.given.get("key")
        self.input: Any = self.given.get("input")
        self.metadata: Any = self.given.get("metadata")
        self.priority: int = self.given.get("priority", 0)
        self.retry: Json = {**RETRY, **self.given.get("retry", {})}
        self.remaining = self.retry["maxAttempts"]

    @property
    def merges(self) -> bool:
        return self.key is not None and self.given.get("onDuplicate", "MERGE") == "MERGE"

    def same_work(self, other: Stored) -> bool:
        return self is not other and (self.channel, self.key) == (other.channel, other.key)

    def under(self, parent: Stored) -> bool:
        """Spawned by it, or by what it spawned."""
        return self.spawned_by is not None and (self.spawned_by is parent or self.spawned_by.under(parent))


@dataclass(frozen=True)
class Lease:
    id: str
    task: Stored
    worker: str


class Memory(Api):
    """Takes the place of the connection to a server. `skip_delays`: when only time could help, time goes on at once."""

    def __init__(self, *, skip_delays: bool = True) -> None:
        self.url, self.key, self.namespace, self.silence = "memory", None, None, 10.0
        self.headers: dict[str, str] = {}
        self.answered, self.repeats = True, 0
        self._skip_delays, self._skipped = skip_delays, 0.0
        self.tasks: dict[str, Stored] = {}
        self.groups: dict[str, Json] = {}
        self.leases: dict[str, Lease] = {}
        self._over: dict[str, tuple[str, str]] = {}
        """Lease → how it ended, and what a repeat is told."""
        self._suspended: dict[str, float] = {}
        self._seq = itertools.count()
        self._version = 0
        self._change = asyncio.Event()

    # -- looking

    def task(self, name: str) -> Stored:
        """The newest task of this name."""
        return [task for task in self.tasks.values() if task.name == name][-1]

    def held(self, task: Stored) -> bool:
        """Its workgroup is suspended, or its group paused."""
        suspended = self._suspended.get(task.workgroup or "", 0.0) > self.now()
        return suspended or self.groups[task.group_id]["isPaused"]

    def now(self) -> float:
        return time.monotonic() + self._skipped

    # -- people

    def cancel(self, *ids: str) -> None:
        for task in (self.tasks[id] for id in ids):
            if task.state not in ("SUCCEEDED", "CANCELLED"):
                self._end_lease_of(task, "CANCELLED")
                task.state = "CANCELLED"
        self._settle()

    # -- the connection

    async def close(self) -> None:
        return

    async def call(self, body: bytes, *, patience: float | None = None, wait: float = 0) -> Answer:
        said = json.loads(body)
        asked: Json = said["variables"]
        # What came over a wire may be changed by nobody: answers are JSON made anew, too.
        answer: dict[str, Any] = {}
        refused: dict[str, Refused] = {}
        for name, work in self._fields(said["query"], asked):
            try:
                answer[name] = await work()
            except Refused as refusal:
                answer[name], refused[name] = None, refusal
        return Answer(json.loads(json.dumps(answer)), refused)

    def _fields(self, query: str, asked: Json) -> Iterator[tuple[str, Callable[[], Any]]]:
        known: dict[str, tuple[str, Callable[[], Any]]] = {
            CREATE_GROUP: ("createTaskGroup", lambda: self._create_group(asked["input"])),
            CREATE_TASKS: ("createTasks", lambda: self._create(asked["input"]["groupId"], asked["input"]["tasks"])),
            GROUP: ("taskGroup", lambda: self._group(asked["id"])),
            TASK: ("task", lambda: self._task(asked["id"])),
            FAILED_TASKS: ("tasks", lambda: self._failed_tasks(asked["id"])),
            EVENTS_POLL: ("taskEvents", lambda: self._events(asked["after"], asked["waitSeconds"])),
        }
        work: dict[str, Callable[[Any], Any]] = {
            "completeTasks": lambda given: self._results(given["results"], "completed", self._complete),
            "failTasks": lambda given: self._results(given["failures"], "failed", self._fail),
            "releaseLeases": lambda given: self._results(
                [{"lease": lease} for lease in given["leases"]], "released", self._release
            ),
            "extendLeases": self._extend,
            "claimTasks": self._claim,
        }
        if query in known:
            yield known[query]
        elif set(asked) <= set(work):
            for name in work:
                if name in asked:
                    yield name, lambda name=name: work[name](asked[name])  # type: ignore[misc]
        else:
            raise Refused("the server in memory knows only what crew_worker itself sends")

    # -- creating

    async def _create_group(self, given: Json) -> Json:
        if given["id"] not in self.groups:
            made = self._made(given["id"], given["tasks"], None)
            self.groups[given["id"]] = given
            self._insert(made)
        return {"taskGroup": {"id": given["id"]}}

    async def _create(self, group_id: str, given: Sequence[Json]) -> Json:
        self._insert(self._made(group_id, given, None))
        return {"tasks": [{"id": task["id"]} for task in given]}

    def _made(self, group_id: str, given: Sequence[Json], spawned_by: Stored | None) -> list[Stored]:
        """New tasks with their links; nothing is changed. Raises Refused."""
        made: dict[str, Stored] = {}
        for n, item in enumerate(given):
            if not isinstance(item["channel"], str) or not item["channel"]:
                raise Refused("channel is empty", "BAD_INPUT", ("tasks", n, "channel"))
            if not isinstance(item.get("priority", 0), int):
                raise Refused("priority is no whole number", "BAD_INPUT", ("tasks", n, "priority"))
            delay = item.get("delaySeconds") or 0.0
            made[item["id"]] = Stored(item, group_id, next(self._seq), self.now() + delay, spawned_by=spawned_by)
        for n, task in enumerate(made.values()):
            for link in task.given.get("parents", ()):
                parent = made.get(link["id"]) or self.tasks.get(link["id"])
                if parent is None:
                    raise Refused("no such parent", "BAD_INPUT", ("tasks", n, "parents"))
                task.links.append((parent, link.get("waitFor") == "SUBTREE"))
            if not task.links and spawned_by:
                task.links.append((spawned_by, False))
        for task in made.values():
            if below(task, task):
                raise Refused("the tasks wait for each other in a cycle", "BAD_INPUT", ("tasks",))
        return [task for task in made.values() if task.id not in self.tasks and self._is_new(task)]

    def _is_new(self, task: Stored) -> bool:
        policy = task.given.get("onDuplicate", "MERGE")
        same = [t for t in self.tasks.values() if task.key is not None and t.same_work(task) and t.state not in ENDED]
        if same and policy == "REJECT":
            raise Refused(f"a task of channel {task.channel} with key {task.key} has not ended", "DUPLICATE_KEY")
        return not (same and policy == "RETURN_EXISTING")

    def _insert(self, made: Iterable[Stored]) -> None:
        self.tasks.update({task.id: task for task in made})
        self._settle()

    # -- the graph

    def parents(self, task: Stored) -> list[Stored]:
        """Those that were named, then what they spawned, where subtrees are waited for."""
        named = [parent for parent, _ in task.links]
        return named + [t for t in self._adopted(task) if t not in named]

    def _adopted(self, task: Stored) -> list[Stored]:
        roots = [parent for parent, subtree in task.links if subtree]
        found = [t for t in self.tasks.values() if any(t.under(root) for root in roots)]
        return [t for t in found if t is not task and not below(t, task)]

    def _settle(self) -> None:
        """Something happened: states follow from it, and those who wait look again."""
        self._follow()
        self._version += 1
        self._change.set()
        self._change = asyncio.Event()

    def _follow(self) -> None:
        moved = True
        while moved:
            moved = False
            for task in self.tasks.values():
                if task.state == "BLOCKED" and (state := self._state(task)) != "BLOCKED":
                    task.state, moved = state, True
                elif task.state == "SCHEDULED" and task.run_after <= self.now():
                    task.state, moved = "READY", True

    def _state(self, task: Stored) -> str:
        policy = task.given.get("onParentFailure", "BLOCK")
        parents = self.parents(task)
        lost = any(parent.state in ("FAILED", "CANCELLED") for parent in parents)
        if lost and policy == "CANCEL":
            return "CANCELLED"
        wanted = ENDED if policy == "RUN" else ("SUCCEEDED",)
        if any(parent.state not in wanted for parent in parents):
            return "BLOCKED"
        return "SCHEDULED" if task.run_after > self.now() else "READY"

    # -- leases

    async def _claim(self, given: Json) -> Json:
        give_up = self.now() + given["waitSeconds"]
        while True:
            self._follow()
            ready = [t for t in self.tasks.values() if t.state == "READY" and not self.held(t)]
            ready = [t for t in ready if t.channel in given["channels"]]
            ready.sort(key=lambda task: (-task.priority, task.seq))
            leases: list[Json] = []
            for task in ready:
                # One with the same key may ride along with another by now.
                if len(leases) < given["limit"] and task.state == "READY":
                    leases.append(self._lease(task, given["workerId"]))
            left = give_up - self.now()
            if leases or left <= 0:
                return {"leases": leases}
            await self._wait(min(left, self._due_in()))

    def _lease(self, task: Stored, worker: str) -> Json:
        lease = Lease(f"{task.id}.{random.getrandbits(32):08x}", task, worker)
        self.leases[lease.id] = lease
        task.state, task.attempt, task.remaining = "RUNNING", task.attempt + 1, task.remaining - 1
        for twin in self.tasks.values():
            if task.merges and twin.merges and twin.same_work(task) and twin.state == "READY":
                twin.state, twin.into, twin.attempt = "MERGED", task, twin.attempt + 1
        names = ("id", "name", "channel", "workgroup", "key", "input", "metadata", "priority")
        told = {name: getattr(task, name) for name in names}
        told |= {"remainingAttempts": task.remaining, "timeoutSeconds": task.given.get("timeoutSeconds")}
        told["group"] = {"id": task.group_id}
        parents = [
            {
                "taskId": p.id,
                "name": p.name,
                "channel": p.channel,
                "state": p.state,
                "input": p.input,
                "output": p.output,
            }
            for p in self.parents(task)
        ]
        return {"id": lease.id, "attempt": task.attempt, "task": told, "parents": parents}

    def _due_in(self) -> float:
        """Seconds until the next task may run for the mere passing of time."""
        waiting = [t for t in self.tasks.values() if t.state in ("SCHEDULED", "READY")]
        dues = [max(t.run_after, self._suspended.get(t.workgroup or "", 0.0)) for t in waiting]
        due_in = min((due - self.now() for due in dues if due > self.now()), default=3600.0)
        if self._skip_delays and due_in < 3600.0 * 24 and dues and not self.leases:
            self._skipped += max(0.0, due_in)
            return 0.0
        return due_in

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._change.wait(), max(0.0, seconds))
        except TimeoutError:
            return

    def _end_lease_of(self, task: Stored, code: str) -> None:
        for lease in [lease for lease in self.leases.values() if lease.task is task]:
            self._end(lease, "", code)

    def _end(self, lease: Lease, how: str, code: str = "LOST") -> None:
        del self.leases[lease.id]
        self._over[lease.id] = how, code

    def _twins(self, task: Stored) -> list[Stored]:
        return [twin for twin in self.tasks.values() if twin.state == "MERGED" and twin.into is task]

    async def _results(self, items: Sequence[Json], how: str, work: Callable[[Lease, Json], None]) -> Json:
        errors: list[Json] = []
        for index, item in enumerate(items):
            lease = self.leases.get(item["lease"])
            refusal: tuple[str, str, Sequence[Any]] | None = None
            if lease:
                try:
                    work(lease, item)
                    self._end(lease, how)
                except Refused as refused:
                    refusal = refused.code, refused.message, refused.path
            else:
                ended, code = self._over.get(item["lease"], ("", "UNKNOWN"))
                if ended != how:
                    refusal = code, "this lease is no longer yours", ()
            if refusal:
                code, message, path = refusal
                told = {"index": index, "lease": item["lease"], "code": code, "message": message}
                errors.append({**told, "path": [str(step) for step in path]})
        self._settle()
        return {how: len(items) - len(errors), "errors": errors}

    def _complete(self, lease: Lease, item: Json) -> None:
        task = lease.task
        check(item.get("output"), "output")
        try:
            children = self._made(task.group_id, item.get("children", ()), task)
        except Refused as refused:
            code = "BAD_INPUT" if refused.path[-1:] == ("priority",) else "INVALID_CHILDREN"
            raise Refused(refused.message, code, ("children", *refused.path[1:])) from None
        self.tasks.update({child.id: child for child in children})
        for done in (task, *self._twins(task)):
            done.state, done.output, done.progress = "SUCCEEDED", item.get("output"), 1.0
        for child in self.tasks.values():
            if "childrenDelaySeconds" in item and any(parent is task for parent, _ in child.links):
                child.run_after = max(child.run_after, self.now() + item["childrenDelaySeconds"])
        self._suspend(task.workgroup, item.get("workgroupDelaySeconds"))

    def _fail(self, lease: Lease, item: Json) -> None:
        check(item["error"], "error")
        for task in (lease.task, *self._twins(lease.task)):
            self._failed(task, item, lease.worker)
        if lease.task.workgroup:
            self._suspend(lease.task.workgroup, item.get("workgroupDelaySeconds"))

    def _failed(self, task: Stored, item: Json, worker: str) -> None:
        task.errors.append({"attempt": task.attempt, "error": item["error"], "workerId": worker})
        if item.get("keepAttempt"):
            task.remaining += 1
        else:
            task.failures += 1
        delay = item.get("retryDelaySeconds")
        if delay is None:
            steps = max(0, task.failures - 1)
            delay = min(task.retry["maxDelaySeconds"], task.retry["delaySeconds"] * task.retry["backoff"] ** steps)
            delay = 0.0 if item.get("keepAttempt") else delay
        if not task.workgroup:
            delay = max(delay, item.get("workgroupDelaySeconds", 0.0))
        task.run_after = self.now() + delay
        over = item.get("discard") or task.remaining <= 0
        task.state = "FAILED" if over else "SCHEDULED" if delay > 0 else "READY"

    def _release(self, lease: Lease, item: Json) -> None:
        for task in (lease.task, *self._twins(lease.task)):
            task.state, task.attempt = "READY", task.attempt - 1
        lease.task.remaining += 1

    def _suspend(self, workgroup: str | None, seconds: float | None) -> None:
        if workgroup and seconds:
            self._suspended[workgroup] = max(self._suspended.get(workgroup, 0.0), self.now() + seconds)

    async def _extend(self, given: Json) -> Json:
        for said in given.get("progress", ()):
            if lease := self.leases.get(said["lease"]):
                lease.task.progress, lease.task.message = said.get("fraction"), said.get("message")
        errors = [
            {"index": n, "lease": id, "code": self._over.get(id, ("", "UNKNOWN"))[1], "message": "", "path": None}
            for n, id in enumerate(given["leases"])
            if id not in self.leases
        ]
        standing = [self.leases[id] for id in given["leases"] if id in self.leases]
        suspended = [lease.id for lease in standing if self.held(lease.task)]
        return {"expiresAt": None, "suspended": suspended, "errors": errors}

    # -- reading

    async def _events(self, after: str | None, wait: float) -> Json:
        if after is not None and int(after) == self._version:
            await self._wait(wait)
        return {"cursor": str(self._version), "events": []}

    async def _group(self, id: str) -> Json | None:
        if id not in self.groups:
            return None
        tasks = [task for task in self.tasks.values() if task.group_id == id]
        states = {state: sum(task.state == state for task in tasks) for state in {task.state for task in tasks}}
        done = sum(states.get(state, 0) for state in ("SUCCEEDED", "CANCELLED"))
        counts = [{"state": state, "count": count} for state, count in states.items()]
        progress = {"fraction": done / max(1, len(tasks)), "total": len(tasks), "counts": counts}
        finished = "now" if tasks and done == len(tasks) else None
        given = self.groups[id]
        return {
            "id": id,
            "name": given["name"],
            "isPaused": given["isPaused"],
            "finishedAt": finished,
            "progress": progress,
        }

    async def _task(self, id: str) -> Json | None:
        return told(self.tasks[id]) if id in self.tasks else None

    async def _failed_tasks(self, id: str) -> Json:
        return {"nodes": [told(t) for t in self.tasks.values() if t.group_id == id and t.state == "FAILED"]}


def told(task: Stored) -> Json:
    names = ("id", "name", "state", "output", "attempt", "errors")
    return {name: getattr(task, name) for name in names}


def below(task: Stored, other: Stored) -> bool:
    """Whether it waits for the other, at any distance."""
    seen: set[int] = set()
    rest = [parent for parent, _ in task.links]
    while rest:
        here = rest.pop()
        if here is other:
            return True
        if id(here) not in seen:
            seen.add(id(here))
            rest += [parent for parent, _ in here.links]
    return False


def check(value: Any, name: str) -> None:
    """Raises Refused for what PostgreSQL cannot keep."""
    if "\\u0000" in json.dumps(value):
        raise Refused(f"{name} holds U+0000, which cannot be kept", "BAD_INPUT", (name,))
