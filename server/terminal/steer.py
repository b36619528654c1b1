"""`crew suspend`, `resume`, `retry`, `cancel`: what people do to workgroups and tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from server.terminal import options, output
from server.terminal.client import Client, Failure
from server.terminal.text import Json, counts, printable, seconds_until, wait

_WORKGROUP = "change: %s { workgroup { name suspendedUntil reason counts { state count } } }"
_SUSPEND = "suspendWorkgroup(name: $name, seconds: $seconds, reason: $reason)"
SUSPEND = f"mutation Suspend($name: String!, $seconds: Float!, $reason: String) {{ {_WORKGROUP % _SUSPEND} }}"
RESUME = f"mutation Resume($name: String!) {{ {_WORKGROUP % 'resumeWorkgroup(name: $name)'} }}"
NOW = "query Now { server { now } }"
RETRY = """
mutation Retry($ids: [ID!], $filter: TaskFilter, $attempts: Int) {
  change: retryTasks(ids: $ids, filter: $filter, attempts: $attempts) { affected }
}
"""
CANCEL = """
mutation Cancel($ids: [ID!], $filter: TaskFilter, $descendants: Boolean) {
  change: cancelTasks(ids: $ids, filter: $filter, descendants: $descendants) { affected }
}
"""
COUNT = "query Count($filter: TaskFilter) { tasks(filter: $filter, first: 0) { totalCount totalCountIsExact } }"
FAILED = ("FAILED",)
UNSETTLED = ("BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "FAILED")

Name = Annotated[str, typer.Argument(metavar="WORKGROUP", help="Its name.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="These tasks, by their full ids.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before what a filter matches is changed.")]


def suspend(
    workgroup: Name,
    seconds: Annotated[
        float, typer.Argument(metavar="SECONDS", callback=options.seconds, help="For how long from now.")
    ],
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for others to read.")] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Hand out no task of a workgroup for so long. A shorter suspension never shortens a longer one."""
    with output.session(url, api_key, as_json) as server:
        _tell(server, server.ask(SUSPEND, name=workgroup, seconds=seconds, reason=reason), as_json)


def resume(
    workgroup: Name,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """End the suspension of a workgroup."""
    with output.session(url, api_key, as_json) as server:
        _tell(server, server.ask(RESUME, name=workgroup), as_json)


def retry(
    ids: Ids = None,
    group: options.GroupId = None,
    state: options.States = None,
    channel: options.Channels = None,
    workgroup: options.Workgroups = None,
    worker: options.WorkerId = None,
    name: options.NameContains = None,
    key: options.TaskKey = None,
    created_after: options.CreatedAfter = None,
    created_before: options.CreatedBefore = None,
    attempts: Annotated[int, typer.Option("--attempts", min=1, help="How many more each gets.")] = 2,
    yes: Yes = False,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Make failed tasks ready again: those named by id, and those that the options match."""
    given = options.task_filter(group, state, channel, workgroup, worker, name, key, created_after, created_before)
    chosen = _choice(ids, given, FAILED, "only a task that is FAILED can be retried")
    with output.session(url, api_key, as_json) as server:
        affected = _change(
            server, RETRY, chosen, f"Retry {{}}, with {attempts} more attempts each?", yes, attempts=attempts
        )
        _count("retried", affected, as_json)


def cancel(
    ids: Ids = None,
    group: options.GroupId = None,
    state: options.States = None,
    channel: options.Channels = None,
    workgroup: options.Workgroups = None,
    worker: options.WorkerId = None,
    name: options.NameContains = None,
    key: options.TaskKey = None,
    created_after: options.CreatedAfter = None,
    created_before: options.CreatedBefore = None,
    descendants: Annotated[bool, typer.Option("--descendants", help="And all that hang below them.")] = False,
    yes: Yes = False,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Cancel tasks that have not succeeded, FAILED ones too: those named by id, and those that the options match."""
    given = options.task_filter(group, state, channel, workgroup, worker, name, key, created_after, created_before)
    chosen = _choice(ids, given, UNSETTLED, "a task that is SUCCEEDED or CANCELLED cannot be cancelled")
    question = "Cancel {} and all that hang below?" if descendants else "Cancel {}?"
    with output.session(url, api_key, as_json) as server:
        affected = _change(server, CANCEL, chosen, question, yes, descendants=descendants)
        _count("cancelled", affected, as_json)


def _choice(ids: Sequence[str] | None, given: Json, states: Sequence[str], rule: str) -> list[Json]:
    """The arguments of one call for the ids, and of one for the filter, in the states that the verb can change."""
    if not ids and not given:
        raise typer.BadParameter("name tasks by their ids, or by an option such as --group")
    asked = given.get("states", states)
    wanted = [state for state in asked if state in states]
    if not wanted:
        raise typer.BadParameter(f"--state {' '.join(asked)}: {rule}")
    by_ids: list[Json] = [{"ids": list(ids)}] if ids else []
    return [*by_ids, {"filter": {**given, "states": wanted}}] if given else by_ids


def _change(server: Client, document: str, chosen: Sequence[Json], question: str, yes: bool, **more: Any) -> int:
    """How many were changed by all of the calls. What a filter matches is counted and asked about before any of them."""
    for each in chosen:
        if "filter" in each and not yes and not _confirmed(server, each["filter"], question):
            typer.echo("Nothing was changed.", err=True)
            raise typer.Exit(1)
    affected = 0
    for each in chosen:
        try:
            affected += server.ask(document, **each, **more)["change"]["affected"]
        except Failure as failure:
            if affected:
                typer.echo(f"crew: {_tasks(affected)} had been changed, by id, before this:", err=True)
            raise failure
    return affected


def _confirmed(server: Client, given: Json, question: str) -> bool:
    if not at_a_terminal():
        raise typer.BadParameter("with a filter this asks first, and here is no terminal to ask on: give --yes")
    found = server.ask(COUNT, filter=given)["tasks"]
    if found["totalCountIsExact"] and not found["totalCount"]:
        return True
    many = _tasks(found["totalCount"]) if found["totalCountIsExact"] else f"at least {_tasks(found['totalCount'])}"
    return typer.confirm(question.format(many), err=True)


def at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _tasks(count: int) -> str:
    return f"{count:,} task{'' if count == 1 else 's'}"


def _count(verb: str, affected: int, as_json: bool) -> None:
    if as_json:
        output.write_json({"affected": affected})
    else:
        output.show(f"{_tasks(affected)} {verb}.")


def _tell(server: Client, data: Json, as_json: bool) -> None:
    workgroup = data["change"]["workgroup"]
    if as_json:
        output.write_json({"workgroup": workgroup})
        return
    left = seconds_until(workgroup["suspendedUntil"], server.ask(NOW)["server"]["now"])
    why = f" ({printable(workgroup['reason'])})" if left and workgroup["reason"] else ""
    stands = f"is suspended for {wait(left)}, until {workgroup['suspendedUntil']}{why}" if left else "goes on"
    output.show(f"{printable(workgroup['name'])} {stands}.")
    if workgroup["counts"]:
        output.show(counts(workgroup["counts"], words=True))
