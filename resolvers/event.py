"""What happened: one event for each task, group, channel or workgroup, taken out of the rows of the log when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from db.live import CHANNEL, GROUP, TASK, WORKER, WORKGROUP, PieceRow
from resolvers.cursor import Cursor, Place

Value = TypeVar("Value")
Names = dict[tuple[int, int], str]
"""(kind, number) → id or name."""
_END = (1 << 62) - 1


@dataclass(slots=True)
class Event:
    kind: int
    at: datetime
    no: int | None
    task_id: str | None
    group_id: str | None
    channel: str | None
    workgroup: str | None
    state: int | None
    attempt: int | None
    worker_id: str | None
    progress: float | None
    until: datetime | None


@dataclass(slots=True, frozen=True)
class Filter:
    """None is everything."""

    group_id: str | None = None
    channels: frozenset[str] | None = None
    workgroups: frozenset[str] | None = None
    kinds: frozenset[int] | None = None
    task_ids: frozenset[str] | None = None

    def passes(self, event: Event) -> bool:
        # What happens to a channel or workgroup has no group, and concerns each.
        return (
            (self.group_id is None or event.group_id is None or event.group_id == self.group_id)
            and (self.channels is None or event.channel in self.channels)
            and (self.workgroups is None or event.workgroup in self.workgroups)
            and (self.task_ids is None or event.task_id in self.task_ids)
        )


@dataclass(slots=True)
class Piece:
    """Items of one row that follow each other; or, without a row, the end of a tick."""

    start: Place
    end: Cursor
    row: PieceRow | None = None
    names: Names = field(default_factory=dict)

    @staticmethod
    def of(row: PieceRow, names: Names) -> Piece:
        assert row.seq is not None
        assert row.first is not None
        size = max(
            len(x) for x in (row.nos, row.groups, row.channels, row.workgroups, [0][row.first :]) if x is not None
        )
        before = row.tick - 1
        return Piece(
            Place(before, row.seq, row.first),
            Cursor(Place(before, row.seq, row.first + size), row.mark_before),
            row,
            names,
        )

    @staticmethod
    def end_of_tick(row: PieceRow) -> Piece:
        return Piece(Place(row.tick - 1, _END), Cursor(Place(row.tick), row.mark))

    @property
    def size(self) -> int:
        return 0 if self.row is None else self.end.place.item - self.start.item

    def events(self, after: Place, filter: Filter) -> Iterator[tuple[Cursor, Event]]:
        """Those that come after a place and that the filter lets through, each with the cursor behind it."""
        row = self.row
        if row is None or row.kind is None or row.at is None:
            return
        if filter.kinds is not None and row.kind not in filter.kinds:
            return
        begin = max(after.item - self.start.item, 0) if after[:2] == self.start[:2] else 0
        for n in range(begin, self.size):
            event = Event(
                kind=row.kind,
                at=row.at,
                no=_nth(row.nos, n),
                task_id=self._name(TASK, row.nos, n),
                group_id=self._name(GROUP, row.groups, n),
                channel=self._name(CHANNEL, row.channels, n),
                workgroup=self._name(WORKGROUP, row.workgroups, n),
                state=row.state,
                attempt=_nth(row.attempts, n),
                worker_id=None if row.worker is None else self.names.get((WORKER, row.worker)),
                progress=_nth(row.progress, n),
                until=row.until,
            )
            if filter.passes(event):
                tick, seq, item = self.start
                yield Cursor(Place(tick, seq, item + n + 1), self.end.mark), event

    def _name(self, kind: int, numbers: list[int] | None, n: int) -> str | None:
        number = _nth(numbers, n)
        return None if number is None else self.names.get((kind, number))


def _nth(values: Sequence[Value] | None, n: int) -> Value | None:
    return values[n] if values is not None and n < len(values) else None
