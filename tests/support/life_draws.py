"""What is drawn for the lives of tests/weather/test_life_machine.py: tasks, results, and which step comes next."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.support.crew import Crew
from tests.support.life_things import Lease, New
from tests.support.life_words import (
    CHANNELS,
    FEATURES,
    OUTPUTS,
    WORKGROUPS,
)

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

Sketch = tuple[New, list[tuple[int, bool]]]
"""A task without its name, and its parents: how many places back, and whether the link waits for the subtree."""


def one_of(first: T, *others: T, feature: str | None = None) -> st.SearchStrategy[T]:
    return st.just(first) if feature and feature not in FEATURES else st.sampled_from([first, *others])


NUMBER = st.integers(0, 11)
SOME = st.lists(NUMBER, min_size=1, max_size=4, unique=True)
SIDE_SHOWS = [
    *("repeat_create_tasks", "repeat_claim", "turn", "extend", "release", "expire", "time_out"),
    *("suspend", "pause_tasks", "pause_group", "pause_channel", "cancel", "cancel_found"),
    *("delete", "delete_group", "reset", "update"),
]
FILTER = st.sampled_from(["groupId", "channels", "workgroups", "key"])
YES = st.booleans()
SELDOM = st.sampled_from([False, False, False, True])
SKETCH: st.SearchStrategy[Sketch] = st.tuples(
    st.builds(
        New,
        name=st.just(""),
        channel=st.sampled_from(CHANNELS),
        workgroup=one_of(None, None, *WORKGROUPS),
        key=one_of(None, "k0", "k0", "k1", feature="keys"),
        on_duplicate=one_of("MERGE", "MERGE", "MERGE", "RETURN_EXISTING", "REJECT", "ALLOW", feature="keys"),
        priority=st.integers(0, 2),
        max_attempts=st.sampled_from([5, 5, 2, 1]),
        backs_off=YES,
        delayed=SELDOM,
        timed=one_of(False, True, feature="timeouts"),
        on_parent_failure=one_of("BLOCK", "BLOCK", "CANCEL", "RUN", feature="on_parent_failure"),
        parents=st.just(()),
        own_id=YES,
    ),
    st.lists(st.tuples(st.integers(0, 5), one_of(False, True, feature="subtree")), max_size=2),
)
SKETCHES = st.lists(SKETCH, min_size=1, max_size=5)
Result = tuple[int, Any, list[Sketch], bool, bool]
RESULT: st.SearchStrategy[Result] = st.tuples(NUMBER, st.sampled_from(OUTPUTS), st.just([]), SELDOM, SELDOM)
RICH: st.SearchStrategy[Result] = st.tuples(
    st.integers(0, 8), st.sampled_from(OUTPUTS), st.lists(SKETCH, min_size=1, max_size=3), SELDOM, SELDOM
)
FAILING = st.tuples(
    NUMBER,
    st.sampled_from([{}, {}, {"keep": True}, {"discard": True}]),
    st.sampled_from([None, False, True]),
    SELDOM,
)


@dataclass
class World:
    """The server, and what has been done on it."""

    runner: asyncio.Runner
    crew: Crew
    steps: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    """States, holds and kinds of links, each time that they were compared."""
    examples: Iterator[int] = field(default_factory=itertools.count)
    failed: list[str] = field(default_factory=list)
    """What was done in the first life that failed, before it was made smaller."""


@dataclass(frozen=True)
class Claim:
    """A call that got something."""

    input: dict[str, Any]
    leases: list[Lease]


def chosen(things: Sequence[T], numbers: Sequence[int]) -> list[T]:
    """Some of them, each once."""
    return list({id(x): x for x in (things[n % len(things)] for n in numbers)}.values())


@dataclass(frozen=True)
class Verb:
    """A kind of step: when it can be, and with what."""

    do: Callable[..., None]
    when: Callable[[Any], object]
    arguments: dict[str, st.SearchStrategy[Any]]

    @property
    def name(self) -> str:
        return self.do.__name__


@dataclass(frozen=True)
class Step:
    verb: Verb
    arguments: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.verb.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


VERBS: list[Verb] = []
"""Each as many times as it weighs."""


def verb(
    weight: int = 1, *, when: Callable[[Any], object], feature: str = "", **arguments: st.SearchStrategy[Any]
) -> Callable[[Function], Function]:
    def mark(do: Function) -> Function:
        if not feature or feature in FEATURES:
            VERBS.extend([Verb(do, when, arguments)] * weight)
        return do

    return mark


def next_step(machine: Any) -> st.SearchStrategy[Step]:
    def possible(verb: Verb) -> bool:
        return verb.name not in machine.without and bool(verb.when(machine))

    def with_arguments(verb: Verb) -> st.SearchStrategy[Step]:
        return st.builds(Step, st.just(verb), st.fixed_dictionaries(verb.arguments))

    return st.sampled_from(VERBS).filter(possible).flatmap(with_arguments)
