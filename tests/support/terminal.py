"""`crew …` in this process, against a server that it reaches over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from click.testing import Result
from typer.testing import CliRunner

from server.app import create_app
from server.cli import app
from server.demo.run import InProcessServer
from server.settings import Settings
from tests.support.crew import Crew


@dataclass
class Terminal:
    """A terminal of so many columns, or with None none at all."""

    crew: Crew
    url: str

    async def run(self, *args: str, columns: int | None = 200, input: str = "", **more: str) -> Result:
        """`crew <args>`, in a thread beside the server."""
        environment = {"CREW_URL": self.url, "CREW_KEY": None, "COLUMNS": columns and str(columns), **more}
        return await asyncio.to_thread(CliRunner().invoke, app, args, input=input, env=environment)

    async def ok(self, *args: str, **more: Any) -> str:
        """What it printed, when it ended well."""
        result = await self.run(*args, **more)
        assert result.exit_code == 0, result.output
        return result.stdout

    async def json(self, *args: str, **more: Any) -> Any:
        return json.loads(await self.ok(*args, "--json", **more))


@contextlib.asynccontextmanager
async def terminal_on(dsn: str) -> AsyncIterator[Terminal]:
    """A server on this database and on a port of its own, in this event loop."""
    served = create_app(Settings(), dsn)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(served, log_config=None, access_log=False, lifespan="on", http="httptools", ws="none")
        server = InProcessServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started:
                assert not serving.done(), "the server did not start"
                await asyncio.sleep(0.005)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url, timeout=60) as http:
                yield Terminal(Crew(http, served.state.services, dsn), url)
        finally:
            server.should_exit = True
            await serving
