"""The options that the commands share, and the filter that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer


class TaskState(StrEnum):
    BLOCKED = "BLOCKED"
    SCHEDULED = "SCHEDULED"
    READY = "READY"
    RUNNING = "RUNNING"
    MERGED = "MERGED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TaskOrder(StrEnum):
    CREATED_DESC = "CREATED_DESC"
    CREATED_ASC = "CREATED_ASC"
    PRIORITY_DESC = "PRIORITY_DESC"
    FINISHED_DESC = "FINISHED_DESC"


class GroupState(StrEnum):
    OPEN = "OPEN"
    FINISHED = "FINISHED"
    FAILING = "FAILING"
    PAUSED = "PAUSED"


class GroupOrder(StrEnum):
    CREATED_DESC = "CREATED_DESC"
    CREATED_ASC = "CREATED_ASC"
    FINISHED_DESC = "FINISHED_DESC"
    NAME_ASC = "NAME_ASC"


DEFAULT_URL = "http://127.0.0.1:8000"
_SERVER = "The server"
_WHICH = "Which ones"


def endpoint(url: str) -> str:
    """The GraphQL endpoint of a server's URL; either is taken."""
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018  raises where it is none
    except ValueError as error:
        raise typer.BadParameter(f"{url!r} is no URL: {error}") from error
    if parts.username is not None:
        raise typer.BadParameter("no user or password is taken in the URL: give an API key")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(f"{url!r} must look like {DEFAULT_URL} or https://crew.example.com")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith("/graphql") else f"{path}/graphql", fragment="").geturl()


def _token(key: str | None) -> str | None:
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise typer.BadParameter("an API key has no spaces and only printable ASCII characters")
    return key


def _some_text(words: str | None) -> str | None:
    if words == "":
        raise typer.BadParameter("it is empty, which would be every one")
    return words


def seconds(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number of seconds")
    return value


Url = Annotated[
    str,
    typer.Option(
        "--url", metavar="URL", envvar="CREW_URL", callback=endpoint, help="Its address.", rich_help_panel=_SERVER
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="CREW_KEY",
        callback=_token,
        show_default=False,
        help="Sent as a bearer token. Others on this machine see what stands on a command line: prefer CREW_KEY.",
        rich_help_panel=_SERVER,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document for programs, errors too.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="At most so many.")]
GroupStates = Annotated[
    list[GroupState] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        case_sensitive=False,
        help=f"{', '.join(GroupState)}; again for more.",
        rich_help_panel=_WHICH,
    ),
]
OrderOfGroups = Annotated[
    GroupOrder,
    typer.Option("--order", metavar="ORDER", case_sensitive=False, help=f"Which come first: {', '.join(GroupOrder)}."),
]
OrderOfTasks = Annotated[
    TaskOrder,
    typer.Option("--order", metavar="ORDER", case_sensitive=False, help=f"Which come first: {', '.join(TaskOrder)}."),
]
GroupId = Annotated[str | None, typer.Option("--group", metavar="ID", help="In this group.", rich_help_panel=_WHICH)]
States = Annotated[
    list[TaskState] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        case_sensitive=False,
        help=f"{', '.join(TaskState)}; again for more.",
        rich_help_panel=_WHICH,
    ),
]
Channels = Annotated[
    list[str] | None,
    typer.Option("--channel", metavar="NAME", help="In this channel; again for more.", rich_help_panel=_WHICH),
]
Workgroups = Annotated[
    list[str] | None,
    typer.Option("--workgroup", metavar="NAME", help="In this workgroup; again for more.", rich_help_panel=_WHICH),
]
WorkerId = Annotated[
    str | None,
    typer.Option("--worker", metavar="ID", help="Run by this worker, now or last.", rich_help_panel=_WHICH),
]
NameContains = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="TEXT",
        callback=_some_text,
        help="With this in its name, in any case.",
        rich_help_panel=_WHICH,
    ),
]
TaskKey = Annotated[str | None, typer.Option("--key", metavar="TEXT", help="With this key.", rich_help_panel=_WHICH)]
CreatedAfter = Annotated[
    str | None,
    typer.Option("--created-after", metavar="INSTANT", help="As in 2026-01-31T12:00:00Z.", rich_help_panel=_WHICH),
]
CreatedBefore = Annotated[
    str | None,
    typer.Option("--created-before", metavar="INSTANT", help="As in 2026-01-31T12:00:00Z.", rich_help_panel=_WHICH),
]


def narrowed(**given: Any) -> dict[str, Any]:
    """A filter input of what was given, lists that name nothing left out."""
    return {name: value for name, value in given.items() if value is not None and value != []}


def task_filter(
    group: str | None,
    states: Sequence[str] | None,
    channels: Sequence[str] | None,
    workgroups: Sequence[str] | None,
    worker: str | None,
    name: str | None,
    key: str | None,
    created_after: str | None,
    created_before: str | None,
) -> dict[str, Any]:
    """The TaskFilter of these options."""
    return narrowed(
        groupId=group,
        states=states,
        channels=channels,
        workgroups=workgroups,
        workerId=worker,
        nameContains=name,
        key=key,
        createdAfter=created_after,
        createdBefore=created_before,
    )
