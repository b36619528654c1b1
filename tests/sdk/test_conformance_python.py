"""Every case of sdk/conformance.json, by the Python SDK, against a real server and through the fault proxy.

Most of the time they wait, so they run once, several at a time, in one event loop; each is a test here.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.sdk.case import CASES, Json, Run
from tests.support.fault_proxy import FaultProxy
from tests.support.process import ServerProcess

AT_ONCE = 6
Answers = dict[str, BaseException | None]


@pytest.fixture(scope="module")
def answers(served: ServerProcess, faults: FaultProxy) -> Answers:
    """Name of a case → what it raised."""

    async def run_all() -> list[BaseException | None]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def run(case: Json) -> None:
            async with turn:
                await Run(case, served.url, faults.port_with).run()

        return await asyncio.gather(*map(run, CASES), return_exceptions=True)

    return dict(zip((case["name"] for case in CASES), asyncio.run(run_all()), strict=True))


@pytest.mark.timeout(200)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_conformance(case: Json, answers: Answers):
    if raised := answers[case["name"]]:
        raise raised


def test_there_are_at_least_forty_cases_and_no_name_stands_twice():
    assert len({case["name"] for case in CASES}) == len(CASES) >= 40
