"""How much a document may ask for: counted once for each document, before and after it is validated.

Nodes are rows of pages: a field with `first`, `last`, `limit` or `buckets` asks for so many, each with all that is below it. Sizes
that are variables are taken from the request where their largest would be too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
)

from resolvers.access import Role
from resolvers.core import Limits
from schema.access import role_for

_SIZES = ("first", "last", "limit", "buckets")
_LARGEST_PAGE = 10_000
"""No list is asked for more than this at once: what is above it is refused by the field itself."""


class OverLimit(GraphQLError):
    """A document that asks for too much."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _over(code: str, setting: str, what: str, n: int, most: int) -> OverLimit:
    message = f"the document has {n:,} {what}; at most {most:,} are allowed (CREW_{setting}): ask for less, or in several calls"
    return OverLimit(code, message)


@dataclass(slots=True)
class Page:
    """So many rows, each with more pages below it."""

    size: int
    """What its argument says, or what counts when the variable says nothing."""
    variable: str | None
    below: list[Page] = field(default_factory=list)


@dataclass(slots=True)
class Asked:
    """What one operation asks for."""

    role: Role
    pages: list[Page] | None
    """Only where it depends on variables whether they are too many."""


def check_written(document: DocumentNode, limits: Limits) -> None:
    """Fields, aliases and directives as they are written; validation takes time by them. Raises OverLimit."""
    fields = aliases = directives = 0
    left: list[Any] = list(document.definitions)
    while left:
        node = left.pop()
        directives += len(node.directives or ())
        if isinstance(node, OperationDefinitionNode):
            directives += sum(len(v.directives or ()) for v in node.variable_definitions or ())
        if isinstance(node, FieldNode):
            fields += 1
            aliases += node.alias is not None
        inside = getattr(node, "selection_set", None)
        if inside is not None:
            left.extend(inside.selections)
    if directives > limits.max_directives:
        raise _over("TOO_MANY_DIRECTIVES", "MAX_DIRECTIVES", "directives", directives, limits.max_directives)
    if aliases > limits.max_aliases:
        raise _over("TOO_MANY_ALIASES", "MAX_ALIASES", "aliases", aliases, limits.max_aliases)
    if fields > limits.max_fields:
        raise _over("TOO_MANY_FIELDS", "MAX_FIELDS", "fields", fields, limits.max_fields)


def check_asked(schema: GraphQLSchema, document: DocumentNode, limits: Limits) -> dict[str, Asked]:
    """What each operation of a valid document asks for, its fragments opened. Raises OverLimit."""
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
    sizes = _Sizes(fragments)
    for operation in operations:
        depth, fields = sizes.of(operation.selection_set)
        if depth > limits.max_depth:
            raise _over("TOO_DEEP", "MAX_DEPTH", "levels of fields", depth, limits.max_depth)
        if fields > limits.max_fields:
            message = "fields, fragments opened"
            raise _over("TOO_MANY_FIELDS", "MAX_FIELDS", message, fields, limits.max_fields)
    return {o.name.value if o.name else "": _asked(schema, o, fragments, limits) for o in operations}


class _Sizes:
    """(levels, fields) of a selection set. Of each fragment once: those that spread each other twice would take for ever."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, selections: SelectionSetNode) -> tuple[int, int]:
        depth = fields = 0
        for node in selections.selections:
            if isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name not in self._known:
                    self._known[name] = self.of(self._fragments[name].selection_set)
                levels, many = self._known[name]
            else:
                inside: SelectionSetNode | None = getattr(node, "selection_set", None)
                levels, many = self.of(inside) if inside is not None else (0, 0)
                if isinstance(node, FieldNode):
                    levels, many = levels + 1, many + 1
            depth, fields = max(depth, levels), fields + many
        return depth, fields


def _asked(
    schema: GraphQLSchema,
    operation: OperationDefinitionNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    limits: Limits,
) -> Asked:
    root = schema.get_root_type(operation.operation)
    assert root is not None, "validated"
    names = {f.name.value for f in _fields(operation.selection_set, fragments)}
    role = max((role_for(operation.operation, name) for name in names), default=Role.VIEWER)
    defaults = {
        d.variable.name.value: int(d.default_value.value) if isinstance(d.default_value, IntValueNode) else None
        for d in operation.variable_definitions or ()
    }
    pages = _pages(schema, root, operation.selection_set, fragments, defaults)
    if rows(pages, None) <= limits.max_nodes:
        return Asked(role, None)
    if not _varies(pages):
        raise too_many_nodes(rows(pages, None), limits)
    return Asked(role, pages)


def _fields(selections: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> Iterator[FieldNode]:
    for node in selections.selections:
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, FragmentSpreadNode):
            yield from _fields(fragments[node.name.value].selection_set, fragments)
        elif isinstance(node, InlineFragmentNode):
            yield from _fields(node.selection_set, fragments)


def _pages(
    schema: GraphQLSchema,
    kind: GraphQLNamedType,
    selections: SelectionSetNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    defaults: Mapping[str, int | None],
) -> list[Page]:
    found: list[Page] = []
    for node in _fields(selections, fragments):
        # No type of ours is a union or an interface, so that a fragment's type is that of where it stands.
        definition = schema.get_field(kind, node.name.value)  # type: ignore[arg-type]
        if definition is None:
            continue
        below: list[Page] = []
        if node.selection_set is not None:
            below = _pages(schema, get_named_type(definition.type), node.selection_set, fragments, defaults)
        name = next((n for n in _SIZES if n in definition.args), None)
        if name is None:
            found += below
            continue
        usual, variable = definition.args[name].default_value, None
        size = usual if isinstance(usual, int) else 1
        for argument in node.arguments or ():
            if argument.name.value == name:
                if isinstance(argument.value, VariableNode):
                    variable = argument.value.name.value
                    own = defaults.get(variable)
                    size = size if own is None else own
                elif isinstance(argument.value, IntValueNode):
                    size = int(argument.value.value)
        found.append(Page(min(max(size, 0), _LARGEST_PAGE), variable, below))
    return found


def _varies(pages: Iterable[Page]) -> bool:
    return any(page.variable is not None or _varies(page.below) for page in pages)


def rows(pages: Iterable[Page], variables: Mapping[str, Any] | None) -> int:
    """How many rows they ask for; without variables the most that they may."""
    return sum(_size(page, variables) * (1 + rows(page.below, variables)) for page in pages)


def _size(page: Page, variables: Mapping[str, Any] | None) -> int:
    if page.variable is None:
        return page.size
    if variables is None:
        return _LARGEST_PAGE
    given = variables.get(page.variable)
    if given is None:
        return page.size
    # 50.0 is an Int to GraphQL; what is none is refused where it is read.
    return int(min(max(given, 0), _LARGEST_PAGE)) if isinstance(given, int | float) else 0


def too_many_nodes(n: int, limits: Limits) -> OverLimit:
    return OverLimit(
        "TOO_MANY_NODES",
        f"the document asks for up to {n:,} nodes; at most {limits.max_nodes:,} are allowed (CREW_MAX_NODES): "
        "give smaller pages by `first` (what is left out of a list inside a list counts with its default), or nest less",
    )
