"""Trees of tasks in few words, for tests of SUBTREE links."""

from __future__ import annotations

import uuid
from typing import Any

from tests.support.crew import Crew

CLAIM = (
    "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) "
    "{ leases { id parentCount parents { name state output } task { id name } } } }"
)
CANCEL = (
    "mutation($ids: [ID!], $descendants: Boolean) { cancelTasks(ids: $ids, descendants: $descendants) "
    "{ affected tasks { name } } }"
)
RETRY = "mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }"

Grows = dict[str, list[dict[str, Any]]]
"""What each task, by its name, makes when it is completed."""


def id_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def t(name: str, *parents: str, **more: Any) -> dict[str, Any]:
    """A task under these parents; `p*` is a SUBTREE link to p."""
    links = [{"id": id_of(p.removesuffix("*")), **({"waitFor": "SUBTREE"} if p.endswith("*") else {})} for p in parents]
    return {"id": id_of(name), "name": name, "channel": "c", "parents": links, **more}


async def group(crew: Crew, *tasks: dict[str, Any]) -> str:
    id: str = (await crew.create(*tasks))["taskGroup"]["id"]
    return id


async def work(crew: Crew, grows: Grows | None = None, limit: int = 1_000_000) -> dict[str, list[str]]:
    """Work off all there is, one by one, the oldest first. Names in the order of work → names of the parents in the lease."""
    seen: dict[str, list[str]] = {}
    for _ in range(limit):
        given = {"workerId": "w", "channels": ["c"]}
        leases = (await crew.ask(CLAIM, input=given))["claimTasks"]["leases"]
        if not leases:
            break
        (lease,) = leases
        name = lease["task"]["name"]
        assert name not in seen
        assert lease["parentCount"] == len(lease["parents"])
        assert all(p["output"] in (None, f"of {p['name']}") for p in lease["parents"])
        seen[name] = [p["name"] for p in lease["parents"]]
        done = await crew.complete(lease, output=f"of {name}", children=(grows or {}).get(name))
        assert done["errors"] == []
    return seen


async def parents(crew: Crew, name: str) -> list[str]:
    task = await crew.task(id_of(name), "parentCount parents { name }")
    assert task["parentCount"] == len(task["parents"])
    return [p["name"] for p in task["parents"]]


async def state(crew: Crew, name: str) -> str:
    found: str = (await crew.task(id_of(name), "state"))["state"]
    return found


async def links(crew: Crew, group_id: str) -> dict[tuple[str, str], tuple[str, bool]]:
    """(parent, child) → (waitFor, isAdopted), by their names."""
    query = (
        "query($id: ID!) { taskGroup(id: $id) { graph { nodes { id name } "
        "edges { parentId childId waitFor isAdopted } } } }"
    )
    graph = (await crew.ask(query, id=group_id))["taskGroup"]["graph"]
    name = {n["id"]: n["name"] for n in graph["nodes"]}
    found = {(name[e["parentId"]], name[e["childId"]]): (e["waitFor"], e["isAdopted"]) for e in graph["edges"]}
    assert len(found) == len(graph["edges"])
    return found
