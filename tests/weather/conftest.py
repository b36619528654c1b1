"""Fixtures of the weather: `stage`, connections on which to stop statements in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.races import Stage, stage_on


@pytest.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    async with stage_on(dsn) as stage:
        yield stage
