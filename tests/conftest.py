"""Fixtures: `server` (a PostgreSQL), `dsn` (a fresh database with the schema), `crew` (a server on it)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.crew import Crew, crew_on
from tests.support.postgres import clone, drop, make_template, postgres


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with postgres() as dsn:
        make_template(dsn)
        yield dsn


@pytest.fixture
async def dsn(server: str) -> AsyncIterator[str]:
    name = await clone(server)
    yield name
    await drop(server, name)


@pytest.fixture
async def crew(dsn: str) -> AsyncIterator[Crew]:
    async with crew_on(dsn) as crew:
        yield crew
