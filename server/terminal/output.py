"""What a command prints: tables and lines for people, JSON for programs, errors for both, and its exit status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, RenderableType

from server.terminal.client import Client, Failure, client, told

_UNBOUNDED = 10_000
"""Columns where there is no terminal to fit."""


def console() -> Console:
    """Of stdout. Without a terminal it has no colour, and lines are as long as they come."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        made.width = _UNBOUNDED
    return made


def show(drawing: RenderableType) -> None:
    console().print(drawing)


def write_json(document: Any) -> None:
    """One document on one line, with all that is not ASCII escaped: it passes through any encoding."""
    typer.echo(json.dumps(document))


@contextmanager
def session(url: str, api_key: str | None, as_json: bool) -> Iterator[Client]:
    """A client for one command; where the server refuses or is away, that is told and the command ends with status 1."""
    with client(url, api_key) as server:
        try:
            yield server
        except Failure as failure:
            fail(failure, as_json)


def fail(failure: Failure, as_json: bool) -> None:
    """Ends the command with status 1."""
    if as_json:
        write_json({"errors": failure.errors})
    else:
        for error in failure.errors:
            typer.echo(f"crew: {told(error)}", err=True)
    raise typer.Exit(1)
