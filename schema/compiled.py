"""Operations compiled: what workers, producers and live views send all day, run without the executor.

A mutation or query that selects what this module covers is turned, once per document, into a function: variables → inputs,
the same resolvers that the executor would call, rows → a response. Anything else, and any variable that is not plainly right,
is left to the executor, which also words the errors: a query in which anything goes wrong is run again by it. The two give equal
answers (tests/server/test_compiled.py). What it gave: docs/adr/0004.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    InlineFragmentNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    located_error,
    type_from_ast,
    value_from_ast_untyped,
)

from schema.coercion import STRAWBERRY, Coerce, NotCovered, camel, coercion

Pending = list[tuple[dict[str, Any], str, Coroutine[Any, Any, Any], "Project"]]
Project = Callable[[Any, "_Lite", Pending], Any]
Arguments = Callable[[dict[str, Any]], dict[str, Any]]
"""The operation's inputs → what a resolver is given."""


@dataclass(slots=True)
class _RawInfo:
    field_nodes: list[FieldNode]
    fragments: dict[str, FragmentDefinitionNode]
    leaves: frozenset[str] | None = None
    """The fields that are selected below, where none of them has fields of its own."""


@dataclass(slots=True)
class _Lite:
    """As much of strawberry's Info as our resolvers use."""

    context: Any
    _raw_info: _RawInfo
    inputs: dict[str, Any]
    below: dict[Any, _Lite] = field(default_factory=dict)
    """Of fields below this one, by what makes them."""


class Resolver(Protocol):
    def __call__(self, source: Any, **arguments: Any) -> Coroutine[Any, Any, Any]: ...


@dataclass(slots=True)
class _Root:
    key: str
    node: FieldNode
    resolve: Resolver
    arguments: Arguments
    project: Project


async def _nothing(source: Any, **_: Any) -> None:
    """Resolves `__typename`."""


@dataclass(slots=True, eq=False)
class Compiled:
    """One operation. `inputs` may raise NotCovered; after it, `run` always answers."""

    kind: OperationType
    variables: list[tuple[str, Coerce, bool]]
    """(name, coercion, required)"""
    roots: list[_Root]
    fragments: dict[str, FragmentDefinitionNode]
    is_plain: bool = False
    """Below the root nothing is read or computed: the same value makes the same data for everybody."""

    def inputs(self, given: dict[str, Any] | None) -> dict[str, Any]:
        """The variables' values as resolvers take them. Raises NotCovered for what is not plainly right."""
        values = given or {}
        made = {}
        for name, coerce, required in self.variables:
            if name in values:
                made[name] = coerce(values[name])
            elif required:
                raise NotCovered
        return made

    async def run(self, context: Any, inputs: dict[str, Any]) -> tuple[dict[str, Any], list[GraphQLError]]:
        """Data and errors. The fields run one after another, as mutations do. A query raises what its resolvers raise."""
        data: dict[str, Any] = {}
        errors: list[GraphQLError] = []
        for root in self.roots:
            info = self._info(root, context, inputs)
            try:
                data[root.key] = await _answer(root, info)
            except Exception as error:
                if self.kind is OperationType.QUERY:
                    raise
                data[root.key] = None
                errors.append(located_error(error, [root.node], [root.key]))
        return data, errors

    def source(self, context: Any, inputs: dict[str, Any]) -> Any:
        """The values of a subscription, one for each message."""
        root = self.roots[0]
        return root.resolve(None, info=self._info(root, context, inputs), **root.arguments(inputs))

    async def told(self, context: Any, inputs: dict[str, Any], value: Any) -> dict[str, Any]:
        """The data of one message of a subscription. Raises what its resolvers raise."""
        root = self.roots[0]
        return {root.key: await _projected(root, self._info(root, context, inputs), value)}

    def _info(self, root: _Root, context: Any, inputs: dict[str, Any]) -> _Lite:
        return _Lite(context, _RawInfo([root.node], self.fragments), inputs)


async def _answer(root: _Root, info: _Lite) -> Any:
    return await _projected(root, info, await root.resolve(None, info=info, **root.arguments(info.inputs)))


async def _projected(root: _Root, info: _Lite, value: Any) -> Any:
    pending: Pending = []
    answer = root.project(value, info, pending)
    while pending:
        batch, pending = pending, []
        values = await asyncio.gather(*(coroutine for _, _, coroutine, _ in batch))
        for (into, key, _, project), found in zip(batch, values, strict=True):
            into[key] = project(found, info, pending)
    return answer


def compile_operation(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Compiled | None:
    """The operation compiled, or None when it is left to the executor."""
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    try:
        kind = schema.get_root_type(operation.operation)
        if operation.directives or kind is None:
            return None
        variables = [_variable(schema, definition) for definition in operation.variable_definitions or ()]
        maker = _Maker(fragments, operation.operation)
        roots = maker.roots(kind, operation.selection_set)
        return Compiled(operation.operation, variables, roots, fragments, maker.is_plain)
    except NotCovered:
        return None


def _variable(schema: GraphQLSchema, definition: Any) -> tuple[str, Coerce, bool]:
    if definition.default_value is not None or definition.directives:
        raise NotCovered
    kind = type_from_ast(schema, definition.type)
    return definition.variable.name.value, coercion(kind), isinstance(kind, GraphQLNonNull)


# -- rows → a response --------------------------------------------------------------------------------------------------


class _Maker:
    """Turns selection sets into functions. Their source holds names of fields and our own words only."""

    def __init__(self, fragments: dict[str, FragmentDefinitionNode], kind: OperationType) -> None:
        self._fragments = fragments
        self._is_mutation = kind is OperationType.MUTATION
        self.is_plain = True
        # A subscription's resolver answers values one after another, the others' one.
        self._is_right = (
            inspect.isasyncgenfunction if kind is OperationType.SUBSCRIPTION else asyncio.iscoroutinefunction
        )

    def roots(self, kind: GraphQLObjectType, selections: SelectionSetNode) -> list[_Root]:
        found = []
        for key, node in self._fields(kind, selections).items():
            if node.name.value == "__typename" and kind.name != "Subscription":
                found.append(_Root(key, node, _nothing, lambda inputs: {}, lambda *_: kind.name))
                continue
            field = kind.fields.get(node.name.value)
            if field is None:
                raise NotCovered
            resolver = field.extensions[STRAWBERRY].base_resolver
            if resolver is None or not resolver.info_parameter or not self._is_right(resolver.wrapped_func):
                raise NotCovered
            found.append(
                _Root(key, node, resolver.wrapped_func, _arguments(field, node), self._project(field.type, node))
            )
        return found

    def _fields(self, kind: GraphQLObjectType, selections: SelectionSetNode) -> dict[str, FieldNode]:
        found: dict[str, FieldNode] = {}
        for node in selections.selections:
            if node.directives:
                raise NotCovered
            if isinstance(node, FieldNode):
                more = {(node.alias or node.name).value: node}
            elif isinstance(node, FragmentSpreadNode):
                fragment = self._fragments[node.name.value]
                more = self._fields(kind, self._same(kind, fragment).selection_set)
            elif isinstance(node, InlineFragmentNode):
                more = self._fields(kind, self._same(kind, node).selection_set)
            else:
                raise NotCovered
            if not found.keys().isdisjoint(more):
                raise NotCovered
            found.update(more)
        return found

    @staticmethod
    def _same(kind: GraphQLObjectType, fragment: Any) -> Any:
        condition = fragment.type_condition
        if fragment.directives or (condition is not None and condition.name.value != kind.name):
            raise NotCovered
        return fragment

    def _info(self, node: FieldNode) -> Callable[[_Lite], _Lite]:
        """The field's own: resolvers look at what is selected below it."""
        below = node.selection_set.selections if node.selection_set else ()
        leaves = [n.name.value for n in below if isinstance(n, FieldNode) and n.selection_set is None]
        raw = _RawInfo([node], self._fragments, frozenset(leaves) if len(leaves) == len(below) else None)

        def own(info: _Lite) -> _Lite:
            made = info.below.get(own)
            if made is None:
                made = info.below[own] = _Lite(info.context, raw, info.inputs)
            return made

        return own

    def _project(self, kind: Any, node: FieldNode) -> Project:
        """How a value of the type becomes a part of the response."""
        if isinstance(kind, GraphQLNonNull):
            return self._project(kind.of_type, node)
        if isinstance(kind, GraphQLList):
            each = self._project(kind.of_type, node)
            return lambda values, info, pending: None if values is None else [each(v, info, pending) for v in values]
        if isinstance(kind, GraphQLObjectType):
            if node.selection_set is None:
                raise NotCovered
            return self._object(kind, node.selection_set)
        leaf = _leaf(kind)
        if leaf is None:
            return lambda value, info, pending: value
        return lambda value, info, pending: None if value is None else leaf(value)

    def _object(self, kind: GraphQLObjectType, selections: SelectionSetNode) -> Project:
        scope: dict[str, Any] = {}
        parts, later = [], []
        for n, (key, node) in enumerate(self._fields(kind, selections).items()):
            if node.name.value == "__typename":
                parts.append(f"{key!r}: {kind.name!r}")
                continue
            field: GraphQLField = kind.fields[node.name.value]
            definition = field.extensions[STRAWBERRY]
            scope[f"p{n}"] = self._project(field.type, node)
            if definition.base_resolver is None:
                if node.arguments:
                    raise NotCovered
                value = f"o.{definition.python_name}"
                leaf = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
                plain = isinstance(leaf, GraphQLScalarType) and _leaf(leaf) is None
                parts.append(f"{key!r}: {value}" if plain else f"{key!r}: p{n}({value}, info, pending)")
            else:
                self.is_plain = False
                scope[f"r{n}"] = definition.base_resolver.wrapped_func
                given = "o"
                if definition.base_resolver.info_parameter:
                    scope[f"i{n}"] = self._info(node)
                    given += f", info=i{n}(info)"
                if node.arguments and self._is_mutation:
                    # Its error would null more than the executor's does, and what the mutation did is not to be done again.
                    raise NotCovered
                if node.arguments:
                    scope[f"a{n}"] = _arguments(field, node)
                    given += f", **a{n}(info.inputs)"
                if asyncio.iscoroutinefunction(definition.base_resolver.wrapped_func):
                    parts.append(f"{key!r}: None")
                    later.append(f"    pending.append((made, {key!r}, r{n}({given}), p{n}))")
                elif getattr(definition.base_resolver.wrapped_func, "is_prompt", False):
                    parts.append(f"{key!r}: None")
                    later.append(f"    v = r{n}({given})")
                    later.append(f"    if hasattr(v, '__await__'): pending.append((made, {key!r}, v, p{n}))")
                    later.append(f"    else: made[{key!r}] = p{n}(v, info, pending)")
                else:
                    parts.append(f"{key!r}: p{n}(r{n}({given}), info, pending)")
        lines = ["def project(o, info, pending):", "    if o is None: return None"]
        lines += [f"    made = {{{', '.join(parts)}}}", *later, "    return made"]
        exec("\n".join(lines), scope)
        project: Project = scope["project"]
        return project


def _arguments(field: GraphQLField, node: FieldNode) -> Arguments:
    """Literals are taken as variables are: what is not plainly right is left to the executor."""
    names = {a.graphql_name or camel(a.python_name): a.python_name for a in field.extensions[STRAWBERRY].arguments}
    variables: list[tuple[str, str]] = []
    literals: dict[str, Any] = {}
    for argument in node.arguments or ():
        to, value = names[argument.name.value], argument.value
        if isinstance(value, VariableNode):
            variables.append((to, value.name.value))
        else:
            kind = field.args[argument.name.value].type
            if "JSON" in str(kind):
                raise NotCovered
            literals[to] = coercion(kind)(_literal(value))
    return lambda inputs: {**literals, **{to: inputs[name] for to, name in variables if name in inputs}}


def _literal(node: ValueNode) -> Any:
    if isinstance(node, (VariableNode, ObjectValueNode)):
        raise NotCovered
    if isinstance(node, ListValueNode):
        return [_literal(value) for value in node.values]
    return value_from_ast_untyped(node)


def _leaf(kind: Any) -> Callable[[Any], Any] | None:
    """How orjson is given a leaf; None where it takes the value as it is."""
    if isinstance(kind, GraphQLEnumType):
        names = {member: member.name for member in kind.extensions[STRAWBERRY].wrapped_cls}
        return names.__getitem__
    if isinstance(kind, GraphQLScalarType):
        return orjson.Fragment if kind.name == "JSON" else None
    raise NotCovered
