"""The schema keeps the contract: nothing of it that is built differs, and what is not built yet is named."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    build_ast_schema,
    build_schema,
    parse,
    print_ast,
)
from graphql.language import DocumentNode, Node, Visitor, visit
from graphql.language.visitor import REMOVE
from graphql.utilities import find_breaking_changes

from schema.root import schema, sdl

HERE = Path(__file__).parent
CONTRACT = (HERE / "contract.graphql").read_text()
SHARED = HERE.parents[2] / "shared" / "contract" / "schema.graphql"
"""Where it lies beside this checkout; elsewhere the copy here is all there is."""

NOT_YET: frozenset[str] = frozenset()
"""What the contract has and the server has not built yet. Takes things out as they come; never gains one."""


@cache
def contract() -> GraphQLSchema:
    return build_schema(CONTRACT)


@cache
def ours() -> GraphQLSchema:
    return build_schema(sdl())


def names(kind: GraphQLNamedType) -> Iterator[str]:
    """Everything that a type has, as Type, Type.field, Type.field(argument), Type.VALUE."""
    yield kind.name
    if isinstance(kind, GraphQLEnumType):
        yield from (f"{kind.name}.{value}" for value in kind.values)
    elif isinstance(kind, GraphQLInputObjectType):
        yield from (f"{kind.name}.{field}" for field in kind.fields)
    elif isinstance(kind, GraphQLObjectType):
        for name, field in kind.fields.items():
            yield f"{kind.name}.{name}"
            yield from (f"{kind.name}.{name}({argument})" for argument in field.args)


def all_names(of: GraphQLSchema) -> set[str]:
    return {name for kind in of.type_map.values() if not kind.name.startswith("__") for name in names(kind)}


def missing() -> set[str]:
    """What ours lacks: of a type that is not there only the type, of a field only the field."""
    there = all_names(ours())
    return {
        name
        for name in all_names(contract()) - there
        if "." not in name or (name.partition(".")[0] in there and ("(" not in name or name.partition("(")[0] in there))
    }


def test_the_copy_of_the_contract_is_the_contract() -> None:
    if not SHARED.exists():
        pytest.skip("the shared contract is not on this machine")
    assert SHARED.read_text() == CONTRACT


def test_what_is_not_built_yet_is_named() -> None:
    assert missing() == NOT_YET


@cache
def signatures(of: GraphQLSchema) -> dict[str, tuple[str, str | None]]:
    """Each field, argument and input field: its type and its default as printed."""
    found: dict[str, tuple[str, str | None]] = {}
    for kind in of.type_map.values():
        if kind.name.startswith("__"):
            continue
        if isinstance(kind, GraphQLInputObjectType):
            for name, given in kind.fields.items():
                found[f"{kind.name}.{name}"] = (str(given.type), printed_default(given))
        elif isinstance(kind, GraphQLObjectType):
            for name, field in kind.fields.items():
                found[f"{kind.name}.{name}"] = (str(field.type), None)
                for argument, given in field.args.items():
                    found[f"{kind.name}.{name}({argument})"] = (str(given.type), printed_default(given))
    return found


def printed_default(given: Any) -> str | None:
    """Null and no default are the same to a caller."""
    if given.default is None:
        return None
    printed = print_ast(given.default.literal)
    return None if printed == "null" else printed


SHARED_NAMES = sorted(signatures(contract()).keys() & signatures(ours()).keys())


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_type_and_default_are_those_of_the_contract(name: str) -> None:
    assert signatures(ours())[name] == signatures(contract())[name]


@pytest.mark.parametrize("name", sorted(contract().type_map.keys() & ours().type_map.keys()))
def test_kinds_of_types_are_those_of_the_contract(name: str) -> None:
    assert type(ours().type_map[name]) is type(contract().type_map[name])


class _Prune(Visitor):
    """Takes out of the contract what ours has not."""

    def __init__(self, there: set[str]) -> None:
        super().__init__()
        self._there = there
        self._kind = ""
        self._field = ""

    def _type(self, node: Any, *_: object) -> Any:
        # Of a field that is removed the end is never told.
        self._kind, self._field = node.name.value, ""
        return None if self._kind in self._there else REMOVE

    enter_object_type_definition = _type
    enter_input_object_type_definition = _type
    enter_enum_type_definition = _type
    enter_scalar_type_definition = _type

    def enter_field_definition(self, node: Any, *_: object) -> Any:
        self._field = node.name.value
        return None if f"{self._kind}.{self._field}" in self._there else REMOVE

    def leave_field_definition(self, *_: object) -> None:
        self._field = ""

    def enter_input_value_definition(self, node: Any, *_: object) -> Any:
        name = node.name.value
        full = f"{self._kind}.{self._field}({name})" if self._field else f"{self._kind}.{name}"
        return None if full in self._there else REMOVE

    def enter_enum_value_definition(self, node: Any, *_: object) -> Any:
        return None if f"{self._kind}.{node.name.value}" in self._there else REMOVE


def restricted() -> GraphQLSchema:
    document: Node = visit(parse(CONTRACT), _Prune(all_names(ours())))
    assert isinstance(document, DocumentNode)
    return build_ast_schema(document)


def test_the_contract_as_far_as_it_is_built_is_not_broken() -> None:
    assert find_breaking_changes(restricted(), ours()) == []


def test_what_is_restricted_away_is_what_is_not_built_yet() -> None:
    left = all_names(restricted())
    gone = {
        name
        for name in all_names(contract()) - left
        if "." not in name or (name.partition(".")[0] in left and ("(" not in name or name.partition("(")[0] in left))
    }
    assert gone == NOT_YET


def test_mutation_fields_are_nullable_so_that_one_does_not_take_the_others_with_it() -> None:
    mutation = ours().mutation_type
    assert mutation is not None
    assert [name for name, field in mutation.fields.items() if str(field.type).endswith("!")] == []


def test_the_executable_schema_prints_as_the_sdl() -> None:
    assert schema.as_str() + "\n" == sdl()
