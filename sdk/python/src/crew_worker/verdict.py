"""How an attempt ended, as the item of completeTasks or failTasks that says so."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from concurrent.futures import thread
from pathlib import Path
from types import TracebackType
from typing import Any

from crew_worker import tracing
from crew_worker.api import Json, encode
from crew_worker.draft import Draft, seconds
from crew_worker.errors import Discard, RateLimited, Retry, TaskError
from crew_worker.output import Output
from crew_worker.task import Task

TRACEBACK_CHARACTERS = 4000
# Frames of these folders say nothing to the author of a handler.
HERE, THREADS = Path(__file__).parent, Path(thread.__file__).parent


def completion(task: Task, returned: Any) -> str:
    """A CompleteTaskInput as JSON. Falsy values are results like any other. Raises TypeError or ValueError for what is no JSON."""
    if not task.children and not isinstance(returned, Output):
        return f'{{"lease":{encode(task.lease_id)},"output":{encode(returned)}}}'
    output = returned if isinstance(returned, Output) else Output(returned)
    item: Json = {"lease": task.lease_id, "output": output.value}
    if children := [*task.children, *output.children]:
        item["children"] = [tracing.with_trace(child.as_input(), task._inherited) for child in unique(children)]
    if output.children_delay is not None:
        item["childrenDelaySeconds"] = seconds(output.children_delay)
    if output.workgroup_delay is not None:
        item["workgroupDelaySeconds"] = seconds(output.workgroup_delay)
    return encode(item)


def failure(task: Task, error: BaseException) -> Json:
    """A FailTaskInput."""
    item: Json = {"lease": task.lease_id, "error": described(error)}
    if isinstance(error, RateLimited):
        item |= {"workgroupDelaySeconds": error.seconds, "keepAttempt": True}
    elif isinstance(error, Retry):
        if error.after is not None:
            item["retryDelaySeconds"] = error.after
        if not error.count:
            item["keepAttempt"] = True
    elif isinstance(error, Discard):
        item["discard"] = True
    return item


def stopped(task: Task) -> Json:
    """Cut off by the worker's end: noted, not counted, ready again at once."""
    return {"lease": task.lease_id, "error": "the worker was stopped", "keepAttempt": True, "retryDelaySeconds": 0}


def described(error: BaseException) -> Any:
    """What the task's error entry holds: the data of a TaskError, or an exception's type, text and traceback."""
    if isinstance(error, TaskError):
        return "" if error.data is None else error.data
    lines = traceback.format_exception(type(error), error, users_part(error.__traceback__))
    return {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(lines)[-TRACEBACK_CHARACTERS:],
    }


def brief(error: BaseException) -> str:
    """One line for the log."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def users_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the handler's own frame on."""
    found = trace
    while found and Path(found.tb_frame.f_code.co_filename).parent in (HERE, THREADS):
        found = found.tb_next
    return found or trace


def unique(drafts: Sequence[Draft[Any]]) -> list[Draft[Any]]:
    """A child that was spawned and returned too is one child."""
    return list({draft.id: draft for draft in drafts}.values())
