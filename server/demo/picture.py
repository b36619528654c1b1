"""What the terminal shows: each campaign's DAG drawn in lanes, and the workgroups with what they wait for.

✔   create_campaign
├─┐
✔ │ create_adset 1      A lane is a link on its way down to a child. A node stands in its leftmost lane;
│ ✔ create_adset 2      several children fork it, several parents join it, and each node comes once.
├─┘
○   verify_assets
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]

GROUP_FIELDS = """
fragment Drawn on TaskGroup {
  id name createdAt finishedAt
  progress { fraction }
  graph {
    nodes { id name state attempt heldBy notBefore progress }
    edges { parentId childId waitFor isAdopted }
  }
}
"""
LOOKS: Mapping[str, tuple[str, str]] = {
    "BLOCKED": ("○", "bright_black"),
    "SCHEDULED": ("◷", "yellow"),
    "READY": ("◇", "cyan"),
    "RUNNING": ("▶", "bold blue"),
    "MERGED": ("≡", "magenta"),
    "SUCCEEDED": ("✔", "green"),
    "FAILED": ("✘", "bold red"),
    "CANCELLED": ("⊘", "bright_black strike"),
}
HELD_LOOK = ("‖", "yellow")
LINE_STYLE = "bright_black"


@dataclass(frozen=True)
class Row:
    """One line of a drawing: the lanes, and the node that stands in one of them (`at`), if any."""

    lanes: str
    node: Json | None = None
    at: int = 0


def rows(nodes: Sequence[Json], edges: Iterable[Json]) -> list[Row]:
    """The drawing, from the roots down; every node once, below all its parents."""
    children: dict[str, list[str]] = defaultdict(list)
    parents: dict[str, set[str]] = defaultdict(set)
    for edge in _to_draw(list(edges)):
        children[edge["parentId"]].append(edge["childId"])
        parents[edge["childId"]].add(edge["parentId"])
    by_id = {node["id"]: node for node in nodes}
    lanes: list[str | None] = []
    drawn: list[Row] = []
    for id in _downwards(by_id, children, parents):
        mine = [index for index, child in enumerate(lanes) if child == id] or [_free(lanes, 0)]
        if len(mine) > 1:
            drawn.append(Row(_fan(lanes, mine, "┴┘")))
        for index in mine[1:]:
            lanes[index] = None
        lanes[mine[0]] = id
        drawn.append(Row(_upright(lanes), by_id[id], mine[0]))
        lanes[mine[0]] = None
        taken = []
        for child in children[id]:
            taken.append(_free(lanes, mine[0]))
            lanes[taken[-1]] = child
        if len(taken) > 1:
            drawn.append(Row(_fan(lanes, taken, "┬┐")))
        while lanes and lanes[-1] is None:
            lanes.pop()
    return drawn


def _to_draw(edges: Sequence[Json]) -> list[Json]:
    """All links but those into a join from tasks with another child that links to the same join.

    A join (SUBTREE) has a link from each task of the tree that it waits for, and so hangs from the tree's tips.
    """
    parents: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        parents[edge["childId"]].add(edge["parentId"])
    joins = {edge["childId"] for edge in edges if edge["waitFor"] == "SUBTREE"}
    passed_on = {(edge["parentId"], join) for edge in edges for join in joins if edge["childId"] in parents[join]}
    return [edge for edge in edges if (edge["parentId"], edge["childId"]) not in passed_on]


def _downwards(
    by_id: Mapping[str, Json], children: Mapping[str, list[str]], parents: Mapping[str, set[str]]
) -> list[str]:
    """Ids with parents before children, each branch in one piece as far as its joins allow."""
    waiting = {id: len(parents.get(id, ())) for id in by_id}
    stack = [id for id in reversed(list(by_id)) if not waiting[id]]
    order = []
    while stack:
        order.append(id := stack.pop())
        for child in reversed(children[id]):
            waiting[child] -= 1
            if not waiting[child]:
                stack.append(child)
    return order


def _free(lanes: list[str | None], start: int) -> int:
    """The first free lane from `start` on; a new one if there is none."""
    for index in range(start, len(lanes)):
        if lanes[index] is None:
            return index
    lanes.append(None)
    return len(lanes) - 1


def _upright(lanes: Sequence[str | None]) -> str:
    return " ".join("│" if lane else " " for lane in lanes)


def _fan(lanes: Sequence[str | None], ends: Sequence[int], corners: str) -> str:
    """The line that ties the lanes in `ends` to the first of them; `corners` are its inner and its last one."""
    line = list(_upright(lanes))
    line[2 * ends[0] : 2 * ends[-1]] = ["─" if char == " " else "┼" for char in line[2 * ends[0] : 2 * ends[-1]]]
    for index in ends[1:-1]:
        line[2 * index] = corners[0]
    line[2 * ends[0]], line[2 * ends[-1]] = "├", corners[1]
    return "".join(line)


def seconds_until(instant: str | None, now: str) -> float:
    """0 once it is past, or when there is none."""
    if instant is None:
        return 0
    return max(0.0, (datetime.fromisoformat(instant) - datetime.fromisoformat(now)).total_seconds())


def dag(nodes: Sequence[Json], edges: Iterable[Json], now: str) -> Text:
    drawn = rows(nodes, edges)
    lanes = max((len(row.lanes) for row in drawn), default=0)
    names = max((len(row.node["name"]) for row in drawn if row.node), default=0)
    lines = []
    for row in drawn:
        line = Text(row.lanes.ljust(lanes), style=LINE_STYLE, no_wrap=True)
        if row.node:
            symbol, style = _look(row.node)
            line = Text.assemble(
                (row.lanes[: 2 * row.at], LINE_STYLE),
                (symbol, style),
                (row.lanes[2 * row.at + 1 :].ljust(lanes - 2 * row.at - 1), LINE_STYLE),
                f" {row.node['name']:{names}} ",
                (f"{row.node['state']:9}", style),
                (_remarks(row.node, now), "yellow"),
                no_wrap=True,
            )
        lines.append(line)
    return Text("\n", no_wrap=True).join(lines)


def _look(node: Json) -> tuple[str, str]:
    return HELD_LOOK if node["heldBy"] and node["state"] == "READY" else LOOKS.get(node["state"], ("?", ""))


def _remarks(node: Json, now: str) -> str:
    remarks = [f"×{node['attempt']}"] if node["attempt"] > 1 else []
    if node["state"] == "RUNNING" and node["progress"]:
        remarks.append(f"{node['progress']:.0%}")
    if node["state"] in ("SCHEDULED", "READY") and (wait := seconds_until(node["notBefore"], now)):
        remarks.append(f"{wait:.1f}s")
    return "".join(f" {remark}" for remark in remarks)


def campaign(group: Json, now: str) -> Group:
    """One group: its progress, and its DAG."""
    fraction = group["progress"]["fraction"]
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(ratio=1)
    bar.add_column(justify="right", width=4)
    bar.add_row(ProgressBar(total=1, completed=fraction), f"{fraction:.0%}")
    drawing = dag(group["graph"]["nodes"], group["graph"]["edges"], now)
    return Group(Rule(Text(group["name"], "bold"), align="left", style=LINE_STYLE), bar, drawing)


def workgroup(name: str, found: Json | None, now: str) -> Text:
    """One line: whether it goes on, or how long it still waits, and why."""
    wait = seconds_until(found["suspendedUntil"], now) if found else 0
    if not found or not wait:
        return Text.assemble((f"  {name}", "bold"), (" runs freely", "green"))
    why = f": {found['reason']}" if found["reason"] else ""
    return Text.assemble(
        (f"‖ {name}", "bold yellow"),
        (f" suspended, {wait:.1f} s to go{why}", "yellow"),
        no_wrap=True,
        overflow="ellipsis",
    )


def picture(groups: Sequence[Json], workgroups: Mapping[str, Json | None], now: str, *, width: int) -> RenderableType:
    """All of it: campaigns side by side where there is room for two."""
    columns = 2 if width >= 80 else 1
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in range(columns):
        grid.add_column(ratio=1)
    panels = [campaign(group, now) for group in groups]
    for start in range(0, len(panels), columns):
        grid.add_row(*panels[start : start + columns])
    return Group(grid, *(workgroup(name, found, now) for name, found in workgroups.items()))
