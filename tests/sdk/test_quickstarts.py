"""The quick starts of both READMEs, as they are written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import javascript
from tests.support.process import ROOT, ServerProcess, wait_for
from tests.support.programs import command, output, running, surroundings, with_crew_worker, written


def test_python(served: ServerProcess, tmp_path: Path):
    names = written(ROOT / "sdk/python/README.md", tmp_path)
    assert names == ["hello.py", "send.py", "send_sync.py", "test_hello.py"]
    with running(command("hello.py"), tmp_path, served.url, tmp_path / "log"):
        assert output("send.py", tmp_path, served.url) == "hello you, hello me\n"
        assert output("send_sync.py", tmp_path, served.url) == "hello you\n"
    assert output("test_hello.py", tmp_path, served.url) == ""


def test_javascript(served: ServerProcess, tmp_path: Path):
    with_crew_worker(tmp_path)
    assert written(ROOT / "sdk/js/README.md", tmp_path) == ["hello.mjs", "send.mjs", "hello.test.mjs"]
    with running(command("hello.mjs"), tmp_path, served.url, tmp_path / "log"):
        assert output("send.mjs", tmp_path, served.url) == "hello you, hello me\n"
    tested = subprocess.run(
        [javascript.node(), "--test", "hello.test.mjs"],
        cwd=tmp_path,
        env=surroundings("http://nobody.invalid"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert tested.returncode == 0, tested.stdout


def test_crew_work(served: ServerProcess, tmp_path: Path):
    written(ROOT / "sdk/python/README.md", tmp_path)
    work = [sys.executable, "-m", "server.cli", "work", "hello:crew", "--log-format", "json"]
    with running(work, tmp_path, served.url, tmp_path / "log"):
        assert output("send.py", tmp_path, served.url) == "hello you, hello me\n"
    assert '"level": "info"' in (tmp_path / "log").read_text()


def test_the_tests_of_sdk_js_itself():
    dist = javascript.built()
    tests = [str(file) for file in (dist / "tests").glob("*.test.js") if file.name != "conformance.test.js"]
    assert len(tests) >= 4
    done = subprocess.run(
        [javascript.node(), "--test", "--test-concurrency=1", *tests], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout[-5000:]


def test_crew_work_starts_afresh_when_a_file_changes(served: ServerProcess, tmp_path: Path):
    written(ROOT / "sdk/python/README.md", tmp_path)
    work = [sys.executable, "-m", "crew_worker", "hello", "--reload"]
    log = tmp_path / "log"
    with running(work, tmp_path, served.url, log):
        assert output("send.py", tmp_path, served.url) == "hello you, hello me\n"
        hello = tmp_path / "hello.py"
        hello.write_text(hello.read_text().replace("hello {task", "goodbye {task"))
        wait_for(lambda: log.read_text().count(" takes greet") == 2, "the worker starts afresh")
        assert output("send.py", tmp_path, served.url) == "goodbye you, goodbye me\n"
