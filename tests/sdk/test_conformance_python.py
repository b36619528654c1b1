"""Every case of sdk/conformance.json, by the Python SDK, against a real server and through the fault proxy."""

from __future__ import annotations

import pytest

from tests.sdk.case import CASES, Json, Run
from tests.support.fault_proxy import FaultProxy
from tests.support.process import ServerProcess


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_conformance(case: Json, served: ServerProcess, faults: FaultProxy):
    await Run(case, served.url, faults.port_with).run()


def test_there_are_at_least_forty_cases_and_no_name_stands_twice():
    assert len({case["name"] for case in CASES}) == len(CASES) >= 40
