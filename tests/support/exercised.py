"""Which fields, arguments and input fields of the contract the tests have asked for, over a whole run of them.

A pytest plugin: every operation that a server in a test's process runs is looked at; at the end of a run of all tests what nobody
asked for is named, and the run has failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from graphql import (
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    TypeInfo,
    TypeInfoVisitor,
    build_schema,
    get_named_type,
    type_from_ast,
    visit,
)
from graphql.language import FieldNode, ObjectFieldNode, Visitor
from xdist.workermanage import WorkerController

from schema.root import schema
from server.documents import Document
from server.operations import Operations, Params
from tests.schema.test_contract import CONTRACT, NOT_YET

_LOOK = 20
"""Items of a list in variables that are looked into."""
_seen: set[str] = set()
_documents: set[str] = set()
_counts = True


@contextlib.contextmanager
def not_counted() -> Iterator[None]:
    """What is asked for meanwhile is no test of it."""
    global _counts
    _counts = False
    try:
        yield
    finally:
        _counts = True


class _Names(Visitor):
    def __init__(self, info: TypeInfo) -> None:
        super().__init__()
        self._info = info

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        if parent := self._info.get_parent_type():
            _seen.add(f"{parent.name}.{node.name.value}")
            _seen.update(f"{parent.name}.{node.name.value}({given.name.value})" for given in node.arguments or ())

    def enter_object_field(self, node: ObjectFieldNode, *_: Any) -> None:
        parent = get_named_type(self._info.get_parent_input_type())
        if parent is not None:
            _seen.add(f"{parent.name}.{node.name.value}")


def _note(document: Document, params: Params) -> None:
    if document.node is None or not _counts:
        return
    if params.query not in _documents:
        _documents.add(params.query)
        info = TypeInfo(schema._schema)
        visit(document.node, TypeInfoVisitor(info, _Names(info)))
    operation = document.operation(params.operation_name)
    for variable in (operation.variable_definitions or ()) if operation else ():
        value = (params.variables or {}).get(variable.variable.name.value)
        _look_into(type_from_ast(schema._schema, variable.type), value)


def _look_into(kind: Any, value: Any) -> None:
    while isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    if isinstance(kind, GraphQLList) and isinstance(value, list):
        for item in value[:_LOOK]:
            _look_into(kind.of_type, item)
    elif isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
        for name in value.keys() & kind.fields.keys():
            _seen.add(f"{kind.name}.{name}")
            _look_into(kind.fields[name].type, value[name])


@cache
def _contract() -> frozenset[str]:
    names = set()
    for kind in build_schema(CONTRACT).type_map.values():
        if kind.name.startswith("__") or kind.name in NOT_YET:
            continue
        if isinstance(kind, GraphQLInputObjectType):
            names |= {f"{kind.name}.{field}" for field in kind.fields}
        elif isinstance(kind, GraphQLObjectType):
            for name, field in kind.fields.items():
                if f"{kind.name}.{name}" not in NOT_YET:
                    names.add(f"{kind.name}.{name}")
                    names |= {f"{kind.name}.{name}({argument})" for argument in field.args}
    return frozenset(names - NOT_YET)


def pytest_configure(config: pytest.Config) -> None:
    body, stream = Operations.body, Operations.stream

    async def noted_body(self: Operations, document: Document, params: Params, *more: Any) -> Any:
        _note(document, params)
        return await body(self, document, params, *more)

    def noted_stream(self: Operations, document: Document, params: Params, *more: Any) -> Any:
        _note(document, params)
        return stream(self, document, params, *more)

    Operations.body, Operations.stream = noted_body, noted_stream  # type: ignore[method-assign]
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Collected(), "exercised")


class _Collected:
    """In the process that sums up."""

    def pytest_testnodedown(self, node: WorkerController) -> None:
        _seen.update(getattr(node, "workeroutput", {}).get("exercised", ()))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == 0 and _is_whole(session.config) and _contract() - _seen:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        missing = sorted(_contract() - _seen)
        if missing and _is_whole(config):
            terminalreporter.section("never asked for by any test")
            terminalreporter.write_line(", ".join(missing))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["exercised"] = sorted(_seen & _contract())


def _is_whole(config: pytest.Config) -> bool:
    return (
        config.args == config.getini("testpaths") and not config.option.keyword and config.option.markexpr == "not soak"
    )
