"""What the terminal shows: each campaign's DAG drawn in lanes, and the workgroups with what they wait for."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from server.terminal.dag import EDGE_FIELDS, NODE_FIELDS, dag
from server.terminal.picture import heading
from server.terminal.text import Json, seconds_until

GROUP_FIELDS = f"""
fragment Drawn on TaskGroup {{
  id name createdAt finishedAt
  progress {{ fraction }}
  graph {{
    nodes {{ {NODE_FIELDS} }}
    edges {{ {EDGE_FIELDS} }}
  }}
}}
"""


def campaign(group: Json, now: str) -> Group:
    """One group: its progress, and its DAG."""
    drawing = dag(group["graph"]["nodes"], group["graph"]["edges"], now)
    return Group(heading(group), drawing)


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
