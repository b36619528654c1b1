"""Every case of sdk/conformance.json, by the JavaScript SDK in node, against a real server and through the fault proxy.

The cases run once, several at a time, in one run of node's test runner; each is a test here.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.sdk.case import CASES, Json
from tests.support import javascript
from tests.support.fault_proxy import FaultProxy
from tests.support.process import ServerProcess, environment


@pytest.fixture(scope="module")
def answers(served: ServerProcess, faults: FaultProxy) -> dict[str, Any]:
    """Name of a case → what node's test runner said of it."""
    try:
        node = javascript.node()
    except ImportError as error:
        pytest.skip(f"no node here: {error}")
    dist = javascript.built()
    done = subprocess.run(
        [node, "--test", f"--test-reporter={dist / 'tests/lines.js'}", str(dist / "tests/conformance.test.js")],
        env=environment(CREW_URL=served.url, CREW_FAULTS=faults.control),
        capture_output=True,
        text=True,
        timeout=150,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert told, done.stdout + done.stderr
    return {one["name"]: one for one in told}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_conformance(case: Json, answers: dict[str, Any]):
    said = answers[case["name"]]
    assert said["ok"], said["error"]
    assert said["skipped"] is None
