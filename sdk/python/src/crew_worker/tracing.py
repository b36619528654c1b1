"""The trace of a task goes on where its metadata says, and goes down to the tasks that it makes (W3C trace context).

With the extra `otel` installed each attempt is a span of its own. Without it the context is handed on as it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from crew_worker.api import Json
from crew_worker.task import Task

FIELDS = ("traceparent", "tracestate")

try:
    from opentelemetry import propagate, trace
except ImportError:
    _installed = False
else:
    _installed = True


def carried(metadata: Any) -> dict[str, str]:
    """The trace context in a task's metadata."""
    if not isinstance(metadata, dict):
        return {}
    return {name: metadata[name] for name in FIELDS if isinstance(metadata.get(name), str)}


def is_on() -> bool:
    """Whether somebody takes spans: then each attempt stands in one. Else only one whose task brings a context does."""
    return _installed and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def concerns(task: Task) -> bool:
    """Whether an attempt is to stand in a span; else it costs nothing."""
    return task._traced or (_installed and bool(task._inherited))


def current() -> dict[str, str]:
    """The trace context of the caller, to put into the metadata of what it makes."""
    here: dict[str, str] = {}
    if _installed:
        propagate.inject(here)
    return here


def with_trace(task: Json, here: Json) -> Json:
    """The NewTask, with a trace in its metadata where it has none of its own."""
    metadata = task.get("metadata", {})
    return {**task, "metadata": {**here, **metadata}} if here and isinstance(metadata, dict) else task


@contextlib.contextmanager
def attempt(task: Task) -> Iterator[None]:
    """The span of one attempt; what the task spawns continues it."""
    context = propagate.extract(task._inherited)
    attributes: dict[str, Any] = {
        "crew.task.id": task.id,
        "crew.task.name": task.name,
        "crew.task.attempt": task.attempt,
        "messaging.destination.name": task.channel,
        "messaging.system": "crew",
    }
    tracer = trace.get_tracer("crew_worker")
    kind = trace.SpanKind.CONSUMER
    with tracer.start_as_current_span(f"{task.channel} process", context, kind=kind, attributes=attributes):
        here: dict[str, str] = {}
        propagate.inject(here)
        task._inherited = here or task._inherited
        yield
