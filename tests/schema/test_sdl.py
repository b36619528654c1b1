"""The SDL on disk is the schema's, and everything in it is described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLObjectType,
    build_schema,
    is_specified_directive,
    is_specified_scalar_type,
)

import schema as package
from schema.root import sdl

FILE = Path(package.__file__).parent / "crew.graphql"


def described() -> Iterator[tuple[str, str | None]]:
    built = build_schema(sdl())
    for kind in built.type_map.values():
        if kind.name.startswith("__") or is_specified_scalar_type(kind):
            continue
        yield kind.name, kind.description
        if isinstance(kind, GraphQLEnumType):
            for name, value in kind.values.items():
                yield f"{kind.name}.{name}", value.description
        elif isinstance(kind, GraphQLInputObjectType):
            for name, given in kind.fields.items():
                yield f"{kind.name}.{name}", given.description
        elif isinstance(kind, GraphQLObjectType):
            for name, field in kind.fields.items():
                yield f"{kind.name}.{name}", field.description
                for argument, given in field.args.items():
                    yield f"{kind.name}.{name}({argument})", given.description
    for directive in built.directives:
        if not is_specified_directive(directive):
            yield f"@{directive.name}", directive.description


DESCRIBED = dict(described())


def test_the_sdl_on_disk_is_the_schema() -> None:
    """`crew schema --write` writes it."""
    assert FILE.read_text() == sdl()


def test_the_sdl_can_be_built() -> None:
    assert build_schema(sdl()).query_type is not None


@pytest.mark.parametrize("name", DESCRIBED)
def test_everything_is_described(name: str) -> None:
    text = DESCRIBED[name]
    assert text
    assert text.strip() == text


def test_nothing_of_ours_is_deprecated_before_it_is_released() -> None:
    assert "@deprecated" not in sdl()
