"""Query, Mutation and the executable schema; only assembles."""

from __future__ import annotations

import strawberry
from strawberry.schema.config import StrawberryConfig

from schema.access import AccessMutation, AccessQuery
from schema.channel import ChannelMutation, ChannelQuery
from schema.event import EventQuery, EventSubscription
from schema.group import GroupMutation, GroupQuery
from schema.group_steering import GroupSteering
from schema.lease import LeaseMutation
from schema.operator import OperatorMutation, OperatorQuery
from schema.push import LeaseSubscription
from schema.scalars import SCALARS
from schema.schedule import ScheduleMutation, ScheduleQuery
from schema.server import ServerQuery
from schema.steering import TaskMutation
from schema.task_list import TaskQuery
from schema.throughput import ThroughputQuery
from schema.update import UpdateMutation
from schema.worker import WorkerQuery
from schema.workgroup import WorkgroupMutation, WorkgroupQuery


@strawberry.type(description="What can be read.")
class Query(
    TaskQuery,
    GroupQuery,
    ChannelQuery,
    WorkgroupQuery,
    WorkerQuery,
    OperatorQuery,
    AccessQuery,
    ScheduleQuery,
    ThroughputQuery,
    EventQuery,
    ServerQuery,
):
    pass


@strawberry.type(
    description=(
        "What can be changed. Fields are nullable so that one that fails does not take the answers of those before it, in "
        "the same document, with it: complete and claim go together."
    )
)
class Mutation(
    GroupMutation,
    GroupSteering,
    LeaseMutation,
    TaskMutation,
    UpdateMutation,
    ChannelMutation,
    WorkgroupMutation,
    OperatorMutation,
    ScheduleMutation,
    AccessMutation,
):
    pass


@strawberry.type(description="What is told as it happens, over websocket or SSE.")
class Subscription(EventSubscription, LeaseSubscription):
    pass


schema = strawberry.Schema(Query, Mutation, Subscription, config=StrawberryConfig(scalar_map=SCALARS))


def sdl() -> str:
    """The schema as text, as schema/crew.graphql holds it."""
    return schema.as_str() + "\n"
