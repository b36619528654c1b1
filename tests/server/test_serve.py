"""`crew serve` as a process: how it starts, stops and is killed."""

from __future__ import annotations

import concurrent.futures
import socket
import time
from collections.abc import Iterator

import asyncpg
import httpx
import pytest

from db.embedded import EmbeddedPostgres
from tests.support.crew import CLAIM, COMPLETE, CREATE
from tests.support.postgres import on_database
from tests.support.process import ServerProcess, alive, server_process, wait_for

TASK = "query($id: ID!) { task(id: $id) { state attempt } }"


@pytest.fixture
def running() -> Iterator[ServerProcess]:
    with server_process() as server:
        server.start()
        yield server


def create_and_claim(server: ServerProcess) -> dict[str, str]:
    """The lease of a task just made."""
    tasks = [{"name": "a", "channel": "c"}]
    server.ask(CREATE, input={"name": "g", "tasks": tasks})
    claim = {"workerId": "w", "channels": ["c"], "leaseSeconds": 600}
    (lease,) = server.ask(CLAIM, input=claim)["claimTasks"]["leases"]
    return lease


async def fetch(dsn: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def test_sigterm_answers_long_polls_at_once_and_leaves_leases_as_they_are(running: ServerProcess):
    lease = create_and_claim(running)
    before = await fetch(running.dsn, "select lease_no, until from lease")
    assert len(before) == 1
    with concurrent.futures.ThreadPoolExecutor() as threads:
        claim = {"workerId": "waiter", "channels": ["nothing"], "waitSeconds": 25}
        poll = threads.submit(running.ask, CLAIM, input=claim)
        deadline = time.monotonic() + 10
        while not await fetch(running.dsn, "select from worker where name = 'waiter'"):
            assert time.monotonic() < deadline, "the long poll has not come in"
        postmaster = running.postmaster
        assert not poll.done()
        told = time.monotonic()
        assert running.terminate() == 0
        assert poll.result(1)["claimTasks"]["leases"] == []
        assert time.monotonic() - told < 8
    assert not alive(postmaster)
    assert "Traceback" not in running.logged()

    postgres = EmbeddedPostgres(running.data_dir)
    try:
        assert await fetch(postgres.start(), "select lease_no, until from lease") == before
    finally:
        postgres.stop()

    running.start()
    assert running.ask(TASK, id=lease["task"]["id"])["task"] == {"state": "RUNNING", "attempt": 1}
    done = running.ask(COMPLETE, input={"results": [{"lease": lease["id"], "output": 1}]})["completeTasks"]
    assert (done["completed"], done["errors"]) == (1, [])
    assert running.ask(TASK, id=lease["task"]["id"])["task"]["state"] == "SUCCEEDED"


def test_a_killed_server_takes_its_postgres_along_and_data_survive(running: ServerProcess):
    lease = create_and_claim(running)
    postmaster = running.postmaster
    running.kill()
    wait_for(lambda: not alive(postmaster), "PostgreSQL ends")
    running.start()
    assert running.postmaster != postmaster
    assert running.ask(TASK, id=lease["task"]["id"])["task"] == {"state": "RUNNING", "attempt": 1}


def test_a_killed_postgres_is_started_again(running: ServerProcess):
    lease = create_and_claim(running)
    killed = running.kill_postgres()
    assert running.ask(TASK, id=lease["task"]["id"])["task"]["state"] == "RUNNING"
    assert running.postmaster != killed
    assert running.process.poll() is None


def test_a_postgres_that_cannot_be_started_is_tried_until_it_can(running: ServerProcess):
    lease = create_and_claim(running)
    control = running.data_dir / "data" / "global" / "pg_control"
    good = control.read_bytes()
    killed = running.postmaster
    control.write_bytes(b"x" * len(good))
    try:
        running.kill_postgres()
        wait_for(lambda: running.logged().count("cannot be started; trying again") >= 2, "it says so, and tries again")
        assert httpx.get(f"{running.url}/healthz", timeout=10).status_code == 200
    finally:
        control.write_bytes(good)
    assert running.ask(TASK, id=lease["task"]["id"])["task"]["state"] == "RUNNING"
    assert running.postmaster != killed


def test_it_ends_well_while_its_postgres_cannot_be_started(running: ServerProcess):
    control = running.data_dir / "data" / "global" / "pg_control"
    control.write_bytes(b"x" * len(control.read_bytes()))
    running.kill_postgres()
    wait_for(lambda: "cannot be started; trying again" in running.logged(), "it says so")
    assert running.terminate(30) == 0


@pytest.fixture
def three() -> Iterator[ServerProcess]:
    with server_process(CREW_WORKERS="3") as server:
        server.start()
        wait_for(lambda: len(server.workers()) == 3, "three processes")
        yield server


async def test_several_processes_serve_one_port_and_end_together(three: ServerProcess):
    lease = create_and_claim(three)
    wait_for(lambda: len(three.ask("{ workers { id } }")["workers"]) == 1, "any of them answers")
    processes, postmaster = three.workers(), three.postmaster
    with concurrent.futures.ThreadPoolExecutor() as threads:
        claim = {"channels": ["nothing"], "waitSeconds": 25}
        polls = [threads.submit(three.ask, CLAIM, input={**claim, "workerId": f"waiter-{n}"}) for n in range(6)]
        deadline = time.monotonic() + 20
        while len(await fetch(three.dsn, "select from worker where name like 'waiter%'")) < 6:
            assert time.monotonic() < deadline, "not all long polls have come in"
        assert three.terminate(30) == 0
        assert [poll.result(1)["claimTasks"]["leases"] for poll in polls] == [[]] * 6
    wait_for(lambda: not any(map(alive, [*processes, postmaster])), "all have ended")
    three.start()
    done = three.ask(COMPLETE, input={"results": [{"lease": lease["id"]}]})
    assert done["completeTasks"]["completed"] == 1


def test_processes_whose_parent_was_killed_end_and_leave_the_port(three: ServerProcess):
    processes = three.workers()
    three.kill()
    wait_for(lambda: not any(map(alive, processes)), "all have ended")
    three.start()
    assert len(wait_for(three.workers, "started again")) > 0


def test_it_answers_healthz_and_sends_browsers_from_the_root_to_graphql(running: ServerProcess):
    answer = httpx.get(f"{running.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "healthy": True})
    assert httpx.get(running.url).headers["location"] == "/graphql"


def test_a_taken_port_is_told_at_once():
    with server_process() as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        server.spawn()
        assert server.process.wait(30) == 1
        assert server.logged().startswith(f"crew: cannot serve on 127.0.0.1:{server.port}: ")
        assert "ddress already in use" in server.logged()
        assert "Traceback" not in server.logged()
        assert not server.data_dir.exists(), "the database was not touched"


async def test_with_database_url_no_postgres_is_started(dsn: str):
    with server_process(DATABASE_URL=dsn) as server:
        server.start()
        lease = create_and_claim(server)
        assert not server.data_dir.exists()
        rows = await fetch(dsn, "select id from task")
        assert [str(row["id"]) for row in rows] == [lease["task"]["id"]]
        assert server.terminate() == 0


@pytest.mark.parametrize(
    "url",
    ["postgresql://crew@127.0.0.1:1/crew", "postgresql://crew@/crew?host=/nowhere", "mysql://crew@127.0.0.1/crew"],
    ids=["refused", "no socket", "not PostgreSQL"],
)
def test_a_database_that_is_not_there_is_named_as_such(url: str):
    with server_process(DATABASE_URL=url) as server:
        server.spawn()
        assert server.process.wait(60) == 1
        assert "Traceback" not in server.logged()
        assert "database" in server.logged().splitlines()[-1].lower()
        assert "cannot serve on" not in server.logged()


async def test_a_database_that_does_not_exist_on_its_server_is_named(server: str):
    with server_process(DATABASE_URL=on_database(server, "no_such_database")) as process:
        process.spawn()
        assert process.process.wait(60) == 1
        assert "Traceback" not in process.logged()
        assert "cannot serve on" not in process.logged()
        assert "no_such_database" in process.logged()


def test_a_setting_out_of_range_is_named():
    with server_process(CREW_POOL_SIZE="1") as server:
        server.spawn()
        assert server.process.wait(30) == 1
        assert "pool_size" in server.logged().lower()
        assert "Traceback" not in server.logged()
