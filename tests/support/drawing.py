"""Tasks and links as the API answers them, and what is drawn of them as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType

Json = dict[str, Any]
NOW = "2025-01-01T00:00:00+00:00"


def node(id: str, state: str = "SUCCEEDED", **more: Any) -> Json:
    return {
        "id": id,
        "name": id,
        "state": state,
        "attempt": 1,
        "heldBy": [],
        "notBefore": None,
        "progress": None,
    } | more


def link(parent: str, child: str, wait_for: str = "TASK", *, adopted: bool = False) -> Json:
    return {"parentId": parent, "childId": child, "waitFor": wait_for, "isAdopted": adopted}


def links(*pairs: str) -> list[Json]:
    return [link(pair[0], pair[1]) for pair in pairs]


def text(drawing: RenderableType, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(drawing)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
