"""Refusals, well formed."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.crew import Crew

LEAK = re.compile(
    r"Traceback|asyncpg|psycopg|File \"|\bselect\b|\binsert\b|\$\d|<class|object at 0x|violates|line \d+", re.I
)
T = {"name": "t", "channel": "c"}
ID = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
OTHER = "018f5a3e-7c11-7a55-8d3c-0242ac120003"
CODES = {"BAD_INPUT", "NOT_FOUND", "CONFLICT", "TOO_LARGE"}


async def counts(crew: Crew) -> tuple[int, int, int]:
    (row,) = await crew.sql(
        "select (select count(*) from task)::int, (select count(*) from task_group)::int, (select count(*) from lease)::int"
    )
    return tuple(row)


def check(errors: list[dict[str, Any]]) -> dict[str, Any]:
    """One refusal, well formed. Answers its extensions."""
    (error,) = errors
    assert error["message"]
    assert not LEAK.search(error["message"]), error["message"]
    assert len(error["message"]) < 1000
    assert error["extensions"]["code"] in CODES
    return error["extensions"]


def far(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


def retry(**policy: Any) -> dict[str, Any]:
    return {**T, "retry": policy}


def body(query: str, given: Any) -> bytes:
    """As a client would send it: a lone surrogate travels as an escape."""
    return json.dumps({"query": query, "variables": {"input": given}}).encode()


async def post(crew: Crew, query: str, given: Any) -> Any:
    answer = await crew.http.post("/graphql", content=body(query, given), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    return answer.json()
