"""The statements of sql/queries on the migrated schema: each prepares, answers what its row class says, and has a caller."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from db.statements import load, statement

ROOT = Path(__file__).parents[2]
NOUNS = sorted(
    p.name.removesuffix(".sql") for p in files("sql").joinpath("queries").iterdir() if p.name.endswith(".sql")
)
ALL = [(noun, name) for noun in NOUNS for name in load(noun)]


@dataclasses.dataclass(frozen=True)
class Caller:
    """A function of db/*.py: the statement it runs (its name as a pattern), and the row class it answers with."""

    module: str
    function: str
    noun: str
    pattern: str
    row_class: str | None

    def runs(self, noun: str, name: str) -> bool:
        return self.noun == noun and re.fullmatch(self.pattern, name) is not None


@cache
def callers() -> tuple[Caller, ...]:
    return tuple(caller for path in sorted((ROOT / "db").glob("*.py")) for caller in _callers_in(path))


def _callers_in(path: Path) -> Iterator[Caller]:
    tree = ast.parse(path.read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        rows = [c.func.id for c in calls if len(c.args) == 1 and isinstance(c.args[0], ast.Starred)]
        for call in calls:
            if call.func.id == "statement" and isinstance(call.args[0], ast.Constant):
                name = _pattern(call.args[1])
                yield Caller(path.stem, function.name, call.args[0].value, name, rows[0] if rows else None)


def _pattern(name: ast.expr) -> str:
    """A literal name, or an f-string with anything in its holes."""
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(re.escape(p.value) if isinstance(p, ast.Constant) else r"\w+" for p in parts)


@pytest.fixture
async def connection(dsn: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def test_every_statement_prepares_on_the_migrated_schema(connection: asyncpg.Connection) -> None:
    refused = {}
    for noun, name in ALL:
        try:
            await connection.prepare(statement(noun, name))
        except asyncpg.PostgresError as error:
            refused[f"{noun}.{name}"] = str(error)
    assert refused == {}
    assert len(ALL) > 50


async def test_every_statement_answers_the_fields_of_its_row_class_in_order(connection: asyncpg.Connection) -> None:
    wrong, checked = {}, 0
    for noun, name in ALL:
        prepared = await connection.prepare(statement(noun, name))
        columns = [a.name for a in prepared.get_attributes()]
        for caller in callers():
            if caller.row_class is None or not caller.runs(noun, name):
                continue
            row_class = getattr(importlib.import_module(f"db.{caller.module}"), caller.row_class)
            fields = [f.name for f in dataclasses.fields(row_class)]
            checked += 1
            if fields != columns:
                wrong[f"{noun}.{name}"] = (caller.row_class, fields, columns)
    assert wrong == {}
    assert checked > 30


async def test_no_two_columns_of_a_statement_have_one_name(connection: asyncpg.Connection) -> None:
    for noun, name in ALL:
        columns = [a.name for a in (await connection.prepare(statement(noun, name))).get_attributes()]
        assert len(columns) == len(set(columns)), f"{noun}.{name}"
        assert "?column?" not in columns, f"{noun}.{name}"


def test_every_statement_has_a_caller() -> None:
    assert [f"{n}.{s}" for n, s in ALL if not any(c.runs(n, s) for c in callers())] == []


def test_every_caller_has_a_statement() -> None:
    assert [c for c in callers() if not any(c.runs(n, s) for n, s in ALL)] == []


@pytest.mark.parametrize(("noun", "name"), ALL)
def test_every_parameter_is_in_the_header(noun: str, name: str) -> None:
    """`-- $1 ns $2 …` between the name and the statement; a page may point at another that lists them."""
    text = files("sql").joinpath("queries", f"{noun}.sql").read_text()
    after = text.split(f"-- name: {name.removesuffix('_full')}\n")[1]
    header = "\n".join(_leading_comments(after))
    used = {int(n) for n in re.findall(r"\$(\d+)", load(noun)[name])}
    named = {int(n) for n in re.findall(r"\$(\d+)", header)}
    if re.search(r"[Aa]s (page|read)_\w+|\$1 … \$\d+ as", header):
        return
    assert used <= named, f"not in the header: {sorted(used - named)}"
    assert used == set(range(1, max(used, default=0) + 1))


def _leading_comments(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("--"):
            return
        yield line
