"""`served`: a Crew server in a process of its own, for all tests of a module; `faults`: a proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.process import ServerProcess, server_process


@pytest.fixture(scope="module")
def served() -> Iterator[ServerProcess]:
    with server_process() as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def faults(served: ServerProcess) -> Iterator[FaultProxy]:
    with fault_proxy(served.url) as proxy:
        yield proxy
