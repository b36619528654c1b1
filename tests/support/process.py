"""A Crew server as a process of its own, on its own embedded PostgreSQL: to be stopped, killed and started again.

All of this blocks; a test that does other things meanwhile calls it through asyncio.to_thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from db.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[2]
Seen = TypeVar("Seen")


def wait_for(check: Callable[[], Seen], what: str, seconds: float = 30) -> Seen:
    """The first truthy answer of `check`. Fails when there is none within `seconds`."""
    give_up = time.monotonic() + seconds
    while not (seen := check()):
        if time.monotonic() > give_up:
            raise AssertionError(f"{what}: still {seen!r} after {seconds:g} s")
        time.sleep(0.02)
    return seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def alive(pid: int) -> bool:
    """Whether the process runs. One that has ended and waits to be collected does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextlib.contextmanager
def open_directory(prefix: str) -> Iterator[Path]:
    """A temporary directory that others may enter: as root, PostgreSQL runs as `nobody`."""
    home = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def environment(**given: str) -> dict[str, str]:
    """Ours, without what would steer a server; and `given`."""
    kept = {k: v for k, v in os.environ.items() if k != "DATABASE_URL" and not k.startswith("CREW_")}
    return {**kept, **given}


class ServerProcess:
    """`crew serve` on a port that stays the same over restarts, with its data in `home`."""

    program: Sequence[str] = ("server.cli",)
    """The module that runs, and what it is given before `serve`."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.data_dir = home / "crew"
        self.log = home / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment(CREW_DATA_DIR=str(self.data_dir), **settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def dsn(self) -> str:
        """Of its embedded PostgreSQL."""
        return EmbeddedPostgres(self.data_dir).dsn

    @property
    def postmaster(self) -> int:
        return int((self.data_dir / "data" / "postmaster.pid").read_text().split()[0])

    def workers(self) -> list[int]:
        """The process ids of `serve --workers`, in the order they were started."""
        found = []
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"serve-worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
        return found

    def spawn(self) -> None:
        """Start it, and do not wait."""
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self.program, "serve", "--port", str(self.port)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.spawn()
        wait_for(self._up, "the server starts", 60)

    def _up(self) -> bool:
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.logged()}"
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def terminate(self, seconds: float = 15) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9 of the server process."""
        self.process.kill()
        self.process.wait()

    def kill_postgres(self) -> int:
        """kill -9 of the postmaster; the pid it had."""
        pid = self.postmaster
        os.kill(pid, signal.SIGKILL)
        return pid

    def logged(self) -> str:
        return self.log.read_text(errors="replace")

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of one GraphQL request."""
        response = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30)
        answer = response.json()
        assert "errors" not in answer, answer
        return answer["data"]

    def close(self) -> None:
        """Ends it however it stands, and its PostgreSQL."""
        if self._process is None:
            return
        postmaster = self.postmaster if (self.data_dir / "data" / "postmaster.pid").exists() else None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        if postmaster is not None:
            try:
                wait_for(lambda: not alive(postmaster), "PostgreSQL ends", 15)
            except AssertionError:
                os.kill(postmaster, signal.SIGQUIT)


@contextlib.contextmanager
def server_process(**settings: str) -> Iterator[ServerProcess]:
    """A server, not started yet, in a directory of its own. Nothing of it stays."""
    with open_directory("crew-server-") as home:
        server = ServerProcess(home, **settings)
        try:
            yield server
        finally:
            server.close()
