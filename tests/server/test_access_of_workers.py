"""A worker of the Python SDK with a key, in a namespace, on every transport that it has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crew_worker import Crew
from resolvers.access import Role
from tests.support.access import make_key
from tests.support.streams import served
from tests.support.wait import until


@pytest.mark.parametrize("transport", ["long-poll", "sse", "websocket"])
async def test_a_worker_with_a_key_works_in_its_namespace(dsn: str, transport: str) -> None:
    async with served(dsn) as server:
        await make_key(server, Role.ADMIN)
        secret = await make_key(server, Role.WORKER, channels=["greet"], namespace="tenant")
        url = server.url.removesuffix("/graphql")
        async with Crew(url, key=secret, transport=transport, wait_seconds=2) as crew:

            @crew.task("greet")
            async def greet(task: Any) -> str:
                return f"hello {task.input}"

            working = asyncio.create_task(crew.work())

            async def connected() -> bool:
                return crew.transport == transport

            await until(connected, 20)
            group = crew.group("g")
            greeting = group.task("greet", "you")
            assert (await greeting.result(timeout=30)) == "hello you"
            crew.stop()
            await asyncio.wait_for(working, 20)
            found = await crew.ask("{ tasks { nodes { state output } } }")
            assert found["tasks"]["nodes"] == [{"state": "SUCCEEDED", "output": "hello you"}]
