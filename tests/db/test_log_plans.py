"""Plans of the event log: a long log costs its readers, its ticks and its retention nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from db.pool import SESSION
from db.statements import statement
from tests.db.test_plans import Measured, literal, measured, parameter_types, undone
from tests.support.postgres import clone, drop

EVENTS, TICKS = 300_000, 500
# $1 events, over $2 ticks of a transaction each.
FILL = """
insert into event (ns, xid, kind, state, nos, groups, channels, workgroups, attempts)
select 1, (10 + i / ($1 / $2))::text::xid8, 1, 2, array[i], array[1], array[1], array[0], array[0]
from generate_series(0, $1 - 1) i;
delete from tick;
insert into tick (ns, tick, snapshot, at)
select 1, 1 + i, format('%1$s:%1$s:', 10 + i)::pg_snapshot, now() - interval '1 day' from generate_series(0, $2) i;
insert into tick (ns, tick, snapshot) values (1, $2 + 2, pg_current_snapshot());
insert into gone (ns, kind, ref, id) select 1, 1, i, gen_random_uuid() from generate_series(1, $1) i
"""
ASKED: dict[str, tuple[Any, ...]] = {
    "make_tick": (1,),
    "tick_stands": (1, TICKS, 0),
    "read_ticks": (1, TICKS + 1, 0, 0, 20, 500, 500),
    "name_events": (1, [7, EVENTS - 7], [1], [1], [1], [1]),
    "forget_ticks": (1, 3600.0, 10),
    "forget_events": (1, 10, 3600.0),
}


@pytest.fixture(scope="module")
def plans(server: str) -> dict[str, Measured]:
    async def made() -> dict[str, Measured]:
        dsn = await clone(server)
        c = await asyncpg.connect(dsn, server_settings=SESSION, statement_cache_size=0)
        found = {}
        try:
            for line in FILL.split(";\n"):
                await c.execute(line.replace("$1", str(EVENTS)).replace("$2", str(TICKS)))
            await c.execute("vacuum analyze event, tick, gone")
            for name, args in ASKED.items():
                sql = statement("live", name)
                types = await parameter_types(c, sql)
                await c.execute(f"prepare p_{name} ({', '.join(types)}) as {sql}")
                given = ", ".join([await literal(c, t, v) for t, v in zip(types, args, strict=True)])
                for _ in range(2):
                    async with undone(c):
                        text = await c.fetchval(
                            f"explain (analyze, buffers, timing off, format json) execute p_{name} ({given})"
                        )
                        found[name] = measured(text)
        finally:
            await c.close()
            await drop(server, dsn)
        return found

    return asyncio.run(made())


@pytest.mark.parametrize("name", ASKED)
def test_a_long_log_costs_nothing(plans: dict[str, Measured], name: str) -> None:
    """A page or so for each row that is touched; the log has thousands of pages."""
    assert plans[name].buffers < 150, (plans[name].buffers, plans[name].plan)
