"""`crew work module:crew`, also as `python -m crew_worker module:crew`: runs the worker that a module holds."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crew_worker.client import Crew
from crew_worker.errors import CrewError
from crew_worker.logs import configure

LOOK_SECONDS = 0.3
# Folders of other people's code.
PASSED_OVER = frozenset(("node_modules", "site-packages", "__pycache__"))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("crew work", description="Run the worker that a Python module holds, until SIGTERM.")
    made.add_argument("target", metavar="module:name", help="where the Crew object stands; `:crew` may be left out")
    made.add_argument("--url", help="the server [CREW_URL, or what the module says]")
    made.add_argument(
        "--concurrency", type=int, help="tasks at once, over the channels that name no number of their own"
    )
    made.add_argument("--channel", action="append", dest="channels", help="take only this channel; may be repeated")
    made.add_argument("--transport", choices=("auto", "long-poll", "websocket", "sse"), help="how tasks come [auto]")
    made.add_argument("--lease-seconds", type=float, help="how soon others take over when this worker dies [60]")
    made.add_argument("--stop-seconds", type=float, help="how long handlers may go on after SIGTERM [30]")
    made.add_argument("--health", metavar="HOST:PORT", help="an HTTP endpoint with /healthz and /metrics")
    made.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="text for people, json for programs"
    )
    made.add_argument("--reload", action="store_true", help="start afresh whenever a Python file below here changes")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else list(arguments)
    asked = parser().parse_args(given)
    if asked.reload:
        sys.exit(Reloader([argument for argument in given if argument != "--reload"]).run())
    configure(asked.log_format)
    try:
        crew = load(asked.target)
        if asked.url:
            crew.url = asked.url
        if asked.channels:
            crew.handlers = chosen(crew, asked.channels)
        crew.run(**options(asked))
    except CrewError as error:
        sys.exit(f"crew work: {error}")


def options(asked: argparse.Namespace) -> dict[str, Any]:
    """The options of the worker that were given."""
    names = ("concurrency", "transport", "lease_seconds", "stop_seconds")
    given = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    if asked.health:
        host, _, port = asked.health.rpartition(":")
        if not port.isdigit():
            raise CrewError(f"--health is {asked.health!r}; it must be HOST:PORT, as 127.0.0.1:9000")
        given["health"] = host or "127.0.0.1", int(port)
    return given


def load(target: str) -> Crew:
    """The Crew object of `module:name`. Raises CrewError for what is none; what the module itself raises goes through."""
    module, _, name = target.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name or "crew", None)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise CrewError(f"there is no module {module!r} in {os.getcwd()}") from None
        raise
    if not isinstance(found, Crew):
        raise CrewError(f"{target} is {type(found).__name__}; name a Crew object, as in module:crew")
    return found


def chosen(crew: Crew, channels: Sequence[str]) -> dict[str, Any]:
    if unknown := [channel for channel in channels if channel not in crew.handlers]:
        raise CrewError(f"no handler for {', '.join(unknown)}; there are {', '.join(crew.handlers)}")
    return {channel: crew.handlers[channel] for channel in channels}


class Reloader:
    """Runs the worker in a child; stops it well and starts another when a file changes."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", "crew_worker", *arguments]
        self._stopping = 0

    def run(self) -> int:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        while True:
            seen = state()
            child = subprocess.Popen(self._command, start_new_session=True)
            changed = self._watch(child, seen)
            code = self._end(child)
            if not changed:
                return code
            print("crew work: a file has changed: starting afresh", file=sys.stderr, flush=True)

    def _stop(self, *_: object) -> None:
        self._stopping += 1

    def _watch(self, child: subprocess.Popen[bytes], seen: dict[Path, int]) -> bool:
        """Whether something has changed. A child that ended by itself is started again by the next change."""
        while not self._stopping:
            time.sleep(LOOK_SECONDS)
            if state() != seen:
                return True
        return False

    def _end(self, child: subprocess.Popen[bytes]) -> int:
        told = 0
        while child.poll() is None:
            if told < max(1, self._stopping):
                child.send_signal(signal.SIGTERM)
                told += 1
            time.sleep(0.05)
        return child.returncode


def state() -> dict[Path, int]:
    """Each Python file below here, and when it was written."""
    found = {}
    for file in files(Path.cwd()):
        try:
            found[file] = file.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return found


def files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name in PASSED_OVER:
            continue
        if entry.is_dir():
            yield from files(entry)
        elif entry.suffix == ".py":
            yield entry
