"""`crew watch`: to the end, with failures, with the server away, and out of it by Ctrl-C."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from rich.console import Console

from server.terminal import watch
from server.terminal.client import Client, Refused
from server.terminal.dag import Row
from server.terminal.picture import View, bar, picture, window
from server.terminal.watch import JsonLines, Lines, Picture, Screen, follow
from tests.support.drawing import NOW, link, node, text
from tests.support.process import ROOT, environment
from tests.support.terminal import Terminal

Json = dict[str, Any]
Step = Callable[[], Awaitable[Any]]
TWO = ({"ref": "a", "name": "first"}, {"name": "second", "parents": [{"ref": "a"}]})


class Weather(httpx.HTTPTransport):
    """The network; while `down` nothing gets through."""

    down = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("Connection refused")
        return super().handle_request(request)


async def followed(terminal: Terminal, group: str, shown: Screen, *steps: Step, weather: Weather | None = None) -> View:
    """Watches to the end; between one look and the next the next step is done."""
    loop, left = asyncio.get_running_loop(), list(steps)

    async def next_step() -> None:
        await left.pop(0)()

    def pause(_: float) -> None:
        asyncio.run_coroutine_threadsafe(next_step(), loop).result(30)

    headers = {"content-type": "application/json"}
    with httpx.Client(transport=weather, headers=headers, timeout=30) as http:
        server = Client(http, f"{terminal.url}/graphql")
        view = await asyncio.to_thread(follow, server, group, shown, 0.5, pause)
    assert not left
    return view


def lines() -> tuple[Lines, Callable[[], list[str]]]:
    """A screen of lines, and what it has printed, without the times."""
    file = io.StringIO()
    console = Console(file=file, width=200, highlight=False, markup=False)
    return Lines(console), lambda: [line.partition(" ")[2] for line in file.getvalue().splitlines()]


async def test_each_change_is_a_line_until_the_group_has_finished(terminal: Terminal):
    crew = terminal.crew
    group = (await crew.create(*TWO, name="two"))["taskGroup"]["id"]
    shown, printed = lines()

    async def claim() -> None:
        leases.extend(await crew.claim())

    async def complete() -> None:
        await crew.complete(leases.pop())

    async def nothing() -> None:
        pass

    leases: list[Json] = []
    view = await followed(terminal, group, shown, claim, nothing, complete, claim, complete)
    assert view.is_finished()
    assert printed() == [
        "first new → READY (attempt 0)",
        "second new → BLOCKED (attempt 0)",
        "two 0% ◇1 ○1",
        "first READY → RUNNING (attempt 1)",
        "two 0% ▶1 ○1",
        "first RUNNING → SUCCEEDED (attempt 1)",
        "second BLOCKED → READY (attempt 0)",
        "two 50% ✔1 ◇1",
        "second READY → RUNNING (attempt 1)",
        "two 50% ✔1 ▶1",
        "second RUNNING → SUCCEEDED (attempt 1)",
        "two 100% ✔2",
    ]


async def test_while_the_server_is_away_it_says_so_once_and_goes_on(terminal: Terminal):
    group = (await terminal.crew.create({"name": "a"}))["taskGroup"]["id"]
    (lease,) = await terminal.crew.claim()
    weather, (shown, printed) = Weather(), lines()

    async def goes() -> None:
        weather.down = True

    async def still_gone() -> None:
        await terminal.crew.complete(lease)

    async def comes_back() -> None:
        weather.down = False

    view = await followed(terminal, group, shown, goes, still_gone, comes_back, weather=weather)
    assert view.is_finished()
    assert [line for line in printed() if "attempt" not in line] == [
        "g 0% ▶1",
        f"again: UNREACHABLE: no answer from {terminal.url}/graphql (Connection refused): start a server with "
        "`crew serve`, or name another one with --url or CREW_URL",
        "g 100% ✔1",
    ]


async def test_a_watched_group_that_goes_on_after_a_failure_ends_when_nothing_moves(terminal: Terminal):
    """`after` is BLOCKED below what has failed; `beside` still runs."""
    once = {"retry": {"maxAttempts": 1}}
    made = await terminal.crew.create(
        {"ref": "a", "name": "fails", **once}, {"name": "after", "parents": [{"ref": "a"}]}, {"name": "beside"}
    )
    fails, beside = await terminal.crew.claim(2)

    async def fail() -> None:
        await terminal.crew.fail(fails)

    async def complete() -> None:
        await terminal.crew.complete(beside)

    view = await followed(terminal, made["taskGroup"]["id"], lines()[0], fail, complete)
    assert (view.is_finished(), view.is_at_rest(), view.count("FAILED"), view.count("BLOCKED")) == (False, True, 1, 1)


async def test_a_group_too_big_to_draw_is_told_in_numbers(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "DRAWN", 3)
    group = (await terminal.crew.create(*({"name": f"t{n}"} for n in range(5))))["taskGroup"]["id"]
    seen: list[Json] = []
    monkeypatch.setattr("server.terminal.output.write_json", seen.append)

    async def claim() -> None:
        leases.extend(await terminal.crew.claim(2))

    async def complete_all() -> None:
        await terminal.crew.complete(*leases, *await terminal.crew.claim(3))

    leases: list[Json] = []
    await followed(terminal, group, JsonLines(), claim, complete_all)
    assert [(each["truncated"], len(each["changed"])) for each in seen] == [(True, 0)] * 3
    assert [each["group"]["progress"]["counts"] for each in seen] == [
        [{"state": "READY", "count": 5}],
        [{"state": "READY", "count": 3}, {"state": "RUNNING", "count": 2}],
        [{"state": "SUCCEEDED", "count": 5}],
    ]
    with httpx.Client(headers={"content-type": "application/json"}) as http:
        view = await asyncio.to_thread(watch.look, Client(http, f"{terminal.url}/graphql"), group, 0)
    view.group["progress"]["counts"] = [{"state": "RUNNING", "count": 1234}]
    told = text(picture(View(view.now, view.group, [node("t1", "RUNNING")]), width=60, height=10), 60)
    assert told.splitlines()[2:] == [
        "▶ 1,234 running",
        "5 tasks are too many to draw. 1 of the 1,234 that run:",
        "▶ t1 RUNNING",
    ]


async def test_the_live_picture_is_cut_to_the_terminal_and_whole_at_the_end(terminal: Terminal):
    chain = [
        {"ref": f"{n}", "name": f"step {n}"} | ({"parents": [{"ref": f"{n - 1}"}]} if n else {}) for n in range(20)
    ]
    group = (await terminal.crew.create(*chain, name="chain"))["taskGroup"]["id"]
    file = io.StringIO()
    screen = {"TERM": "xterm-256color"}
    console = Console(file=file, width=60, height=12, force_terminal=True, color_system=None, _environ=screen)

    async def goes() -> None:
        seen.append(file.getvalue())
        weather.down = True

    async def comes_back() -> None:
        weather.down = False

    async def cancel() -> None:
        await terminal.ok("cancel", "--group", group, "--yes")

    seen: list[str] = []
    weather = Weather()
    await followed(terminal, group, Picture(console), goes, comes_back, cancel, weather=weather)
    first, last = seen[0], file.getvalue().rpartition("\x1b[2K")[2]
    assert "step 0" in first
    assert "… 14 lines below" in first
    assert "step 6" not in first
    assert "Trying again" not in first
    assert file.getvalue().count("Trying again: UNREACHABLE: no answer from ") == 1
    assert "\x1b[?25l" in first, "the cursor is hidden"
    assert "\x1b[?25h" in file.getvalue()[len(first) :], "and shown again"
    assert [line.split()[-2:] for line in last.splitlines()[3:]] == [[str(n), "CANCELLED"] for n in range(20)]


async def test_watching_what_is_not_there_is_refused(terminal: Terminal):
    with pytest.raises(Refused, match="NOT_FOUND: no task group 018f5a3e"):
        await followed(terminal, "018f5a3e-7c11-7a55-8d3c-0242ac120002", lines()[0])
    refused = await terminal.run("watch", "abc", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["errors"][0]["code"]) == (1, "BAD_INPUT")


async def test_the_status_is_0_for_what_has_finished_and_1_with_reasons_for_what_failed(terminal: Terminal):
    bad = (await terminal.crew.create({"name": "a", "retry": {"maxAttempts": 1}}, name="bad"))["taskGroup"]["id"]
    (lease,) = await terminal.crew.claim()
    await terminal.crew.fail(lease, error="the API said no")
    ended = await terminal.run("watch", bad)
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[-3:] == [
        "bad does not go on by itself: ✘ 1 failed",
        f"✘ a ({lease['task']['id']}): the API said no",
        f"To try again: crew retry --group {bad}",
    ]
    ended = await terminal.run("watch", bad, "--json")
    assert (ended.exit_code, json.loads(ended.stdout)["changed"][0]["state"]) == (1, "FAILED")
    await terminal.ok("retry", "--group", bad, "--yes")
    watching = asyncio.create_task(terminal.run("watch", bad, "--interval", "0.1"))
    await terminal.crew.complete(*await terminal.crew.claim())
    ended = await watching
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (0, "bad has finished: ✔ 1 succeeded")


async def test_ctrl_c_leaves_a_clean_terminal(terminal: Terminal):
    group = (await terminal.crew.create(*TWO, name="two"))["taskGroup"]["id"]
    status, printed = await asyncio.to_thread(interrupted, "watch", group, "--url", terminal.url, once="second")
    assert status == 130
    hidden, shown = printed.rfind("\x1b[?25l"), printed.rfind("\x1b[?25h")
    assert 0 <= hidden < shown
    assert "second BLOCKED" in printed[shown:], "the last picture stays"
    assert "Traceback" not in printed
    assert printed.endswith("\n")


def interrupted(*args: str, once: str) -> tuple[int, str]:
    """Runs `crew` in a terminal of its own, interrupts it once it has printed that; its status and all it printed."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", *args],
            cwd=ROOT,
            env=environment(TERM="xterm-256color", COLUMNS="80", LINES="24", NO_COLOR="1"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    printed, told = b"", False
    try:
        while part := _read(ours):
            printed += part
            if once.encode() in printed and not told:
                process.send_signal(signal.SIGINT)
                told = True
        return process.wait(30), printed.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(terminal: int) -> bytes:
    """What comes next; nothing once the other end is closed."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def view(nodes: list[Json], edges: list[Json], **group: Any) -> View:
    given = {
        "name": "g",
        "isPaused": False,
        "finishedAt": None,
        "progress": {"fraction": 0.5, "total": 4, "counts": []},
    }
    return View(NOW, given | {"graph": {"nodes": nodes, "edges": edges, "truncated": False}} | group)


def test_lanes_that_leave_no_room_for_names_are_left_out():
    nodes = [node("root"), *(node(f"child {n}", "READY") for n in range(20))]
    edges = [link("root", f"child {n}") for n in range(20)]
    narrow = text(picture(view(nodes, edges), width=60), 60).splitlines()
    assert narrow[-1] == "◇ child 19 READY"
    wide = text(picture(view(nodes, edges), width=100), 100).splitlines()
    assert wide[-1].strip() == "◇ child 19 READY"
    assert wide[4].startswith("├─┬─┬")


def test_what_is_done_and_what_is_not_begun_differ_in_16_colours():
    def drawn(fraction: float) -> str:
        console = Console(file=io.StringIO(), width=10, force_terminal=True, color_system="standard")
        with console.capture() as capture:
            console.print(bar(fraction, 10))
        return capture.get()

    assert len({drawn(fraction) for fraction in (0, 0.5, 1)}) == 3


def test_a_cut_drawing_begins_just_above_the_first_open_task():
    rows = [Row("", node(f"t{n}", "SUCCEEDED" if n < 10 else "READY")) for n in range(30)]
    assert window(rows, 8) == (8, 16)
    assert window(rows[:12], 8) == (4, 12)
    assert window([Row("", node("a"))] * 9, 5) == (4, 9)


@pytest.mark.parametrize(
    ("counts", "finished", "at_rest"),
    [
        ({}, None, False),
        ({"SUCCEEDED": 2, "CANCELLED": 1}, NOW, True),
        ({"FAILED": 1, "BLOCKED": 2}, None, True),
        ({"CANCELLED": 1, "BLOCKED": 2}, None, True),
        ({"FAILED": 1, "READY": 1}, None, False),
        ({"FAILED": 1, "SCHEDULED": 1}, None, False),
        ({"FAILED": 1, "MERGED": 1}, None, False),
        ({"FAILED": 1, "RUNNING": 1}, None, False),
    ],
)
def test_a_group_is_at_rest_when_nothing_in_it_goes_on_by_itself(
    counts: dict[str, int], finished: str | None, at_rest: bool
):
    told = [{"state": state, "count": count} for state, count in counts.items()]
    progress = {"fraction": 0, "total": sum(counts.values()), "counts": told}
    assert view([], [], progress=progress, finishedAt=finished).is_at_rest() is at_rest
