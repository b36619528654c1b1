"""How the lives of tests/weather/test_life_machine.py are told: to the API, to the database's clock, and to people."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import os
from typing import Any, get_args

from tests.support.life_things import Completion, Failure, Lease, Link, State, Task

ALL_FEATURES = frozenset(
    {"keys", "subtree", "on_parent_failure", "timeouts", "pause", "cancel", "delete", "reset", "update"}
)
NARROWED = os.environ.get("CREW_LIFE_FEATURES")
FEATURES = ALL_FEATURES if NARROWED is None else ALL_FEATURES & {*NARROWED.split(",")}
HOUR = 3600
MOST_TASKS, MOST_OPEN, MOST_GROUPS = 40, 10, 4
CHANNELS, WORKGROUPS, KEYS = ["c0", "c1"], ["w0", "w1"], ["k0", "k1"]
ALL_STATES = get_args(State)
HOLDS = ["TASK_PAUSED", "GROUP_PAUSED", "CHANNEL_PAUSED", "WORKGROUP_SUSPENDED"]
UNSETTLED = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "FAILED"]
OUTPUTS = [None, 0, "", False, {"a": [1, None]}, "ü"]


def with_feature(feature: str, fields: str) -> str:
    return fields if feature in FEATURES else ""


# -- how it is said in GraphQL ----------------------------------------------------------------------------------------

EVERYTHING = (
    "query($has: String!, $c0: String!, $c1: String!) { taskGroups(filter: {nameContains: $has}, first: 10) { nodes {"
    " id name progress { fraction total } %s graph(limit: 200) { nodes { id name state attempt remainingAttempts heldBy output"
    " errors { attempt } %s } edges { parentId childId %s } } } }"
    " c0: channel(name: $c0) { counts { state count } } c1: channel(name: $c1) { counts { state count } } }"
    % (
        with_feature("pause", "isPaused"),
        with_feature("keys", "mergedInto { id }"),
        with_feature("subtree", "waitFor isAdopted"),
    )
)
LEASES = "leases { id attempt parents { name state output } task { id name spawnedBy { name } parents { name } } }"
CLAIM = "mutation($next: ClaimTasksInput!) { claimTasks(input: $next) { %s } }" % LEASES
TURN = (
    "mutation($done: CompleteTasksInput!, $next: ClaimTasksInput!) { completeTasks(input: $done) { completed errors "
    "{ index code } } claimTasks(input: $next) { %s } }" % LEASES
)
CANCEL = (
    "mutation($ids: [ID!], $filter: TaskFilter, $descendants: Boolean) "
    "{ cancelTasks(ids: $ids, filter: $filter, descendants: $descendants) { affected } }"
)
RETRY = "mutation($ids: [ID!], $attempts: Int) { retryTasks(ids: $ids, attempts: $attempts) { affected } }"
RETRY_FOUND = (
    "mutation($filter: TaskFilter, $attempts: Int) { retryTasks(filter: $filter, attempts: $attempts) { affected } }"
)
DELETE = "mutation($id: ID!) { deleteTask(id: $id) { deletedTasks } }"
DELETE_GROUP = "mutation($id: ID!) { deleteTaskGroup(id: $id) { deletedTasks } }"
RESET = "mutation($ids: [ID!]!) { resetTasks(ids: $ids) { affected tasks { name state } } }"
UPDATE = "mutation($input: UpdateTaskInput!) { updateTask(input: $input) { task { name priority onParentFailure } } }"
PAUSE_TASKS = "mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }"
RESUME_TASKS = "mutation($ids: [ID!]!) { resumeTasks(ids: $ids) { affected } }"
PAUSE_GROUP = "mutation($id: ID!) { pauseTaskGroup(id: $id) { affected taskGroup { isPaused } } }"
RESUME_GROUP = "mutation($id: ID!) { resumeTaskGroup(id: $id) { affected taskGroup { isPaused } } }"
PAUSE_CHANNEL = "mutation($name: String!) { pauseChannel(name: $name) { channel { isPaused } } }"
RESUME_CHANNEL = "mutation($name: String!) { resumeChannel(name: $name) { channel { isPaused } } }"
SUSPEND = "mutation($name: String!) { suspendWorkgroup(name: $name, seconds: 3600) { workgroup { suspendedUntil } } }"
RESUME = "mutation($name: String!) { resumeWorkgroup(name: $name) { workgroup { suspendedUntil } } }"

# -- how time is moved in the database --------------------------------------------------------------------------------

NUMBERS = "array(select no from task where id = any($1::uuid[]))"
LEASE_IS_OVER = f"update lease set until = now() - interval '1 s' where nos && {NUMBERS}"
DEADLINE_IS_OVER = (
    "update lease set until = now() - interval '1 s', deadline = now() - interval '1 s' "
    f"where deadline is not null and nos && {NUMBERS}"
)
DELAY_IS_OVER = (
    f"with own as (update task set run_after = now() - interval '1 s' where no = any({NUMBERS}) and run_after > now()) "
    f"update scheduled set run_at = now() - interval '1 s' where no = any({NUMBERS})"
)
SUSPENSION_IS_OVER = (
    "update hold h set until = now() - interval '1 s' from workgroup w where w.workgroup = h.workgroup and w.name = $1"
)
STILL_ASIDE = (
    "select (select count(*) from hold join workgroup w using (ns, workgroup) where w.name = $1)::int + "
    "(select count(*) from parked p join workgroup w using (ns, workgroup) where w.name = $1 "
    "and to_jsonb(p)->>'paused' is distinct from 'true')::int as n"
)


# -- both sides in one form ---------------------------------------------------------------------------------------------


def shown_links(task: Task) -> list[Link]:
    """Whether a cancelled join goes on adopting is nobody's business."""
    return [link for link in task.links if not (link.adopted and task.state == "CANCELLED")]


def shown_by_api(read: dict[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    """What was read, in the form of `said_by_model`."""
    groups = read["taskGroups"]["nodes"]
    nodes = {node["id"]: node for group in groups for node in group["graph"]["nodes"]}
    shown: dict[str, dict[str, Any]] = {
        channel: {c["state"]: c["count"] for c in (read[channel] or {"counts": []})["counts"]} for channel in CHANNELS
    }
    for group in groups:
        name = group["name"].removeprefix(prefix)
        shown[name] = {**group["progress"], **{key: group[key] for key in group if key == "isPaused"}}
        for node in group["graph"]["nodes"]:
            facts = {key: node[key] for key in ("state", "attempt", "remainingAttempts", "heldBy", "output")}
            into = node.get("mergedInto")
            shown[node["name"]] = {**facts, "group": name, "errors": len(node["errors"]), "parents": []}
            shown[node["name"]]["mergedInto"] = into and nodes.get(into["id"], {"name": into["id"]})["name"]
        for edge in group["graph"]["edges"]:
            child, adopted = nodes[edge["childId"]], edge.get("isAdopted", False)
            link = (nodes[edge["parentId"]]["name"], edge.get("waitFor") == "SUBTREE", adopted)
            if not (adopted and child["state"] == "CANCELLED"):
                shown[child["name"]]["parents"].append(link)
    for facts in shown.values():
        if "parents" in facts:
            facts["parents"].sort()
    return shown


# -- steps as people read them ------------------------------------------------------------------------------------------


def described_lease(lease: Lease) -> str:
    return lease.task.name + (f" (its lease was {lease.end})" if lease.end else "")


def described_completion(item: Completion) -> str:
    words = [repr(item.output), *map(str, item.children)]
    words += ["delays its children"] * item.delays_children + ["suspends its workgroup"] * item.suspends
    return f"[{described_lease(item.lease)}: {' '.join(words)}]"


def described_failure(item: Failure) -> str:
    words = [{None: "its own delay", False: "no delay", True: "an hour's delay"}[item.retry_delay]]
    words += ["keep"] * item.keep + ["discard"] * item.discard + ["suspends its workgroup"] * item.suspends
    return f"[{described_lease(item.lease)}: {', '.join(words)}]"
