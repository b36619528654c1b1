"""Inputs out of JSON that no document brought: templates of schedules, and what an application's own transaction asks for."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import strawberry
from graphql import GraphQLError, GraphQLInputObjectType
from graphql.utilities import coerce_input_value, validate_input_value
from strawberry.types.arguments import convert_argument
from strawberry.utils.str_converters import to_camel_case

from resolvers.errors import BadInput, Path

if TYPE_CHECKING:
    from schema.group import CreateTaskGroupInput, CreateTasksInput


class Given:
    """Reads them by the rules of the schema, as if they had come as variables."""

    def __init__(self, schema: strawberry.Schema) -> None:
        self._schema = schema

    def group(self, value: object) -> CreateTaskGroupInput:
        return cast("CreateTaskGroupInput", self._read(value, "CreateTaskGroupInput"))

    def tasks(self, value: object) -> CreateTasksInput:
        return cast("CreateTasksInput", self._read(value, "CreateTasksInput"))

    def _read(self, value: object, name: str) -> object:
        kind = cast(GraphQLInputObjectType, self._schema._schema.type_map[name])
        refused: list[tuple[str, Path]] = []

        def refuse(error: GraphQLError, path: list[str | int]) -> None:
            refused.append((error.message, tuple(path)))

        validate_input_value(value, kind, refuse)
        if refused:
            raise BadInput(*refused[0])
        given = cast("Mapping[str, Any]", coerce_input_value(value, kind))
        definition = kind.extensions["strawberry-definition"]
        return convert_argument(
            given, definition.origin, self._schema.schema_converter.scalar_registry, self._schema.config
        )


def as_json(given: Any) -> Any:
    """An input as the JSON that it may be read from again. What has its default is left out."""
    if isinstance(given, list):
        return [as_json(one) for one in given]
    if isinstance(given, enum.Enum):
        return given.name
    if isinstance(given, datetime):
        return given.isoformat()
    definition = getattr(type(given), "__strawberry_definition__", None)
    if definition is None:
        return given
    made = {}
    for field in definition.fields:
        value = getattr(given, field.python_name)
        if value is not None and value != field.default:
            made[field.graphql_name or to_camel_case(field.python_name)] = as_json(value)
    return made
