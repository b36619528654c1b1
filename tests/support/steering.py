"""What people do to tasks and groups, in few words."""

from __future__ import annotations

from typing import Any

from db.clock import fold_events
from db.progress import fold_groups
from tests.support.crew import Crew

DELETE = "mutation($id: ID!) { deleteTask(id: $id) { deletedTasks } }"
DELETE_GROUP = "mutation($id: ID!) { deleteTaskGroup(id: $id) { deletedTasks } }"
PLACES = {
    "task": "no",
    "ready": "no",
    "parked": "no",
    "scheduled": "no",
    "blocked": "no",
    "merged": "no",
    "done": "no",
    "failed": "no",
    "error": "no",
    "progress": "no",
    "keyed": "no",
    "feeder": "$1 in (no, join_no)",
    "edge": "$1 in (parent, child)",
    "lease": "nos @> array[$1]",
    "runner": "no",
    "pause": "kind = 1 and ref = $1",
}


async def delete(crew: Crew, id: str) -> int:
    return int((await crew.ask(DELETE, id=id))["deleteTask"]["deletedTasks"])


async def delete_group(crew: Crew, id: str) -> int:
    return int((await crew.ask(DELETE_GROUP, id=id))["deleteTaskGroup"]["deletedTasks"])


async def everything_left(crew: Crew, no: int) -> dict[str, int]:
    """Tables that still hold something of a task, and how many rows."""
    found = {}
    for table, where in PLACES.items():
        condition = f"{where} = $1" if where == "no" else where
        rows = await crew.sql(
            f"select count(*)::int as n from {table} where {condition.replace('$1', '$1::bigint')}", no
        )
        if rows[0]["n"]:
            found[table] = rows[0]["n"]
    return found


async def progress(crew: Crew, group_id: str) -> tuple[dict[str, int], float]:
    """How many tasks stand in each state, and the fraction."""
    query = "query($id: ID!) { taskGroup(id: $id) { progress { fraction total counts { state count } } } }"
    shown: dict[str, Any] = (await crew.ask(query, id=group_id))["taskGroup"]["progress"]
    counts = {c["state"]: c["count"] for c in shown["counts"]}
    assert sum(counts.values()) == shown["total"]
    return counts, shown["fraction"]


async def fold(crew: Crew) -> None:
    """What people count is folded from events, up to now."""
    core = crew.services.core
    await fold_events(core.pool, core.ns)
    await fold_groups(core.pool, core.ns)


RESET = "mutation($ids: [ID!]!) { resetTasks(ids: $ids) { affected tasks { name state } } }"
RESET_GROUP = "mutation($id: ID!) { resetTaskGroup(id: $id) { affected taskGroup { id finishedAt } } }"


async def reset(crew: Crew, *ids: str) -> dict[str, str]:
    """Name → state of those that it changed, as they are after it."""
    answer = (await crew.ask(RESET, ids=list(ids)))["resetTasks"]
    assert answer["affected"] == len(answer["tasks"])
    return {task["name"]: task["state"] for task in answer["tasks"]}


async def reset_group(crew: Crew, id: str) -> int:
    answer = (await crew.ask(RESET_GROUP, id=id))["resetTaskGroup"]
    assert answer["taskGroup"] == {"id": id, "finishedAt": None}
    return int(answer["affected"])


UPDATE = "mutation($input: UpdateTaskInput!) { updateTask(input: $input) { task { %s } } }"


async def update(crew: Crew, id: str, fields: str = "state", **changes: Any) -> dict[str, Any]:
    answer = await crew.ask(UPDATE % fields, input={"id": id, **changes})
    return dict(answer["updateTask"]["task"])


DELETE_EXPIRED = (
    "mutation($days: Float!, $unfinished: Boolean) "
    "{ deleteExpiredTaskGroups(olderThanDays: $days, unfinished: $unfinished) { deletedTasks } }"
)


async def delete_expired(crew: Crew, days: float, *, unfinished: bool | None = None) -> int:
    answer = await crew.ask(DELETE_EXPIRED, days=days, unfinished=unfinished)
    return int(answer["deleteExpiredTaskGroups"]["deletedTasks"])
