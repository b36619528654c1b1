"""What tests/support/life_model.py is about: tasks, links, groups, leases, and what calls bring and are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

State = Literal["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED"]
End = Literal["completed", "failed", "lost", "cancelled"]

ENDED: tuple[State, ...] = ("SUCCEEDED", "FAILED", "CANCELLED")
SETTLED: tuple[State, ...] = ("SUCCEEDED", "CANCELLED")


class Refused(Exception):
    """The whole call is refused with one of these codes."""

    def __init__(self, *codes: str) -> None:
        super().__init__(*codes)
        self.codes = codes


class Unclear(Exception):
    """Nobody has decided what happens here: leave it out."""


@dataclass(frozen=True, repr=False)
class New:
    """A task to be made. Parents are (name, whether the link waits for the subtree), of the call or of the group."""

    name: str
    channel: str = "c0"
    workgroup: str | None = None
    key: str | None = None
    on_duplicate: str = "MERGE"
    priority: int = 0
    max_attempts: int = 5
    backs_off: bool = False
    delayed: bool = False
    timed: bool = False
    on_parent_failure: str = "BLOCK"
    parents: tuple[tuple[str, bool], ...] = ()
    own_id: bool = False

    def __repr__(self) -> str:
        """What differs from a plain task."""
        plain = {field.name: field.default for field in fields(self)}
        facts = {name: getattr(self, name) for name in plain if name not in ("name", "parents")}
        words = [f"{name}={fact}" for name, fact in facts.items() if fact != plain[name]]
        words += [f"after {'all of ' * subtree}{parent}" for parent, subtree in self.parents]
        return f"{self.name or 'task'}({', '.join(words)})"

    @property
    def is_picky(self) -> bool:
        return self.key is not None and self.on_duplicate in ("RETURN_EXISTING", "REJECT")


@dataclass(eq=False)
class Group:
    name: str
    paused: bool = False
    answered: list[Task] = field(default_factory=list)
    """What the call that made it answered."""


@dataclass(eq=False)
class Link:
    parent: Task
    subtree: bool = False
    adopted: bool = False


@dataclass(eq=False)
class Task:
    new: New
    group: Group
    spawned_by: Task | None = None
    links: list[Link] = field(default_factory=list)
    state: State = "BLOCKED"
    attempt: int = 0
    remaining: int = field(init=False)
    delayed: bool = field(init=False)
    early: bool = field(init=False)
    """Its own time is yet to come."""
    ahead: bool = False
    """It ran, or had failed, when a parent of it was reset: it does not start anew before that has succeeded."""
    paused: bool = False
    errors: int = 0
    output: Any = None
    merged_into: Task | None = None

    def __post_init__(self) -> None:
        self.remaining, self.delayed, self.early = self.new.max_attempts, self.new.delayed, self.new.delayed

    @property
    def name(self) -> str:
        return self.new.name

    @property
    def parents(self) -> list[Task]:
        return [link.parent for link in self.links]

    @property
    def waits(self) -> bool:
        enough = ENDED if self.new.on_parent_failure == "RUN" else ("SUCCEEDED",)
        return any(parent.state not in enough for parent in self.parents)

    @property
    def has_started(self) -> bool:
        """A released attempt was none. One that rides along has started as well."""
        return self.state not in ("BLOCKED", "SCHEDULED", "READY") or self.attempt > 0

    def is_same_work(self, other: Task) -> bool:
        mine, others = self.new, other.new
        keyed = mine.key is not None and "ALLOW" not in (mine.on_duplicate, others.on_duplicate)
        return keyed and (mine.channel, mine.key) == (others.channel, others.key)

    def waits_for(self, other: Task) -> bool:
        """Directly or down any links."""
        above = set(self.parents)
        while more := {parent for task in above for parent in task.parents} - above:
            above |= more
        return other in above

    def is_spawned_under(self, other: Task) -> bool:
        by = self.spawned_by
        return by is not None and (by is other or by.is_spawned_under(other))

    def joins_subtree_of(self, other: Task) -> bool:
        return any(link.parent is other and link.subtree and not link.adopted for link in self.links)


@dataclass(eq=False)
class Lease:
    task: Task
    end: End | None = None


@dataclass(frozen=True)
class Completion:
    lease: Lease
    output: Any = None
    children: Sequence[New] = ()
    delays_children: bool = False
    suspends: bool = False


@dataclass(frozen=True)
class Failure:
    """`retry_delay` is None for the task's own, else whether it is an hour."""

    lease: Lease
    keep: bool = False
    discard: bool = False
    retry_delay: bool | None = None
    suspends: bool = False


@dataclass
class Answer:
    """How many items were taken, and for each other its place and the codes that it may be refused with."""

    taken: int = 0
    errors: list[tuple[int, set[str]]] = field(default_factory=list)
