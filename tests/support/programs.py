"""Programs of users, run as they stand: those of READMEs and of examples/, in Python and JavaScript."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support import javascript
from tests.support.process import ROOT, environment

BLOCK = re.compile(r"^```(?:python|js|sh)\n(?:#|//) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60


def written(page: Path, folder: Path) -> list[str]:
    """Writes the blocks of a page that begin with the name of a file, and answers the names."""
    found = dict(BLOCK.findall(page.read_text()))
    for name, text in found.items():
        (folder / name).write_text(text)
    return list(found)


def with_crew_worker(folder: Path) -> None:
    """`import "crew-worker"` works below the folder, as after `npm install`."""
    javascript.built()
    (folder / "node_modules").mkdir(exist_ok=True)
    (folder / "node_modules" / "crew-worker").symlink_to(javascript.SDK)


def command(name: str) -> list[str]:
    return [sys.executable if name.endswith(".py") else javascript.node(), name]


def surroundings(url: str) -> dict[str, str]:
    return environment(CREW_URL=url, PYTHONPATH=os.pathsep.join((str(ROOT / "sdk/python/src"), str(ROOT))))


def output(name: str, folder: Path, url: str, *arguments: str) -> str:
    """What the program prints. Fails when it does not end well."""
    done = subprocess.run(
        [*command(name), *arguments], cwd=folder, env=surroundings(url), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def running(arguments: list[str], folder: Path, url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker beside the test; it must end with 0 at SIGTERM."""
    with log.open("ab") as out:
        worker = subprocess.Popen(arguments, cwd=folder, env=surroundings(url), stdout=out, stderr=out)
    try:
        yield worker
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0, log.read_text()
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
