"""deleteTaskGroup: all of it, in one event."""

from __future__ import annotations

import uuid

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import group, id_of, state, t, work
from tests.support.steering import delete_group, fold

LEFT = (
    *("task", "task_group", "group_tally", "edge", "feeder", "error", "progress", "keyed", "pause", "ready", "parked"),
    *("scheduled", "blocked", "merged", "lease", "failed", "done"),
)


async def left(crew: Crew) -> dict[str, int]:
    found = {table: (await crew.sql(f"select count(*)::int as n from {table}"))[0]["n"] for table in LEFT}
    return {table: n for table, n in found.items() if n}


async def a_bit_of_everything(crew: Crew) -> str:
    """A group with a task in every state but MERGED, joins, errors, a pause, and work in two workgroups."""
    g = await group(
        crew,
        t("root", priority=9),
        t("join", "root*", workgroup="w"),
        t("other join", "root*"),
        t("fails", priority=8),
        t("runs", priority=7, key="k", progressWeight=5, workgroup="w"),
        t("later", delaySeconds=1000),
        t("held", key="k2"),
        t("gone", progressWeight=3),
    )
    await work(crew, {"root": [t("spawned", priority=-1)]}, limit=1)
    fails, _ = await crew.claim(2)
    await crew.fail(fails, discard=True)
    await crew.ask("mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }", ids=[id_of("held")])
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[id_of("gone")])
    return g


@pytest.mark.parametrize("folded", [True, False])
async def test_nothing_of_it_is_left(crew: Crew, folded: bool) -> None:
    g = await a_bit_of_everything(crew)
    assert set((await crew.states(g)).values()) == {
        *("SUCCEEDED", "BLOCKED", "FAILED", "RUNNING", "SCHEDULED", "READY", "CANCELLED")
    }
    if folded:
        await fold(crew)
    assert await delete_group(crew, g) == 9
    assert await left(crew) == {}
    assert (await crew.ask("query($id: ID!) { taskGroup(id: $id) { id } }", id=g))["taskGroup"] is None
    assert await crew.task(id_of("root")) is None
    await fold(crew)
    assert await left(crew) == {}


@pytest.mark.parametrize("folded", [True, False])
async def test_counts_of_channels_and_workgroups_are_those_of_what_is_left(crew: Crew, folded: bool) -> None:
    await crew.create({"name": "stays", "workgroup": "w"})
    g = await a_bit_of_everything(crew)
    if folded:
        await fold(crew)
    await delete_group(crew, g)
    query = '{ channel(name: "c") { counts { state count } } workgroup(name: "w") { counts { state count } } }'
    one_ready = {"counts": [{"state": "READY", "count": 1}]}
    assert await crew.ask(query) == {"channel": one_ready, "workgroup": one_ready}
    await fold(crew)
    assert await crew.ask(query) == {"channel": one_ready, "workgroup": one_ready}


async def test_groups_are_listed_and_counted_without_it(crew: Crew) -> None:
    kept = await group(crew, t("a"))
    g = await group(crew, t("b"))
    query = "{ taskGroups%s { totalCount nodes { id } } tasks { totalCount nodes { id } } }"
    await delete_group(crew, g)
    await fold(crew)
    for filter in ("", "(filter: {states: [OPEN]})"):
        assert await crew.ask(query % filter) == {
            "taskGroups": {"totalCount": 1, "nodes": [{"id": kept}]},
            "tasks": {"totalCount": 1, "nodes": [{"id": id_of("a")}]},
        }


async def test_leases_on_it_say_cancelled(crew: Crew) -> None:
    g = await group(crew, t("a"), t("b"))
    a, b = await crew.claim(2)
    await crew.complete(b)
    await delete_group(crew, g)
    for answer in (await crew.extend(a, b), await crew.release(a, b), await crew.fail(a, b), await crew.complete(a, b)):
        assert [e["code"] for e in answer["errors"]] == ["CANCELLED", "CANCELLED"]


async def test_twins_of_other_groups_are_ready_as_before(crew: Crew) -> None:
    g = await group(crew, t("runner", key="k"))
    other = await group(crew, t("twin", key="k"))
    await crew.claim()
    assert await crew.states(other) == {"twin": "MERGED"}
    await delete_group(crew, g)
    assert await crew.states(other) == {"twin": "READY"}
    assert await work(crew) == {"twin": []}


async def test_a_task_that_rides_with_one_of_another_group_leaves_it_alone(crew: Crew) -> None:
    other = await group(crew, t("runner", key="k"))
    g = await group(crew, t("twin", key="k"))
    (lease,) = await crew.claim()
    await delete_group(crew, g)
    assert (await crew.complete(lease))["completed"] == 1
    assert await crew.states(other) == {"runner": "SUCCEEDED"}


async def test_there_is_one_event_and_it_is_of_the_group(crew: Crew) -> None:
    g = await a_bit_of_everything(crew)
    (group_no,) = [r["group_no"] for r in await crew.sql("select group_no from task_group")]
    (last,) = [r["seq"] for r in await crew.sql("select max(seq) as seq from event")]
    await delete_group(crew, g)
    events = await crew.sql("select kind, was, state, nos, groups, channels from event where seq > $1", last)
    assert [tuple(e) for e in events] == [(21, None, None, [], [group_no], [])]
    (kept,) = await crew.sql("select id from gone where kind = 2")
    assert str(kept["id"]) == g
    assert len(await crew.sql("select from gone where kind = 1")) == 9


async def test_an_empty_group_and_a_paused_one_can_be_deleted(crew: Crew) -> None:
    empty = await group(crew)
    paused = (await crew.create({"name": "x"}, isPaused=True))["taskGroup"]["id"]
    assert await delete_group(crew, empty) == 0
    assert await delete_group(crew, paused) == 1
    assert await left(crew) == {}


async def test_a_repeat_says_that_it_is_gone(crew: Crew) -> None:
    g = await group(crew, t("a"))
    await delete_group(crew, g)
    with pytest.raises(Refused) as refused:
        await delete_group(crew, g)
    assert (refused.value.code, refused.value.path) == ("NOT_FOUND", ["id"])


async def test_nothing_can_be_made_in_it_and_its_id_can_be_used_again(crew: Crew) -> None:
    own = str(uuid.uuid4())
    await crew.create({"name": "a"}, id=own)
    await delete_group(crew, own)
    with pytest.raises(Refused) as refused:
        await crew.create_tasks(own, {"name": "b"})
    assert (refused.value.code, refused.value.path) == ("NOT_FOUND", ["input", "groupId"])
    made = await crew.create({"name": "c"}, id=own)
    assert await crew.states(made["taskGroup"]["id"]) == {"c": "READY"}


async def test_a_group_of_thousands_goes_in_few_statements(crew: Crew) -> None:
    tree = [{"name": f"t{n}", "ref": f"t{n}", "parents": [{"ref": f"t{n // 7}"}] if n else []} for n in range(5000)]
    g = (await crew.create(*tree))["taskGroup"]["id"]
    await group(crew, t("stays"))
    assert await delete_group(crew, g) == 5000
    assert await state(crew, "stays") == "READY"
    assert (await crew.sql("select count(*)::int as n from edge"))[0]["n"] == 0
