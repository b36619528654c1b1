"""The task as its handler sees it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from crew_worker.api import Json
from crew_worker.draft import Draft


@dataclass(frozen=True)
class Parent:
    """What one parent produced."""

    task_id: str
    name: str
    channel: str
    state: str
    input: Any
    output: Any


def parent_of(given: Json) -> Parent:
    return Parent(
        given["taskId"], given["name"], given["channel"], given["state"], given.get("input"), given.get("output")
    )


@dataclass
class Progress:
    """As last said by the handler, and whether the server knows."""

    fraction: float | None = None
    message: str | None = None
    news: bool = False


NOTHING_SAID = Progress()


class TaskLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the task's ids before the message for people, and into the record for programs."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        ids = self.extra or {}
        kwargs["extra"] = {**ids, **(kwargs.get("extra") or {})}
        return f"[{ids['channel']} {ids['task_id']} attempt {ids['attempt']}] {msg}", kwargs


class Cancelled(Exception):
    """Raised by `Task.check`: the lease is lost or the task cancelled, so what is done here counts for nothing."""


class Task:
    """One attempt at one task. Everything here may be used from the handler's own thread."""

    def __init__(
        self,
        lease: Json,
        worker_id: str = "",
        on_progress: Callable[[], None] = lambda: None,
        traced: bool = False,
    ) -> None:
        task = lease["task"]
        self.lease_id: str = lease["id"]
        self.attempt: int = lease["attempt"]
        self.id: str = task["id"]
        self.name: str = task["name"]
        self.channel: str = task["channel"]
        self.workgroup: str | None = task.get("workgroup")
        self.key: str | None = task.get("key")
        self.input: Any = task.get("input")
        self.metadata: Any = task.get("metadata")
        self.priority: int = task.get("priority") or 0
        self.remaining_attempts: int = task.get("remainingAttempts") or 0
        self.timeout_seconds: float | None = task.get("timeoutSeconds")
        self.group_id: str = (task.get("group") or {}).get("id", "")
        parents = lease.get("parents")
        self.parents: list[Parent] = [parent_of(p) for p in parents] if parents else []
        self.worker_id = worker_id
        self.children: list[Draft[Any]] = []
        self.last_progress = NOTHING_SAID
        self._on_progress = on_progress
        self._is_cancelled = False
        self._inherited: dict[str, str] = {}
        self._traced = traced

    @cached_property
    def log(self) -> TaskLog:
        """Says with each message which task, attempt and lease it is about."""
        ids: Mapping[str, object] = {
            "task_id": self.id,
            "group_id": self.group_id,
            "channel": self.channel,
            "workgroup": self.workgroup,
            "attempt": self.attempt,
            "lease_id": self.lease_id,
            "worker_id": self.worker_id,
        }
        return TaskLog(logging.getLogger(f"crew_worker.task.{self.channel}"), ids)

    @property
    def outputs(self) -> list[Any]:
        """Of its parents, in their order."""
        return [parent.output for parent in self.parents]

    @property
    def cancelled(self) -> bool:
        """The lease is lost or the task cancelled. Plain functions, which nobody can interrupt, look here now and then."""
        return self._is_cancelled

    def check(self) -> None:
        """Raises Cancelled when there is no more sense in going on."""
        if self.cancelled:
            raise Cancelled

    def spawn(self, channel: str, input: Any = None, **options: Any) -> Draft[Any]:
        """Plan a continuation: made when this task completes, or not at all. Takes what `Group.task` takes.

        It becomes a child of this task unless it is told to come `after` others planned here.
        """
        child: Draft[Any] = Draft(channel, input, **options)
        self.children.append(child)
        return child

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Say how far it is, from 0 to 1, and what it is at; it reaches the server within about a second."""
        last = self.last_progress
        self.last_progress = Progress(
            last.fraction if fraction is None else min(1.0, max(0.0, float(fraction))),
            last.message if message is None else str(message)[:2000],
            news=True,
        )
        self._on_progress()
