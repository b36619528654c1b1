"""`crew serve --workers N`: N server processes that accept from one socket. The parent owns the socket and the embedded
PostgreSQL, starts again what dies, and passes the stop signal on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

import structlog

from server.settings import Settings

log = structlog.get_logger("crew")
_LOOK_SECONDS = 0.1
_SHORTEST_LIFE = 1.0
"""One that dies sooner is started again only when this time is over."""
_STOP_SECONDS = 35.0
"""Longer than a server takes to finish its requests."""


class Workers:
    """Blocks in `run` until SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, dsn: str, listener: socket.socket) -> None:
        self._count = settings.workers
        self._listener = listener
        listener.listen(2048)
        descriptor = listener.fileno()
        self._command = [sys.executable, "-m", "server.cli", "serve-worker", str(descriptor), str(os.getpid())]
        self._environment = {**os.environ, "DATABASE_URL": dsn, "CREW_HOST": settings.host}
        self._running: list[tuple[subprocess.Popen[bytes], float]] = []
        self._stopping = False

    def run(self, look_after_database: Callable[[], None]) -> None:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._stopping:
                self._keep_running()
                look_after_database()
                time.sleep(_LOOK_SECONDS)
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _keep_running(self) -> None:
        for worker, since in list(self._running):
            status = worker.poll()
            if status is not None and time.monotonic() - since > _SHORTEST_LIFE:
                log.warning("a server process ended and is started again", pid=worker.pid, status=status)
                self._running.remove((worker, since))
        while len(self._running) < self._count and not self._stopping:
            worker = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[self._listener.fileno()],
                # A Ctrl-C in the terminal goes to the parent alone, which passes it on.
                start_new_session=True,
            )
            self._running.append((worker, time.monotonic()))

    def _end(self) -> None:
        for worker, _ in self._running:
            worker.terminate()
        give_up = time.monotonic() + _STOP_SECONDS
        for worker, _ in self._running:
            try:
                worker.wait(max(0.0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
