"""`crew suspend`, `resume`, `retry` and `cancel`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from server.cli import app
from server.terminal import steer
from tests.support.terminal import Terminal


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steer, "at_a_terminal", lambda: True)


async def failed(terminal: Terminal, *names: str, **group: str) -> list[str]:
    """Ids of tasks that have failed for good, in one group."""
    made = await terminal.crew.create(*({"name": name, "retry": {"maxAttempts": 1}} for name in names), **group)
    await terminal.crew.fail(*await terminal.crew.claim(len(names)))
    return [task["id"] for task in made["tasks"]]


async def states(terminal: Terminal, ids: list[str]) -> list[str]:
    return [(await terminal.crew.task(id))["state"] for id in ids]


async def test_a_workgroup_is_suspended_and_resumed(terminal: Terminal):
    await terminal.crew.create({"name": "a", "workgroup": "token"})
    told = await terminal.ok("suspend", "token", "90", "--reason", "429\x07")
    assert told.startswith("token is suspended for 1 min, until 20")
    assert told.endswith(r"+00:00 (429\x07)." + "\n◇ 1 ready\n")
    assert await terminal.crew.claim() == []
    assert await terminal.ok("resume", "token") == "token goes on.\n◇ 1 ready\n"
    assert len(await terminal.crew.claim()) == 1


async def test_a_suspension_as_json(terminal: Terminal):
    told = (await terminal.json("suspend", "token", "90", "--reason", "429"))["workgroup"]
    assert (told["name"], told["reason"], told["counts"]) == ("token", "429", [])
    assert told["suspendedUntil"]
    assert (await terminal.json("resume", "token"))["workgroup"]["suspendedUntil"] is None


async def test_an_unknown_workgroup_and_a_negative_time_are_refused(terminal: Terminal):
    unknown = await terminal.run("resume", "nope")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("crew: NOT_FOUND: no workgroup 'nope'")
    negative = await terminal.run("suspend", "token", "--", "-5")
    assert (negative.exit_code, negative.stderr.count("BAD_INPUT")) == (1, 1)
    assert await terminal.crew.ask('{ workgroup(name: "token") { name } }') == {"workgroup": None}


async def test_tasks_are_retried_by_id_and_those_that_have_not_failed_passed_over(terminal: Terminal):
    ids = await failed(terminal, "a", "b")
    assert await terminal.ok("retry", ids[0], "--attempts", "7") == "1 task retried.\n"
    assert await states(terminal, ids) == ["READY", "FAILED"]
    assert (await terminal.crew.task(ids[0]))["remainingAttempts"] == 7
    assert await terminal.json("retry", *ids) == {"affected": 1}
    assert await states(terminal, ids) == ["READY", "READY"]


async def test_a_filter_is_counted_and_asked_about(terminal: Terminal, at_a_terminal: None):
    ids = await failed(terminal, "a 1", "a 2", "b")
    asked = await terminal.run("retry", "--name", "A", input="n\n")
    assert asked.exit_code == 1
    assert "Retry 2 tasks, with 2 more attempts each? [y/N]:" in asked.stderr
    assert asked.stderr.endswith("Nothing was changed.\n")
    assert await states(terminal, ids) == ["FAILED"] * 3
    asked = await terminal.run("retry", "--name", "A", input="y\n")
    assert (asked.exit_code, asked.stdout.splitlines()[-1]) == (0, "2 tasks retried.")
    assert await states(terminal, ids) == ["READY", "READY", "FAILED"]


async def test_where_nothing_matches_nothing_is_asked(terminal: Terminal, at_a_terminal: None):
    assert await terminal.ok("cancel", "--channel", "none") == "0 tasks cancelled.\n"


async def test_a_filter_without_a_terminal_needs_yes(terminal: Terminal):
    ids = await failed(terminal, "a")
    refused = await terminal.run("cancel", "--name", "a")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert await states(terminal, ids) == ["FAILED"]
    assert await terminal.json("cancel", "--name", "a", "--yes") == {"affected": 1}
    assert await states(terminal, ids) == ["CANCELLED"]


async def test_ids_and_a_filter_may_go_together(terminal: Terminal):
    ids = await failed(terminal, "a", "b", "c")
    assert await terminal.ok("cancel", ids[0], "--name", "b", "--yes") == "2 tasks cancelled.\n"
    assert await states(terminal, ids) == ["CANCELLED", "CANCELLED", "FAILED"]


async def test_descendants_are_cancelled_when_that_is_asked(terminal: Terminal, at_a_terminal: None):
    made = await terminal.crew.create({"ref": "a", "name": "a"}, {"name": "b", "parents": [{"ref": "a"}]})
    group = made["taskGroup"]["id"]
    asked = await terminal.run("cancel", "--group", group, "--name", "a", "--descendants", input="y\n")
    assert "Cancel 1 task and all that hang below? [y/N]:" in asked.stderr
    assert asked.stdout.splitlines()[-1] == "2 tasks cancelled."
    assert await terminal.crew.states(group) == {"a": "CANCELLED", "b": "CANCELLED"}


async def test_what_was_done_before_a_refusal_is_told(terminal: Terminal):
    ids = await failed(terminal, "a")
    refused = await terminal.run("cancel", ids[0], "--group", "abc", "--yes")
    assert (refused.exit_code, refused.stdout) == (1, "")
    first, second = refused.stderr.splitlines()
    assert first == "crew: 1 task had been changed, by id, before this:"
    assert second.startswith("crew: BAD_INPUT: groupId is 'abc'")
    assert await states(terminal, ids) == ["CANCELLED"]


async def test_a_bad_id_changes_nothing(terminal: Terminal):
    ids = await failed(terminal, "a")
    refused = await terminal.run("cancel", ids[0], "abc", "--json")
    assert refused.exit_code == 1
    (error,) = json.loads(refused.stdout)["errors"]
    assert (error["code"], error["path"]) == ("BAD_INPUT", ["ids", 1])
    assert await states(terminal, ids) == ["FAILED"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["retry"], "name tasks by their ids"),
        (["cancel", "--yes"], "name tasks by their ids"),
        (["cancel", "--name", "", "--yes"], "it is empty, which would be every one"),
        (["retry", "--state", "running", "--yes"], "only a task that is FAILED can be retried"),
        (["cancel", "--state", "succeeded", "--yes"], "cannot be cancelled"),
        (["retry", "x", "--attempts", "0"], "--attempts"),
    ],
)
def test_what_names_no_task_that_could_be_changed_is_a_usage_error(args: list[str], told: str):
    result = CliRunner().invoke(app, args, env={"COLUMNS": "200", "CREW_URL": "http://127.0.0.1:9"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
