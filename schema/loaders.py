"""Nested reads, batched: one statement for all that one request asks of a kind at one level."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from strawberry.dataloader import DataLoader

from db import group as groups
from db import operator as operators
from db import progress
from db import task as tasks
from resolvers.core import Core

Key = TypeVar("Key")
Row = TypeVar("Row")


class Loader(DataLoader[Key, Row]):
    """What several fields wait for outlasts each of them: where a field fails, graphql-core cancels those beside it."""

    def load(self, key: Key) -> Awaitable[Row]:
        return asyncio.shield(super().load(key))


class Loaders:
    """One request's loaders; what they load is remembered for the request."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.tasks: Loader[int, tasks.TaskRow | None] = Loader(self._tasks)
        self.groups: Loader[int, groups.GroupRow | None] = Loader(self._groups)
        self.progress: Loader[int, progress.GroupProgressRow] = Loader(self._progress)
        self.errors: Loader[int, list[tasks.ErrorRow]] = Loader(self._errors)
        self.link_counts: Loader[int, tasks.LinkCountRow] = Loader(self._link_counts)
        self.counts: Loader[int, list[groups.StateCountRow]] = Loader(self._counts)
        self.oldest_ready: Loader[int, float | None] = Loader(self._oldest_ready)
        self.operators: Loader[int, operators.OperatorRow | None] = Loader(self._operators)
        self._parents: dict[int, Loader[int, list[int]]] = {}
        self._children: dict[int, Loader[int, list[int]]] = {}
        self._results: dict[int, Loader[int, list[tasks.ParentResultRow]]] = {}

    def parents(self, first: int) -> Loader[int, list[int]]:
        """Numbers of a task's parents."""
        return self._parents.setdefault(first, Loader(partial(self._links, tasks.links_to_parents, first)))

    def children(self, first: int) -> Loader[int, list[int]]:
        """Numbers of a task's children."""
        return self._children.setdefault(first, Loader(partial(self._links, tasks.links_to_children, first)))

    def parent_results(self, first: int) -> Loader[int, list[tasks.ParentResultRow]]:
        return self._results.setdefault(first, Loader(partial(self._parent_results, first)))

    async def _tasks(self, nos: list[int]) -> list[tasks.TaskRow | None]:
        found = {row.no: row for row in await tasks.read_tasks(self._core.pool, self._core.ns, nos=nos)}
        return [found.get(no) for no in nos]

    async def _groups(self, nos: list[int]) -> list[groups.GroupRow | None]:
        found = {row.group_no: row for row in await groups.read_groups(self._core.pool, self._core.ns, nos=nos)}
        self._core.groups.remember({number: row.id for number, row in found.items()})
        return [found.get(no) for no in nos]

    async def _progress(self, nos: list[int]) -> list[progress.GroupProgressRow]:
        found = {row.group_no: row for row in await progress.group_progress(self._core.pool, self._core.ns, nos)}
        return [found[no] for no in nos]

    async def _errors(self, nos: list[int]) -> list[list[tasks.ErrorRow]]:
        return _by(nos, await tasks.errors_of_tasks(self._core.pool, self._core.ns, nos), lambda row: row.no)

    async def _link_counts(self, nos: list[int]) -> list[tasks.LinkCountRow]:
        found = {row.no: row for row in await tasks.count_links(self._core.pool, self._core.ns, nos)}
        return [found[no] for no in nos]

    async def _counts(self, numbers: list[int]) -> list[list[groups.StateCountRow]]:
        return _by(
            numbers, await groups.counts_by_state(self._core.pool, self._core.ns, numbers), lambda row: row.number
        )

    async def _oldest_ready(self, channels: list[int]) -> list[float | None]:
        found = await groups.oldest_ready(self._core.pool, self._core.ns, channels)
        return [found.get(channel) for channel in channels]

    async def _operators(self, channels: list[int]) -> list[operators.OperatorRow | None]:
        found = await operators.read_operators(self._core.pool, self._core.ns, channels=channels)
        by_channel = {row.channel: row for row in found}
        return [by_channel.get(channel) for channel in channels]

    async def _links(
        self, read: Callable[..., Awaitable[list[tasks.LinkRow]]], first: int, nos: list[int]
    ) -> list[list[int]]:
        found = _by(nos, await read(self._core.pool, self._core.ns, nos, first), lambda row: row.no)
        return [[row.other for row in rows] for rows in found]

    async def _parent_results(self, first: int, nos: list[int]) -> list[list[tasks.ParentResultRow]]:
        return _by(nos, await tasks.parent_results(self._core.pool, self._core.ns, nos, first), lambda row: row.no)


def _by(keys: list[int], rows: list[Row], key: Callable[[Row], int]) -> list[list[Row]]:
    """Rows dealt out to their keys, in the order of the keys."""
    found: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return [found[k] for k in keys]
