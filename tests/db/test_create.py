"""Statements of create.sql: the one for everyday tasks makes what the general one makes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from db.create import Batch, NewGroupRow, NewTaskRow, create_tasks
from resolvers.draft import new_id
from tests.support.races import new_task

POLICY = {"retry_delay": 30.0, "max_delay": 3600.0}
# Everything but numbers and ids, which are drawn afresh.
MADE = {
    "task": "select to_jsonb(t) - 'no' - 'id' - 'group_no' as row from task t order by no",
    "ready": "select to_jsonb(r) - 'no' - 'group_no' as row from ready r order by no",
    "task_group": "select to_jsonb(g) - 'id' - 'group_no' - 'made_upto' as row from task_group g order by group_no",
    "event": "select jsonb_build_array(kind, state, cardinality(nos), cardinality(groups), channels, workgroups, attempts) as row "
    "from event order by 1",
}


async def made_by(c: asyncpg.Connection, batch: Batch) -> dict[str, Any]:
    """What a batch makes, and what the statement answers, numbers apart. Undone afterwards."""
    transaction = c.transaction()
    await transaction.start()
    try:
        answered = await create_tasks(c, 1, batch)
        found = {table: [json.loads(row["row"]) for row in await c.fetch(sql)] for table, sql in MADE.items()}
        numbers = [row["no"] for row in await c.fetch("select no from task order by no")]
        uptos = [row["made_upto"] for row in await c.fetch("select made_upto from task_group order by group_no")]
        found["numbers in order"] = numbers == sorted(row.no for row in answered) == [row.no for row in answered]
        found["made up to"] = [upto == max(numbers, default=0) for upto in uptos]
        found["answered"] = [(r.ord, r.channel, r.rank, r.state, r.due_in) for r in answered]
        return found
    finally:
        await transaction.rollback()


def general(batch: Batch) -> Batch:
    """The same but for its weight, which no everyday task has."""
    return Batch(batch.groups, [replace(task, weight=2, id=new_id()) for task in batch.tasks])


def everyday(n: int, **more: Any) -> list[NewTaskRow]:
    return [new_task(f"t{i}", channel=1001 + i % 2, rank=-(i % 3), workgroup=i % 2, **POLICY, **more) for i in range(n)]


@pytest.mark.parametrize("groups", [0, 1, 3])
async def test_everyday_tasks_are_made_as_the_general_statement_makes_them(dsn: str, groups: int) -> None:
    c = await asyncpg.connect(dsn)
    try:
        await c.execute(
            "insert into task_group (ns, group_no, id, name, made_upto) values (1, 7, gen_random_uuid(), 'old', 0)"
        )
        batch = Batch([NewGroupRow(new_id(), f"g{n}", '{"a": 1}') for n in range(groups)], everyday(6, group_no=7))
        for n, task in enumerate(batch.tasks):
            task.input, task.metadata = f'{{"n": {n}}}', None if n % 2 else '{"m": 1}'
            if groups:
                task.new_group = n % (groups + 1)
                task.group_no = 0 if task.new_group else 7
        assert batch.is_everyday
        assert not general(batch).is_everyday
        async with c.transaction():  # In one, now() is the same for both.
            one, other = await made_by(c, batch), await made_by(c, general(batch))
        assert [row.pop("weight") for row in one["task"] + other["task"]] == [1] * 6 + [2] * 6
        assert one == other
        assert one["numbers in order"]
        assert sorted(one["made up to"]) == [False] + [True] * groups
    finally:
        await c.close()


@pytest.mark.parametrize("group_no", [7, 8])
async def test_one_task_alone_is_made_as_the_general_statement_makes_it(dsn: str, group_no: int) -> None:
    """Nothing where its group is gone."""
    c = await asyncpg.connect(dsn)
    try:
        await c.execute(
            "insert into task_group (ns, group_no, id, name, made_upto) values (1, 7, gen_random_uuid(), 'old', 0)"
        )
        (task,) = everyday(1, group_no=group_no)
        batch = Batch([], [replace(task, workgroup=3, rank=-2, input='{"n": 1}', metadata='{"m": 1}')])
        said: list[str] = []
        async with c.transaction():
            with c.query_logger(lambda record: said.append(record.query)):
                one = await made_by(c, batch)
                other = await made_by(c, general(batch))
        assert ["/* create_ready_task */" in query for query in said if "insert into task (" in query] == [True, False]
        assert [row.pop("weight") for row in one["task"] + other["task"]] == ([1, 2] if group_no == 7 else [])
        assert one == other
        assert len(one["answered"]) == (group_no == 7)
    finally:
        await c.close()
