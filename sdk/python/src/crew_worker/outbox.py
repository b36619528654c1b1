"""Results on their way to the server: kept until it has answered for each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from crew_worker.api import Json, encode

# Past so many undelivered results a worker claims nothing more.
LIMIT = 10_000
LIST_NAMES = {"completeTasks": "results", "failTasks": "failures", "releaseLeases": "leases"}


@dataclass(slots=True, eq=False)
class Result:
    """One item of one field of Mutation, as JSON text. `fallback`: it says already that something was refused."""

    lease: str
    field: str
    text: str
    fallback: bool = False


def completed(lease: str, text: str) -> Result:
    return Result(lease, "completeTasks", text)


def failed(item: Json, *, fallback: bool = False) -> Result:
    """An error that is no JSON is told as text: the attempt fails all the same."""
    try:
        text = encode(item)
    except (TypeError, ValueError):
        text = encode({**item, "error": repr(item["error"])})
    return Result(item["lease"], "failTasks", text, fallback)


def released(lease: str) -> Result:
    return Result(lease, "releaseLeases", encode(lease))


def variables(results: Sequence[Result]) -> dict[str, str]:
    """Field → its input as JSON."""
    texts: dict[str, list[str]] = {}
    for result in results:
        texts.setdefault(result.field, []).append(result.text)
    return {field: f'{{"{name}":[{",".join(texts[field])}]}}' for field, name in LIST_NAMES.items() if field in texts}


class Outbox:
    """First in, first out, to several couriers. `at_rest` is set while nothing is in it and nothing is on its way."""

    def __init__(self, batch: int = 1000, batch_bytes: int = 4_000_000) -> None:
        self._results: deque[Result] = deque()
        self._on_way = 0
        self._batch, self._batch_bytes = batch, batch_bytes
        self._arrived = asyncio.Event()
        self.at_rest = asyncio.Event()
        self.at_rest.set()

    def __len__(self) -> int:
        return len(self._results)

    @property
    def full(self) -> bool:
        return len(self._results) >= LIMIT

    def put(self, result: Result) -> None:
        self._results.append(result)
        self.at_rest.clear()
        self._arrived.set()

    async def arrival(self) -> None:
        """Returns when there is something to send."""
        await self._arrived.wait()
        # What ends in the same turn of the loop goes in the same request.
        await asyncio.sleep(0)

    def take(self) -> list[Result]:
        """The next batch, none where another courier was first. `answered` is to be called when all of it is answered."""
        taken: list[Result] = []
        size = 0
        while self._results and len(taken) < self._batch:
            size += len(self._results[0].text)
            if taken and size > self._batch_bytes:
                break
            taken.append(self._results.popleft())
        if not self._results:
            self._arrived.clear()
        self._on_way += bool(taken)
        return taken

    def answered(self) -> None:
        """One batch is."""
        self._on_way -= 1
        if not (self._results or self._on_way):
            self.at_rest.set()
