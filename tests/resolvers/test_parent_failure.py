"""What becomes of children whose parent fails or is cancelled: they wait (BLOCK), go with it (CANCEL), or run (RUN)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.crew import Crew
from tests.support.wait import end_delays, expire_leases, move_clock, until

CANCEL = "mutation($ids: [ID!], $d: Boolean) { cancelTasks(ids: $ids, descendants: $d) { affected } }"
RETRY = "mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }"
ENDS = ["discarded", "out of attempts", "lost", "timed out", "cancelled"]
"""How a parent can go wrong; FAILED after all but the last."""

Shape = dict[str, str]
"""Name → its parents, and its onParentFailure in capitals."""


class Graph:
    """A group of this shape. Each task has a channel of its own, so that each can be claimed by name."""

    def __init__(self, crew: Crew, made: dict[str, Any], tag: str) -> None:
        self.crew, self.tag = crew, tag
        self.group: str = made["taskGroup"]["id"]
        self.id: dict[str, str] = {t["name"]: t["id"] for t in made["tasks"]}

    def channel(self, name: str) -> str:
        return f"{self.tag}.{name}"

    async def claim(self, *names: str) -> list[dict[str, Any]]:
        return await self.crew.claim(len(names), tuple(self.channel(n) for n in names))

    async def end(self, name: str, how: str = "succeeded") -> None:
        crew = self.crew
        if how == "cancelled":
            await crew.ask(CANCEL, ids=[self.id[name]])
            return
        (lease,) = await self.claim(name)
        if how == "succeeded":
            await crew.complete(lease, output=name)
        elif how == "lost":
            await expire_leases(crew)
        elif how == "timed out":
            past = "now() - interval '1 s'"
            await move_clock(crew, f"update lease set until = {past}, deadline = {past} where deadline is not null")
            await until(lambda: self._has(name, "FAILED"))
        else:
            await crew.fail(lease, discard=how == "discarded")

    async def _has(self, name: str, state: str) -> bool:
        return (await self.states())[name] == state

    async def retry(self, name: str) -> None:
        assert await self.crew.ask(RETRY, ids=[self.id[name]]) == {"retryTasks": {"affected": 1}}

    async def states(self) -> dict[str, str]:
        return await self.crew.states(self.group)


async def graph(crew: Crew, shape: Shape, tag: str = "c", **more: Any) -> Graph:
    tasks = []
    for name, words in shape.items():
        task: dict[str, Any] = {"name": name, "ref": name, "channel": f"{tag}.{name}", **more}
        task["retry"] = {"maxAttempts": 1}
        task["timeoutSeconds"] = 1000
        task["parents"] = [{"ref": w} for w in words.split() if not w.isupper()]
        policies = [w for w in words.split() if w.isupper()]
        task["onParentFailure"] = policies[0] if policies else None
        tasks.append(task)
    return Graph(crew, await crew.create(*tasks), tag)


# -- down whole graphs --------------------------------------------------------------------------------------------------

BAD = "went wrong"
CASES: dict[str, tuple[Shape, list[tuple[str, str]], dict[str, str]]] = {
    "BLOCK waits": ({"a": "", "b": "a BLOCK"}, [("a", BAD)], {"b": "BLOCKED"}),
    "BLOCK is the default": ({"a": "", "b": "a"}, [("a", BAD)], {"b": "BLOCKED"}),
    "CANCEL goes": ({"a": "", "b": "a CANCEL"}, [("a", BAD)], {"b": "CANCELLED"}),
    "RUN runs": ({"a": "", "b": "a RUN"}, [("a", BAD)], {"b": "READY"}),
    "side by side": (
        {"a": "", "b": "a BLOCK", "c": "a CANCEL", "d": "a RUN"},
        [("a", BAD)],
        {"b": "BLOCKED", "c": "CANCELLED", "d": "READY"},
    ),
    "CANCEL all the way down": (
        {"a": "", "b": "a CANCEL", "c": "b CANCEL", "d": "c CANCEL", "e": "c d CANCEL"},
        [("a", BAD)],
        {"b": "CANCELLED", "c": "CANCELLED", "d": "CANCELLED", "e": "CANCELLED"},
    ),
    "CANCEL stops at BLOCK": (
        {"a": "", "b": "a CANCEL", "c": "b BLOCK", "d": "c CANCEL"},
        [("a", BAD)],
        {"b": "CANCELLED", "c": "BLOCKED", "d": "BLOCKED"},
    ),
    "CANCEL stops at RUN": (
        {"a": "", "b": "a CANCEL", "c": "b RUN", "d": "c CANCEL"},
        [("a", BAD)],
        {"b": "CANCELLED", "c": "READY", "d": "BLOCKED"},
    ),
    "BLOCK shields what is below": (
        {"a": "", "b": "a BLOCK", "c": "b CANCEL", "d": "b RUN"},
        [("a", BAD)],
        {"b": "BLOCKED", "c": "BLOCKED", "d": "BLOCKED"},
    ),
    "CANCEL does not wait for the others": (
        {"a": "", "o": "", "b": "a o CANCEL", "c": "o b CANCEL"},
        [("a", BAD)],
        {"o": "READY", "b": "CANCELLED", "c": "CANCELLED"},
    ),
    "CANCEL after another has succeeded": (
        {"a": "", "o": "", "b": "a o CANCEL"},
        [("o", "succeeded"), ("a", BAD)],
        {"o": "SUCCEEDED", "b": "CANCELLED"},
    ),
    "RUN waits for the others": (
        {"a": "", "o": "", "b": "a o RUN"},
        [("a", BAD)],
        {"o": "READY", "b": "BLOCKED"},
    ),
    "RUN when the last has ended": (
        {"a": "", "o": "", "b": "a o RUN"},
        [("a", BAD), ("o", "succeeded")],
        {"o": "SUCCEEDED", "b": "READY"},
    ),
    "RUN when the last goes wrong": (
        {"a": "", "o": "", "b": "a o RUN"},
        [("o", "succeeded"), ("a", BAD)],
        {"o": "SUCCEEDED", "b": "READY"},
    ),
    "RUN when all went wrong": (
        {"a": "", "o": "", "b": "a o RUN"},
        [("o", "discarded"), ("a", BAD)],
        {"o": "FAILED", "b": "READY"},
    ),
    "a diamond of CANCEL": (
        {"a": "", "b": "a CANCEL", "c": "a CANCEL", "d": "b c CANCEL"},
        [("a", BAD)],
        {"b": "CANCELLED", "c": "CANCELLED", "d": "CANCELLED"},
    ),
    "a diamond that ends in RUN": (
        {"a": "", "b": "a CANCEL", "c": "a CANCEL", "d": "b c RUN", "e": "d a RUN"},
        [("a", BAD)],
        {"b": "CANCELLED", "c": "CANCELLED", "d": "READY", "e": "BLOCKED"},
    ),
    "a diamond of CANCEL and RUN": (
        {"a": "", "b": "a CANCEL", "c": "a RUN", "d": "b c RUN", "e": "b c CANCEL", "f": "b c BLOCK"},
        [("a", BAD)],
        {"b": "CANCELLED", "c": "READY", "d": "BLOCKED", "e": "CANCELLED", "f": "BLOCKED"},
    ),
    "the open side of a diamond ends": (
        {"a": "", "b": "a CANCEL", "c": "a RUN", "d": "b c RUN"},
        [("a", BAD), ("c", "succeeded")],
        {"b": "CANCELLED", "c": "SUCCEEDED", "d": "READY"},
    ),
    "reached by a short way and a long one": (
        {"a": "", "b": "a CANCEL", "c": "b CANCEL", "d": "c a RUN", "e": "d a CANCEL"},
        [("a", BAD)],
        {"b": "CANCELLED", "c": "CANCELLED", "d": "READY", "e": "CANCELLED"},
    ),
    "what has ended is let be": (
        {"r": "", "a": "r", "done": "r CANCEL", "under": "done a RUN"},
        [("r", "succeeded"), ("done", "succeeded"), ("a", BAD)],
        {"r": "SUCCEEDED", "done": "SUCCEEDED", "under": "READY"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_each_child_does_what_its_policy_says_however_its_parent_went_wrong(
    crew: Crew, case: str, subtests: pytest.Subtests
) -> None:
    shape, steps, expected = CASES[case]
    for how in ENDS:
        with subtests.test(how):
            made = await graph(crew, shape, how)
            for name, step in steps:
                await made.end(name, how if step == BAD else step)
            wrong = "CANCELLED" if how == "cancelled" else "FAILED"
            assert await made.states() == {"a": wrong, **expected}
            ready = [n for n, s in expected.items() if s == "READY"]
            assert sorted(x["task"]["name"] for x in await made.claim(*shape)) == sorted(ready)


async def test_a_long_chain_is_cancelled_to_its_end_and_its_group_is_finished(crew: Crew) -> None:
    made = await graph(crew, {"0": "", **{str(n): f"{n - 1} CANCEL" for n in range(1, 300)}})
    await made.end("0", "discarded")
    query = "query($id: ID!) { taskGroup(id: $id) { finishedAt progress { counts { state count } } } }"
    group = (await crew.ask(query, id=made.group))["taskGroup"]
    assert group["progress"]["counts"] == [{"state": "FAILED", "count": 1}, {"state": "CANCELLED", "count": 299}]
    assert group["finishedAt"] is None
    await made.end("0", "cancelled")
    assert (await crew.ask(query, id=made.group))["taskGroup"]["finishedAt"] is not None


async def test_a_wide_fan_is_cancelled_and_run_at_once(crew: Crew) -> None:
    shape = {"a": "", **{f"c{n}": "a CANCEL" for n in range(150)}, **{f"r{n}": "a RUN" for n in range(150)}}
    made = await graph(crew, shape)
    await made.end("a", "out of attempts")
    states = list((await made.states()).values())
    assert (states.count("CANCELLED"), states.count("READY")) == (150, 150)


async def test_parents_that_go_wrong_in_one_call_count_once_each(crew: Crew) -> None:
    made = await graph(
        crew, {"a": "", "b": "", "o": "", "cancel": "a b o CANCEL", "run": "a b RUN", "wait": "a b o RUN"}
    )
    await crew.fail(*await made.claim("a", "b"), discard=True)
    found = await made.states()
    assert (found["cancel"], found["run"], found["wait"]) == ("CANCELLED", "READY", "BLOCKED")
    await made.end("o")
    assert (await made.states())["wait"] == "READY"


async def test_parents_that_go_wrong_and_succeed_at_the_same_time_strand_no_child(crew: Crew) -> None:
    for n in range(10):
        made = await graph(crew, {"a": "", "b": "", "c": "", "run": "a b c RUN", "cancel": "a b c CANCEL"}, str(n))
        a, b = await made.claim("a", "b")
        cancel = crew.ask(CANCEL, ids=[made.id["c"]])
        await asyncio.gather(crew.complete(a), crew.fail(b, discard=True), cancel)
        found = await made.states()
        assert (found["run"], found["cancel"]) == ("READY", "CANCELLED")


async def test_a_cancelled_child_looks_ended_and_a_run_one_sees_how_its_parents_ended(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "b": "", "c": "", "run": "a b c RUN", "cancel": "a CANCEL"})
    await made.end("a", "discarded")
    await made.end("b", "cancelled")
    await made.end("c")
    task = await crew.task(made.id["cancel"], "state attempt finishedAt notBefore heldBy errors { error } output")
    assert task.pop("finishedAt") is not None
    assert task == {
        "state": "CANCELLED",
        "attempt": 0,
        "notBefore": None,
        "heldBy": [],
        "errors": [],
        "output": None,
    }
    query = "mutation($i: ClaimTasksInput!) { claimTasks(input: $i) { leases { parents { name state output } } } }"
    given = {"workerId": "w", "channels": [made.channel("run")]}
    (lease,) = (await crew.ask(query, i=given))["claimTasks"]["leases"]
    assert lease["parents"] == [
        {"name": "a", "state": "FAILED", "output": None},
        {"name": "b", "state": "CANCELLED", "output": None},
        {"name": "c", "state": "SUCCEEDED", "output": "c"},
    ]


async def test_an_attempt_that_fails_and_will_be_tried_again_moves_no_child(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a", "retry": {"delaySeconds": 0}},
        *({"name": p, "channel": "d", "parents": [{"ref": "a"}], "onParentFailure": p} for p in ("CANCEL", "RUN")),
    )
    id = made["taskGroup"]["id"]
    await crew.fail(*await crew.claim())
    await crew.fail(*await crew.claim(), keepAttempt=True, retryDelaySeconds=100)
    assert await crew.states(id) == {"a": "SCHEDULED", "CANCEL": "BLOCKED", "RUN": "BLOCKED"}
    await end_delays(crew)
    await crew.claim()
    await expire_leases(crew)
    assert await crew.states(id) == {"a": "READY", "CANCEL": "BLOCKED", "RUN": "BLOCKED"}
    await crew.complete(*await crew.claim())
    assert await crew.states(id) == {"a": "SUCCEEDED", "CANCEL": "READY", "RUN": "READY"}


async def test_a_run_child_wakes_a_claim_that_waits(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "b": "a RUN"})
    waiting = asyncio.create_task(crew.claim(channels=(made.channel("b"),), waitSeconds=20))

    async def waits() -> bool:
        return crew.services.dispatcher.waiting == 1

    await until(waits)
    await made.end("a", "cancelled")
    (lease,) = await asyncio.wait_for(waiting, 5)
    assert lease["task"]["name"] == "b"


async def test_a_run_child_still_waits_for_its_own_time_and_its_workgroup(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a"},
        {"name": "later", "parents": [{"ref": "a"}], "onParentFailure": "RUN", "delaySeconds": 1000},
        {"name": "held", "parents": [{"ref": "a"}], "onParentFailure": "RUN", "workgroup": "w"},
    )
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { name } } }')
    await crew.fail(*await crew.claim(), discard=True)
    shown = [await crew.task(t["id"], "state heldBy") for t in made["tasks"][1:]]
    assert shown == [{"state": "SCHEDULED", "heldBy": []}, {"state": "READY", "heldBy": ["WORKGROUP_SUSPENDED"]}]
    assert await crew.claim(9) == []


async def test_the_twins_children_follow_what_becomes_of_the_twins(crew: Crew) -> None:
    for policy, expected in (("BLOCK", "BLOCKED"), ("CANCEL", "CANCELLED"), ("RUN", "READY")):
        child = {"name": "child", "channel": "d", "parents": [{"ref": "k"}], "onParentFailure": policy}
        pair = [await crew.create({"name": "k", "ref": "k", "key": policy}, child) for _ in range(2)]
        await crew.fail(*await crew.claim(9), discard=True)
        assert [await crew.states(m["taskGroup"]["id"]) for m in pair] == [{"k": "FAILED", "child": expected}] * 2


# -- at creation --------------------------------------------------------------------------------------------------------

MADE_UNDER: list[tuple[str, str, str, str]] = [
    # how the parent ended, policy, the child's state, and its state when another parent is open
    ("succeeded", "BLOCK", "READY", "BLOCKED"),
    ("succeeded", "CANCEL", "READY", "BLOCKED"),
    ("succeeded", "RUN", "READY", "BLOCKED"),
    ("discarded", "BLOCK", "BLOCKED", "BLOCKED"),
    ("discarded", "CANCEL", "CANCELLED", "CANCELLED"),
    ("discarded", "RUN", "READY", "BLOCKED"),
    ("lost", "CANCEL", "CANCELLED", "CANCELLED"),
    ("cancelled", "BLOCK", "BLOCKED", "BLOCKED"),
    ("cancelled", "CANCEL", "CANCELLED", "CANCELLED"),
    ("cancelled", "RUN", "READY", "BLOCKED"),
]


@pytest.mark.parametrize("by", ["a person", "a worker"])
@pytest.mark.parametrize(("how", "policy", "alone", "with_another"), MADE_UNDER)
async def test_a_child_made_under_a_parent_that_has_ended_does_at_once_what_its_policy_says(
    crew: Crew, how: str, policy: str, alone: str, with_another: str, by: str
) -> None:
    made = await graph(crew, {"a": "", "open": "", "spawner": ""})
    await made.end("a", how)
    parents = [{"id": made.id["a"]}], [{"id": made.id["open"]}, {"id": made.id["a"]}]
    children = [
        {"name": n, "channel": "d", "parents": p, "onParentFailure": policy}
        for n, p in zip(("alone", "with another"), parents, strict=True)
    ]
    if by == "a person":
        answered = [t["state"] for t in await crew.create_tasks(made.group, *children)]
        assert answered == [alone, with_another]
    else:
        (lease,) = await made.claim("spawner")
        assert (await crew.complete(lease, children=children))["completed"] == 1
    found = await made.states()
    assert (found["alone"], found["with another"]) == (alone, with_another)
    assert len(await crew.claim(9, ("d",))) == (alone == "READY")
    await made.end("open")
    after = "READY" if policy == "RUN" or how == "succeeded" else with_another
    assert (await made.states())["with another"] == after


async def test_what_hangs_under_a_child_cancelled_at_creation_follows_in_the_same_call(crew: Crew) -> None:
    made = await graph(crew, {"a": ""})
    await made.end("a", "discarded")
    tasks = await crew.create_tasks(
        made.group,
        {"name": "down", "parents": [{"ref": "cancel"}], "onParentFailure": "CANCEL", "ref": "down"},
        {"name": "run", "parents": [{"ref": "down"}], "onParentFailure": "RUN"},
        {"name": "cancel", "parents": [{"id": made.id["a"]}], "onParentFailure": "CANCEL", "ref": "cancel"},
        {"name": "block", "parents": [{"ref": "cancel"}], "ref": "block"},
        {"name": "below", "parents": [{"ref": "block"}], "onParentFailure": "CANCEL"},
        {"name": "free", "parents": []},
    )
    assert {t["name"]: t["state"] for t in tasks} == {
        "down": "CANCELLED",
        "run": "READY",
        "cancel": "CANCELLED",
        "block": "BLOCKED",
        "below": "BLOCKED",
        "free": "READY",
    }
    assert sorted(x["task"]["name"] for x in await crew.claim(9)) == ["free", "run"]
    assert (await crew.task(tasks[2]["id"], "finishedAt"))["finishedAt"] is not None


async def test_a_run_child_made_under_an_ended_parent_keeps_its_own_time(crew: Crew) -> None:
    made = await graph(crew, {"a": ""})
    await made.end("a", "cancelled")
    child = {"name": "c", "parents": [{"id": made.id["a"]}], "onParentFailure": "RUN", "delaySeconds": 1000}
    (task,) = await crew.create_tasks(made.group, child)
    assert task["state"] == "SCHEDULED"


async def test_the_policy_is_read_back_and_blocks_by_default(crew: Crew) -> None:
    policies = ["BLOCK", "CANCEL", "RUN"]
    made = await crew.create(
        *({"name": p, "onParentFailure": p} for p in policies),
        {"name": "BLOCK"},
        {"name": "BLOCK", "onParentFailure": None},
    )
    for task in made["tasks"]:
        assert (await crew.task(task["id"], "onParentFailure"))["onParentFailure"] == task["name"]


# -- retries and cancels ------------------------------------------------------------------------------------------------


async def test_a_retry_does_not_bring_back_what_was_cancelled(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "b": "a CANCEL", "c": "b CANCEL", "d": "a BLOCK"})
    await made.end("a", "discarded")
    await made.retry("a")
    assert await made.states() == {"a": "READY", "b": "CANCELLED", "c": "CANCELLED", "d": "BLOCKED"}
    await made.end("a")
    assert await made.states() == {"a": "SUCCEEDED", "b": "CANCELLED", "c": "CANCELLED", "d": "READY"}


async def test_a_retried_parent_is_waited_for_again_by_run_children_that_are_blocked(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "b": "", "blocked": "a b RUN", "ready": "a RUN"})
    for _ in range(3):
        await made.end("a", "discarded")
        assert (await made.states())["blocked"] == "BLOCKED"
        await made.retry("a")
    await made.end("b")
    assert await made.states() == {"a": "READY", "b": "SUCCEEDED", "blocked": "BLOCKED", "ready": "READY"}
    await made.end("a", "discarded")
    assert (await made.states())["blocked"] == "READY"
    await made.retry("a")
    await made.end("a")
    assert (await made.states())["blocked"] == "READY"
    leases = await made.claim("blocked", "ready")
    assert (await crew.complete(*leases))["completed"] == 2


async def test_a_child_made_while_its_parent_was_failed_is_moved_by_the_retry_alike(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "b": ""})
    await made.end("a", "discarded")
    parents = [{"id": made.id["a"]}, {"id": made.id["b"]}]
    await crew.create_tasks(
        made.group, *({"name": p, "parents": parents, "onParentFailure": p} for p in ("RUN", "BLOCK"))
    )
    await made.retry("a")
    await made.end("b")
    assert await made.states() == {"a": "READY", "b": "SUCCEEDED", "RUN": "BLOCKED", "BLOCK": "BLOCKED"}
    await made.end("a")
    assert await made.states() == {"a": "SUCCEEDED", "b": "SUCCEEDED", "RUN": "READY", "BLOCK": "READY"}


async def test_a_cancel_of_a_failed_parent_changes_nothing_more_below(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "o": "", "b": "a BLOCK", "c": "a CANCEL", "d": "a o RUN"})
    await made.end("a", "discarded")
    before = await made.states()
    await made.end("a", "cancelled")
    assert await made.states() == {**before, "a": "CANCELLED"}
    await made.end("o")
    assert (await made.states())["d"] == "READY"
    assert len(await made.claim("d")) == 1


async def test_a_cancel_with_descendants_takes_them_whatever_their_policy(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "b": "a BLOCK", "c": "a CANCEL", "d": "a RUN", "e": "b c d RUN", "o": ""})
    answer = await crew.ask(CANCEL, ids=[made.id["a"]], d=True)
    assert answer == {"cancelTasks": {"affected": 5}}
    assert await made.states() == {**dict.fromkeys("abcde", "CANCELLED"), "o": "READY"}
    assert [x["task"]["name"] for x in await made.claim(*"abcdeo")] == ["o"]


async def test_a_blocked_child_can_be_cancelled_itself_and_its_own_children_follow(crew: Crew) -> None:
    made = await graph(crew, {"a": "", "b": "a BLOCK", "c": "b CANCEL", "d": "b RUN"})
    await made.end("a", "discarded")
    await made.end("b", "cancelled")
    assert await made.states() == {"a": "FAILED", "b": "CANCELLED", "c": "CANCELLED", "d": "READY"}
    await made.retry("a")
    await made.end("a")
    assert (await made.states())["b"] == "CANCELLED"
