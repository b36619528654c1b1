"""Every operation of the API as a document of its own, with the least that it takes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    OperationType,
    get_named_type,
)

from schema.root import schema


@dataclass(frozen=True)
class Operation:
    kind: str
    field: str
    document: str
    variables: dict[str, Any]

    @property
    def params(self) -> dict[str, Any]:
        return {"query": self.document, "variables": self.variables}


def all_operations() -> list[Operation]:
    found = []
    for kind in OperationType:
        root = schema._schema.get_root_type(kind)
        assert root is not None
        found += [_operation(kind.value, name, field) for name, field in root.fields.items()]
    return found


def _operation(kind: str, name: str, field: GraphQLField) -> Operation:
    required = {n: a.type for n, a in field.args.items() if isinstance(a.type, GraphQLNonNull)}
    declared = ", ".join(f"${n}: {t}" for n, t in required.items())
    given = ", ".join(f"{n}: ${n}" for n in required)
    below = " { __typename }" if isinstance(get_named_type(field.type), GraphQLObjectType) else ""
    document = f"{kind}{f'({declared})' if declared else ''} {{ {name}{f'({given})' if given else ''}{below} }}"
    return Operation(kind, name, document, {n: _least(t, n) for n, t in required.items()})


def _least(kind: Any, name: str) -> Any:
    if isinstance(kind, GraphQLNonNull):
        return _least(kind.of_type, name)
    if isinstance(kind, GraphQLList):
        return ["c"] if name == "channels" else []
    if isinstance(kind, GraphQLInputObjectType):
        return {n: _least(f.type, n) for n, f in kind.fields.items() if isinstance(f.type, GraphQLNonNull)}
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    if kind.name == "ID":
        return str(uuid.uuid4())
    return {"String": f"{name}-x", "Int": 1, "Float": 1.0, "Boolean": False}.get(kind.name, "x")
