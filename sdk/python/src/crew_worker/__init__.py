"""Workers and producers for Crew, the task server.

from crew_worker import Crew, RateLimited

crew = Crew("http://127.0.0.1:8000")

@crew.task("create_ad", concurrency=10)
async def create_ad(task):
    reply = await api.post("/ads", json=task.input)
    if reply.status_code == 429:
        raise RateLimited.from_response(reply)
    return reply.json()

crew.run()
"""

from crew_worker.client import Crew
from crew_worker.draft import Draft, RetryPolicy
from crew_worker.errors import (
    CrewError,
    Discard,
    GroupStuck,
    NotCrew,
    RateLimited,
    Refused,
    Retry,
    TaskError,
    TaskFailed,
    Unavailable,
)
from crew_worker.group import Group
from crew_worker.output import Output
from crew_worker.task import Cancelled, Parent, Task

__all__ = [
    "Cancelled",
    "Crew",
    "CrewError",
    "Discard",
    "Draft",
    "Group",
    "GroupStuck",
    "NotCrew",
    "Output",
    "Parent",
    "RateLimited",
    "Refused",
    "Retry",
    "RetryPolicy",
    "Task",
    "TaskError",
    "TaskFailed",
    "Unavailable",
]
