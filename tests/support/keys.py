"""What tests of keys say often."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.support.crew import Crew

LOOK = "state attempt remainingAttempts mergedInto { id }"
K = {"name": "k", "key": "k"}
EAGER = {"delaySeconds": 0}
CANCEL = "mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }"
RETRY = "mutation($ids: [ID!]) { retryTasks(ids: $ids, attempts: 4) { affected } }"
PAUSE_TASKS = "mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }"
PAUSE_CHANNEL = 'mutation { pauseChannel(name: "c") { channel { isPaused } } }'
SUSPEND = 'mutation { suspendWorkgroup(name: "w", seconds: 1000) { workgroup { name } } }'


async def one(crew: Crew, **task: Any) -> str:
    """The id of a new task of key k, in a group of its own."""
    made = await crew.create({**K, **task})
    id: str = made["tasks"][0]["id"]
    return id


async def look(crew: Crew, *ids: str) -> list[tuple[Any, ...]]:
    """Of each task: its state, the attempts started, those left, and the id of the one it rides with."""
    shown = [await crew.task(id, LOOK) for id in ids]
    return [
        (t["state"], t["attempt"], t["remainingAttempts"], t["mergedInto"] and t["mergedInto"]["id"]) for t in shown
    ]


async def count(crew: Crew) -> int:
    n: int = (await crew.sql("select count(*)::int as n from task"))[0]["n"]
    return n


async def wait_of(crew: Crew, id: str) -> float:
    """Seconds until it can be handed out; 0 when it can be now."""
    end = (await crew.task(id, "notBefore"))["notBefore"]
    now = (await crew.sql("select now() as now"))[0]["now"]
    return (datetime.fromisoformat(end) - now).total_seconds() if end else 0.0


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [x["task"]["name"] for x in leases]


async def existing(crew: Crew, state: str, **more: Any) -> str:
    """The id of a task of key k that stands in this state. It is older than any twin that it needs for that."""
    if state == "BLOCKED":
        parent = {"name": "p", "ref": "p", "channel": "p"}
        id = (await crew.create(parent, {**K, "parents": [{"ref": "p"}], **more}))["tasks"][1]["id"]
    elif state == "SCHEDULED":
        id = await one(crew, delaySeconds=1000, **more)
    else:
        id = await one(crew, **more)
    if state == "MERGED":
        await one(crew, priority=1)
    if state in ("RUNNING", "MERGED", "SUCCEEDED", "FAILED"):
        (lease,) = await crew.claim()
        if state == "SUCCEEDED":
            await crew.complete(lease)
        elif state == "FAILED":
            await crew.fail(lease, discard=True)
    if state == "CANCELLED":
        await crew.ask(CANCEL, ids=[id])
    assert (await crew.task(id))["state"] == state
    return str(id)
