"""A Crew in this process, spoken to through its HTTP view; and short words for what tests say often."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx

from resolvers.core import Rhythm
from schema.context import Services
from server.app import create_app
from server.settings import Settings

TASK = "id name state attempt remainingAttempts notBefore heldBy output"
CREATE = "mutation($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } tasks { id name state } } }"
CREATE_TASKS = "mutation($input: CreateTasksInput!) { createTasks(input: $input) { tasks { id name state } } }"
CLAIM = (
    "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) "
    "{ leases { id attempt expiresAt task { id name channel input } } } }"
)
COMPLETE = (
    "mutation($input: CompleteTasksInput!) { completeTasks(input: $input) "
    "{ completed errors { index lease code message path } tasks { id name state } } }"
)
FAIL = (
    "mutation($input: FailTasksInput!) { failTasks(input: $input) "
    "{ failed errors { index lease code message path } tasks { id name state attempt remainingAttempts notBefore } } }"
)
EXTEND = (
    "mutation($input: ExtendLeasesInput!) { extendLeases(input: $input) "
    "{ expiresAt suspended errors { index lease code message path } } }"
)
RELEASE = (
    "mutation($input: ReleaseLeasesInput!) { releaseLeases(input: $input) "
    "{ released errors { index lease code message path } } }"
)


class Refused(AssertionError):
    """The API answered with errors."""

    def __init__(self, errors: list[dict[str, Any]], data: dict[str, Any] | None) -> None:
        super().__init__(errors)
        self.errors, self.data = errors, data

    @property
    def code(self) -> str:
        return self.errors[0].get("extensions", {}).get("code")

    @property
    def path(self) -> list[str | int]:
        return self.errors[0].get("extensions", {}).get("path")

    @property
    def message(self) -> str:
        return self.errors[0]["message"]


@dataclass
class Crew:
    """One server. Several on one database are several servers: nothing is shared but PostgreSQL."""

    http: httpx.AsyncClient
    services: Services
    dsn: str

    async def send(self, query: str, **variables: Any) -> httpx.Response:
        return await self.http.post("/graphql", json={"query": query, "variables": variables})

    async def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data. Raises Refused when there are errors."""
        answer = (await self.send(query, **variables)).json()
        if "errors" in answer:
            raise Refused(answer["errors"], answer.get("data"))
        return answer["data"]

    async def create(self, *tasks: dict[str, Any], **group: Any) -> dict[str, Any]:
        """A group with these tasks: {taskGroup: {id}, tasks: [{id name state}]}. A task's channel is `c` unless it says."""
        full = [{"channel": "c", **t} for t in tasks]
        return (await self.ask(CREATE, input={"name": "g", "tasks": full, **group}))["createTaskGroup"]

    async def create_tasks(self, group_id: str, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
        full = [{"channel": "c", **t} for t in tasks]
        return (await self.ask(CREATE_TASKS, input={"groupId": group_id, "tasks": full}))["createTasks"]["tasks"]

    async def claim(self, limit: int = 1, channels: tuple[str, ...] = ("c",), **more: Any) -> list[dict[str, Any]]:
        given = {"workerId": "w", "channels": list(channels), "limit": limit, **more}
        return (await self.ask(CLAIM, input=given))["claimTasks"]["leases"]

    async def complete(self, *leases: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
        """Complete leases, each with the fields of `more`."""
        results = [{"lease": x if isinstance(x, str) else x["id"], **more} for x in leases]
        return (await self.ask(COMPLETE, input={"results": results}))["completeTasks"]

    async def fail(self, *leases: dict[str, Any] | str, error: Any = "no", **more: Any) -> dict[str, Any]:
        failures = [{"lease": x if isinstance(x, str) else x["id"], "error": error, **more} for x in leases]
        return (await self.ask(FAIL, input={"failures": failures}))["failTasks"]

    async def extend(self, *leases: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
        ids = [x if isinstance(x, str) else x["id"] for x in leases]
        return (await self.ask(EXTEND, input={"leases": ids, **more}))["extendLeases"]

    async def release(self, *leases: dict[str, Any] | str) -> dict[str, Any]:
        ids = [x if isinstance(x, str) else x["id"] for x in leases]
        return (await self.ask(RELEASE, input={"leases": ids}))["releaseLeases"]

    async def task(self, id: str, fields: str = TASK) -> dict[str, Any]:
        return (await self.ask(f"query($id: ID!) {{ task(id: $id) {{ {fields} }} }}", id=id))["task"]

    async def states(self, group_id: str) -> dict[str, str]:
        """Name → state of a group's tasks."""
        query = "query($id: ID!) { taskGroup(id: $id) { graph { nodes { name state } } } }"
        nodes = (await self.ask(query, id=group_id))["taskGroup"]["graph"]["nodes"]
        return {n["name"]: n["state"] for n in nodes}

    async def sql(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Straight to the database: to look, and to move the clock by moving what is due."""
        return await self.services.core.pool.fetch(statement, *args)


@contextlib.asynccontextmanager
async def crew_on(dsn: str, *, rhythm: Rhythm | None = None, **settings: Any) -> AsyncIterator[Crew]:
    """A server on this database."""
    app = create_app(Settings(**{"allowed_hosts": ("crew",), **settings}), dsn, rhythm)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://crew", timeout=60) as http:
            yield Crew(http, app.state.services, dsn)
