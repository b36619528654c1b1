"""Loads the named statements of sql/queries: `-- name: x` begins one, the next such line ends it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def load(noun: str) -> dict[str, str]:
    """The statements of sql/queries/<noun>.sql by name, their header comments left out."""
    text = files("sql").joinpath("queries", f"{noun}.sql").read_text()
    parts = _NAME.split(text)[1:]
    return {name: _without_header(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


@cache
def statement(noun: str, name: str) -> str:
    """One statement, as `/* name */ …`, so that pg_stat_statements and logs tell which it is."""
    return f"/* {name} */ {load(noun)[name]}"


def _without_header(body: str) -> str:
    lines = body.strip().splitlines()
    while lines and lines[0].startswith("--"):
        lines.pop(0)
    return "\n".join(lines)
