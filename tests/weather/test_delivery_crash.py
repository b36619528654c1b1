"""A server is killed in the middle of a delivery: another makes it again, by the rules for any lost lease."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from tests.server.test_operators import CREATE, TASK
from tests.support.crew import CREATE as CREATE_GROUP
from tests.support.process import server_process
from tests.support.stub import Received, reply, stub
from tests.support.wait import until


async def test_a_killed_servers_delivery_is_made_again(tmp_path: Path):
    started = asyncio.Event()

    async def never(_: Received) -> bytes:
        started.set()
        await asyncio.sleep(600)
        return b""

    async with stub() as operator:
        operator.replies.append(never)
        operator.default = reply(body={"output": "again"})
        with server_process(CREW_OPERATOR_PRIVATE_TARGETS="true") as server:
            await asyncio.to_thread(server.start)

            async def ask(query: str, **variables: object) -> dict:
                return await asyncio.to_thread(lambda: server.ask(query, **variables))

            await ask(CREATE, input={"channel": "c", "url": operator.url})
            group = {"name": "g", "tasks": [{"name": "a", "channel": "c"}]}
            id = (await ask(CREATE_GROUP, input=group))["createTaskGroup"]["tasks"][0]["id"]
            await asyncio.wait_for(started.wait(), 10)
            server.kill()
            await asyncio.to_thread(server.start)
            connection = await asyncpg.connect(server.dsn)
            try:
                # Half a minute later.
                await connection.execute("update delivery set until = now() - interval '1 s'")
                await connection.execute("update lease set until = now() - interval '1 s'")
            finally:
                await connection.close()

            async def done() -> dict | None:
                task = (await ask(f"query($id: ID!) {{ task(id: $id) {{ {TASK} }} }}", id=id))["task"]
                return task if task["state"] == "SUCCEEDED" else None

            task = await until(done, 20)
    assert (task["output"], task["attempt"]) == ("again", 2)
    assert task["errors"][0]["error"]["code"] == "LEASE_EXPIRED"
    assert [r.body["attempt"] for r in operator.received] == [1, 2]
