"""`crew groups` and `crew tasks`: lists, a table of them, or their JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from server.terminal import options, output
from server.terminal.client import Client
from server.terminal.picture import bar
from server.terminal.table import Column, table
from server.terminal.text import LOOKS, UNKNOWN_LOOK, Json, age, counts, percent, printable, seconds_until, short, wait

PAGE = 1000
GROUPS = """
query Groups($filter: TaskGroupFilter, $order: TaskGroupOrder, $first: Int, $after: String, $count: Boolean!) {
  server { now }
  list: taskGroups(filter: $filter, orderBy: $order, first: $first, after: $after) {
    nodes { id name isPaused createdAt finishedAt progress { fraction total counts { state count } } }
    pageInfo { hasNextPage endCursor }
    totalCount @include(if: $count)
    totalCountIsExact @include(if: $count)
  }
}
"""
TASKS = """
query Tasks($filter: TaskFilter, $order: TaskOrder, $first: Int, $after: String, $count: Boolean!) {
  server { now }
  list: tasks(filter: $filter, orderBy: $order, first: $first, after: $after) {
    nodes {
      id name group { id name } channel workgroup key state heldBy priority notBefore attempt remainingAttempts
      progress progressMessage workerId createdAt startedAt finishedAt errors(last: 1) { attempt error at }
    }
    pageInfo { hasNextPage endCursor }
    totalCount @include(if: $count)
    totalCountIsExact @include(if: $count)
  }
}
"""
GROUP_COLUMNS = (
    Column("id"),
    Column("name", least=8),
    Column("state", least=7),
    Column("progress"),
    Column("done", right=True, spare=1),
    Column("tasks", least=8, spare=2),
    Column("created", spare=3),
)
TASK_COLUMNS = (
    Column("id"),
    Column("name", least=10),
    Column("state"),
    Column("channel", least=7, spare=2),
    Column("workgroup", least=7, spare=4),
    Column("attempt", right=True, spare=3),
    Column("waits for", least=9, spare=1),
    Column("last error", least=10, spare=5),
)
_BAR = 10


@dataclass(frozen=True)
class Listed:
    """The first items of a list, how many it has in all, and the server's clock."""

    nodes: Sequence[dict[str, Any]]
    total: int
    is_exact: bool
    now: str

    def document(self, name: str) -> Json:
        return {name: self.nodes, "totalCount": self.total, "totalCountIsExact": self.is_exact}

    def note(self) -> str:
        """How many of how many."""
        more = "" if self.is_exact else "at least "
        return f"{len(self.nodes)} of {more}{self.total:,}. --limit shows more."


def groups(
    state: options.GroupStates = None,
    name: options.NameContains = None,
    created_after: options.CreatedAfter = None,
    created_before: options.CreatedBefore = None,
    order: options.OrderOfGroups = options.GroupOrder.CREATED_DESC,
    limit: options.Limit = 50,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List task groups and how far they are."""
    given = options.narrowed(states=state, nameContains=name, createdAfter=created_after, createdBefore=created_before)
    with output.session(url, api_key, as_json) as server:
        listed = read(server, GROUPS, given, order, limit)
        for group in listed.nodes:
            group["states"] = states_of(group)
        rows = [] if as_json else [group_row(group, listed.now) for group in listed.nodes]
        _show("groups", listed, GROUP_COLUMNS, rows, as_json)


def tasks(
    group: options.GroupId = None,
    state: options.States = None,
    channel: options.Channels = None,
    workgroup: options.Workgroups = None,
    worker: options.WorkerId = None,
    name: options.NameContains = None,
    key: options.TaskKey = None,
    created_after: options.CreatedAfter = None,
    created_before: options.CreatedBefore = None,
    order: options.OrderOfTasks = options.TaskOrder.CREATED_DESC,
    limit: options.Limit = 50,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List tasks: where each stands, what it waits for, and what went wrong last."""
    given = options.task_filter(group, state, channel, workgroup, worker, name, key, created_after, created_before)
    with output.session(url, api_key, as_json) as server:
        listed = read(server, TASKS, given, order, limit)
        rows = [] if as_json else [task_row(task, listed.now) for task in listed.nodes]
        _show("tasks", listed, TASK_COLUMNS, rows, as_json)


def read(server: Client, document: str, given: Json, order: str, limit: int) -> Listed:
    """The first `limit`, page by page; how many there are is asked with the first page alone."""
    nodes: list[dict[str, Any]] = []
    total, is_exact, now, after = 0, True, "", None
    while True:
        first = min(PAGE, limit - len(nodes))
        data = server.ask(document, filter=given, order=order, first=first, after=after, count=after is None)
        page, now = data["list"], data["server"]["now"]
        nodes += page["nodes"]
        if after is None:
            total, is_exact = page["totalCount"], page["totalCountIsExact"]
        after = page["pageInfo"]["endCursor"]
        if len(nodes) >= limit or not page["pageInfo"]["hasNextPage"] or after is None:
            return Listed(nodes, max(total, len(nodes)), is_exact, now)


def states_of(group: Json) -> list[str]:
    """The states under which `--state` finds a group."""
    failing = any(each["state"] == "FAILED" for each in group["progress"]["counts"])
    holds = {
        "OPEN": not group["finishedAt"],
        "FINISHED": group["finishedAt"],
        "FAILING": failing,
        "PAUSED": group["isPaused"],
    }
    return [state for state, is_so in holds.items() if is_so]


_GROUP_STYLES = {"FAILING": "bold red", "PAUSED": "yellow", "FINISHED": "green", "OPEN": "blue"}


def group_row(group: Json, now: str) -> list[RenderableType]:
    states = [state for state in group["states"] if state != "OPEN"] or ["OPEN"]
    style = next(style for state, style in _GROUP_STYLES.items() if state in states)
    fraction = group["progress"]["fraction"]
    return [
        Text(group["id"]),
        Text(printable(group["name"])),
        Text(" ".join(states), style),
        bar(fraction, _BAR),
        Text(percent(fraction)),
        counts(group["progress"]["counts"]),
        Text(age(group["createdAt"], now)),
    ]


def task_row(task: Json, now: str) -> list[RenderableType]:
    style = LOOKS.get(task["state"], UNKNOWN_LOOK)[1]
    return [
        Text(task["id"]),
        Text(printable(task["name"])),
        Text(task["state"], style),
        Text(printable(task["channel"])),
        Text(printable(task["workgroup"] or "")),
        Text(str(task["attempt"])),
        Text(waits_for(task, now), "yellow"),
        Text(short(task["errors"][-1]["error"]) if task["errors"] else "", "red"),
    ]


def waits_for(task: Json, now: str) -> str:
    """Its holds, and how long it is before it may be handed out."""
    left = seconds_until(task["notBefore"], now)
    return ", ".join([*task["heldBy"], *([f"in {wait(left)}"] if left else [])])


def _show(
    name: str, listed: Listed, columns: Sequence[Column], rows: Sequence[Sequence[RenderableType]], as_json: bool
) -> None:
    if as_json:
        output.write_json(listed.document(name))
        return
    console: Console = output.console()
    if not rows:
        console.print(f"No {name}.")
        return
    note = [Text(listed.note(), "bright_black")] if listed.total > len(rows) or not listed.is_exact else []
    console.print(Group(table(columns, rows, console), *note))
