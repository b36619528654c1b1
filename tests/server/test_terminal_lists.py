"""`crew groups` and `crew tasks`."""

from __future__ import annotations

import json

import pytest
from graphql import GraphQLEnumType
from typer.testing import CliRunner

from schema.root import schema
from server.cli import app
from server.terminal import lists, options
from tests.support.process import ROOT
from tests.support.terminal import Terminal
from tests.support.wait import until


def table(printed: str) -> list[list[str]]:
    """Its cells, by the columns of the first line."""
    first, *rest = printed.splitlines()
    words = first.split("  ")
    starts, at = [], 0
    for word in words:
        if word.strip():
            starts.append(first.index(word.strip(), at))
            at = starts[-1] + 1
    ends = [*starts[1:], None]
    return [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in (first, *rest)]


async def a_failed_and_a_blocked(terminal: Terminal) -> dict[str, str]:
    """Name → id."""
    first = {"ref": "a", "name": "first", "workgroup": "token", "retry": {"maxAttempts": 1}}
    made = await terminal.crew.create(first, {"name": "second", "parents": [{"ref": "a"}]}, name="bad")
    (lease,) = await terminal.crew.claim()
    await terminal.crew.fail(lease, error={"status": 500, "message": "no\nmore"})
    return {task["name"]: task["id"] for task in made["tasks"]} | {"bad": made["taskGroup"]["id"]}


async def test_groups_tell_how_far_they_are(terminal: Terminal):
    ids = await a_failed_and_a_blocked(terminal)
    done = await terminal.crew.create({"name": "a"}, {"name": "b"}, name="good")
    await terminal.crew.complete(*await terminal.crew.claim(2))
    await until(lambda: _finished(terminal, done["taskGroup"]["id"]))
    titles, good, bad = table(await terminal.ok("groups"))
    assert titles == ["id", "name", "state", "progress", "done", "tasks", "created"]
    assert good[:6] == [done["taskGroup"]["id"], "good", "FINISHED", "━" * 10, "100%", "✔2"]
    assert bad[:6] == [ids["bad"], "bad", "FAILING", "", "0%", "✘1 ○1"]
    assert bad[6].endswith(" s ago")


async def _finished(terminal: Terminal, group: str) -> bool:
    found = await terminal.crew.ask("query($id: ID!) { taskGroup(id: $id) { finishedAt } }", id=group)
    return bool(found["taskGroup"]["finishedAt"])


async def test_groups_are_chosen_by_state_and_name(terminal: Terminal):
    await a_failed_and_a_blocked(terminal)
    await terminal.crew.create({"name": "a"}, name="still", isPaused=True)
    listed = await terminal.json("groups", "--state", "paused", "--state", "failing", "--order", "name_asc")
    assert [(group["name"], group["states"]) for group in listed["groups"]] == [
        ("bad", ["OPEN", "FAILING"]),
        ("still", ["OPEN", "PAUSED"]),
    ]
    assert (listed["totalCount"], listed["totalCountIsExact"]) == (2, True)
    assert [group["name"] for group in (await terminal.json("groups", "--name", "STI"))["groups"]] == ["still"]
    assert (await terminal.json("groups", "--created-before", "2000-01-01T00:00:00Z"))["groups"] == []


async def test_tasks_tell_where_they_stand_and_what_went_wrong(terminal: Terminal):
    ids = await a_failed_and_a_blocked(terminal)
    titles, first, second = table(await terminal.ok("tasks", "--order", "created_asc"))
    assert titles == ["id", "name", "state", "channel", "workgroup", "attempt", "last error"]
    assert first == [ids["first"], "first", "FAILED", "c", "token", "1", "no more"]
    assert second == [ids["second"], "second", "BLOCKED", "c", "", "0", ""]


async def test_tasks_tell_what_holds_them_and_for_how_long(terminal: Terminal):
    await terminal.crew.create({"name": "held", "workgroup": "token"}, {"name": "later", "delaySeconds": 5400})
    await terminal.ok("suspend", "token", "90")
    titles, held = table(await terminal.ok("tasks", "--name", "held"))
    assert held[titles.index("waits for")] == "WORKGROUP_SUSPENDED, in 1 min"
    titles, later = table(await terminal.ok("tasks", "--state", "SCHEDULED"))
    assert later[titles.index("waits for")] == "in 1 h"


async def test_tasks_are_chosen_by_every_option(terminal: Terminal):
    made = await terminal.crew.create(
        {"name": "run me", "channel": "x", "workgroup": "token", "key": "k"}, {"name": "other"}, name="mine"
    )
    await terminal.crew.create({"name": "elsewhere"})
    await terminal.crew.claim(channels=("x",), workerId="worker-1")
    for chosen in (
        ["--channel", "x"],
        ["--workgroup", "token"],
        ["--key", "k"],
        ["--worker", "worker-1"],
        ["--state", "running"],
        ["--group", made["taskGroup"]["id"], "--name", "RUN"],
        ["--channel", "x", "--channel", "y", "--state", "running", "--state", "failed"],
    ):
        listed = await terminal.json("tasks", *chosen)
        assert [task["name"] for task in listed["tasks"]] == ["run me"], chosen
    task = listed["tasks"][0]
    assert task["group"] == {"id": made["taskGroup"]["id"], "name": "mine"}
    assert (task["key"], task["workerId"], task["attempt"], task["errors"]) == ("k", "worker-1", 1, [])


async def test_a_list_is_read_page_by_page_up_to_its_limit(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "PAGE", 3)
    await terminal.crew.create(*({"name": f"t{n}"} for n in range(8)))
    printed = await terminal.ok("tasks", "--limit", "7", "--order", "created_asc")
    assert [row[1] for row in table(printed)[1:-1]] == [f"t{n}" for n in range(7)]
    assert printed.splitlines()[-1] == "7 of 8. --limit shows more."
    whole = await terminal.ok("tasks", "--limit", "8")
    assert (len(whole.splitlines()), "--limit" in whole) == (9, False)
    assert len((await terminal.json("tasks", "--limit", "7"))["tasks"]) == 7


async def test_nothing_found_is_said(terminal: Terminal):
    assert await terminal.ok("tasks") == "No tasks.\n"
    assert await terminal.json("groups") == {"groups": [], "totalCount": 0, "totalCountIsExact": True}


async def test_a_table_fits_the_terminal_and_never_cuts_an_id(terminal: Terminal):
    ids = await a_failed_and_a_blocked(terminal)
    await terminal.crew.create({"name": "n" * 300}, {"name": "日本語" * 20})
    for columns in (60, 80, 100):
        printed = await terminal.ok("tasks", columns=columns)
        assert ids["first"] in printed
        assert all(len(line) <= columns for line in printed.splitlines() if "日" not in line)
    assert "Too narrow for: last error, workgroup" in await terminal.ok("tasks", columns=80)
    whole = await terminal.ok("tasks", columns=None)
    assert "n" * 300 in whole, "without a terminal nothing is cut"


async def test_names_cannot_steer_the_terminal_and_come_whole_as_json(terminal: Terminal):
    await terminal.crew.create({"name": "\x1b[31mred\n日本"}, name="\x07")
    printed = await terminal.ok("tasks")
    assert r"\x1b[31mred 日本" in printed
    assert "\x1b" not in printed + await terminal.ok("groups")
    assert (await terminal.json("tasks"))["tasks"][0]["name"] == "\x1b[31mred\n日本"


async def test_what_the_server_refuses_is_told_on_one_line_and_as_json(terminal: Terminal):
    refused = await terminal.run("tasks", "--group", "abc")
    message = "groupId is 'abc'; it must be a UUID such as 018f5a3e-7c11-7a55-8d3c-0242ac120002"
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"crew: BAD_INPUT: {message} (at filter.groupId)\n"
    refused = await terminal.run("tasks", "--group", "abc", "--json")
    assert (refused.exit_code, refused.stderr) == (1, "")
    assert json.loads(refused.stdout) == {
        "errors": [{"code": "BAD_INPUT", "message": message, "path": ["filter", "groupId"]}]
    }


@pytest.mark.parametrize(
    "args",
    [
        ["tasks", "--state", "DONE"],
        ["tasks", "--limit", "0"],
        ["tasks", "--order", "random"],
        ["groups", "--state", "RUNNING"],
        ["groups", "--url", "crew.example.com"],
        ["groups", "--url", "ftp://crew.example.com"],
        ["groups", "--url", "http://me:secret@crew.example.com"],
        ["groups", "--api-key", "two words"],
        ["watch"],
        ["suspend", "token"],
        ["suspend", "token", "nan"],
    ],
)
def test_a_bad_option_is_a_usage_error(args: list[str]):
    result = CliRunner().invoke(app, args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("TaskState", options.TaskState),
        ("TaskOrder", options.TaskOrder),
        ("GroupState", options.GroupState),
        ("TaskGroupOrder", options.GroupOrder),
    ],
)
def test_the_choices_are_those_of_the_schema(name: str, ours: type[options.TaskState]):
    kind = schema._schema.type_map[name]
    assert isinstance(kind, GraphQLEnumType)
    assert sorted(ours) == sorted(kind.values)


def test_the_page_of_the_docs_has_each_command_and_option():
    page = (ROOT / "docs" / "cli.md").read_text()
    for word in ("groups", "tasks", "watch", "suspend", "resume", "retry", "cancel"):
        assert f"`crew {word}" in page
    for option in ("state", "name", "group", "channel", "workgroup", "worker", "key", "order", "limit", "json", "url"):
        assert f"`--{option}" in page
