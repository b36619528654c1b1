"""`crew demo` and `crew --help` as anyone runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import ROOT, environment, open_directory

CREW = [sys.executable, "-m", "server.cli"]


def crew(*args: str, seconds: float = 30, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CREW, *args],
        cwd=ROOT,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def processes_of(directory: Path) -> list[str]:
    """Command lines that name the directory, and processes that work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(directory) in command or str((process / "cwd").readlink()).startswith(str(directory)):
                found.append(command)
        except OSError:
            continue
    return found


def test_the_demo_ends_well_and_leaves_nothing_behind():
    with open_directory("crew-demo-test-") as directory:
        done = crew("demo", "--plain", seconds=90, TMPDIR=str(directory), COLUMNS="120")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert processes_of(directory) == []
        left = [p.name for p in directory.iterdir() if not p.name.startswith("crew-postgres-")]
        assert left == []
    assert "Traceback" not in done.stderr
    for campaign in ("campaign-a", "campaign-b"):
        last: dict[str, str] = {}
        for name, state in re.findall(rf"s {campaign} (\S.*) \S+ → ([A-Z]+) \(attempt", done.stdout):
            last[name] = state
        assert len(last) == 12, last
        assert set(last.values()) == {"SUCCEEDED"}, last
        summed = re.search(
            rf"{campaign} \(token-[ab]\)\s+12\s+(\d+)\s+(\d+)\s+\d+\s+[\d.]+", done.stdout.replace("│", " ")
        )
        assert summed, done.stdout[-2000:]
        assert int(summed[1]) - int(summed[2]) == 12, "attempts are successes and errors"
    for word in ("attempts", "errors", "suspensions"):
        assert word in done.stdout.lower()
    assert "\x1b[" not in done.stdout


def test_help_lists_the_commands():
    done = crew("--help", COLUMNS="120")
    assert done.returncode == 0
    asking = ("groups", "tasks", "watch", "suspend", "resume", "retry", "cancel")
    for command in ("serve", "demo", "migrate", "schema", *asking):
        assert re.search(rf"^\W*{command}\b", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize("command", ["serve", "demo", "migrate", "schema"])
def test_each_command_says_what_it_does(command: str):
    done = crew(command, "--help", COLUMNS="120")
    assert done.returncode == 0
    assert f"crew {command}" in done.stdout or f"server.cli {command}" in done.stdout


def test_migrate_says_what_it_applied_and_then_that_there_is_nothing_to_apply():
    with open_directory("crew-migrate-") as directory:
        first = crew("migrate", seconds=60, CREW_DATA_DIR=str(directory / "crew"))
        assert (first.returncode, first.stdout.splitlines()[0]) == (0, "applied 0001_first_light.sql")
        again = crew("migrate", seconds=60, CREW_DATA_DIR=str(directory / "crew"))
        assert (again.returncode, again.stdout) == (0, "nothing to apply\n")
        assert processes_of(directory) == []


def test_schema_prints_what_the_file_holds():
    done = crew("schema")
    assert done.returncode == 0
    assert done.stdout == (ROOT / "schema" / "crew.graphql").read_text()
