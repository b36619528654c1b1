"""A plain worker on httpx: what a worker must do, without an SDK.

Each slot hands in its last result and asks for its next task in one document; the completion counts at once,
the claim may wait, and no result ever waits for another slot's long poll. Whatever the network loses is sent
again under the same claim id and lease ids.
"""

import asyncio
import itertools
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

import httpx

from server.demo.campaign import Json, ads_call, continuations, output

EXCHANGE = """
mutation Exchange($done: CompleteTasksInput!, $failed: FailTasksInput!, $back: ReleaseLeasesInput!,
    $claim: ClaimTasksInput!, $anyDone: Boolean!, $anyFailed: Boolean!, $anyBack: Boolean!, $more: Boolean!) {
  completeTasks(input: $done) @include(if: $anyDone) { errors { code message path } }
  failTasks(input: $failed) @include(if: $anyFailed) { errors { code message path } }
  releaseLeases(input: $back) @include(if: $anyBack) { errors { code message path } }
  claimTasks(input: $claim) @include(if: $more) {
    leases { id attempt task { name channel workgroup input } parents { output } }
  }
}
"""
EXTEND = "mutation Extend($input: ExtendLeasesInput!) { extendLeases(input: $input) { suspended errors { lease } } }"
GONE = {"LOST", "CANCELLED"}


class Refused(Exception):
    """The server answered that it will not take a call: repeating it would not help."""


@dataclass(frozen=True)
class Crew:
    """The GraphQL endpoint; `call` repeats through bad weather until it has an answer."""

    http: httpx.AsyncClient
    url: str

    async def call(self, document: str, variables: Json) -> Json:
        for tries in itertools.count():
            answer = await self._once(document, variables)
            if answer is not None:
                return answer
            await asyncio.sleep(random.uniform(0.5, 1) * min(5, 0.1 * 2 ** min(tries, 9)))
        raise AssertionError("unreachable")

    async def _once(self, document: str, variables: Json) -> Json | None:
        """The data, or None when it was the weather."""
        try:
            response = await self.http.post(self.url, json={"query": document, "variables": variables})
        except httpx.TransportError:
            return None
        if response.status_code >= 500 or response.status_code == 429:
            return None
        try:
            body: Json = response.json()
        except ValueError:
            raise Refused(f"{self.url} answered {response.status_code} and no JSON; is it a Crew server?") from None
        errors = body.get("errors") or []
        if any((error.get("extensions") or {}).get("code") == "UNAVAILABLE" for error in errors):
            return None
        if errors:
            raise Refused("; ".join(error["message"] for error in errors))
        return dict(body["data"])


@dataclass
class Suspensions:
    """Counts how often a token was shut out; refusals while it is out already belong to the same suspension."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    until: dict[str, float] = field(default_factory=dict)

    def note(self, token: str, seconds: float) -> None:
        now = time.monotonic()
        self.counts[token] += now >= self.until.get(token, now)
        self.until[token] = max(now + seconds, self.until.get(token, now))


@dataclass(frozen=True)
class Result:
    """How an attempt ended: at most one of the three; none when the lease was lost."""

    done: tuple[Json, ...] = ()
    failed: tuple[Json, ...] = ()
    back: tuple[str, ...] = ()


@dataclass
class Held:
    """A lease in hand. `work` is cancelled when the lease is lost or given back."""

    lease: Json
    work: asyncio.Task[Result] | None = None
    started: bool = False
    progress: float = 0.0
    given_back: bool = False

    def stop(self, *, give_back: bool) -> None:
        self.given_back = give_back
        if self.work:
            self.work.cancel()


@dataclass
class Worker:
    """Runs until `stopping` is set; then it finishes what it has started and hands it in."""

    id: str
    crew: Crew
    ads: httpx.AsyncClient
    channels: Sequence[str]
    stopping: asyncio.Event
    suspensions: Suspensions = field(default_factory=Suspensions)
    slots: int = 3
    wait_seconds: float = 5
    lease_seconds: float = 15
    held: dict[str, Held] = field(default_factory=dict)
    # One call at a time for each token: the others wait unstarted, and are given back when it is shut out.
    gates: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(self.beat())
            slots = [tasks.create_task(self.slot()) for _ in range(self.slots)]
            await asyncio.gather(*slots)
            beat.cancel()

    async def slot(self) -> None:
        result = Result()
        while not self.stopping.is_set():
            claim_id = str(uuid.uuid4())
            answer = await self.unless_stopping(self.exchange(result, claim_id, wait_seconds=self.wait_seconds))
            if answer is None:
                # The call may have been taken all the same: its repeat tells which lease came of it.
                answer = await self.exchange(result, claim_id)
                result = Result(back=tuple(lease["id"] for lease in answer["claimTasks"]["leases"]))
                break
            leases = answer["claimTasks"]["leases"]
            result = await self.hold(leases[0]) if leases else Result()
        if result != Result():
            await self.exchange(result, None)

    async def exchange(self, result: Result, claim_id: str | None, *, wait_seconds: float = 0) -> Json:
        """Hand in a result and, under a claim id, ask for one task. Safe to repeat with the same arguments."""
        more = claim_id is not None
        done, failed, back = list(result.done), list(result.failed), list(result.back)
        claim = {
            "workerId": self.id,
            "channels": list(self.channels),
            "limit": 1,
            "leaseSeconds": self.lease_seconds,
            "waitSeconds": wait_seconds,
            "claimId": claim_id,
        }
        inputs = {"done": {"results": done}, "failed": {"failures": failed}, "back": {"leases": back}, "claim": claim}
        flags = {"anyDone": bool(done), "anyFailed": bool(failed), "anyBack": bool(back), "more": more}
        answer = await self.crew.call(EXCHANGE, inputs | flags)
        for name in ("completeTasks", "failTasks", "releaseLeases"):
            for error in (answer.get(name) or {}).get("errors", ()):
                if error["code"] not in GONE:
                    raise Refused(f"{name}: {error['message']} ({error['code']} at {error['path']})")
        return answer

    async def hold(self, lease: Json) -> Result:
        held = self.held[lease["id"]] = Held(lease)
        held.work = asyncio.create_task(self.work(held))
        try:
            await asyncio.wait({held.work})
            if held.work.cancelled():
                return Result(back=(lease["id"],)) if held.given_back else Result()
            return held.work.result()
        finally:
            held.work.cancel()
            del self.held[lease["id"]]

    async def work(self, held: Held) -> Result:
        lease, task = held.lease, held.lease["task"]
        parents = [parent["output"] for parent in lease["parents"]]
        async with self.gates[task["workgroup"]]:
            held.started = True
            call = ads_call(task["channel"], task["input"], parents)
            held.progress = 0.5
            try:
                headers = {"Authorization": f"Bearer {call.token}"}
                response = await self.ads.put(call.path, json=call.body, headers=headers)
            except httpx.TransportError as error:
                return Result(failed=({"lease": lease["id"], "error": f"{type(error).__name__}: {error}"},))
            if response.status_code == 429:
                self.shut_out(task["workgroup"], float(response.headers["Retry-After"]))
        return self.verdict(lease, response, parents)

    def shut_out(self, token: str, seconds: float) -> None:
        self.suspensions.note(token, seconds)
        for other in self.held.values():
            if other.lease["task"]["workgroup"] == token and not other.started:
                other.stop(give_back=True)

    def verdict(self, lease: Json, response: httpx.Response, parents: Sequence[Json]) -> Result:
        status, task = response.status_code, lease["task"]
        if status == 200:
            done: Json = {"lease": lease["id"], "output": output(task["channel"], response.json()["id"], parents)}
            if children := continuations(task["channel"], task["input"]):
                done["children"] = children
            return Result(done=(done,))
        failure: Json = {"lease": lease["id"], "error": {"status": status} | response.json()}
        if status == 429:
            # It was the weather, not the task: the attempt is not counted, and the whole token waits.
            failure |= {"workgroupDelaySeconds": float(response.headers["Retry-After"]), "keepAttempt": True}
        elif status < 500:
            failure["discard"] = True
        return Result(failed=(failure,))

    async def beat(self) -> None:
        """Prolong every lease each third of its time; hear which are lost and which may go back."""
        while True:
            await asyncio.sleep(self.lease_seconds / 3)
            if not self.held:
                continue
            progress = [{"lease": lease, "fraction": held.progress} for lease, held in self.held.items()]
            wanted = {"leases": list(self.held), "leaseSeconds": self.lease_seconds, "progress": progress}
            answer = (await self.crew.call(EXTEND, {"input": wanted}))["extendLeases"]
            for lost in answer["errors"]:
                if held := self.held.get(lost["lease"]):
                    held.stop(give_back=False)
            for lease in answer["suspended"]:
                if (held := self.held.get(lease)) and not held.started:
                    held.stop(give_back=True)

    async def unless_stopping(self, call: Awaitable[Json]) -> Json | None:
        request, stop = asyncio.ensure_future(call), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({request, stop}, return_when=asyncio.FIRST_COMPLETED)
            return request.result() if request.done() else None
        finally:
            request.cancel()
            stop.cancel()
            await asyncio.gather(request, stop, return_exceptions=True)
