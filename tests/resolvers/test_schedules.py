"""Schedules: made, changed, triggered, and run when they are due."""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.process import ROOT
from tests.support.refusals import check
from tests.support.schedules import (
    CREATE,
    DELETE,
    GROUP,
    TRIGGER,
    UPDATE,
    all_schedules,
    create,
    groups,
    make_due,
    moved_on,
    seen,
    trigger,
    update,
)
from tests.support.streams import poll

NOBODY = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
FULL = {
    "name": "n",
    "isPaused": True,
    "metadata": {"a": [None, 0, "", {"onDuplicate": 1}]},
    "tasks": [
        {"name": "a", "ref": "a", "channel": "c", "input": 0, "priority": 5, "delaySeconds": 2.5, "isSeed": True},
        {
            "name": "b",
            "channel": "c",
            "workgroup": "w",
            "key": "k",
            "onDuplicate": "RETURN_EXISTING",
            "onParentFailure": "RUN",
            "parents": [{"ref": "a", "waitFor": "SUBTREE"}],
            "retry": {"maxAttempts": 2, "delaySeconds": 0},
            "timeoutSeconds": 9,
            "progressWeight": 0,
            "input": [],
        },
    ],
}


async def now(crew: Crew) -> datetime:
    return (await crew.sql("select now() as now"))[0]["now"]


async def test_a_new_schedule_is_as_it_was_asked_for(crew: Crew) -> None:
    made = await create(
        crew, "30 9 * * MON", name="weekly", timeZone="Europe/Berlin", catchUp="ALL", overlap="SKIP", group=FULL
    )
    following = datetime.fromisoformat(made["nextRunAt"])
    assert timedelta() < following - await now(crew) < timedelta(days=7, seconds=1)
    assert following.weekday() == 0
    del made["id"], made["nextRunAt"]
    assert made == {
        "name": "weekly",
        "cron": "30 9 * * MON",
        "timeZone": "Europe/Berlin",
        "isPaused": False,
        "catchUp": "ALL",
        "overlap": "SKIP",
        "template": FULL,
        "lastRunAt": None,
        "lastError": None,
        "lastGroup": None,
    }


async def test_schedules_are_listed_in_order_of_name(crew: Crew) -> None:
    assert await all_schedules(crew) == []
    made = {name: await create(crew, name=name) for name in "bca"}
    assert await all_schedules(crew) == [made["a"], made["b"], made["c"]]


async def test_the_next_times_are_shown(crew: Crew) -> None:
    made = await create(crew, "0 * * * *")
    await create(crew, "0 * * * *", name="t", isPaused=True)
    one, paused = await all_schedules(crew, "nextTimes nextRunAt two: nextTimes(first: 2) null: nextTimes(first: null)")
    times = [datetime.fromisoformat(t) for t in one["nextTimes"]]
    assert one["nextTimes"][0] == one["nextRunAt"] == made["nextRunAt"]
    assert [b - a for a, b in itertools.pairwise(times)] == [timedelta(hours=1)] * 4
    assert one["two"] == one["nextTimes"][:2]
    assert one["null"] == one["nextTimes"]
    assert (paused["nextRunAt"], paused["nextTimes"]) == (None, one["nextTimes"])
    with pytest.raises(Refused) as refused:
        await all_schedules(crew, "nextTimes(first: 101)")
    assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["first"])


async def test_when_it_is_due_its_group_is_made_and_it_moves_on(crew: Crew) -> None:
    made = await create(crew, group=FULL)
    due = await make_due(crew, made["id"])
    after = await moved_on(crew, made["id"])
    assert datetime.fromisoformat(after["lastRunAt"]) == due
    assert after["nextRunAt"] == made["nextRunAt"]
    assert after["lastGroup"]["name"] == "n"
    assert after["lastGroup"]["progress"] == {"total": 2}
    assert await crew.states(after["lastGroup"]["id"]) == {"a": "SCHEDULED", "b": "BLOCKED"}
    assert await groups(crew) == 1


async def test_a_run_wakes_a_claim_that_waits_and_is_told(crew: Crew) -> None:
    start = (await poll(crew))["cursor"]
    made = await create(crew)
    await make_due(crew, made["id"])
    (lease,) = await crew.claim(waitSeconds=20)
    assert lease["task"]["name"] == "a"
    events = (await poll(crew, start, waitSeconds=5))["events"]
    assert {e["kind"] for e in events} >= {"GROUP_CREATED", "CREATED"}


async def test_a_schedule_runs_by_itself_at_its_time(crew: Crew) -> None:
    made = await create(crew)
    at = await make_due(crew, made["id"], "now() + interval '0.3 s'")
    (lease,) = await crew.claim(waitSeconds=20)
    assert lease["task"]["name"] == "a"
    assert await now(crew) >= at


async def test_it_can_be_triggered_and_its_next_run_stays(crew: Crew) -> None:
    made = await create(crew, overlap="SKIP")
    for n in (1, 2):
        ran = await trigger(crew, made["id"])
        assert ran["affected"] == 1
        assert ran["taskGroup"]["graph"]["nodes"] == [{"name": "a", "state": "READY"}]
        after = await seen(crew, made["id"])
        assert after["lastGroup"]["id"] == ran["taskGroup"]["id"]
        assert after["nextRunAt"] == made["nextRunAt"]
        assert timedelta() <= await now(crew) - datetime.fromisoformat(after["lastRunAt"]) < timedelta(seconds=5)
        assert await groups(crew) == n


async def test_a_paused_schedule_does_not_run_but_can_be_triggered(crew: Crew) -> None:
    made = await create(crew, isPaused=True)
    assert (made["isPaused"], made["nextRunAt"]) == (True, None)
    await trigger(crew, made["id"])
    after = await seen(crew, made["id"])
    assert after["nextRunAt"] is None
    assert await groups(crew) == 1


async def test_pausing_and_resuming_makes_up_for_nothing(crew: Crew) -> None:
    made = await create(crew, catchUp="ALL")
    assert (await update(crew, made["id"], isPaused=True))["nextRunAt"] is None
    resumed = await update(crew, made["id"], isPaused=False)
    assert resumed == made
    assert await groups(crew) == 0


async def test_what_is_left_out_of_an_update_stays(crew: Crew) -> None:
    made = await create(crew, "0 5 * * *", timeZone="Asia/Tokyo", catchUp="SKIP", overlap="SKIP", group=FULL)
    assert await update(crew, made["id"]) == made
    assert await update(crew, made["id"], name="t") == {**made, "name": "t"}
    new = {"name": "h", "tasks": []}
    assert await update(crew, made["id"], group=new, catchUp="ALL") == {
        **made, "name": "t", "template": new, "catchUp": "ALL"
    }  # fmt: skip
    assert (await seen(crew, made["id"]))["template"] == new


async def test_null_in_an_update_sets_the_default(crew: Crew) -> None:
    made = await create(crew, timeZone="Asia/Tokyo", catchUp="SKIP", overlap="SKIP", isPaused=True)
    changed = await update(crew, made["id"], timeZone=None, catchUp=None, overlap=None, isPaused=None)
    assert {k: changed[k] for k in ("timeZone", "catchUp", "overlap", "isPaused")} == {
        "timeZone": "UTC", "catchUp": "ONE", "overlap": "ALLOW", "isPaused": False
    }  # fmt: skip


@pytest.mark.parametrize("field", ["name", "cron", "group"])
async def test_null_for_what_has_no_default_is_refused(crew: Crew, field: str) -> None:
    made = await create(crew)
    with pytest.raises(Refused) as refused:
        await update(crew, made["id"], **{field: None})
    assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["input", field])
    assert await all_schedules(crew) == [made]


async def test_another_cron_or_zone_sets_another_next_run(crew: Crew) -> None:
    made = await create(crew, "0 5 * * *")
    zoned = await update(crew, made["id"], timeZone="Asia/Tokyo")
    assert datetime.fromisoformat(zoned["nextRunAt"]).hour == 20
    hourly = await update(crew, made["id"], cron="15 * * * *")
    assert datetime.fromisoformat(hourly["nextRunAt"]) - await now(crew) <= timedelta(hours=1)


async def test_an_update_sets_the_alarm(crew: Crew) -> None:
    made = await create(crew)
    due: list[float] = []
    crew.services.core.scheduled = due.append
    await update(crew, made["id"], cron="* * * * *")
    assert len(due) == 1
    assert 0 < due[0] <= 60


async def test_a_deleted_schedule_is_gone_and_its_groups_stay(crew: Crew) -> None:
    made = await create(crew)
    await trigger(crew, made["id"])
    assert (await crew.ask(DELETE, id=made["id"]))["deleteSchedule"] == {"id": made["id"]}
    assert await all_schedules(crew) == []
    assert await groups(crew) == 1


@pytest.mark.parametrize("query", [DELETE, TRIGGER])
async def test_what_is_not_there_is_not_found(crew: Crew, query: str) -> None:
    for id, code in ((NOBODY, "NOT_FOUND"), ("x", "BAD_INPUT")):
        with pytest.raises(Refused) as refused:
            await crew.ask(query, id=id)
        assert (refused.value.code, refused.value.path) == (code, ["id"])


async def test_updating_what_is_not_there_is_refused(crew: Crew) -> None:
    for id, code in ((NOBODY, "NOT_FOUND"), ("x", "BAD_INPUT")):
        with pytest.raises(Refused) as refused:
            await crew.ask(UPDATE, input={"id": id, "name": "t"})
        assert (refused.value.code, refused.value.path) == (code, ["input", "id"])


T = {"name": "t", "channel": "c"}
BAD: dict[str, tuple[dict[str, Any], list[str | int]]] = {
    "cron": ({"cron": "61 * * * *"}, ["cron"]),
    "cron that never comes": ({"cron": "0 0 31 2 *"}, ["cron"]),
    "cron with seconds": ({"cron": "* * * * * *"}, ["cron"]),
    "zone": ({"timeZone": "Mars/Olympus"}, ["timeZone"]),
    "empty name": ({"name": ""}, ["name"]),
    "NUL in name": ({"name": "a\0"}, ["name"]),
    "group's id": ({"group": {"name": "g", "id": NOBODY}}, ["group", "id"]),
    "task's id": ({"group": {"name": "g", "tasks": [T, {**T, "id": NOBODY}]}}, ["group", "tasks", 1, "id"]),
    "runAfter": (
        {"group": {"name": "g", "tasks": [{**T, "runAfter": "2030-01-01T00:00:00Z"}]}},
        ["group", "tasks", 0, "runAfter"],
    ),
    "parent's id": (
        {"group": {"name": "g", "tasks": [{**T, "parents": [{"id": NOBODY}]}]}},
        ["group", "tasks", 0, "parents", 0, "id"],
    ),
    "unknown ref": (
        {"group": {"name": "g", "tasks": [{**T, "parents": [{"ref": "x"}]}]}},
        ["group", "tasks", 0, "parents", 0, "ref"],
    ),
    "empty channel": ({"group": {"name": "g", "tasks": [{**T, "channel": ""}]}}, ["group", "tasks", 0, "channel"]),
    "unknown policy": ({"overlap": "MAYBE"}, ["overlap"]),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_schedule_is_refused_and_nothing_is_made(crew: Crew, case: str) -> None:
    more, path = BAD[case]
    answer = (await crew.send(CREATE, input={"name": "s", "cron": "0 0 * * *", "group": GROUP, **more})).json()
    extensions = check(answer["errors"])
    assert (extensions["code"], extensions["path"]) == ("BAD_INPUT", ["input", *path])
    assert await all_schedules(crew) == []


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_update_is_refused_and_nothing_is_changed(crew: Crew, case: str) -> None:
    more, path = BAD[case]
    made = await create(crew)
    extensions = check((await crew.send(UPDATE, input={"id": made["id"], **more})).json()["errors"])
    assert (extensions["code"], extensions["path"]) == ("BAD_INPUT", ["input", *path])
    assert await all_schedules(crew) == [made]


async def test_there_may_be_so_many_and_no_more(crew: Crew) -> None:
    made = await create(crew)
    await crew.sql(
        "insert into schedule (ns, id, name, cron, time_zone, is_paused, catch_up, overlap, template, size, next_run_at) "
        "select ns, gen_random_uuid(), name, cron, time_zone, is_paused, catch_up, overlap, template, size, next_run_at "
        "from schedule, generate_series(1, 999)"
    )
    with pytest.raises(Refused) as refused:
        await create(crew)
    assert (refused.value.code, refused.value.path) == ("TOO_LARGE", ["input"])
    assert len(await all_schedules(crew, "id")) == 1000
    await crew.ask(DELETE, id=made["id"])
    await create(crew)


async def test_a_run_that_is_refused_is_told_and_the_schedule_moves_on(crew: Crew) -> None:
    once = {"name": "g", "tasks": [{"name": "a", "channel": "c", "key": "k", "onDuplicate": "REJECT"}]}
    made = await create(crew, group=once)
    other = await create(crew, name="other")
    await trigger(crew, made["id"])
    start = (await poll(crew))["cursor"]
    await make_due(crew, made["id"])
    await make_due(crew, other["id"])
    after, well = await moved_on(crew, made["id"]), await moved_on(crew, other["id"])
    assert after["lastError"].startswith("DUPLICATE_KEY: task ")
    assert after["lastGroup"] is not None
    assert well["lastGroup"] is not None
    assert await groups(crew) == 2
    events = (await poll(crew, start, waitSeconds=5, filter={"kinds": ["REFUSED"]}))["events"]
    assert [(e["kind"], e["groupId"], e["taskId"]) for e in events] == [("REFUSED", None, None)]
    await crew.complete(*await crew.claim(9))
    await make_due(crew, made["id"])
    assert (await moved_on(crew, made["id"]))["lastError"] is None


async def test_a_schedule_whose_zone_is_gone_says_so_and_keeps_no_other_from_running(crew: Crew) -> None:
    made, other = await create(crew), await create(crew, name="other")
    await crew.sql(
        "update schedule set time_zone = 'Mars/Olympus', next_run_at = now() where id = $1::text::uuid", made["id"]
    )
    await make_due(crew, other["id"])
    assert (await moved_on(crew, other["id"]))["lastGroup"] is not None
    after = await moved_on(crew, made["id"])
    assert after["lastError"].startswith("BAD_INPUT: no time zone 'Mars/Olympus'")
    assert (after["nextRunAt"], after["lastGroup"]) == (None, None)
    assert (await update(crew, made["id"], timeZone="UTC"))["nextRunAt"] is not None


async def test_a_commit_that_was_not_acknowledged_is_not_made_twice(crew: Crew) -> None:
    """The pool runs a transaction again when it does not know how it ended."""
    pool = crew.services.core.pool
    once = pool._once

    async def twice(*args: Any) -> Any:
        await once(*args)
        return await once(*args)

    pool._once = twice  # type: ignore[method-assign]
    made = await create(crew)
    ran = await trigger(crew, made["id"])
    await make_due(crew, made["id"])
    await moved_on(crew, made["id"])
    assert await groups(crew) == 2
    assert ran["affected"] == 1
    changed = await update(crew, made["id"], cron="15 * * * *", name="t")
    assert await all_schedules(crew) == [changed]
    assert (await crew.ask(DELETE, id=made["id"]))["deleteSchedule"] == {"id": made["id"]}
    pool._once = once  # type: ignore[method-assign]
    assert await all_schedules(crew) == []


async def test_a_trigger_that_is_refused_is_answered_so(crew: Crew) -> None:
    once = {"name": "g", "tasks": [{"name": "a", "channel": "c", "key": "k", "onDuplicate": "REJECT"}]}
    made = await create(crew, group=once)
    await trigger(crew, made["id"])
    with pytest.raises(Refused) as refused:
        await trigger(crew, made["id"])
    assert (refused.value.code, refused.value.path) == ("DUPLICATE_KEY", ["tasks", 0, "key"])
    assert await groups(crew) == 1


async def test_the_example_of_the_page_is_a_schedule(crew: Crew) -> None:
    page = (ROOT / "docs" / "schedules.md").read_text()
    (example,) = re.findall(r"```graphql\n(.*?)```", page, re.DOTALL)
    made = (await crew.ask(example))["createSchedule"]["schedule"]
    assert made["nextTimes"][0] == made["nextRunAt"]
    (there,) = await all_schedules(crew)
    assert (there["name"], there["template"]["tasks"][1]["parents"]) == ("nightly report", [{"ref": "collect"}])
    assert (await trigger(crew, there["id"]))["affected"] == 2
