"""Short words for schedules, and their clock."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.support.crew import Crew
from tests.support.wait import until

FIELDS = (
    "id name cron timeZone isPaused catchUp overlap template lastRunAt nextRunAt lastError "
    "lastGroup { id name progress { total } }"
)
CREATE = f"mutation($input: ScheduleInput!) {{ createSchedule(input: $input) {{ schedule {{ {FIELDS} }} }} }}"
UPDATE = f"mutation($input: UpdateScheduleInput!) {{ updateSchedule(input: $input) {{ schedule {{ {FIELDS} }} }} }}"
DELETE = "mutation($id: ID!) { deleteSchedule(id: $id) { id } }"
TRIGGER = (
    "mutation($id: ID!) { triggerSchedule(id: $id) "
    "{ affected taskGroup { id name isPaused graph { nodes { name state } } } } }"
)
GROUP = {"name": "nightly", "tasks": [{"name": "a", "channel": "c"}]}


async def create(crew: Crew, cron: str = "0 0 1 1 *", **more: Any) -> dict[str, Any]:
    """Once a year, so that nothing is due by itself."""
    given = {"name": "s", "cron": cron, "group": GROUP, **more}
    return (await crew.ask(CREATE, input=given))["createSchedule"]["schedule"]


async def update(crew: Crew, id: str, **more: Any) -> dict[str, Any]:
    return (await crew.ask(UPDATE, input={"id": id, **more}))["updateSchedule"]["schedule"]


async def trigger(crew: Crew, id: str) -> dict[str, Any]:
    return (await crew.ask(TRIGGER, id=id))["triggerSchedule"]


async def all_schedules(crew: Crew, fields: str = FIELDS) -> list[dict[str, Any]]:
    return (await crew.ask(f"{{ schedules {{ {fields} }} }}"))["schedules"]


async def seen(crew: Crew, id: str) -> dict[str, Any]:
    return next(s for s in await all_schedules(crew) if s["id"] == id)


async def make_due(crew: Crew, id: str, at: str = "now()") -> datetime:
    """The clock is moved: it is due since `at`, an expression in SQL. Answers that instant."""
    rows = await crew.sql(f"update schedule set next_run_at = {at} where id = $1::text::uuid returning next_run_at", id)
    crew.services.core.scheduled(0)
    return rows[0]["next_run_at"]


async def moved_on(crew: Crew, id: str) -> dict[str, Any]:
    """Returns when nothing of it is due any more."""

    async def later() -> bool:
        rows = await crew.sql(
            "select coalesce(next_run_at > now(), true) as later from schedule where id = $1::text::uuid", id
        )
        return rows[0]["later"]

    await until(later)
    return await seen(crew, id)


async def groups(crew: Crew) -> int:
    return (await crew.sql("select count(*)::int as n from task_group"))[0]["n"]
