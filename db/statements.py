"""Loads the named statements of sql/queries: `-- name: x` begins one, the next such line ends it.

A statement with parts between `--full{` and `--full}` lines is two: `x` without them, and `x_full` with them, without the parts
between `--lean{` and `--lean}`. Plan nodes that find nothing cost their start all the same, so what is rare is left out of what
runs all day.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def load(noun: str) -> dict[str, str]:
    """The statements of sql/queries/<noun>.sql by name, their header comments left out."""
    text = files("sql").joinpath("queries", f"{noun}.sql").read_text()
    parts = _NAME.split(text)[1:]
    found = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        lean, full = _without("full", body), _without("lean", body)
        found[name] = _without_header(lean)
        if full != lean:
            found[f"{name}_full"] = _without_header(full)
    return found


def _without(kind: str, body: str) -> str:
    """The other kind's marks go, its parts stay."""
    body = re.sub(rf"^ *--{kind}\{{\n.*?^ *--{kind}\}}\n", "", body, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ *--(?:full|lean)[{}]\n", "", body, flags=re.MULTILINE)


@cache
def statement(noun: str, name: str) -> str:
    """One statement, as `with /* name */ …`, so that logs and pg_stat_statements (which drops a comment before the first word)
    tell which it is."""
    first, rest = load(noun)[name].split(maxsplit=1)
    return f"{first} /* {name} */ {rest}"


def once(column: list[Any]) -> list[Any]:
    """A column without nulls as an argument, its first value alone where all are equal: asyncpg looks at each value of an array for
    as long as it takes to write it. The statement takes the first for those that are missing."""
    return column[:1] if column and column.count(column[0]) == len(column) else column


def some(column: list[Any]) -> list[Any]:
    """A column that may hold nulls as an argument, empty where it holds nothing else."""
    return [] if column.count(None) == len(column) else column


def _without_header(body: str) -> str:
    lines = body.strip().splitlines()
    while lines and lines[0].startswith("--"):
        lines.pop(0)
    return "\n".join(lines)
