"""Variables of compiled operations as resolvers take them: of each type a function that takes a value which is plainly right, made
once. What is not is left to the executor, which also words the errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
)

from schema.inputs import NullMeansDefault

STRAWBERRY = "strawberry-definition"
_INT32 = 1 << 31
Coerce = Callable[[Any], Any]


class NotCovered(Exception):
    """Left to the executor."""


@cache
def coercion(kind: Any) -> Coerce:
    """Takes a value that is plainly right for the type; raises NotCovered otherwise."""
    if isinstance(kind, GraphQLNonNull):
        inner = coercion(kind.of_type)

        def required(value: Any) -> Any:
            if value is None:
                raise NotCovered
            return inner(value)

        return required
    if isinstance(kind, GraphQLList):
        each = coercion(kind.of_type)

        def many(value: Any) -> Any:
            if value is None:
                return None
            if type(value) is not list:
                raise NotCovered
            return [each(v) for v in value]

        return many
    if isinstance(kind, GraphQLInputObjectType):
        return _object(kind)
    if isinstance(kind, GraphQLScalarType):
        return _SCALARS.get(kind.name) or _own_scalar(kind)
    if isinstance(kind, GraphQLEnumType):
        return _member(kind)
    raise NotCovered


def _member(kind: GraphQLEnumType) -> Coerce:
    members = {member.name: member for member in kind.extensions[STRAWBERRY].wrapped_cls}

    def take(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not str or value not in members:
            raise NotCovered
        return members[value]

    return take


def _plain(*kinds: type) -> Coerce:
    def take(value: Any) -> Any:
        if value is None or type(value) in kinds:
            return value
        raise NotCovered

    return take


def _int(value: Any) -> Any:
    if value is None or (type(value) is int and -_INT32 <= value < _INT32):
        return value
    raise NotCovered


def _float(value: Any) -> Any:
    if value is None or type(value) is float:
        return value
    if type(value) is int and abs(value) < 1 << 53:
        return float(value)
    raise NotCovered


_PLAIN: dict[str, type] = {"String": str, "ID": str, "Boolean": bool}
_SCALARS: dict[str, Coerce] = {
    **{name: _plain(kind) for name, kind in _PLAIN.items()},
    "Int": _int,
    "Float": _float,
    "JSON": lambda value: value,
}


def _own_scalar(kind: GraphQLScalarType) -> Coerce:
    parse = kind.parse_value

    def take(value: Any) -> Any:
        if value is None:
            return None
        try:
            return parse(value)
        except GraphQLError:
            raise NotCovered from None

    return take


def _object(kind: GraphQLInputObjectType) -> Coerce:
    definition = kind.extensions[STRAWBERRY]
    make = _maker(definition.origin)
    python_names = {f.graphql_name or camel(f.python_name): f.python_name for f in definition.fields}
    fields = {
        name: (python_names[name], _plain_type(field.type), coercion(field.type)) for name, field in kind.fields.items()
    }
    required = {name for name, field in kind.fields.items() if isinstance(field.type, GraphQLNonNull)}

    def build(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not dict:
            raise NotCovered
        if not required <= value.keys():
            raise NotCovered
        given = {}
        for name, part in value.items():
            if name not in fields:
                raise NotCovered
            to, plain, coerce = fields[name]
            given[to] = part if type(part) is plain else coerce(part)
        return make(given)

    return build


def _plain_type(kind: Any) -> type | None:
    """Values of this Python type are right as they are."""
    named = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
    return _PLAIN.get(named.name) if isinstance(named, GraphQLScalarType) else None


def _maker(kind: Any) -> Callable[[dict[str, Any]], Any]:
    """Makes an input of what is given. Its defaults stand in its class: an object of what is given alone takes a third of the
    time that `__init__` takes, which sets each of twenty fields of a new task."""
    after = getattr(kind, "__post_init__", None)
    nulls_are_defaults = after is NullMeansDefault.__post_init__
    in_class = all(f.default_factory is dataclasses.MISSING for f in dataclasses.fields(kind))
    if not in_class or not (after is None or nulls_are_defaults):
        return lambda given: kind(**given)

    def make(given: dict[str, Any]) -> Any:
        if nulls_are_defaults and None in given.values():
            given = {name: value for name, value in given.items() if value is not None}
        made = object.__new__(kind)
        made.__dict__ = given
        return made

    return make


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
