"""One request, as handlers take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.group import GroupRow, read_groups
from db.task import TaskRow, read_tasks
from resolvers import check
from resolvers.core import Core
from resolvers.errors import NotFound
from schema.context import Context, Services
from server.transports.rest import documents
from server.transports.rest.reading import Fields


@dataclass(slots=True)
class Call:
    context: Context
    params: Mapping[str, str]
    """Of the path."""
    query: Mapping[str, str]
    body: Fields
    lease_seconds: float

    @property
    def services(self) -> Services:
        return self.context.services

    @property
    def core(self) -> Core:
        return self.context.core

    async def task(self) -> TaskRow:
        """The one that the path names."""
        uuid = check.uuid(self.params["id"], ("id",), "id")
        found = await read_tasks(self.core.pool, self.core.ns, ids=[uuid])
        if not found:
            raise NotFound(f"no task {uuid}", ("id",))
        return found[0]

    async def group(self) -> GroupRow:
        """The one that the path names."""
        uuid = check.uuid(self.params["id"], ("id",), "id")
        found = await read_groups(self.core.pool, self.core.ns, ids=[uuid])
        if not found:
            raise NotFound(f"no task group {uuid}", ("id",))
        return found[0]

    async def task_document(self, no: int) -> dict[str, Any]:
        """As it is now."""
        found = await documents.tasks(Context(self.services), [no])
        if not found:
            raise NotFound("the task was deleted meanwhile", ("id",))
        return found[0]
