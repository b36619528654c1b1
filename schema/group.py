"""Task groups: one DAG each; how they are made and read."""

from __future__ import annotations

import enum
from datetime import datetime
from functools import lru_cache, partial
from typing import Annotated

import strawberry

from db import group as rows
from db.group import GroupRow
from db.progress import GroupProgressRow
from db.task import links_among
from resolvers import check, steer
from resolvers import group as deciding
from resolvers.call import Made
from schema.context import Info, asks_only, page_size
from schema.inputs import NullMeansDefault
from schema.new_task import NewTask
from schema.scalars import JSON
from schema.task import STATES, StateCount, Task, TaskEdge, json_or_none, tasks_in_order
from schema.task_list import Counted, PageInfo, TaskConnection, TaskFilter, TaskOrder, page_info, page_of_tasks

of = strawberry.field
_ID = frozenset({"id"})


@strawberry.enum(description="How a group stands.")
class GroupState(enum.Enum):
    OPEN = strawberry.enum_value(1, description="Some task is not settled, or there is none yet.")
    FINISHED = strawberry.enum_value(2, description="Every task is settled: SUCCEEDED or CANCELLED.")
    FAILING = strawberry.enum_value(3, description="Some task is FAILED.")
    PAUSED = strawberry.enum_value(4, description="It is paused.")


@strawberry.enum(description="The order of a list of groups.")
class TaskGroupOrder(enum.Enum):
    CREATED_DESC = strawberry.enum_value("created_desc", description="Newest first.")
    CREATED_ASC = strawberry.enum_value("created_asc", description="Oldest first.")
    FINISHED_DESC = strawberry.enum_value(
        "finished_desc", description="Latest end first; those not finished come last, newest first."
    )
    NAME_ASC = strawberry.enum_value("name_asc", description="By name, in the order of its characters' code points.")


_STATES = {state: n for n, state in enumerate(GroupState, 1)}
_ORDERS = {order: order.name.lower() for order in TaskGroupOrder}


@strawberry.type(description="How far a group is.")
class GroupProgress:
    fraction: float = of(
        description="0 to 1: the weight of the settled tasks over the weight of all; 0 for an empty group."
    )
    total: int = of(description="How many tasks it has.")
    counts: list[StateCount] = of(description="How many stand in each state; states with none are left out.")

    @classmethod
    def of(cls, row: GroupProgressRow) -> GroupProgress:
        # A group of tasks that weigh nothing is either done or not.
        fraction = row.settled_weight / row.weight if row.weight else float(row.finished_at is not None)
        counts = [StateCount(state=STATES[state], count=n) for state, n in enumerate(row.counts) if n]
        return cls(fraction=fraction, total=sum(row.counts), counts=counts)


@strawberry.type(description="The tasks and links to draw.")
class TaskGraph:
    nodes: list[Task] = of(description="The tasks, oldest first.")
    edges: list[TaskEdge] = of(description="The links between them.")
    truncated: bool = of(description="Whether there are more tasks than were asked for.")


@strawberry.type(description="One DAG of tasks, worked on and watched as a whole.")
class TaskGroup:
    group_no: strawberry.Private[int]
    id: strawberry.ID = of(description="A UUID: the creator's, or made by the server.")
    name: str = of(description="What people call it; 1 to 1,000 characters.")
    is_paused: bool = of(description="No task of it is handed out until it is resumed.")
    metadata: JSON | None = of(description="Free labels.")
    created_at: datetime = of(description="When it was created.")

    @classmethod
    def of(cls, row: GroupRow) -> TaskGroup:
        return cls(
            group_no=row.group_no,
            id=strawberry.ID(str(row.id)),
            name=row.name,
            is_paused=row.is_paused,
            metadata=json_or_none(row.metadata),
            created_at=row.created_at,
        )

    @strawberry.field(description="When the last of its tasks was settled; null while any is not.")
    async def finished_at(self, info: Info) -> datetime | None:
        return (await info.context.loaders.progress.load(self.group_no)).finished_at

    @strawberry.field(description="How far it is.")
    async def progress(self, info: Info) -> GroupProgress:
        return GroupProgress.of(await info.context.loaders.progress.load(self.group_no))

    @strawberry.field(description="Its tasks, a page at a time.")
    async def tasks(
        self,
        info: Info,
        filter: Annotated[TaskFilter | None, strawberry.argument(description="Which of them.")] = None,
        order_by: Annotated[
            TaskOrder | None, strawberry.argument(description="In which order.")
        ] = TaskOrder.CREATED_ASC,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 50,
        after: Annotated[str | None, strawberry.argument(description="After this cursor.")] = None,
    ) -> TaskConnection:
        narrowed = deciding.within(filter.narrowed() if filter else None, self.id)
        return await page_of_tasks(info, narrowed, order_by or TaskOrder.CREATED_ASC, page_size(first, 50, info), after)

    @strawberry.field(
        description="The tasks and links to draw, in one piece; `truncated` when there are more than `limit` tasks."
    )
    async def graph(
        self,
        info: Info,
        limit: Annotated[int | None, strawberry.argument(description="At most so many tasks, 0 to 1000.")] = 1000,
    ) -> TaskGraph:
        core = info.context.core
        size = page_size(limit, 1000, info, ("limit",))
        nos = await rows.group_numbers(core.pool, core.ns, self.group_no, size + 1)
        edges = await links_among(core.pool, core.ns, nos[:size])
        return TaskGraph(
            nodes=await tasks_in_order(info, nos[:size]),
            edges=[TaskEdge.of(row) for row in edges],
            truncated=len(nos) > size,
        )


@strawberry.type(description="A group in a list, with its place there.")
class TaskGroupConnectionEdge:
    cursor: str = of(description="Its place: give it as `after` to go on from here.")
    node: TaskGroup = of(description="The group.")


@strawberry.type(
    description="A page of groups. `totalCount` is exact up to 10,000 and stops there; `totalCountIsExact` tells."
)
class TaskGroupConnection:
    total: strawberry.Private[Counted]
    edges: list[TaskGroupConnectionEdge] = of(description="The groups with their cursors.")
    nodes: list[TaskGroup] = of(description="The groups alone.")
    page_info: PageInfo = of(description="Where this page stands.")

    @strawberry.field(
        description=(
            "How many groups the whole list has, up to 10,000; so many as were found, where they lie too far apart to be counted."
        )
    )
    async def total_count(self) -> int:
        return (await self.total()).n

    @strawberry.field(description="False when there are more than `totalCount` says.")
    async def total_count_is_exact(self) -> bool:
        return (await self.total()).is_exact


@strawberry.input(description="What a list of groups is narrowed to. A field left out narrows nothing.")
class TaskGroupFilter:
    states: list[GroupState] | None = of(default=None, description="Standing in one of these ways.")
    name_contains: str | None = of(default=None, description="With this text in its name, in any case.")
    created_after: datetime | None = of(default=None, description="Created after this instant.")
    created_before: datetime | None = of(default=None, description="Created before this instant.")

    def narrowed(self) -> deciding.GroupFilter:
        words = self.name_contains
        if words is not None:
            check.characters(words, ("filter", "nameContains"), "nameContains")
        return deciding.GroupFilter(
            name_contains=words,
            created_after=check.instant(self.created_after, ("filter", "createdAfter"), "createdAfter"),
            created_before=check.instant(self.created_before, ("filter", "createdBefore"), "createdBefore"),
            states=None if self.states is None else [_STATES[s] for s in self.states],
        )


@strawberry.input(description="A group to be made, with its tasks.")
class CreateTaskGroupInput(NullMeansDefault):
    name: str = of(description="What people call it; 1 to 1,000 characters.")
    id: strawberry.ID | None = of(
        default=None,
        description=(
            "A UUID of the sender's own makes the call safe to repeat: the repeat answers the group and the tasks that the "
            "call made, in order, and creates nothing."
        ),
    )
    is_paused: bool | None = of(default=False, description="Hand out none of its tasks until it is resumed.")
    metadata: JSON | None = of(default=None, description="Free labels; up to 1 MiB.")
    tasks: list[NewTask] | None = of(default=None, description="Its first tasks, in any order; at most 10,000.")


@strawberry.input(description="Many small groups in one call and one transaction.")
class CreateTaskGroupsInput:
    groups: list[CreateTaskGroupInput] = of(description="At most 10,000, with at most 10,000 tasks in all.")


@strawberry.input(description="Tasks for a group that is there.")
class CreateTasksInput:
    group_id: strawberry.ID = of(description="The group's UUID.")
    tasks: list[NewTask] = of(description="In any order; at most 10,000.")


@strawberry.type(description="The group and its tasks, in the order sent.")
class CreateTaskGroupPayload:
    task_group: TaskGroup = of(description="The group.")
    tasks: list[Task] = of(description="The tasks that the call made, in the order sent.")


@strawberry.type(description="What was made, in the order sent.")
class CreateTaskGroupsPayload:
    groups: list[CreateTaskGroupPayload] = of(description="The groups with their tasks.")


@strawberry.type(description="A group that a call was about.")
class TaskGroupPayload:
    task_group: TaskGroup = of(description="The group as it is now.")
    affected: int = of(
        description=(
            "How many tasks it touched: of a pause or resume, those READY that are held or freed by it; of other verbs, those that "
            "it changed itself."
        )
    )


@strawberry.type(description="What was made, in the order sent.")
class CreateTasksPayload:
    tasks: list[Task] = of(description="The tasks, in the order sent.")


async def _group(info: Info, made: Made, read: bool) -> TaskGroup:
    if not read:
        return bare_group(str(made.group_id))
    core = info.context.core
    found = await rows.read_groups(core.pool, core.ns, ids=[made.group_id])
    return TaskGroup.of(found[0])


@lru_cache(10_000)
def bare_group(uuid: str) -> TaskGroup:
    """For a caller who asks for no more than the id."""
    group = TaskGroup.__new__(TaskGroup)
    group.id = strawberry.ID(uuid)
    return group


async def _tasks(info: Info, made: Made) -> list[Task]:
    """As far as they are asked for."""
    if asks_only(info, "tasks", frozenset()):
        return []
    if asks_only(info, "tasks", _ID):
        return [bare_task(no, str(uuid)) for no, uuid in made.tasks]
    return await tasks_in_order(info, [no for no, _ in made.tasks])


def bare_task(no: int, uuid: str) -> Task:
    """For a caller who asks for no more than the id."""
    task = Task.__new__(Task)
    task.no, task.id = no, strawberry.ID(uuid)
    return task


@strawberry.type
class GroupQuery:
    @strawberry.field(description="A group by its id; null when there is none.")
    async def task_group(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The group's UUID.")]
    ) -> TaskGroup | None:
        uuid = check.uuid(id, ("id",), "id")
        found = await rows.read_groups(info.context.core.pool, info.context.core.ns, ids=[uuid])
        return TaskGroup.of(found[0]) if found else None

    @strawberry.field(description="Groups, a page at a time.")
    async def task_groups(
        self,
        info: Info,
        filter: Annotated[TaskGroupFilter | None, strawberry.argument(description="Which groups.")] = None,
        order_by: Annotated[
            TaskGroupOrder | None, strawberry.argument(description="In which order.")
        ] = TaskGroupOrder.CREATED_DESC,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 50,
        after: Annotated[str | None, strawberry.argument(description="After this cursor.")] = None,
    ) -> TaskGroupConnection | None:
        narrowed = filter.narrowed() if filter else deciding.GroupFilter()
        order = order_by or TaskGroupOrder.CREATED_DESC
        page = await deciding.page(info.context.core, narrowed, _ORDERS[order], after, page_size(first, 50, info))
        edges = [
            TaskGroupConnectionEdge(cursor=c, node=TaskGroup.of(row))
            for c, row in zip(page.cursors, page.rows, strict=True)
        ]
        return TaskGroupConnection(
            total=Counted(partial(deciding.total, info.context.core, narrowed)),
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page_info(page.cursors, page.has_next, page.has_previous),
        )


@strawberry.type
class GroupMutation:
    @strawberry.mutation(description="Make a group with its tasks: a whole DAG in one call, all of it or nothing.")
    async def create_task_group(
        self,
        info: Info,
        input: Annotated[CreateTaskGroupInput, strawberry.argument(description="The group.")],
    ) -> CreateTaskGroupPayload | None:
        (made,) = await info.context.services.creator.groups([input], ("input",), many=False)
        return CreateTaskGroupPayload(
            task_group=await _group(info, made, not asks_only(info, "taskGroup", _ID)),
            tasks=await _tasks(info, made),
        )

    @strawberry.mutation(description="Make many groups in one call and one transaction: all of them or none.")
    async def create_task_groups(
        self,
        info: Info,
        input: Annotated[CreateTaskGroupsInput, strawberry.argument(description="The groups.")],
    ) -> CreateTaskGroupsPayload | None:
        made = await info.context.services.creator.groups(input.groups, ("input",), many=True)
        core = info.context.core
        groups = {row.id: row for row in await rows.read_groups(core.pool, core.ns, ids=[m.group_id for m in made])}
        nos = [no for m in made for no, _ in m.tasks]
        await info.context.loaders.tasks.load_many(nos)
        return CreateTaskGroupsPayload(
            groups=[
                CreateTaskGroupPayload(
                    task_group=TaskGroup.of(groups[m.group_id]),
                    tasks=await tasks_in_order(info, [no for no, _ in m.tasks]),
                )
                for m in made
            ]
        )

    @strawberry.mutation(description="Add tasks to a group: all of them or none.")
    async def create_tasks(
        self,
        info: Info,
        input: Annotated[CreateTasksInput, strawberry.argument(description="The tasks.")],
    ) -> CreateTasksPayload | None:
        made = await info.context.services.creator.tasks(input.group_id, input.tasks, ("input",))
        return CreateTasksPayload(tasks=await _tasks(info, made))

    @strawberry.mutation(
        description=(
            "Hand out no task of the group until it is resumed, whenever they are created or become ready. What runs may "
            "finish."
        )
    )
    async def pause_task_group(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The group's UUID.")]
    ) -> TaskGroupPayload | None:
        row, affected = await steer.pause_group(info.context.core, id)
        return TaskGroupPayload(task_group=TaskGroup.of(row), affected=affected)

    @strawberry.mutation(description="Hand out its tasks again. They can be claimed when the call returns.")
    async def resume_task_group(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The group's UUID.")]
    ) -> TaskGroupPayload | None:
        row, affected = await steer.resume_group(info.context.core, id)
        return TaskGroupPayload(task_group=TaskGroup.of(row), affected=affected)
