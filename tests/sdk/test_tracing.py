"""Each attempt is a span that continues the trace of its task, and what it spawns continues the attempt's."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from crew_worker import Crew
from crew_worker.testing import in_memory

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
CALLER = 0xB7AD6B7169203331


async def test_spans_go_on_from_the_task_to_what_it_spawns() -> None:
    told = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(told))
    trace.set_tracer_provider(provider)
    crew = Crew()

    @crew.task("parent")
    async def parent(task):
        task.spawn("child")
        return trace.get_current_span().get_span_context().span_id

    @crew.task("child")
    def child(task):
        if task.attempt == 1:
            raise RuntimeError("once")

    async with in_memory(crew) as memory:
        group = crew.group("traced")
        made = group.task("parent", metadata={"traceparent": f"00-{TRACE:032x}-{CALLER:016x}-01"})
        await group.finished(10)
        inside = memory.tasks[made.id].output

    first, *children = told.get_finished_spans()
    assert [span.name for span in (first, *children)] == ["parent process", "child process", "child process"]
    assert {span.context.trace_id for span in (first, *children)} == {TRACE}
    assert (parent_of(first), first.context.span_id) == (CALLER, inside)
    assert [parent_of(span) for span in children] == [inside, inside]
    assert [span.attributes["crew.task.attempt"] for span in children] == [1, 2]
    assert [span.status.is_ok for span in children] == [False, True]


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent and span.parent.span_id
