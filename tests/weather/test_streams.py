"""Every fault × every transport × worker and subscriber, while graphs of tasks run: nothing lost, nothing doubled, no event
missed or repeated. (DESIGN.md §3.15)"""

from __future__ import annotations

import pytest

from resolvers.core import Rhythm
from tests.support.streams import served
from tests.support.weather.clients import Patience
from tests.support.weather.line import FAULTS
from tests.support.weather.packets import Link, behind, why_not
from tests.support.weather.run import run

QUIET = 1.0
GENTLE = ("none", "delay")
"""They break nothing."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_all_tasks_are_done_once_and_all_events_told_once(dsn: str, fault: str) -> None:
    async with served(dsn, rhythm=Rhythm(quiet=QUIET)) as server:
        cells = await run(server.url, fault, seed=1, seconds=6, patience=Patience(silence=QUIET + 1), grace=30)
    for cell in cells:
        assert cell.whole, cell
        assert cell.lags
        assert cell.faults or fault in GENTLE, "the weather was fine"


async def test_packets_are_lost_delayed_doubled_and_overtake_each_other(dsn: str) -> None:
    if reason := why_not():
        pytest.skip(reason)
    link = Link()
    async with behind(link, dsn, seed=1) as (url, _):
        cells = await run(url, "none", seed=1, seconds=6, patience=Patience(answer=5, ping=5), grace=30)
    assert link.dropped > 20, "the weather was fine"
    assert all(cell.whole and cell.lags for cell in cells), cells
