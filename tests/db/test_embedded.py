"""The embedded PostgreSQL under its supervisor: real processes, started, killed and taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from tests.support.process import ROOT, alive, environment, open_directory, wait_for

OWNER = """
import sys
from pathlib import Path
from db.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A home whose data were made once: initdb takes seconds."""
    with open_directory("crew-made-") as directory:
        server = EmbeddedPostgres(directory / "home")
        server.start()
        server.stop()
        yield directory / "home"


def copied(made: Path, home: Path) -> Path:
    """A copy, its owners kept."""
    subprocess.run(["cp", "-a", str(made), str(home)], check=True)
    return home


def owner_of(home: Path) -> subprocess.Popen[bytes]:
    """Another process that owns the server of `home`; it prints the postmaster's pid."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.fixture
def home(made: Path) -> Iterator[Path]:
    with open_directory("crew-home-") as directory:
        yield copied(made, directory / "home")


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(home)
    server.start()
    yield server
    server.stop()


async def ask(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_from_nothing_it_starts_and_answers():
    with open_directory("crew-cold-") as directory:
        server = EmbeddedPostgres(directory / "new" / "home")
        try:
            dsn = server.start()
            assert await ask(dsn, "select 1") == 1
            assert await ask(dsn, "select current_user || '/' || current_database()") == "crew/crew"
            assert await ask(dsn, "show data_checksums") == "on"
            assert await ask(dsn, "show fsync") == "on"
            assert await ask(dsn, "show listen_addresses") == ""
            pid = server.pid
            assert pid is not None
        finally:
            server.stop()
        assert not alive(pid)
        assert server.pid is None


async def test_data_are_kept_over_a_restart(server: EmbeddedPostgres):
    await ask(server.dsn, "create table kept as select 42 as n")
    server.stop()
    assert await ask(server.start(), "select n from kept") == 42


async def test_a_second_attaches_and_takes_over_when_the_owner_has_stopped(server: EmbeddedPostgres, home: Path):
    await ask(server.dsn, "create table kept as select 42 as n")
    second = EmbeddedPostgres(home)
    try:
        assert second.start() == server.dsn
        assert second.pid is None, "it does not own it"
        assert second.ensure() is False
        assert await ask(second.dsn, "select n from kept") == 42
        server.stop()
        assert second.ensure() is True
        assert second.pid is not None
        assert second.ensure() is False
        assert await ask(second.dsn, "select n from kept") == 42
    finally:
        second.stop()


async def test_one_that_attached_stops_nothing(server: EmbeddedPostgres, home: Path):
    second = EmbeddedPostgres(home)
    second.start()
    second.stop()
    assert await ask(server.dsn, "select 1") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
async def test_a_killed_owner_takes_the_server_along_and_data_are_kept(home: Path):
    with owner_of(home) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        other = EmbeddedPostgres(home)
        assert await ask(other.start(), "create table kept as select 42 as n") is None
        owner.kill()
    wait_for(lambda: not alive(pid), "PostgreSQL ends")
    try:
        assert other.ensure() is True
        assert await ask(other.dsn, "select n from kept") == 42
    finally:
        other.stop()


async def test_a_killed_postmaster_is_started_again_with_its_data(server: EmbeddedPostgres):
    await ask(server.dsn, "create table kept as select 42 as n")
    busy = await asyncpg.connect(server.dsn)
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: server.pid is None, "it is seen dead")
    assert server.ensure() is True
    assert server.pid not in (None, pid)
    assert await ask(server.dsn, "select n from kept") == 42
    assert server.ensure() is False
    busy.terminate()


def test_data_of_another_major_version_are_refused_and_left_alone(home: Path):
    (home / "data" / "PG_VERSION").write_text("14\n")
    server = EmbeddedPostgres(home)
    with pytest.raises(EmbeddedPostgresError, match="was made by PostgreSQL 14; this Crew carries PostgreSQL 1"):
        server.start()
    assert (home / "data" / "PG_VERSION").read_text() == "14\n"
    assert server.pid is None


def test_data_that_are_not_whole_are_refused_and_left_alone(home: Path):
    (home / "data" / "PG_VERSION").unlink()
    files = sorted(p.relative_to(home) for p in (home / "data").rglob("*"))
    server = EmbeddedPostgres(home)
    try:
        with pytest.raises(EmbeddedPostgresError, match="data"):
            server.start()
    finally:
        server.stop()
    assert sorted(p.relative_to(home) for p in (home / "data").rglob("*")) == files


async def test_a_start_that_fails_shows_the_end_of_the_log_and_frees_the_home(home: Path):
    bad = EmbeddedPostgres(home, options={"shared_buffers": "plenty"})
    with pytest.raises(EmbeddedPostgresError, match=r'its log ends:\n(.*\n)*.*"shared_buffers": "plenty"'):
        bad.start()
    good = EmbeddedPostgres(home)
    try:
        assert await ask(good.start(), "select 1") == 1
        assert good.pid is not None, "the failed one let go of the lock"
    finally:
        good.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes nobody")
async def test_as_root_a_home_that_nobody_may_enter_works_and_comes_back_after_a_kill():
    with open_directory("crew-hidden-") as directory:
        directory.chmod(0o700)
        server = EmbeddedPostgres(directory / "home")
        try:
            dsn = server.start()
            await ask(dsn, "create table kept as select 7 as n")
            pid = server.pid
            assert pid is not None
            assert os.stat(f"/proc/{pid}").st_uid != 0
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: server.pid is None, "it is dead")
            assert server.ensure()
            assert await ask(dsn, "select n from kept") == 7
            server.stop()
            assert await ask(server.start(), "select n from kept") == 7
        finally:
            server.stop()


async def test_other_users_cannot_reach_the_socket(made: Path):
    with open_directory("crew-socket-") as directory:
        server = EmbeddedPostgres(copied(made, directory / "home"))
        try:
            server.start()
            (socket,) = (p for p in server._socket_dir.iterdir() if p.is_socket())
            assert socket.stat().st_mode & 0o077 == 0
        finally:
            server.stop()


async def test_a_home_with_a_long_path_gets_a_short_socket(made: Path):
    with open_directory("crew-long-") as directory:
        server = EmbeddedPostgres(copied(made, directory / ("x" * 100)))
        try:
            assert await ask(server.start(), "select 1") == 1
        finally:
            server.stop()
            assert not server._socket_dir.exists(), "left behind"


async def test_a_home_with_a_blank_and_a_percent_sign_works(made: Path):
    with open_directory("crew-odd-") as directory:
        server = EmbeddedPostgres(copied(made, directory / "a b%20c"))
        try:
            assert await ask(server.start(), "select 1") == 1
        finally:
            server.stop()
