"""The peer harness with Crew in it. Runs in the harness's own environment; bench.beside_peers starts it.

    python -P bench/harness.py HARNESS_DIR PYTHON round|longtx …

HARNESS_DIR/bench.py is taken as it is, with four peers more: `crew` (works by long poll), `crew_ws` (by websocket), `crew_shared`
(its producers share one client and one group, as those of graphile, pg-boss and others share theirs) and `bare`
(bench/bare_queue.py). PYTHON is the interpreter with Crew in it. Each measurement of theirs has a fresh database, and a fresh
server process on it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OURS = {"crew": "long-poll", "crew_ws": "websocket"}
SHARED = "crew_shared"
BARE = "bare"
"""No peer, but what no peer behind an HTTP API is faster than."""


class Server:
    """`crew serve` on the database of the measurement."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def run(self, dsn: str, module: str, *command: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "DATABASE_URL": dsn}
        return subprocess.Popen(
            [self._python, "-m", module, *command], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def start(self, dsn: str, peer: str) -> None:
        command = ["bench.bare_queue"] if peer == BARE else ["server.cli", "serve", "--port"]
        self._process = self.run(dsn, *command, str(self._port))
        give_up = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=2).close()
                return
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)


def main() -> None:
    home, python = Path(sys.argv[1]), sys.argv[2]
    sys.argv = [str(home / "bench.py"), *sys.argv[3:]]
    source = (home / "bench.py").read_text().replace('if __name__ == "__main__":', "def run():")
    harness: dict[str, Any] = {"__name__": "harness", "__file__": str(home / "bench.py")}
    exec(compile(source, str(home / "bench.py"), "exec"), harness)
    server = Server(python)
    ours = {**OURS, SHARED: "long-poll", BARE: BARE}
    theirs = {name: harness[name] for name in ("cmdline", "env", "reset", "setup")}

    def cmdline(peer: str, cmd: str, **given: Any) -> list[str]:
        if peer not in ours:
            found: list[str] = theirs["cmdline"](peer, cmd, **given)
            return found
        pairs = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        return [python, "-P", str(ROOT / "bench/peer_crew.py"), peer, cmd, *pairs]

    def env(peer: str, d: str | None = None) -> dict[str, str]:
        found: dict[str, str] = theirs["env"](peer, d)
        if peer in ours:
            path = os.pathsep.join([str(home), str(ROOT / "sdk/python/src"), str(ROOT)])
            found = {**found, "CREW_URL": server.url, "PYTHONPATH": path}
        return found

    def reset(peer: str, sync: str) -> None:
        server.stop()
        theirs["reset"](peer, sync)
        if peer in ours:
            server.start(f"{harness['BASE']}/b_{peer}", peer)

    def setup(peer: str) -> None:
        if peer not in ours:
            theirs["setup"](peer)
            return
        harness["admin"](f"drop database if exists t_{peer} (force)", f"create database t_{peer}")
        if peer != BARE:
            assert server.run(f"{harness['BASE']}/t_{peer}", "server.cli", "migrate").wait(60) == 0

    harness.update(cmdline=cmdline, env=env, reset=reset, setup=setup)
    for peer, transport in ours.items():
        harness["CFG"][peer] = {
            "drain": {"concurrency": 1000, "transport": transport},
            "latency": {"concurrency": 10, "transport": transport},
            "bulk_n": 50000,
            "lat_n": 120,
        }
        harness["LEFT"][peer] = "select (select count(*) from ready) + (select count(*) from lease)"
    try:
        harness["run"]()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
