"""What resolvers find in `info.context`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from graphql import FieldNode, FragmentSpreadNode, InlineFragmentNode
from strawberry.types import Info as StrawberryInfo

from db.clock import ping_workers
from resolvers.access import ANYONE, Caller, Keyring
from resolvers.core import Core
from resolvers.create import Creator
from resolvers.dispatch import Dispatcher
from resolvers.errors import BadInput
from resolvers.event_log import EventLog
from resolvers.inbox import Inbox
from resolvers.lease import Finisher
from resolvers.operator import Operators
from resolvers.push import Push
from resolvers.schedule import Schedules
from schema.loaders import Loaders


@dataclass(frozen=True)
class Services:
    """What lives as long as the server, of one namespace; the keys are the same for all."""

    core: Core
    creator: Creator
    finisher: Finisher
    dispatcher: Dispatcher
    log: EventLog
    push: Push
    operators: Operators
    schedules: Schedules
    inbox: Inbox
    version: str
    keys: Keyring

    def drain(self) -> None:
        """The server stops: long polls are answered now, and streams end."""
        self.dispatcher.drain()
        self.log.drain()
        self.push.drain()
        self.operators.drain()

    async def write_down_workers(self) -> None:
        """The workers heard of since the last time."""
        seen, self.core.seen = self.core.seen, {}
        if seen:
            await ping_workers(self.core.pool, self.core.ns, seen)


@dataclass
class Context:
    """One request's: the services, and loaders that batch its nested reads."""

    services: Services
    last_event_id: str | None = None
    """The cursor that an SSE client came back with."""
    transport: str = "poll"
    """How the client is connected, as workers are shown."""
    caller: Caller = ANYONE

    @cached_property
    def loaders(self) -> Loaders:
        return Loaders(self.services.core)

    @property
    def core(self) -> Core:
        return self.services.core


Info = StrawberryInfo[Context, None]
Resolver = TypeVar("Resolver", bound=Callable[..., Any])


def page_size(first: int | None, default: int, info: Info, path: tuple[str, ...] = ("first",)) -> int:
    """`first`, checked: null is the default."""
    size = default if first is None else first
    most = info.context.core.limits.max_page
    if not 0 <= size <= most:
        raise BadInput(f"first is {size}; it must be between 0 and {most}: take the next page with `after`", path)
    return size


def prompt(resolver: Resolver) -> Resolver:
    """Marks one that answers at once where it can, and with an awaitable where it cannot: 500 leases without parents need not
    be 500 coroutines."""
    resolver.is_prompt = True  # type: ignore[attr-defined]
    return resolver


def asks_for(info: Info, names: frozenset[str]) -> bool:
    """Whether this field is asked for no more than these leaves."""
    leaves: frozenset[str] | None = getattr(info._raw_info, "leaves", None)
    if leaves is not None:
        return leaves <= names
    return all(
        isinstance(leaf, FieldNode) and leaf.name.value in names
        for node in info._raw_info.field_nodes
        for leaf in _children(node, info)
    )


def asks_only(info: Info, inside: str, names: frozenset[str]) -> bool:
    """Whether the field `inside` of this one is asked for no more than these leaves: then no row need be read."""
    for nodes in (_children(node, info) for node in info._raw_info.field_nodes):
        for node in nodes:
            if not isinstance(node, FieldNode):
                return False
            if node.name.value != inside:
                continue
            for leaf in _children(node, info):
                if not isinstance(leaf, FieldNode) or leaf.name.value not in names:
                    return False
    return True


def asks_beyond(info: Info, path: tuple[str, ...], names: frozenset[str]) -> bool:
    """Whether the field at this path below this one is asked for other fields than these. Remembered with the document."""
    node = info._raw_info.field_nodes[0]
    kept: dict[Any, bool] = node.__dict__.setdefault("asks_beyond", {})
    if (path, names) not in kept:
        nodes = info._raw_info.field_nodes
        for inside in path:
            found = [child for node in nodes for child in _children(node, info)]
            if not all(isinstance(child, FieldNode) for child in found):
                return True
            nodes = [child for child in found if child.name.value == inside]
        leaves = [leaf for node in nodes for leaf in _children(node, info)]
        kept[path, names] = not all(isinstance(leaf, FieldNode) and leaf.name.value in names for leaf in leaves)
    return kept[path, names]


def _children(node: FieldNode, info: Info) -> list[Any]:
    """The selections of a node, fragments of one level opened."""
    found: list[Any] = []
    for child in node.selection_set.selections if node.selection_set else ():
        if isinstance(child, FragmentSpreadNode):
            fragment = info._raw_info.fragments[child.name.value]
            definition = getattr(fragment, "definition", fragment)
            found.extend(definition.selection_set.selections)
        elif isinstance(child, InlineFragmentNode):
            found.extend(child.selection_set.selections)
        else:
            found.append(child)
    return found
