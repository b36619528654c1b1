"""`crew serve` with one lever taken out: what bench.ablation holds the whole server against.

python -m bench.taken_out LEVER serve …
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import orjson
from strawberry.asgi import GraphQL

import db.statements
import schema.compiled
import server.app
import server.operations
from db.statements import load
from resolvers.dispatch import Dispatcher, _Waiter
from resolvers.gather import Gather
from resolvers.take import _FROM_START, Taker
from schema.root import schema as strawberry_schema
from server.cli import main
from server.documents import Documents
from server.loops.run import pause
from server.loops.vacuum import Vacuum


def own_view() -> None:
    """Strawberry's ASGI view, as it comes; it has no services, so only operations that need none can be asked."""
    server.app.GraphQLOverHTTP = lambda *_: GraphQL(strawberry_schema)  # type: ignore[assignment, attr-defined]


def kept_documents() -> None:
    """Each request's document is parsed, validated and compiled."""
    Documents.get = Documents._make  # type: ignore[method-assign]


def compiled_operations() -> None:
    """The executor runs all of them."""
    server.operations._compiled_inputs = lambda document, params: None


def gathering() -> None:
    """Each creation and completion has a statement of its own, and each claim a round."""

    async def add(self: Gather[Any, Any], item: Any) -> Any:
        (answer,) = await self._flush([item])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def take(self: Dispatcher, channels: tuple[str, ...]) -> list[_Waiter]:
        waiters = list(self._waiting.pop(channels, ()))
        if waiters[1:]:
            self._waiting[channels] = dict.fromkeys(waiters[1:])
            self._dirty[channels] = None
        return waiters[:1]

    Gather.add = add  # type: ignore[method-assign]
    Dispatcher._take = take  # type: ignore[method-assign]


def remembered_key() -> None:
    """Each claim looks from the start of its channels."""
    Taker._starts = lambda self, numbers, late: (None, [(n, *_FROM_START) for n in numbers])  # type: ignore[method-assign]


def lease_row_per_batch() -> None:
    """Each task's lease is a row of its own."""
    found = load("claim")
    for name in ("claim_tasks", "claim_tasks_full"):
        whole, grouped = (
            "coalesce(-(timeout * 1000)::bigint, 0) as part",
            "group by lease_no, worker, seconds, offer, timeout",
        )
        assert whole in found[name]
        assert grouped in found[name]
        found[name] = found[name].replace(whole, "no as part").replace(grouped, f"{grouped}, no")
    db.statements.statement.cache_clear()


def own_vacuum() -> None:
    """Autovacuum alone."""

    async def step(self: Vacuum) -> None:
        await pause(60)

    Vacuum.step = step  # type: ignore[method-assign]


def outputs_as_text() -> None:
    """Inputs and outputs on their way out are parsed, and written again."""
    leaf = schema.compiled._leaf
    schema.compiled._leaf = lambda kind: orjson.loads if getattr(kind, "name", "") == "JSON" else leaf(kind)


def one_serialisation() -> None:
    """Each subscriber's message is made for it."""
    schema.compiled.Compiled.is_plain = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment, misc]


def handing_over() -> None:
    """A task for which a worker waits is made, then claimed."""
    Dispatcher._next_idle = lambda self, channel: None  # type: ignore[method-assign]


TAKEN_OUT: dict[str, Callable[[], None]] = {
    lever.__name__: lever
    for lever in (
        own_view,
        kept_documents,
        compiled_operations,
        gathering,
        remembered_key,
        lease_row_per_batch,
        own_vacuum,
        outputs_as_text,
        one_serialisation,
        handing_over,
    )
}


if __name__ == "__main__":
    TAKEN_OUT[sys.argv.pop(1)]()
    main()
