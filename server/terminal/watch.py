"""`crew watch`: a group's progress and DAG, live, until nothing in it goes on by itself."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.live import Live

from server.terminal import options, output
from server.terminal.changes import Changes
from server.terminal.client import Away, Client, Refused, told
from server.terminal.dag import EDGE_FIELDS, NODE_FIELDS
from server.terminal.picture import View, picture
from server.terminal.text import Json, counts, percent, printable, short

DRAWN = 100
"""The most tasks that are drawn."""
QUERY = f"""
query Watch($id: ID!, $drawn: Int!, $isBig: Boolean!) {{
  server {{ now }}
  taskGroup(id: $id) {{
    id name isPaused createdAt finishedAt
    progress {{ fraction total counts {{ state count }} }}
    graph(limit: $drawn) {{ nodes {{ {NODE_FIELDS} }} edges {{ {EDGE_FIELDS} }} truncated }}
  }}
  running: tasks(filter: {{groupId: $id, states: [RUNNING]}}, first: 10) @include(if: $isBig) {{ nodes {{ {NODE_FIELDS} }} }}
}}
"""
FAILED = """
query Failed($id: ID!) {
  tasks(filter: {groupId: $id, states: [FAILED]}, first: 10) { nodes { id name errors(last: 1) { error } } }
}
"""
_LONGEST_PAUSE = 5.0


class Screen(Protocol):
    """Where what is seen is shown."""

    def show(self, view: View) -> None: ...
    def away(self, failure: Away) -> None: ...
    def close(self) -> None: ...


def watch(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Its full id.")],
    interval: Annotated[float, typer.Option("--interval", min=0.1, max=3600, help="Seconds between two looks.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per change, each on a line.")] = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Watch a group until nothing in it goes on by itself. Status 0 when it has finished, 1 when tasks failed.

    In a terminal this is a live picture, else one line a change. While the server is away it says so and goes on.
    """
    with output.session(url, api_key, as_json) as server:
        try:
            view = follow(server, group, screen(as_json), interval)
            if not as_json:
                conclude(server, view)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    if not view.is_finished():
        raise typer.Exit(1)


def follow(
    server: Client, group: str, shown: Screen, interval: float, pause: Callable[[float], None] = time.sleep
) -> View:
    """The last look, at a group at rest. Raises Away when the server is so at the first look, Refused at any."""
    view = look(server, group, DRAWN)
    with contextlib.closing(shown):
        while True:
            shown.show(view)
            if view.is_at_rest():
                return view
            view = _next(server, view, shown, interval, pause)


def _next(server: Client, view: View, shown: Screen, interval: float, pause: Callable[[float], None]) -> View:
    drawn = DRAWN if view.group["progress"]["total"] <= DRAWN else 0
    for tries in itertools.count():
        longer = min(_LONGEST_PAUSE, interval * 2 ** min(tries, 9)) * random.uniform(0.8, 1)
        pause(max(interval, longer))
        try:
            return look(server, view.group["id"], drawn)
        except Away as failure:
            shown.away(failure)
    raise AssertionError("unreachable")


def look(server: Client, group: str, drawn: int) -> View:
    data = server.ask(QUERY, id=group, drawn=drawn, isBig=not drawn)
    if data["taskGroup"] is None:
        raise Refused([{"code": "NOT_FOUND", "message": f"no task group {group}", "path": ["id"]}])
    return View(data["server"]["now"], data["taskGroup"], (data.get("running") or {}).get("nodes", ()))


def conclude(server: Client, view: View) -> None:
    """How it ended; and where it did not end well, which tasks failed, why, and what to do."""
    console = output.console()
    name, progress = printable(view.group["name"]), view.group["progress"]
    console.print(f"{name} {'has finished' if view.is_finished() else 'does not go on by itself'}:", end=" ")
    console.print(counts(progress["counts"], words=True))
    if view.is_finished():
        return
    for task in server.ask(FAILED, id=view.group["id"])["tasks"]["nodes"]:
        why = short(task["errors"][-1]["error"]) if task["errors"] else "no error was kept"
        console.print(f"✘ {printable(task['name'])} ({task['id']}): {why}", style="red", soft_wrap=True)
    if view.count("FAILED"):
        console.print(f"To try again: crew retry --group {view.group['id']}", soft_wrap=True)
    else:
        console.print("What is BLOCKED waits for a task that was cancelled.")


def screen(as_json: bool) -> Screen:
    if as_json:
        return JsonLines()
    console = output.console()
    return Picture(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class Picture:
    """Drawn anew at each look, as much as the terminal holds; whole at the end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.view: View | None = None
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def show(self, view: View) -> None:
        self.view = view
        self._draw()

    def away(self, failure: Away) -> None:
        self._draw(f"Trying again: {told(failure.errors[0])}")

    def _draw(self, note: str = "") -> None:
        if self.view is not None:
            self.live.start()
            drawn = picture(self.view, width=self.console.width, height=self.console.height, note=note)
            self.live.update(drawn, refresh=True)

    def close(self) -> None:
        self.live.stop()
        if self.view is not None:
            self.console.print(picture(self.view, width=self.console.width))


@dataclass
class _Seen:
    """What both kinds of lines compare: each task, and for a group that is too big the counts."""

    changes: Changes = field(default_factory=Changes)
    counts: Sequence[Json] | None = None
    is_away: bool = False

    def since(self, view: View) -> list[tuple[Json, str]] | None:
        """The tasks that changed; None when nothing did."""
        before, self.counts = self.counts, view.group["progress"]["counts"]
        changed = self.changes.since(() if view.is_truncated else view.group["graph"]["nodes"])
        was_away, self.is_away = self.is_away, False
        return changed if changed or was_away or before != self.counts else None

    def goes_away(self) -> bool:
        """Whether this is the first call that found it away."""
        was_away, self.is_away = self.is_away, True
        return not was_away


class Lines:
    """One line a change, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console, self.seen = console, _Seen()

    def show(self, view: View) -> None:
        changed = self.seen.since(view)
        if changed is not None:
            for line in self._lines(view, [words for _, words in changed]):
                self.console.print(f"{view.now[11:19]} {line}", soft_wrap=True)

    def _lines(self, view: View, changed: Sequence[str]) -> Iterator[str]:
        yield from changed
        progress = view.group["progress"]
        yield f"{printable(view.group['name'])} {percent(progress['fraction'])} {counts(progress['counts'])}".rstrip()

    def away(self, failure: Away) -> None:
        if self.seen.goes_away():
            self.console.print(f"Trying again: {told(failure.errors[0])}", soft_wrap=True)

    def close(self) -> None:
        pass


class JsonLines:
    """One JSON object a change: the group as it is, and the tasks that changed."""

    def __init__(self) -> None:
        self.seen = _Seen()

    def show(self, view: View) -> None:
        changed = self.seen.since(view)
        if changed is not None:
            group = {name: value for name, value in view.group.items() if name != "graph"}
            tasks = [task for task, _ in changed]
            output.write_json({"now": view.now, "group": group, "changed": tasks, "truncated": view.is_truncated})

    def away(self, failure: Away) -> None:
        if self.seen.goes_away():
            output.write_json({"errors": failure.errors})

    def close(self) -> None:
        pass
