"""A DAG drawn in lanes, for `crew watch` and `crew demo`.

✔   create_campaign
├─┐
✔ │ create_adset 1      A lane is a link on its way down to a child. A node stands in its leftmost lane;
│ ✔ create_adset 2      several children fork it, several parents join it, and each node comes once.
├─┘
○   verify_assets
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from server.terminal.text import LOOKS, UNKNOWN_LOOK, Json, printable, seconds_until

NODE_FIELDS = "id name state attempt heldBy notBefore progress"
EDGE_FIELDS = "parentId childId waitFor isAdopted"
HELD_LOOK = ("‖", "yellow")
LINE_STYLE = "bright_black"
LONGEST_NAME = 60


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
    by_id = {node["id"]: node for node in nodes}
    for edge in _to_draw([edge for edge in edges if {edge["parentId"], edge["childId"]} <= by_id.keys()]):
        children[edge["parentId"]].append(edge["childId"])
        parents[edge["childId"]].add(edge["parentId"])
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


def dag(nodes: Sequence[Json], edges: Iterable[Json], now: str) -> Text:
    """The whole drawing."""
    return Text("\n", no_wrap=True).join(lines(rows(nodes, edges), now))


def without_lanes(drawn: Iterable[Row]) -> list[Row]:
    """The same nodes in the same order, for a drawing that is too wide."""
    return [Row("", row.node) for row in drawn if row.node]


def lines(drawn: Sequence[Row], now: str) -> list[Text]:
    """One for each row: its lanes, and its node's look, name, state and remarks."""
    lanes = max((len(row.lanes) for row in drawn), default=0)
    names = max((cell_len(printable(row.node["name"])) for row in drawn if row.node), default=0)
    names = min(names, LONGEST_NAME)
    return [_line(row, lanes, names, now) for row in drawn]


def _line(row: Row, lanes: int, names: int, now: str) -> Text:
    if row.node is None:
        return Text(row.lanes.ljust(lanes), style=LINE_STYLE, no_wrap=True)
    symbol, style = look(row.node)
    name = Text(printable(row.node["name"]))
    name.truncate(names, overflow="ellipsis", pad=True)
    return Text.assemble(
        (row.lanes[: 2 * row.at], LINE_STYLE),
        (symbol, style),
        (row.lanes[2 * row.at + 1 :].ljust(lanes - 2 * row.at - 1), LINE_STYLE),
        f" {name.plain} ",
        (f"{row.node['state']:9}", style),
        (_remarks(row.node, now), "yellow"),
        no_wrap=True,
    )


def look(node: Json) -> tuple[str, str]:
    """A task's symbol and style."""
    return HELD_LOOK if node["heldBy"] and node["state"] == "READY" else LOOKS.get(node["state"], UNKNOWN_LOOK)


def _remarks(node: Json, now: str) -> str:
    remarks = [f"×{node['attempt']}"] if node["attempt"] > 1 else []
    if node["state"] == "RUNNING" and node["progress"]:
        remarks.append(f"{node['progress']:.0%}")
    if node["state"] in ("SCHEDULED", "READY") and (wait := seconds_until(node["notBefore"], now)):
        remarks.append(f"{wait:.1f}s")
    return "".join(f" {remark}" for remark in remarks)
