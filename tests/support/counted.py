"""How often each statement ran: pg_stat_statements, by the name that every statement carries."""

from __future__ import annotations

import re
from collections import Counter

from tests.support.crew import Crew

_NAME = re.compile(r"^\w+ /\* (\w+) \*/")


async def calls(crew: Crew) -> Counter[str]:
    """Statement → how often it ran in this database so far. (5,000 statements of all databases are remembered.)"""
    await crew.sql("create extension if not exists pg_stat_statements")
    rows = await crew.sql(
        "select s.query, s.calls from pg_stat_statements s join pg_database d on d.oid = s.dbid "
        "where d.datname = current_database()"
    )
    found: Counter[str] = Counter()
    for row in rows:
        if name := _NAME.match(row["query"]):
            found[name[1]] += row["calls"]
    assert found, "no statement has its name"
    return found
