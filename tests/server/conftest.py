"""`terminal`: `crew …` in this process, against a server on a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.terminal import Terminal, terminal_on


@pytest.fixture
async def terminal(dsn: str) -> AsyncIterator[Terminal]:
    async with terminal_on(dsn) as terminal:
        yield terminal
