"""Runs the demo against a Crew server: ads API, workers and campaigns up, watch, sum up, and everything down again."""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

import httpx
import uvicorn
from rich.console import Console
from rich.live import Live
from rich.table import Table

from server.demo.ads_api import create_ads_api
from server.demo.campaign import CHANNELS, seed_task
from server.demo.picture import GROUP_FIELDS, picture
from server.demo.worker import Crew, Refused, Suspensions, Worker
from server.terminal.changes import Changes
from server.terminal.text import seconds_until

TIME_OUT_SECONDS = 120
POLL_SECONDS = 0.2
WORKERS = 2
CREATE = "mutation Create($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } } }"
COUNT = "query Count($id: ID!) { taskGroup(id: $id) { graph { nodes { attempt errors(last: 100) { attempt } } } } }"


@dataclass(frozen=True)
class Summary:
    """What it took, for all or for one of the campaigns; `seconds` by the server's clock for one, by ours for all."""

    name: str
    tasks: int
    attempts: int
    errors: int
    suspensions: int
    seconds: float
    campaigns: tuple["Summary", ...] = ()


@dataclass(frozen=True)
class Campaign:
    id: str
    name: str
    token: str


@dataclass(frozen=True)
class View:
    """One look at the server."""

    now: str
    groups: Sequence[Mapping[str, Any]]
    workgroups: Mapping[str, Mapping[str, Any] | None]

    def states(self) -> list[str]:
        return [node["state"] for group in self.groups for node in group["graph"]["nodes"]]

    def finished(self) -> bool:
        return all(state == "SUCCEEDED" for state in self.states())

    def stuck(self) -> list[str]:
        return [
            f"{group['name']} {node['name']} is {node['state']}"
            for group in self.groups
            for node in group["graph"]["nodes"]
            if node["state"] in ("FAILED", "CANCELLED")
        ]


async def run_demo(url: str, *, plain: bool, seed: int = 7, campaigns: int = 2) -> Summary:
    """Build `campaigns` campaigns on the Crew server at `url`, and show how they go.

    `plain`, and any output that is no terminal, gets one line per change instead of a live picture.
    Raises SystemExit(1), with a message printed, when a task fails for good, the
    server refuses a call, or the whole takes more than 120 s.
    """
    plain = plain or not Console().is_terminal
    console = Console(no_color=plain or None, force_terminal=False if plain else None, highlight=False)
    endpoint = url if url.rstrip("/").endswith("/graphql") else f"{url.rstrip('/')}/graphql"
    letters = ascii_lowercase[:campaigns]
    named = [Campaign(str(uuid.uuid4()), f"campaign-{letter}", f"token-{letter}") for letter in letters]
    show: Lines | Pictures = Lines(console) if plain else Pictures(console)
    try:
        async with asyncio.timeout(TIME_OUT_SECONDS), httpx.AsyncClient(timeout=httpx.Timeout(15)) as http:
            summary = await _run(Crew(http, endpoint), named, seed, show)
    except TimeoutError:
        left = [f"{group['name']} at {group['progress']['fraction']:.0%}" for group in show.view.groups]
        console.print(f"Not finished after {TIME_OUT_SECONDS} s: {', '.join(left) or f'no answer from {endpoint}'}.")
        raise SystemExit(1) from None
    except (Refused, ExceptionGroup) as error:
        refusals = [leaf for leaf in leaves(error) if isinstance(leaf, Refused)]
        if not refusals:
            raise
        console.print(f"Refused: {refusals[0]}", markup=False)
        raise SystemExit(1) from error
    console.print(picture(show.view.groups, show.view.workgroups, show.view.now, width=console.width))
    if stuck := show.view.stuck():
        console.print(f"Stopped, for these will not go on by themselves: {'; '.join(stuck)}.")
        raise SystemExit(1)
    console.print(table(summary))
    return summary


def leaves(error: Exception) -> Iterator[Exception]:
    """What a group of exceptions holds, however nested; an exception alone is its own leaf."""
    if isinstance(error, ExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


async def _run(crew: Crew, campaigns: Sequence[Campaign], seed: int, show: "Lines | Pictures") -> Summary:
    suspensions, stopping, started = Suspensions(), asyncio.Event(), time.monotonic()
    async with serve_ads_api(seed) as ads_url:
        with show:
            async with asyncio.TaskGroup() as tasks:
                for number in range(1, WORKERS + 1):
                    name = f"demo-{number}-{uuid.uuid4().hex[:6]}"
                    tasks.create_task(run_worker(name, crew.url, ads_url, stopping, suspensions))
                for campaign in campaigns:
                    tree = [seed_task(campaign.name, campaign.token)]
                    await crew.call(CREATE, {"input": {"id": campaign.id, "name": campaign.name, "tasks": tree}})
                while True:
                    show(await look(crew, campaigns), time.monotonic() - started)
                    if show.view.finished() or show.view.stuck():
                        break
                    await asyncio.sleep(POLL_SECONDS)
                seconds = time.monotonic() - started
                stopping.set()
    parts = [
        await count(crew, campaign, group, suspensions)
        for campaign, group in zip(campaigns, show.view.groups, strict=True)
    ]
    return total(parts, seconds)


async def run_worker(name: str, url: str, ads_url: str, stopping: asyncio.Event, suspensions: Suspensions) -> None:
    """A worker with connections of its own, as if it were a process elsewhere."""
    patience = httpx.Timeout(15)
    async with (
        httpx.AsyncClient(timeout=patience) as http,
        httpx.AsyncClient(base_url=ads_url, timeout=patience) as ads,
    ):
        await Worker(name, Crew(http, url), ads, CHANNELS, stopping, suspensions).run()


class InProcessServer(uvicorn.Server):
    """Leaves the signals to the demo: Ctrl-C ends all of it, not this server alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve_ads_api(seed: int) -> AsyncIterator[str]:
    """The ads API on a free port of the loopback interface; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(create_ads_api(seed), log_config=None, access_log=False, lifespan="off")
        server = InProcessServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def look(crew: Crew, campaigns: Sequence[Campaign]) -> View:
    """Groups, workgroups and the server's clock in one request."""
    fields = ["server { now }"]
    for index, campaign in enumerate(campaigns):
        fields.append(f'g{index}: taskGroup(id: "{campaign.id}") {{ ...Drawn }}')
        fields.append(f'w{index}: workgroup(name: "{campaign.token}") {{ suspendedUntil reason }}')
    data = await crew.call(f"query Look {{ {' '.join(fields)} }} {GROUP_FIELDS}", {})
    return View(
        now=data["server"]["now"],
        groups=[data[f"g{index}"] for index in range(len(campaigns))],
        workgroups={campaign.token: data[f"w{index}"] for index, campaign in enumerate(campaigns)},
    )


async def count(crew: Crew, campaign: Campaign, group: Mapping[str, Any], suspensions: Suspensions) -> Summary:
    nodes = (await crew.call(COUNT, {"id": campaign.id}))["taskGroup"]["graph"]["nodes"]
    return Summary(
        name=f"{campaign.name} ({campaign.token})",
        tasks=len(nodes),
        attempts=sum(node["attempt"] for node in nodes),
        errors=sum(len(node["errors"]) for node in nodes),
        suspensions=suspensions.counts[campaign.token],
        seconds=seconds_until(group["finishedAt"], group["createdAt"]),
    )


def total(parts: Sequence[Summary], seconds: float) -> Summary:
    return Summary(
        name="all",
        tasks=sum(part.tasks for part in parts),
        attempts=sum(part.attempts for part in parts),
        errors=sum(part.errors for part in parts),
        suspensions=sum(part.suspensions for part in parts),
        seconds=seconds,
        campaigns=tuple(parts),
    )


def table(summary: Summary) -> Table:
    drawn = Table(title="Summary", title_justify="left")
    drawn.add_column("campaign")
    for title in ("tasks", "attempts", "errors", "suspensions", "seconds"):
        drawn.add_column(title, justify="right")
    for part in (*summary.campaigns, summary):
        drawn.add_section() if part is summary else None
        numbers = (part.tasks, part.attempts, part.errors, part.suspensions)
        drawn.add_row(part.name, *map(str, numbers), f"{part.seconds:.1f}")
    return drawn


@dataclass
class Pictures:
    """The live picture, drawn anew at each look."""

    console: Console
    view: View = View("", (), {})
    live: Live = field(init=False)

    def __enter__(self) -> None:
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.live.start()

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, view: View, seconds: float) -> None:
        self.view = view
        drawing = picture(view.groups, view.workgroups, view.now, width=self.console.width)
        self.live.update(drawing, refresh=True)


@dataclass
class Lines:
    """One line per change, for logs and CI."""

    console: Console
    view: View = View("", (), {})
    seen: Changes = field(default_factory=Changes)
    suspended: set[str] = field(default_factory=set)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, view: View, seconds: float) -> None:
        self.view = view
        for line in self.changes(view):
            self.console.print(f"{seconds:.1f}s {line}", markup=False, soft_wrap=True)

    def changes(self, view: View) -> Iterator[str]:
        for group in view.groups:
            for _, words in self.seen.since(group["graph"]["nodes"]):
                yield f"{group['name']} {words}"
        for name, found in view.workgroups.items():
            wait = seconds_until(found["suspendedUntil"], view.now) if found else 0
            if wait and name not in self.suspended:
                self.suspended.add(name)
                yield f"{name} suspended, {wait:.1f} s to go"
            elif not wait and name in self.suspended:
                self.suspended.remove(name)
                yield f"{name} goes on"
