"""A claim reads what it takes, not what waits, on tables that were analyzed while they were full."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from db.pool import SESSION
from db.statements import statement

WAITING, LIMIT = 30_000, 50
FILL = """
with made as (
  insert into task (ns, no, id, group_no, channel, name, max_attempts, retry_delay, backoff, max_delay)
  select 1, i, gen_random_uuid(), 1, 1 + i % $2::int, 'waits', 5, 30, 1, 3600 from generate_series(1, $1::int) i
  returning no, channel)
insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures)
select 1, channel, 0, 0, no, 1, 0, 5, 0 from made
"""


def rows_read(node: dict[str, Any], table: str) -> int:
    own = (
        node["Actual Rows"] * node["Actual Loops"]
        if node.get("Relation Name") == table and "Scan" in node["Node Type"]
        else 0
    )
    return int(own) + sum(rows_read(child, table) for child in node.get("Plans", ()))


@pytest.mark.parametrize("channels", [1, 20])
@pytest.mark.parametrize("name", ["claim_tasks", "claim_tasks_full", "ready_channels", "best_places"])
async def test_it_reads_what_it_takes(dsn: str, name: str, channels: int) -> None:
    connection = await asyncpg.connect(dsn, server_settings=SESSION)
    try:
        await connection.execute(FILL, WAITING, channels)
        await connection.execute("vacuum analyze")
        numbers = list(range(1, channels + 1))
        start = (1, numbers, [-(1 << 31)] * channels, [0] * channels)
        share = [-(-LIMIT // channels)] * channels
        claim = (*start, [1], [LIMIT], [60.0], [None], ["x"], share, [None])
        args = {
            "claim_tasks": claim,
            "claim_tasks_full": (*claim, True),
            "ready_channels": (*start, []),
            "best_places": (*start, LIMIT),
        }[name]
        noun = "clock" if name == "ready_channels" else "claim"
        explained = await connection.fetchval(f"explain (analyze, format json) {statement(noun, name)}", *args)
        (plan,) = json.loads(explained)
        # A claimed row is read twice: by the index, and by its place when it is deleted. So is one of the best of several channels.
        assert 0 < rows_read(plan["Plan"], "ready") <= 2 * LIMIT + 3 * channels
    finally:
        await connection.close()
