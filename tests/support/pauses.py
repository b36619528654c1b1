"""What tests of pauses say often."""

from __future__ import annotations

from typing import Any

from tests.support.crew import Crew
from tests.support.wait import until

TASK, GROUP, CHANNEL, WORKGROUP = HOLDS = ("TASK_PAUSED", "GROUP_PAUSED", "CHANNEL_PAUSED", "WORKGROUP_SUSPENDED")
"""In the order in which heldBy lists them."""
PAUSES = HOLDS[:3]
VERBS: dict[str, tuple[str, str, str]] = {
    TASK: ("pauseTasks(ids: [$x]) { affected }", "resumeTasks(ids: [$x]) { affected }", "ID!"),
    GROUP: (
        "pauseTaskGroup(id: $x) { affected taskGroup { id isPaused } }",
        "resumeTaskGroup(id: $x) { affected taskGroup { id isPaused } }",
        "ID!",
    ),
    CHANNEL: (
        "pauseChannel(name: $x) { channel { name isPaused } }",
        "resumeChannel(name: $x) { channel { name isPaused } }",
        "String!",
    ),
    WORKGROUP: (
        "suspendWorkgroup(name: $x, seconds: 1000) { workgroup { name } }",
        "resumeWorkgroup(name: $x) { workgroup { name } }",
        "String!",
    ),
}
TASKS = "mutation($ids: [ID!]!) { %sTasks(ids: $ids) { affected tasks { id name state heldBy } } }"


async def hold(crew: Crew, kind: str, ref: str) -> dict[str, Any]:
    """The payload of the verb that holds it."""
    call, _, type_ = VERBS[kind]
    (payload,) = (await crew.ask(f"mutation($x: {type_}) {{ {call} }}", x=ref)).values()
    return dict(payload)


async def let_go(crew: Crew, kind: str, ref: str) -> dict[str, Any]:
    _, call, type_ = VERBS[kind]
    (payload,) = (await crew.ask(f"mutation($x: {type_}) {{ {call} }}", x=ref)).values()
    return dict(payload)


async def tasks(crew: Crew, verb: str, *ids: str) -> dict[str, Any]:
    (payload,) = (await crew.ask(TASKS.replace("%s", verb), ids=list(ids))).values()
    return dict(payload)


async def one(crew: Crew, **task: Any) -> dict[str, str]:
    """A new task of channel c and workgroup w: what each kind of hold names, to hold it."""
    made = await crew.create({"name": "t", "workgroup": "w", **task})
    return {TASK: made["tasks"][0]["id"], GROUP: made["taskGroup"]["id"], CHANNEL: "c", WORKGROUP: "w"}


async def shown(crew: Crew, id: str) -> tuple[str, list[str]]:
    task = await crew.task(id, "state heldBy")
    return task["state"], task["heldBy"]


async def aside(crew: Crew, n: int = 1) -> None:
    """Wait until the server has moved so many held tasks out of the claims' way."""

    async def moved() -> bool:
        rows = await crew.sql("select count(*)::int as n from parked")
        return bool(rows[0]["n"] >= n)

    await until(moved)


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [x["task"]["name"] for x in leases]
