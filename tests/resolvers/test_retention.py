"""deleteExpiredTaskGroups, and what the server forgets by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resolvers import retention
from server.loops.upkeep import retain
from tests.support.crew import Crew, Refused, crew_on
from tests.support.joins import CANCEL, group, id_of, t, work
from tests.support.steering import delete_expired, fold, progress, reset
from tests.support.streams import now, poll
from tests.support.wait import until

DAY = 86_400


async def ended_days_ago(crew: Crew, days: float, *names: str) -> None:
    """These tasks ended so long ago, and so did their groups as far as the fold goes; no names are all."""
    await fold(crew)
    seconds, ids = days * DAY, [id_of(name) for name in names]
    where = "(cardinality($2::uuid[]) = 0 or no in (select no from task where id = any ($2)))"
    await crew.sql(f"update done set at = now() - $1::float8 * interval '1 s' where {where}", seconds, ids)
    await crew.sql(
        "update group_tally g set settled_at = x.at from (select t.group_no, max(d.at) as at from task t join done d using (no) "
        "group by 1) x where x.group_no = g.group_no and g.settled_at is not null"
    )


async def made_days_ago(crew: Crew, days: float, *groups: str) -> None:
    await crew.sql(
        "update task_group set created_at = now() - $1::float8 * interval '1 s' where id = any ($2::uuid[])",
        float(days * DAY),
        list(groups),
    )


async def groups_left(crew: Crew) -> set[str]:
    return {str(row["id"]) for row in await crew.sql("select id from task_group")}


async def test_groups_finished_longer_ago_go_and_no_others(crew: Crew) -> None:
    await group(crew, t("old"), t("old too", "old"))
    young = await group(crew, t("young"))
    await work(crew)
    cancelled = await group(crew, t("cancelled"))
    await crew.ask(CANCEL, ids=[id_of("cancelled")])
    unfinished = await group(crew, t("some", priority=1), t("other"))
    await work(crew, limit=1)
    failed = await group(crew, t("failed", priority=1))
    await crew.fail(*await crew.claim(), discard=True)
    empty = await group(crew)
    await ended_days_ago(crew, 10)
    await ended_days_ago(crew, 2, "young")
    assert await delete_expired(crew, 3) == 3
    assert await groups_left(crew) == {young, unfinished, failed, empty}
    assert cancelled not in await groups_left(crew)
    assert await delete_expired(crew, 3) == 0
    assert await progress(crew, unfinished) == ({"SUCCEEDED": 1, "READY": 1}, 0.5)


async def test_with_unfinished_those_made_longer_ago_go_of_which_nothing_runs(crew: Crew) -> None:
    blocked = await group(crew, t("a", delaySeconds=100), t("b", "a"))
    failed = await group(crew, t("failed"))
    await crew.fail(*await crew.claim(), discard=True)
    running = await group(crew, t("running", key="k"), t("waiting", "running"))
    riding = await group(crew, t("riding", key="k"))
    finished = await group(crew, t("finished", priority=1))
    empty, young, paused = await group(crew), await group(crew), await group(crew, t("paused", delaySeconds=100))
    await work(crew, limit=1)
    (lease,) = await crew.claim()
    await made_days_ago(crew, 10, blocked, failed, running, riding, finished, empty, paused)
    await fold(crew)
    assert await delete_expired(crew, 3) == 0
    assert await delete_expired(crew, 3, unfinished=True) == 4
    assert await groups_left(crew) == {running, riding, finished, young}
    assert (await crew.complete(lease))["completed"] == 1


async def test_at_zero_days_what_has_just_finished_goes(crew: Crew) -> None:
    await group(crew, t("a"), t("b"))
    await work(crew)
    assert await delete_expired(crew, 0) == 2
    assert await groups_left(crew) == set()


async def test_a_group_that_was_begun_again_since_it_was_counted_stays(crew: Crew) -> None:
    g = await group(crew, t("a"), t("b"))
    await work(crew)
    await ended_days_ago(crew, 10)
    await reset(crew, id_of("b"))
    await crew.sql("update group_tally set unsettled = 0")  # as if the fold had not heard of it
    assert await retention._delete_expired(crew.services.core, [1], DAY) == (0, [1])
    assert await crew.states(g) == {"a": "SUCCEEDED", "b": "READY"}


async def test_each_group_has_an_event_and_its_leases_say_cancelled(crew: Crew) -> None:
    await group(crew, t("a"), t("b"))
    a, b = await crew.claim(2)
    await crew.complete(a, b)
    await group(crew, t("x"))
    await work(crew)
    await ended_days_ago(crew, 10)
    start = await now(crew)
    await delete_expired(crew, 1)
    events = (await poll(crew, start))["events"]
    assert [e["kind"] for e in events if e["kind"] != "GROUP_FINISHED"] == ["GROUP_DELETED", "GROUP_DELETED"]
    assert [e["code"] for e in (await crew.extend(a))["errors"]] == ["CANCELLED"]


async def test_many_groups_go_in_batches(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GROUPS", 7)
    monkeypatch.setattr(retention, "TASKS", 5)
    for n in range(20):
        await group(crew, *(t(f"{n}.{m}") for m in range(1 + n % 3)))
    await crew.complete(*await crew.claim(100))
    await ended_days_ago(crew, 10)
    assert await delete_expired(crew, 1) == 39
    assert await groups_left(crew) == set()


async def test_of_a_group_that_goes_on_settled_tasks_go_that_nobody_asks_for(crew: Crew) -> None:
    g = await group(
        crew,
        t("root", priority=9),
        t("join", "root*"),
        t("alone", priority=8),
        t("seed", priority=7, isSeed=True),
        t("fresh", priority=6),
        t("open"),
    )
    grows = {
        "root": [t("x", priority=9)],
        "x": [t("y", priority=9)],
        "y": [t("z", priority=-1)],
        "alone": [t("k", priority=8)],
    }
    await work(crew, grows, limit=7)
    await ended_days_ago(crew, 10, "root", "x", "y", "alone", "k", "seed")
    assert await retention.delete_old_tasks(crew.services.core, 3) == 2
    assert set(await crew.states(g)) == {"root", "x", "y", "z", "join", "seed", "fresh", "open"}
    assert await work(crew, {"open": [t("more", priority=-2)]}, limit=3) == {
        "open": [],
        "z": ["y"],
        "join": ["root", "x", "y", "z"],
    }
    await ended_days_ago(crew, 10, "z", "join", "open")
    assert await retention.delete_old_tasks(crew.services.core, 3) == 5
    assert await crew.states(g) == {"seed": "SUCCEEDED", "fresh": "SUCCEEDED", "open": "SUCCEEDED", "more": "READY"}
    await fold(crew)
    assert await progress(crew, g) == ({"SUCCEEDED": 3, "READY": 1}, 0.75)


async def test_a_chain_that_goes_on_for_ever_loses_its_old_end(crew: Crew) -> None:
    g = await group(crew, t("0"))
    await work(crew, {str(n): [t(str(n + 1))] for n in range(9)}, limit=9)
    await ended_days_ago(crew, 10)
    assert await retention.delete_old_tasks(crew.services.core, 3) == 8
    assert await crew.states(g) == {"8": "SUCCEEDED", "9": "READY"}
    assert await work(crew) == {"9": ["8"]}


async def test_tasks_of_finished_groups_stay_until_their_group_goes(crew: Crew) -> None:
    g = await group(crew, t("a"), t("b"))
    await work(crew)
    await ended_days_ago(crew, 10, "a")
    assert await retention.delete_old_tasks(crew.services.core, 3) == 0
    assert len(await crew.states(g)) == 2


async def test_old_tasks_go_in_batches_each_with_its_event(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "TASKS", 3)
    await group(crew, t("open", priority=-1), *(t(str(n)) for n in range(10)))
    await work(crew, limit=10)
    await ended_days_ago(crew, 10)
    start = await now(crew)
    assert await retention.delete_old_tasks(crew.services.core, 3) == 10
    events = (await poll(crew, start))["events"]
    assert {e["kind"] for e in events} == {"DELETED"}
    assert sorted(e["taskId"] for e in events) == sorted(id_of(str(n)) for n in range(10))


async def test_the_server_forgets_by_itself_where_it_is_told_to(dsn: str) -> None:
    async with crew_on(dsn) as crew:
        await group(crew, t("a"))
        await group(crew, t("b", priority=1), t("c", priority=-1))
        await work(crew, limit=2)
        await ended_days_ago(crew, 10)
        step = asyncio.ensure_future(retain(crew.services.core, None, None))
        await asyncio.sleep(0)
        step.cancel()
        assert len(await crew.sql("select from task")) == 3
    async with crew_on(dsn, group_retention_days=3, task_retention_days=3) as crew:

        async def forgotten() -> bool:
            return len(await crew.sql("select from task")) == 1

        await until(forgotten)
        assert (await crew.task(id_of("c")))["state"] == "READY"


async def test_what_cannot_be_taken_is_refused(crew: Crew) -> None:
    given: list[Any] = [-1, 1e9]
    for days in given:
        with pytest.raises(Refused) as refused:
            await delete_expired(crew, days)
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["olderThanDays"])
