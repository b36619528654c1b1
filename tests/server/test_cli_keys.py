"""`crew keys`, straight in the database; and that a server beyond loopback does not start without one."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from server.cli import app
from tests.support.access import over_http
from tests.support.process import server_process
from tests.support.streams import served

QUERY = {"query": "{ apiKeys { name } }"}


async def run(dsn: str, *args: str) -> Result:
    """`crew keys <args>`, in a thread of its own."""
    environment = {"DATABASE_URL": dsn, "COLUMNS": "200"}
    return await asyncio.to_thread(CliRunner().invoke, app, ["keys", *args], env=environment)


async def answered(dsn: str, *args: str) -> Any:
    result = await run(dsn, *args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_a_key_is_made_used_listed_and_revoked(dsn: str) -> None:
    async with served(dsn) as server:
        made = await run(dsn, "create", "first", "--role", "admin")
        secret = made.stdout.strip()
        assert made.exit_code == 0
        assert secret.startswith("crew_")
        assert "shown this once" in made.stderr
        assert await over_http(server, secret, QUERY) is None
        (row,) = (await answered(dsn, "list"))["apiKeys"]
        assert (row["name"], row["role"], row["channels"], row["namespace"]) == ("first", "ADMIN", None, None)
        table = (await run(dsn, "list")).stdout
        assert row["id"] in table
        assert secret not in table
        assert (await run(dsn, "revoke", row["id"])).stdout == f"revoked {row['id']}\n"
        await server.services.keys.read()
        assert await over_http(server, secret, QUERY) == "UNAUTHENTICATED"
        assert (await answered(dsn, "list")) == {"apiKeys": []}


async def test_a_worker_has_channels_a_namespace_and_an_end(dsn: str) -> None:
    made = await answered(
        dsn, "create", "w", "--role", "WORKER", "--channel", "b", "--channel", "a", "--namespace", "t", "--days", "1"
    )
    key = made["apiKey"]
    assert (key["role"], key["channels"], key["namespace"]) == ("WORKER", ["a", "b"], "t")
    assert key["expiresAt"] > key["createdAt"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("revoke", str(uuid.uuid4())), 1, "never made"),
        (("revoke", "x"), 1, "UUID"),
        (("create", "", "--role", "admin"), 1, "empty"),
        (("create", "a"), 2, "--role"),
        (("create", "a", "--role", "owner"), 2, "owner"),
    ],
)
async def test_what_cannot_be_done_is_told(dsn: str, args: tuple[str, ...], code: int, said: str) -> None:
    result = await run(dsn, *args)
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output


async def test_a_server_beyond_loopback_does_not_start_without_a_key(dsn: str) -> None:
    with server_process(DATABASE_URL=dsn, CREW_HOST="0.0.0.0") as server:
        await asyncio.to_thread(server.spawn)
        assert await asyncio.to_thread(server.process.wait, 60) == 1
        assert "crew: there is no API key, and on 0.0.0.0 others could reach this server" in server.logged()
        assert "Traceback" not in server.logged()
        await answered(dsn, "create", "a", "--role", "admin")
        await asyncio.to_thread(server.start)
        assert "by API key" in server.logged()
    with server_process(DATABASE_URL=dsn) as local:
        await asyncio.to_thread(local.start)
        assert "by API key" in local.logged()


async def test_a_server_says_that_it_is_open(dsn: str) -> None:
    with server_process(DATABASE_URL=dsn) as server:
        await asyncio.to_thread(server.start)
        assert "there is no API key yet" in server.logged()
    with server_process(DATABASE_URL=dsn, CREW_HOST="0.0.0.0", CREW_NO_KEYS="true", CREW_WORKERS="2") as server:
        await asyncio.to_thread(server.start)
        assert "CREW_NO_KEYS" in server.logged()
        assert (await asyncio.to_thread(server.ask, "{ apiKeys { name } }")) == {"apiKeys": []}
