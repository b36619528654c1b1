"""Documents, parsed and validated once: a cache keyed by their text."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    parse,
    validate,
)

from resolvers.access import Role
from resolvers.core import Limits
from schema.compiled import Compiled, compile_operation
from server.document_limits import Asked, OverLimit, check_asked, check_written

_KEEP = 1000
_LONGEST_KEPT = 100_000
_MOST_ERRORS = 5
"""Of validation: what is sent must not be answered with many times as much."""
_TOKENS = "Document contains more than"
_WAITING = {"claimTasks", "taskEvents"}


@dataclass(slots=True)
class Document:
    """A document that can be run, or the errors that say why not."""

    node: DocumentNode | None
    errors: list[GraphQLError] = field(default_factory=list)
    code: str = ""
    operations: dict[str, OperationDefinitionNode] = field(default_factory=dict)
    compiled: dict[str, Compiled] = field(default_factory=dict)
    """Those of its operations that run without the executor."""
    asked: dict[str, Asked] = field(default_factory=dict)
    """What each of its operations asks for."""
    may_wait: bool = False
    """Some field of it may wait long: then a client that goes away is noticed."""

    def operation(self, name: str | None) -> OperationDefinitionNode | None:
        if name is None:
            return next(iter(self.operations.values())) if len(self.operations) == 1 else None
        return self.operations.get(name)

    def compiled_operation(self, name: str | None) -> Compiled | None:
        if name is None:
            return next(iter(self.compiled.values()), None) if len(self.operations) == 1 else None
        return self.compiled.get(name)

    def asked_by(self, name: str | None) -> Asked | None:
        if name is None:
            return next(iter(self.asked.values()), None) if len(self.asked) == 1 else None
        return self.asked.get(name)

    def is_mutation(self, name: str | None) -> bool:
        return self._is(OperationType.MUTATION, name)

    def may_change(self, name: str | None) -> bool:
        """Whether it may change something, though it is no mutation: a stream of leases."""
        operation, asked = self.operation(name), self.asked_by(name)
        return operation is not None and asked is not None and asked.role > Role.VIEWER

    def writes(self, name: str | None) -> bool:
        """A mutation, other than a claim, which tells by itself when it got something."""
        operation = self.operation(name)
        return self.is_mutation(name) and any(
            not isinstance(f, FieldNode) or f.name.value != "claimTasks"
            for f in (operation.selection_set.selections if operation else ())
        )

    def only_reads(self, name: str | None) -> bool:
        """A query that answers as soon as it can, for certain."""
        operation = self.operation(name)
        return (
            operation is not None
            and operation.operation is OperationType.QUERY
            and not self.may_wait
            and all(isinstance(f, FieldNode) for f in operation.selection_set.selections)
        )

    def is_subscription(self, name: str | None) -> bool:
        return self._is(OperationType.SUBSCRIPTION, name)

    def _is(self, kind: OperationType, name: str | None) -> bool:
        operation = self.operation(name)
        return operation is not None and operation.operation is kind


class Documents:
    def __init__(self, schema: GraphQLSchema, limits: Limits = Limits()) -> None:
        self._schema = schema
        self._limits = limits
        self._kept: OrderedDict[str, Document] = OrderedDict()

    def get(self, text: str) -> Document:
        found = self._kept.get(text)
        if found is not None:
            self._kept.move_to_end(text)
            return found
        made = self._make(text)
        if len(text) <= _LONGEST_KEPT:
            self._kept[text] = made
            if len(self._kept) > _KEEP:
                self._kept.popitem(last=False)
        return made

    def _make(self, text: str) -> Document:
        try:
            return self._checked(parse(text, no_location=False, max_tokens=self._limits.max_tokens))
        except OverLimit as error:
            return Document(None, [error], error.code)
        except RecursionError:
            deep = f"the document is nested too deep; {self._limits.max_depth} levels of fields are allowed (CREW_MAX_DEPTH)"
            return Document(None, [GraphQLError(deep)], "TOO_DEEP")
        except GraphQLError as error:
            return Document(None, [error], "TOO_MANY_TOKENS" if _TOKENS in error.message else "GRAPHQL_PARSE_FAILED")

    def _checked(self, node: DocumentNode) -> Document:
        check_written(node, self._limits)
        errors = validate(self._schema, node, max_errors=_MOST_ERRORS)
        if errors:
            return Document(None, errors, "GRAPHQL_VALIDATION_FAILED")
        asked = check_asked(self._schema, node, self._limits)
        operations = [d for d in node.definitions if isinstance(d, OperationDefinitionNode)]
        by_name = {o.name.value if o.name else "": o for o in operations}
        compiled = {name: compile_operation(self._schema, node, o) for name, o in by_name.items()}
        return Document(
            node,
            operations=by_name,
            compiled={name: c for name, c in compiled.items() if c is not None},
            asked=asked,
            may_wait=any(
                isinstance(f, FieldNode) and f.name.value in _WAITING
                for o in operations
                for f in o.selection_set.selections
            ),
        )
