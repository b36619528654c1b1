"""Lists of tasks: filters, orders, pages and totals."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Annotated

import strawberry
from strawberry.types import get_object_definition
from strawberry.utils.str_converters import to_camel_case

from db.task import read_tasks
from resolvers import check
from resolvers import task as deciding
from resolvers.walk import Total
from schema.context import Info, asks_only, page_size
from schema.task import NUMBERS, Task, TaskState

of = strawberry.field


@strawberry.enum(description="The order of a list of tasks.")
class TaskOrder(enum.Enum):
    CREATED_ASC = strawberry.enum_value("created_asc", description="Oldest first.")
    CREATED_DESC = strawberry.enum_value("created_desc", description="Newest first.")
    PRIORITY_DESC = strawberry.enum_value("priority_desc", description="Highest priority first, then oldest.")
    FINISHED_DESC = strawberry.enum_value(
        "finished_desc", description="Latest end first; those that have not ended come last."
    )


class Counted:
    """A list's total: counted when a field asks for it first, and once for all of them."""

    def __init__(self, count: Callable[[], Awaitable[Total]]) -> None:
        self._count = count
        self._counting: asyncio.Future[Total] | None = None

    async def __call__(self) -> Total:
        if self._counting is None:
            self._counting = asyncio.ensure_future(self._count())
        return await self._counting


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = of(description="Whether more follow.")
    has_previous_page: bool = of(description="Whether this page began after a cursor.")
    start_cursor: str | None = of(description="The first item's cursor; null on an empty page.")
    end_cursor: str | None = of(description="The last item's cursor: give it as `after` for the next page.")


@strawberry.type(description="A task in a list, with its place there.")
class TaskConnectionEdge:
    cursor: str = of(description="Its place: give it as `after` to go on from here.")
    node: Task = of(description="The task.")


@strawberry.type(
    description="A page of tasks. `totalCount` is exact up to 10,000 and stops there; `totalCountIsExact` tells."
)
class TaskConnection:
    page: strawberry.Private[deciding.Page]
    total: strawberry.Private[Counted]

    @strawberry.field(description="The tasks with their cursors.")
    def edges(self) -> list[TaskConnectionEdge]:
        page = self.page
        return [TaskConnectionEdge(cursor=page.cursor(n), node=Task.of(row)) for n, row in enumerate(page.rows)]

    @strawberry.field(description="The tasks alone.")
    def nodes(self) -> list[Task]:
        return [Task.of(row) for row in self.page.rows]

    @strawberry.field(description="Where this page stands.")
    def page_info(self) -> PageInfo:
        page = self.page
        ends = [page.cursor(n) for n in (0, -1)] if page.rows else []
        return page_info(ends, page.has_next, page.has_previous)

    @strawberry.field(
        description=(
            "How many tasks the whole list has, up to 10,000; so many as were found, where they lie too far apart to be counted."
        )
    )
    async def total_count(self) -> int:
        return (await self.total()).n

    @strawberry.field(description="False when there are more than `totalCount` says.")
    async def total_count_is_exact(self) -> bool:
        return (await self.total()).is_exact


def page_info(cursors: list[str], has_next: bool, has_previous: bool) -> PageInfo:
    return PageInfo(
        has_next_page=has_next,
        has_previous_page=has_previous,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )


@strawberry.input(description="What a list of tasks is narrowed to. A field left out narrows nothing.")
class TaskFilter:
    states: list[TaskState] | None = of(default=None, description="In one of these states.")
    channels: list[str] | None = of(default=None, description="In one of these channels.")
    workgroups: list[str] | None = of(default=None, description="In one of these workgroups.")
    group_id: strawberry.ID | None = of(default=None, description="In this group.")
    key: str | None = of(default=None, description="With this key.")
    worker_id: str | None = of(default=None, description="Run by this worker, now or last.")
    name_contains: str | None = of(default=None, description="With this text in its name, in any case.")
    created_after: datetime | None = of(default=None, description="Created after this instant.")
    created_before: datetime | None = of(default=None, description="Created before this instant.")

    def narrowed(self) -> deciding.Filter:
        path = ("filter",)
        for what, words in (("channels", self.channels), ("workgroups", self.workgroups)):
            for n, word in enumerate(words or ()):
                check.characters(word, (*path, what, n), what)
        return deciding.Filter(
            states=None if self.states is None else [NUMBERS[s] for s in self.states],
            channels=self.channels,
            workgroups=self.workgroups,
            group_id=None if self.group_id is None else check.uuid(self.group_id, (*path, "groupId"), "groupId"),
            key=_words(self.key, (*path, "key"), "key"),
            worker_id=_words(self.worker_id, (*path, "workerId"), "workerId"),
            name_contains=_words(self.name_contains, (*path, "nameContains"), "nameContains"),
            created_after=check.instant(self.created_after, (*path, "createdAfter"), "createdAfter"),
            created_before=check.instant(self.created_before, (*path, "createdBefore"), "createdBefore"),
        )


def _words(value: str | None, path: tuple[str, ...], what: str) -> str | None:
    return None if value is None else check.characters(value, path, what)


_LEAN = frozenset(
    {"__typename", *(to_camel_case(f.python_name) for f in get_object_definition(Task, strict=True).fields)}
    - {"heldBy", "notBefore", "progress", "progressMessage"}
)
"""What a list can be asked of its tasks without their being read in full."""
_CURSOR = frozenset({"cursor"})
_ORDERS = {order: order.name.lower() for order in TaskOrder}


async def page_of_tasks(
    info: Info, narrowed: deciding.Filter, order: TaskOrder, first: int, after: str | None
) -> TaskConnection:
    core = info.context.core
    lean = asks_only(info, "nodes", _LEAN) and asks_only(info, "edges", _CURSOR)
    page = await deciding.page(core, _ORDERS[order], narrowed, after, first, lean=lean)
    return TaskConnection(page=page, total=Counted(partial(deciding.total, core, narrowed)))


@strawberry.type
class TaskQuery:
    @strawberry.field(description="A task by its id; null when there is none.")
    async def task(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The task's UUID.")]
    ) -> Task | None:
        uuid = check.uuid(id, ("id",), "id")
        rows = await read_tasks(info.context.core.pool, info.context.core.ns, ids=[uuid])
        return Task.of(rows[0]) if rows else None

    @strawberry.field(description="Tasks of all groups, a page at a time.")
    async def tasks(
        self,
        info: Info,
        filter: Annotated[TaskFilter | None, strawberry.argument(description="Which tasks.")] = None,
        order_by: Annotated[
            TaskOrder | None, strawberry.argument(description="In which order.")
        ] = TaskOrder.CREATED_DESC,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 50,
        after: Annotated[str | None, strawberry.argument(description="After this cursor.")] = None,
    ) -> TaskConnection | None:
        narrowed = filter.narrowed() if filter else deciding.Filter()
        size = page_size(first, 50, info)
        return await page_of_tasks(info, narrowed, order_by or TaskOrder.CREATED_DESC, size, after)
