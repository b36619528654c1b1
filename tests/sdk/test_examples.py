"""The programs of examples/, as they are."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.process import ROOT, ServerProcess
from tests.support.programs import command, output, running, surroundings, with_crew_worker

Seen = list[tuple[str, str]]


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the example that the test is named after."""
    folder = tmp_path / "example"
    shutil.copytree(ROOT / "examples" / request.function.__name__.removeprefix("test_"), folder)
    return folder


def test_campaign(example: Path, served: ServerProcess):
    with_crew_worker(example)
    log = example / "log"
    with (
        running(command("worker.py"), example, served.url, log),
        running(command("worker.mjs"), example, served.url, log),
    ):
        told = output("campaign.py", example, served.url)
    assert told == "campaign of token-a: 2 ads run\ncampaign of token-b: 2 ads run\n"


def test_nightly(example: Path, served: ServerProcess):
    asking = [
        subprocess.Popen(
            [*command("nightly.py"), "2026-01-31"], cwd=example, env=surroundings(served.url), stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    log = example / "log"
    with running(command("worker.py"), example, served.url, log):
        told = [one.communicate(timeout=60)[0].decode() for one in asking]
    wanted = "".join(
        f"{name} of 2026-01-31: {len(f'{name} 2026-01-31') * 100} rows\n" for name in ("revenue", "signups", "churn")
    )
    assert told == [wanted, wanted]


@contextlib.contextmanager
def receiver(answers: list[int]) -> Iterator[tuple[str, Seen]]:
    """A receiver of webhooks that answers these statuses first, then 204: its URL, and the id and body of what came."""
    seen: Seen = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            seen.append((self.headers["webhook-id"], body))
            status = answers.pop(0) if answers else 204
            self.send_response(status)
            if status == 429:
                self.send_header("retry-after", "1")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_webhooks(example: Path, served: ServerProcess):
    with_crew_worker(example)
    with receiver([500, 429]) as (url, seen), running(command("deliver.mjs"), example, served.url, example / "log"):
        assert output("send.py", example, served.url, url) == "order 1: 204\norder 2: 204\norder 3: 204\n"
    assert len(seen) == 5
    # An id at every attempt of a delivery, and another for each.
    assert len({(id, json.loads(body)["order"]) for id, body in seen}) == len({id for id, _ in seen}) == 3


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not installed here")
def test_curl(example: Path, served: ServerProcess):
    done = subprocess.run(
        ["sh", "curl.sh"], cwd=example, env=surroundings(served.url), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["more: SUCCEEDED 7", "sum: SUCCEEDED 3"]
