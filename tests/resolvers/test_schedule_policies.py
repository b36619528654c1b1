"""What a schedule does with runs that were missed, and while its last group is not finished. The clock is moved by SQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.crew import Crew, crew_on
from tests.support.schedules import GROUP, create, groups, make_due, moved_on, seen, trigger
from tests.support.wait import until

EACH_MINUTE = "* * * * *"
AN_HOUR_AGO = "date_trunc('minute', now()) - interval '60 min'"
A_QUARTER_AGO = "date_trunc('minute', now()) - interval '15 min'"
YEARS_AGO = "date_trunc('minute', now()) - interval '3 years'"


async def test_after_an_outage_one_runs_once(crew: Crew) -> None:
    made = await create(crew, EACH_MINUTE, catchUp="ONE")
    await make_due(crew, made["id"], YEARS_AGO)
    after = await moved_on(crew, made["id"])
    late = (await crew.sql("select now() as now"))[0]["now"] - datetime.fromisoformat(after["lastRunAt"])
    assert late < timedelta(minutes=2)
    assert await groups(crew) in (1, 2), "a minute may pass meanwhile"


async def test_after_an_outage_all_run_in_order(crew: Crew) -> None:
    made = await create(crew, EACH_MINUTE, catchUp="ALL")
    first = await make_due(crew, made["id"], AN_HOUR_AGO)
    after = await moved_on(crew, made["id"])
    last = datetime.fromisoformat(after["lastRunAt"])
    assert await groups(crew) == (last - first).total_seconds() / 60 + 1
    assert await groups(crew) in (61, 62)


async def test_all_that_were_missed_are_more_than_one_transaction_takes(crew: Crew) -> None:
    made = await create(crew, EACH_MINUTE, catchUp="ALL", group={"name": "g"})
    await make_due(crew, made["id"], "date_trunc('minute', now()) - interval '250 min'")
    await moved_on(crew, made["id"])
    assert await groups(crew) in (251, 252)


async def test_many_that_were_missed_by_many_come_in_transactions_of_a_bounded_size(crew: Crew) -> None:
    tasks = [{"name": str(n), "channel": "c"} for n in range(50)]
    for n in range(12):
        await create(crew, EACH_MINUTE, name=str(n), catchUp="ALL", group={"name": "g", "tasks": tasks})
    await crew.sql(f"update schedule set next_run_at = {A_QUARTER_AGO}")
    while await crew.services.schedules.run_due():
        pass

    async def none_due() -> bool:
        return (await crew.sql("select not exists (select from schedule where next_run_at <= now()) as none"))[0][
            "none"
        ]

    await until(none_due)
    rows = await crew.sql("select count(*)::int as n from task group by created_at order by 1 desc")
    assert sum(row["n"] for row in rows) in (12 * 16 * 50, 12 * 17 * 50)
    assert rows[0]["n"] <= 6000


async def test_after_an_outage_skip_runs_nothing(crew: Crew) -> None:
    made = await create(crew, catchUp="SKIP")
    await make_due(crew, made["id"], "now() - interval '61 s'")
    assert await moved_on(crew, made["id"]) == made
    assert await groups(crew) == 0


async def test_a_run_that_is_a_few_seconds_late_was_not_missed(crew: Crew) -> None:
    made = await create(crew, catchUp="SKIP")
    due = await make_due(crew, made["id"], "now() - interval '50 s'")
    after = await moved_on(crew, made["id"])
    assert datetime.fromisoformat(after["lastRunAt"]) == due
    assert await groups(crew) == 1


@pytest.mark.parametrize(("catch_up", "expected"), [("SKIP", 0), ("ONE", 1), ("ALL", 1)])
async def test_a_server_that_starts_makes_up_for_what_was_missed_while_there_was_none(
    dsn: str, catch_up: str, expected: int
) -> None:
    async with crew_on(dsn) as crew:
        made = await create(crew, catchUp=catch_up)
        await crew.sql("update schedule set next_run_at = now() + interval '1 day'")
    async with crew_on(dsn) as crew:
        await make_due(crew, made["id"], "now() - interval '3 hours'")
        await moved_on(crew, made["id"])
        assert await groups(crew) == expected


async def due_again(crew: Crew, id: str) -> dict[str, Any]:
    await make_due(crew, id)
    return await moved_on(crew, id)


async def test_with_allow_runs_overlap(crew: Crew) -> None:
    made = await create(crew, overlap="ALLOW")
    first, second = await due_again(crew, made["id"]), await due_again(crew, made["id"])
    assert first["lastGroup"]["id"] != second["lastGroup"]["id"]
    assert await groups(crew) == 2


async def test_with_skip_no_run_begins_before_the_last_group_is_finished(crew: Crew) -> None:
    made = await create(crew, overlap="SKIP")
    first = await due_again(crew, made["id"])
    assert await due_again(crew, made["id"]) == first
    (lease,) = await crew.claim()
    assert await due_again(crew, made["id"]) == first
    await crew.complete(lease)
    second = await due_again(crew, made["id"])
    assert second["lastGroup"]["id"] != first["lastGroup"]["id"]
    assert second["lastRunAt"] > first["lastRunAt"]
    assert await groups(crew) == 2


async def test_a_failed_task_keeps_its_group_from_being_finished(crew: Crew) -> None:
    made = await create(crew, overlap="SKIP")
    first = await due_again(crew, made["id"])
    await crew.fail(*await crew.claim(), discard=True)
    assert await due_again(crew, made["id"]) == first


async def test_a_group_that_was_triggered_counts_as_the_last(crew: Crew) -> None:
    made = await create(crew, overlap="SKIP")
    await trigger(crew, made["id"])
    before = await seen(crew, made["id"])
    assert await due_again(crew, made["id"]) == before


async def test_groups_without_tasks_do_not_keep_others_from_running(crew: Crew) -> None:
    made = await create(crew, overlap="SKIP", group={"name": "g"})
    await due_again(crew, made["id"])
    await due_again(crew, made["id"])
    assert await groups(crew) == 2


async def test_a_group_that_is_deleted_does_not_keep_others_from_running(crew: Crew) -> None:
    made = await create(crew, overlap="SKIP")
    last = (await due_again(crew, made["id"]))["lastGroup"]
    await crew.ask("mutation($id: ID!) { deleteTaskGroup(id: $id) { deletedTasks } }", id=last["id"])
    assert (await seen(crew, made["id"]))["lastGroup"] is None
    assert (await due_again(crew, made["id"]))["lastGroup"] is not None


async def test_of_all_that_were_missed_only_one_runs_while_its_group_is_not_finished(crew: Crew) -> None:
    made = await create(crew, EACH_MINUTE, catchUp="ALL", overlap="SKIP", group=GROUP)
    first = await make_due(crew, made["id"], AN_HOUR_AGO)
    after = await moved_on(crew, made["id"])
    assert datetime.fromisoformat(after["lastRunAt"]) == first
    assert await groups(crew) == 1
