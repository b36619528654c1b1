"""A Hypothesis state machine lives many lives through the API and compares each step with the model of DESIGN.md §3.

Each example works in groups, channels, workgroups and keys of its own on one server and one database. Delays, suspensions,
leases and time-outs last an hour; time passes only where a step moves what is due into the past, and the server's clock
takes it from there. After every step one query reads all tasks and links of the example; all of it must be as the model
(tests/support/life_model.py) says, and so must every answer: which tasks a claim hands out, in which order, what is
refused, and why. A failing example prints what was done, line by line, in the names of the model.

CREW_LIFE_FEATURES narrows it: a list of some of keys, subtree, on_parent_failure, timeouts, pause, cancel, delete, reset, update
(or nothing).
"""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, get_args

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from resolvers.core import Rhythm
from tests.support import life_model, life_steering
from tests.support.crew import COMPLETE, CREATE, CREATE_TASKS, EXTEND, FAIL, RELEASE, Crew, Refused, crew_on
from tests.support.life_model import Answer, Completion, Failure, Group, Lease, Link, Model, New, State, Task
from tests.support.wait import move_clock, until

ALL_FEATURES = frozenset(
    {"keys", "subtree", "on_parent_failure", "timeouts", "pause", "cancel", "delete", "reset", "update"}
)
NARROWED = os.environ.get("CREW_LIFE_FEATURES")
FEATURES = ALL_FEATURES if NARROWED is None else ALL_FEATURES & {*NARROWED.split(",")}
HOUR = 3600
MOST_TASKS, MOST_OPEN, MOST_GROUPS = 40, 10, 4
CHANNELS, WORKGROUPS, KEYS = ["c0", "c1"], ["w0", "w1"], ["k0", "k1"]
ALL_STATES = get_args(State)
HOLDS = ["TASK_PAUSED", "GROUP_PAUSED", "CHANNEL_PAUSED", "WORKGROUP_SUSPENDED"]
UNSETTLED = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "FAILED"]
OUTPUTS = [None, 0, "", False, {"a": [1, None]}, "ü"]

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


def with_feature(feature: str, fields: str) -> str:
    return fields if feature in FEATURES else ""


# -- how it is said in GraphQL ----------------------------------------------------------------------------------------

EVERYTHING = (
    "query($has: String!, $c0: String!, $c1: String!) { taskGroups(filter: {nameContains: $has}, first: 10) { nodes {"
    " id name progress { fraction total } %s graph(limit: 200) { nodes { id name state attempt remainingAttempts heldBy output"
    " errors { attempt } %s } edges { parentId childId %s } } } }"
    " c0: channel(name: $c0) { counts { state count } } c1: channel(name: $c1) { counts { state count } } }"
    % (
        with_feature("pause", "isPaused"),
        with_feature("keys", "mergedInto { id }"),
        with_feature("subtree", "waitFor isAdopted"),
    )
)
LEASES = "leases { id attempt parents { name state output } task { id name spawnedBy { name } parents { name } } }"
CLAIM = "mutation($next: ClaimTasksInput!) { claimTasks(input: $next) { %s } }" % LEASES
TURN = (
    "mutation($done: CompleteTasksInput!, $next: ClaimTasksInput!) { completeTasks(input: $done) { completed errors "
    "{ index code } } claimTasks(input: $next) { %s } }" % LEASES
)
CANCEL = (
    "mutation($ids: [ID!], $filter: TaskFilter, $descendants: Boolean) "
    "{ cancelTasks(ids: $ids, filter: $filter, descendants: $descendants) { affected } }"
)
RETRY = "mutation($ids: [ID!], $attempts: Int) { retryTasks(ids: $ids, attempts: $attempts) { affected } }"
RETRY_FOUND = (
    "mutation($filter: TaskFilter, $attempts: Int) { retryTasks(filter: $filter, attempts: $attempts) { affected } }"
)
DELETE = "mutation($id: ID!) { deleteTask(id: $id) { deletedTasks } }"
DELETE_GROUP = "mutation($id: ID!) { deleteTaskGroup(id: $id) { deletedTasks } }"
RESET = "mutation($ids: [ID!]!) { resetTasks(ids: $ids) { affected tasks { name state } } }"
UPDATE = "mutation($input: UpdateTaskInput!) { updateTask(input: $input) { task { name priority onParentFailure } } }"
PAUSE_TASKS = "mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }"
RESUME_TASKS = "mutation($ids: [ID!]!) { resumeTasks(ids: $ids) { affected } }"
PAUSE_GROUP = "mutation($id: ID!) { pauseTaskGroup(id: $id) { affected taskGroup { isPaused } } }"
RESUME_GROUP = "mutation($id: ID!) { resumeTaskGroup(id: $id) { affected taskGroup { isPaused } } }"
PAUSE_CHANNEL = "mutation($name: String!) { pauseChannel(name: $name) { channel { isPaused } } }"
RESUME_CHANNEL = "mutation($name: String!) { resumeChannel(name: $name) { channel { isPaused } } }"
SUSPEND = "mutation($name: String!) { suspendWorkgroup(name: $name, seconds: 3600) { workgroup { suspendedUntil } } }"
RESUME = "mutation($name: String!) { resumeWorkgroup(name: $name) { workgroup { suspendedUntil } } }"

# -- how time is moved in the database --------------------------------------------------------------------------------

NUMBERS = "array(select no from task where id = any($1::uuid[]))"
LEASE_IS_OVER = f"update lease set until = now() - interval '1 s' where nos && {NUMBERS}"
DEADLINE_IS_OVER = (
    "update lease set until = now() - interval '1 s', deadline = now() - interval '1 s' "
    f"where deadline is not null and nos && {NUMBERS}"
)
DELAY_IS_OVER = (
    f"with own as (update task set run_after = now() - interval '1 s' where no = any({NUMBERS}) and run_after > now()) "
    f"update scheduled set run_at = now() - interval '1 s' where no = any({NUMBERS})"
)
SUSPENSION_IS_OVER = (
    "update hold h set until = now() - interval '1 s' from workgroup w where w.workgroup = h.workgroup and w.name = $1"
)
STILL_ASIDE = (
    "select (select count(*) from hold join workgroup w using (ns, workgroup) where w.name = $1)::int + "
    "(select count(*) from parked p join workgroup w using (ns, workgroup) where w.name = $1 "
    "and to_jsonb(p)->>'paused' is distinct from 'true')::int as n"
)

# -- what is drawn ----------------------------------------------------------------------------------------------------

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


def next_step(machine: LifeMachine) -> st.SearchStrategy[Step]:
    def possible(verb: Verb) -> bool:
        return verb.name not in machine.without and bool(verb.when(machine))

    def with_arguments(verb: Verb) -> st.SearchStrategy[Step]:
        return st.builds(Step, st.just(verb), st.fixed_dictionaries(verb.arguments))

    return st.sampled_from(VERBS).filter(possible).flatmap(with_arguments)


class LifeMachine(RuleBasedStateMachine):
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.prefix = f"x{next(self.world.examples)}."
        self.names = map("t{}".format, itertools.count())
        self.group_names = map("g{}".format, itertools.count())
        self.ids: dict[str, str] = {}
        """Of tasks and groups, by the name in the model."""
        self.lease_ids: dict[Lease, str] = {}
        self.claims: list[Claim] = []
        self.creations: list[tuple[Group, list[New]]] = []
        self.script: list[str] = []
        self.without: set[str] = set()
        """Verbs that this life does without: the others meet more often."""

    def teardown(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not self.world.failed:
            self.world.failed = [*self.script, str(error)]

    # -- what there is to choose from ---------------------------------------------------------------------------------

    @property
    def tasks(self) -> list[Task]:
        """The newest first."""
        return list(self.model.tasks.values())[::-1]

    def tasks_in(self, *states: str) -> list[Task]:
        return [task for task in self.tasks if task.state in states]

    def has_room(self) -> bool:
        return len(self.tasks) < MOST_TASKS and len(self.tasks_in("READY", "SCHEDULED", "RUNNING")) < MOST_OPEN

    def may_claim(self) -> bool:
        return any(not self.model.holds(task) for task in self.tasks_in("READY"))

    def is_a_group_paused(self) -> bool:
        return any(group.paused for group in self.model.groups.values())

    def may_cancel(self) -> bool:
        return 4 * len(self.tasks_in("CANCELLED")) < len(self.tasks)

    def leases(self, numbers: Sequence[int]) -> list[Lease]:
        """Mostly such as stand, and now and then one that has ended."""
        stand, ended = self.model.standing(), [x for x in self.model.leases if x.end][::-1]
        found = []
        for number in numbers:
            found += chosen(stand if stand and (number < 9 or not ended) else ended, [number])
        return list(dict.fromkeys(found))

    def of_a_claim(self, number: int) -> list[Lease]:
        """All that stands of one."""
        (first,) = chosen(self.model.standing(), [number])
        (claim,) = [claim for claim in self.claims if first in claim.leases]
        return [lease for lease in claim.leases if lease.end is None]

    def repeatable_creations(self) -> list[tuple[Group, list[New]]]:
        return [(group, news) for group, news in self.creations if news and all(new.own_id for new in news)]

    def repeatable_claims(self) -> list[Claim]:
        return [claim for claim in self.claims if "claimId" in claim.input]

    def named(self, group: Group | None, sketches: Sequence[Sketch], *, backwards: bool = False) -> list[New]:
        """Names for what was drawn; parents are earlier tasks of the call and those of the group."""
        there = [task.name for task in self.model.tasks_of(group)] if group else []
        news = []
        for new, parents in sketches:
            links: dict[str, bool] = {}
            for back, subtree in parents if there else ():
                links.setdefault(there[-1 - back % len(there)], subtree)
            news.append(replace(new, name=next(self.names), parents=tuple(links.items())))
            there.append(news[-1].name)
        return news[::-1] if backwards else news

    # -- speaking -----------------------------------------------------------------------------------------------------

    def did(self, verb: str, *words: object) -> None:
        self.world.steps[verb] += 1
        self.script.append(" ".join(str(word) for word in (verb, *words) if word != ""))
        note("    # " + self.script[-1])

    def ask(self, query: str, **variables: Any) -> Any:
        """What its only field answers."""
        (answer,) = self.world.runner.run(self.world.crew.ask(query, **variables)).values()
        return answer

    def is_refused(self, codes: Sequence[str], query: str, **variables: Any) -> None:
        with pytest.raises(Refused) as refused:
            self.ask(query, **variables)
        assert refused.value.code in codes

    def own_id(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.prefix + name))

    def ids_of(self, tasks: Sequence[Task]) -> list[str]:
        return [self.ids[task.name] for task in tasks]

    def time_passes(self, statement: str, tasks: Sequence[Task]) -> None:
        """Move what is due, and wait until the server has taken all of it."""

        async def move() -> None:
            await move_clock(self.world.crew, statement, self.ids_of(tasks))
            with contextlib.suppress(AssertionError):  # what follows says what is wrong
                await until(agrees, 3)

        async def agrees() -> bool:
            return not self.differences(await self.read())

        self.world.runner.run(move())

    def inputs(self, news: Sequence[New]) -> list[dict[str, Any]]:
        refs = {new.name for new in news}
        return [self.input(new, refs) for new in news]

    def input(self, new: New, refs: set[str]) -> dict[str, Any]:
        given: dict[str, Any] = {
            "name": new.name,
            "ref": new.name,
            "channel": self.prefix + new.channel,
            "priority": new.priority,
            "retry": {"maxAttempts": new.max_attempts, "delaySeconds": HOUR * new.backs_off},
            "parents": [self.parent_input(name, subtree, refs) for name, subtree in new.parents],
        }
        given |= {"id": self.own_id(new.name)} if new.own_id else {}
        given |= {"workgroup": self.prefix + new.workgroup} if new.workgroup else {}
        given |= {"key": self.prefix + new.key} if new.key else {}
        given |= {"onDuplicate": new.on_duplicate} if new.on_duplicate != "MERGE" else {}
        given |= {"delaySeconds": HOUR} if new.delayed else {}
        given |= {"timeoutSeconds": HOUR} if new.timed else {}
        return given | ({"onParentFailure": new.on_parent_failure} if new.on_parent_failure != "BLOCK" else {})

    def parent_input(self, name: str, subtree: bool, refs: set[str]) -> dict[str, Any]:
        return {
            **({"ref": name} if name in refs else {"id": self.ids[name]}),
            **({"waitFor": "SUBTREE"} if subtree else {}),
        }

    def claim_input(self, channels: list[str], limit: int) -> dict[str, Any]:
        named = [self.prefix + channel for channel in channels]
        return {"workerId": "w", "channels": named, "limit": limit, "leaseSeconds": HOUR}

    def completion_input(self, item: Completion) -> dict[str, Any]:
        given = {"lease": self.lease_ids[item.lease], "output": item.output, "children": self.inputs(item.children)}
        given |= {"childrenDelaySeconds": HOUR} if item.delays_children else {}
        return given | ({"workgroupDelaySeconds": HOUR} if item.suspends else {})

    def failure_input(self, item: Failure) -> dict[str, Any]:
        given: dict[str, Any] = {"lease": self.lease_ids[item.lease], "error": "no"}
        given |= {"keepAttempt": True} if item.keep else {}
        given |= {"discard": True} if item.discard else {}
        given |= {"retryDelaySeconds": HOUR * item.retry_delay} if item.retry_delay is not None else {}
        return given | ({"workgroupDelaySeconds": HOUR} if item.suspends else {})

    def filter_input(self, by: str, number: int, states: Sequence[str]) -> tuple[list[Task], dict[str, Any], str]:
        """The tasks of one group, channel, workgroup or key (and of these states), the filter, and its words."""
        names = {"groupId": list(self.model.groups), "channels": CHANNELS, "workgroups": WORKGROUPS, "key": KEYS}[by]
        (name,) = chosen(names, [number])
        value = self.ids[name] if by == "groupId" else self.prefix + name
        wanted: dict[str, Any] = {by: [value] if by.endswith("s") else value}
        wanted |= {"states": states} if states else {}
        found = [
            task
            for task in self.tasks_in(*(states or ALL_STATES))
            if name in (task.group.name, task.new.channel, task.new.workgroup, task.new.key)
        ]
        return found, wanted, f"all of {by} {name} in {states or 'any state'}"

    # -- comparing ----------------------------------------------------------------------------------------------------

    async def read(self) -> dict[str, Any]:
        channels = {channel: self.prefix + channel for channel in CHANNELS}
        return await self.world.crew.ask(EVERYTHING, has=self.prefix, **channels)

    def agrees(self) -> None:
        """What the API shows is what the model says."""
        if self.model.groups:
            wrong = self.differences(self.world.runner.run(self.read()))
            assert not wrong, "\n".join(["the model and the API differ", *wrong])
        for task in self.tasks:
            self.world.seen.update([task.state, *self.model.holds(task)])
            self.world.seen.update("adopted" if p.adopted else "subtree" if p.subtree else "link" for p in task.links)

    def differences(self, read: dict[str, Any]) -> list[str]:
        said, shown = self.said_by_model(), shown_by_api(read, self.prefix)
        groups = read["taskGroups"]["nodes"]
        self.ids |= {node["name"]: node["id"] for group in groups for node in group["graph"]["nodes"]}
        both = {thing: (said.get(thing, {}), shown.get(thing, {})) for thing in {**said, **shown}}
        return [
            f"  {thing}: {fact} is {ours.get(fact)!r} in the model, {theirs.get(fact)!r} in the API"
            for thing, (ours, theirs) in both.items()
            for fact in {**ours, **theirs}
            if ours.get(fact) != theirs.get(fact)
        ]

    def said_by_model(self) -> dict[str, dict[str, Any]]:
        said: dict[str, dict[str, Any]] = {channel: dict(self.model.counts(channel)) for channel in CHANNELS}
        for name, group in self.model.groups.items():
            tasks = self.model.tasks_of(group)
            settled = sum(task.state in life_model.SETTLED for task in tasks)
            facts: dict[str, Any] = {"total": len(tasks), "fraction": settled / len(tasks) if tasks else 0}
            said[name] = {**facts, "isPaused": group.paused} if "pause" in FEATURES else facts
        for task in self.tasks:
            said[task.name] = {
                "group": task.group.name,
                "state": task.state,
                "attempt": task.attempt,
                "remainingAttempts": task.remaining,
                "heldBy": self.model.holds(task),
                "output": task.output,
                "errors": task.errors,
                "parents": sorted((link.parent.name, link.subtree, link.adopted) for link in shown_links(task)),
                "mergedInto": task.merged_into and task.merged_into.name,
            }
        return said

    def expect(self, answer: Answer, taken: int, errors: Sequence[dict[str, Any]]) -> None:
        assert (taken, [e["index"] for e in errors]) == (answer.taken, [place for place, _ in answer.errors]), errors
        for error, (_, codes) in zip(errors, answer.errors, strict=True):
            assert error["code"] in codes, error

    def expect_tasks(self, tasks: list[dict[str, Any]], expected: Sequence[Task]) -> None:
        assert [(t["name"], t["state"]) for t in tasks] == [(task.name, task.state) for task in expected]

    def expect_leases(self, given: dict[str, Any], answer: list[dict[str, Any]], leases: list[Lease]) -> None:
        """The right tasks in the right order, each with what its parents produced."""
        assert [x["task"]["name"] for x in answer] == [x.task.name for x in leases]
        for shown, lease in zip(answer, leases, strict=True):
            task = lease.task
            parents = [link.parent for link in sorted(task.links, key=lambda link: link.adopted)]
            assert shown["attempt"] == task.attempt
            assert shown["task"]["spawnedBy"] == (task.spawned_by and {"name": task.spawned_by.name})
            named = sum(not link.adopted for link in task.links)
            order = [p["name"] for p in shown["parents"]]
            assert order == [p["name"] for p in shown["task"]["parents"]]
            assert order[:named] == [parent.name for parent in parents[:named]]
            produced = {p["name"]: (p["state"], p["output"]) for p in shown["parents"]}
            assert produced == {parent.name: (parent.state, parent.output) for parent in parents}
            self.lease_ids[lease] = shown["id"]
        if leases:
            self.claims.append(Claim(given, leases))

    # -- creating -----------------------------------------------------------------------------------------------------

    @initialize(sketches=SKETCHES, without=st.sets(st.sampled_from(SIDE_SHOWS), max_size=len(SIDE_SHOWS)))
    def start(self, sketches: list[Sketch], without: set[str]) -> None:
        self.without = without
        self._create_group(self.named(None, sketches), paused=False)
        self.agrees()

    @rule(step=st.runner().flatmap(next_step))
    def step(self, step: Step) -> None:
        step.verb.do(self, **step.arguments)
        self.agrees()

    @verb(
        1,
        when=lambda self: len(self.model.groups) < MOST_GROUPS and self.has_room(),
        sketches=SKETCHES,
        backwards=YES,
        paused=SELDOM,
    )
    def create_group(self, sketches: list[Sketch], backwards: bool, paused: bool) -> None:
        self._create_group(self.named(None, sketches, backwards=backwards), paused=paused and "pause" in FEATURES)

    def _create_group(self, news: list[New], *, paused: bool) -> None:
        """Twice: the second is a repeat."""
        name = next(self.group_names)
        self.did("create_group", name, "(paused)" * paused, *news)
        own_id = str(uuid.uuid4())
        given: dict[str, Any] = {"name": self.prefix + name, "id": own_id, "tasks": self.inputs(news)}
        given |= {"isPaused": True} if paused else {}
        try:
            expected = self.model.create_group(name, news, paused=paused)
        except life_model.Refused as refused:
            return self.is_refused(refused.codes, CREATE, input=given)
        except life_model.Unclear:
            return None
        made, again = self.ask(CREATE, input=given), self.ask(CREATE, input=given)
        self.expect_tasks(made["tasks"], expected)
        assert made["taskGroup"] == again["taskGroup"] == {"id": own_id}
        if not any(new.is_picky for new in news):
            assert again == made
        self.ids |= {name: own_id, **{t["name"]: t["id"] for t in made["tasks"]}}
        return self.creations.append((self.model.groups[name], news))

    @verb(3, when=lambda self: self.model.groups and self.has_room(), number=NUMBER, sketches=SKETCHES, backwards=YES)
    def create_tasks(self, number: int, sketches: list[Sketch], backwards: bool) -> None:
        (group,) = chosen(list(self.model.groups.values()), [number])
        news = self.named(group, sketches, backwards=backwards)
        self.creations.append((group, news))
        self._create_tasks("create_tasks", group, news)

    @verb(1, when=repeatable_creations, number=NUMBER)
    def repeat_create_tasks(self, number: int) -> None:
        ((group, news),) = chosen(self.repeatable_creations(), [number])
        self._create_tasks("repeat_create_tasks", group, news)

    def _create_tasks(self, verb: str, group: Group, news: Sequence[New]) -> None:
        self.did(verb, "in", group.name, *news)
        given = {"groupId": self.ids[group.name], "tasks": self.inputs(news)}
        try:
            expected = self.model.create_tasks(group, news)
        except life_model.Refused as refused:
            return self.is_refused(refused.codes, CREATE_TASKS, input=given)
        except life_model.Unclear:
            return None
        tasks = self.ask(CREATE_TASKS, input=given)["tasks"]
        self.ids |= {t["name"]: t["id"] for t in tasks}
        return self.expect_tasks(tasks, expected)

    # -- working ------------------------------------------------------------------------------------------------------

    @verb(5, when=may_claim, limit=st.integers(1, 4), with_id=YES)
    def claim(self, limit: int, with_id: bool) -> None:
        self._claim(CHANNELS, limit, with_id)

    @verb(
        1,
        when=lambda self: self.tasks_in("READY") or not self.model.standing(),
        channel=st.sampled_from(CHANNELS),
        limit=st.integers(1, 2),
        with_id=YES,
    )
    def claim_of_one_channel(self, channel: str, limit: int, with_id: bool) -> None:
        self._claim([channel], limit, with_id)

    def _claim(self, channels: list[str], limit: int, with_id: bool) -> None:
        given = self.claim_input(channels, limit)
        given |= {"claimId": str(uuid.uuid4())} if with_id else {}
        leases = self.model.claim(channels, limit)
        self.did("claim", limit, "of", *channels, "→", *(x.task.name for x in leases))
        self.expect_leases(given, self.ask(CLAIM, next=given)["leases"], leases)

    @verb(1, when=repeatable_claims, number=NUMBER)
    def repeat_claim(self, number: int) -> None:
        (claim,) = chosen(self.repeatable_claims(), [number])
        expected = [lease for lease in claim.leases if lease.end is None]
        self.did("repeat_claim", "→", *(x.task.name for x in expected))
        leases = self.ask(CLAIM, next=claim.input)["leases"]
        assert sorted(x["id"] for x in leases) == sorted(self.lease_ids[x] for x in expected)

    @verb(3, when=lambda self: self.model.standing(), results=st.lists(RESULT, min_size=1, max_size=3))
    def complete(self, results: list[Result]) -> None:
        self._complete(results)

    @verb(
        5,
        when=lambda self: self.model.standing() and len(self.tasks) < MOST_TASKS,
        results=st.lists(RICH, min_size=1, max_size=2),
    )
    def complete_with_children(self, results: list[Result]) -> None:
        self._complete(results)

    @verb(
        3,
        when=lambda self: self.model.standing(),
        result=st.one_of(RESULT, RICH),
        channels=st.sampled_from([CHANNELS, ["c0"], ["c1"]]),
    )
    def turn(self, result: Result, channels: list[str]) -> None:
        """Complete and claim in one document, as workers do."""
        self._complete([result], channels)

    def _complete(self, results: Sequence[Result], then_claim: list[str] | None = None) -> None:
        items = self.completions(results)
        given = {"results": [self.completion_input(item) for item in items]}
        self.did("complete", *map(described_completion, items))
        try:
            answer = self.model.complete(items)
        except life_model.Unclear:
            return
        if then_claim:
            wanted = self.claim_input(then_claim, 2)
            leases = self.model.claim(then_claim, 2)
            self.did("and claim", 2, "of", *then_claim, "→", *(x.task.name for x in leases))
            both = self.world.runner.run(self.world.crew.ask(TURN, done=given, next=wanted))
            self.expect_leases(wanted, both["claimTasks"]["leases"], leases)
            done = both["completeTasks"]
        else:
            done = self.ask(COMPLETE, input=given)
        self.expect(answer, done["completed"], done["errors"])

    def completions(self, results: Sequence[Result]) -> list[Completion]:
        """Of each lease one. Results of one call may be taken together or one by one, so one stands alone whose children mind
        their twins, and one whose twin (a child, or what waits already) may become ready in the call that ends its runner: such
        a twin is new work, or rides with the runner."""
        items: dict[Lease, Completion] = {}
        for number, output, sketches, delays, suspends in results:
            (lease,) = self.leases([number])
            children = self.named(lease.task.group, sketches)
            items.setdefault(lease, Completion(lease, output, children, delays, suspends))
        ending = {(i.lease.task.new.channel, i.lease.task.new.key) for i in items.values() if len(items) > 1}
        picky = [
            item
            for item in items.values()
            if any(c.is_picky or (c.key is not None and (c.channel, c.key) in ending) for c in item.children)
        ]
        waiting = [t for t in self.model.tasks.values() if t.state == "BLOCKED" and t.new.key is not None]
        if any((t.new.channel, t.new.key) in ending for t in waiting):
            picky = picky or list(items.values())
        return picky[:1] or list(items.values())

    @verb(4, when=lambda self: self.model.standing(), failures=st.lists(FAILING, min_size=1, max_size=3))
    def fail(self, failures: list[tuple[int, dict[str, bool], bool | None, bool]]) -> None:
        items: dict[Lease, Failure] = {}
        for number, how, retry_delay, suspends in failures:
            (lease,) = self.leases([number])
            alone = not self.model.twins(lease.task)
            items.setdefault(lease, Failure(lease, retry_delay=retry_delay, suspends=suspends and alone, **how))
        self.did("fail", *map(described_failure, items.values()))
        answer = self.model.fail(list(items.values()))
        done = self.ask(FAIL, input={"failures": [self.failure_input(item) for item in items.values()]})
        self.expect(answer, done["failed"], done["errors"])

    @verb(1, when=lambda self: self.model.standing(), numbers=SOME)
    def extend(self, numbers: list[int]) -> None:
        leases = self.leases(numbers)
        self.did("extend", *map(described_lease, leases))
        answer, suspended = self.model.extend(leases)
        done = self.ask(EXTEND, input={"leases": [self.lease_ids[x] for x in leases], "leaseSeconds": 2 * HOUR})
        self.expect(answer, answer.taken, done["errors"])
        assert (done["expiresAt"] is not None) == (answer.taken > 0)
        assert sorted(done["suspended"]) == sorted(self.lease_ids[x] for x in suspended)

    @verb(1, when=lambda self: self.model.standing(), numbers=SOME)
    def release(self, numbers: list[int]) -> None:
        leases = self.leases(numbers)
        self.did("release", *map(described_lease, leases))
        answer = self.model.release(leases)
        done = self.ask(RELEASE, input={"leases": [self.lease_ids[x] for x in leases]})
        self.expect(answer, done["released"], done["errors"])

    # -- time passes --------------------------------------------------------------------------------------------------

    @verb(2, when=lambda self: self.model.standing(), number=NUMBER)
    def expire(self, number: int) -> None:
        """All that stands of a claim runs out."""
        leases = self.of_a_claim(number)
        self.did("expire", *(x.task.name for x in leases))
        self.model.expire(leases)
        self.time_passes(LEASE_IS_OVER, [x.task for x in leases])

    @verb(2, when=lambda self: any(x.task.new.timed for x in self.model.standing()), feature="timeouts", number=NUMBER)
    def time_out(self, number: int) -> None:
        """All that stands of a claim and has a deadline reaches it."""
        leases = [x for x in self.of_a_claim(number) if x.task.new.timed]
        if leases:
            self.did("time_out", *(x.task.name for x in leases))
            self.model.time_out(leases)
            self.time_passes(DEADLINE_IS_OVER, [x.task for x in leases])

    @verb(3, when=lambda self: self.tasks_in("SCHEDULED"), numbers=SOME)
    def time_comes(self, numbers: list[int]) -> None:
        tasks = chosen(self.tasks_in("SCHEDULED"), numbers)
        self.did("time_comes", *(task.name for task in tasks))
        self.model.time_comes(tasks)
        self.time_passes(DELAY_IS_OVER, tasks)

    # -- steering -----------------------------------------------------------------------------------------------------

    @verb(
        1,
        when=lambda self: any(task.new.workgroup for task in self.tasks_in("READY", "SCHEDULED", "RUNNING")),
        workgroup=st.sampled_from(WORKGROUPS),
    )
    def suspend(self, workgroup: str) -> None:
        self.did("suspend", workgroup)
        self.model.suspended.add(workgroup)
        assert self.ask(SUSPEND, name=self.prefix + workgroup)["workgroup"]["suspendedUntil"]

    @verb(2, when=lambda self: self.model.suspended, number=NUMBER, by_itself=YES)
    def end_suspension(self, number: int, by_itself: bool) -> None:
        (workgroup,) = chosen(sorted(self.model.suspended), [number])
        self.did("end_suspension" if by_itself else "resume", workgroup)
        self.model.suspended.discard(workgroup)
        name = self.prefix + workgroup
        if not by_itself:
            assert self.ask(RESUME, name=name)["workgroup"]["suspendedUntil"] is None
            return

        async def all_back() -> bool:
            (row,) = await self.world.crew.sql(STILL_ASIDE, name)
            return bool(row["n"] == 0)

        self.world.runner.run(move_clock(self.world.crew, SUSPENSION_IS_OVER, name))
        self.world.runner.run(until(all_back))

    @verb(
        1, when=lambda self: self.tasks and sum(task.paused for task in self.tasks) < 4, feature="pause", numbers=SOME
    )
    def pause_tasks(self, numbers: list[int]) -> None:
        tasks = chosen(self.tasks_in(*UNSETTLED) + self.tasks[:2], numbers)
        self.did("pause_tasks", *(task.name for task in tasks))
        affected = self.model.pause_tasks(tasks)
        assert self.ask(PAUSE_TASKS, ids=self.ids_of(tasks))["affected"] == affected

    @verb(2, when=lambda self: any(task.paused for task in self.tasks), feature="pause", numbers=SOME)
    def resume_tasks(self, numbers: list[int]) -> None:
        tasks = chosen([task for task in self.tasks if task.paused] + self.tasks[:2], numbers)
        self.did("resume_tasks", *(task.name for task in tasks))
        least, most = self.model.resume_tasks(tasks)
        assert least <= self.ask(RESUME_TASKS, ids=self.ids_of(tasks))["affected"] <= most

    @verb(2, when=is_a_group_paused, feature="pause", number=NUMBER, again=SELDOM)
    @verb(1, when=lambda self: self.tasks, feature="pause", number=NUMBER, again=SELDOM)
    def pause_group(self, number: int, again: bool) -> None:
        """Pause what is not, resume what is; or say again what it is."""
        (task,) = chosen(self.tasks, [number])
        group, paused = task.group, task.group.paused == again
        self.did("pause_group" if paused else "resume_group", group.name)
        least, most = self.model.set_group_paused(group, paused)
        answer = self.ask(PAUSE_GROUP if paused else RESUME_GROUP, id=self.ids[group.name])
        assert answer["taskGroup"] == {"isPaused": paused}
        assert least <= answer["affected"] <= most

    @verb(2, when=lambda self: self.model.paused_channels, feature="pause", number=NUMBER, again=SELDOM)
    @verb(1, when=lambda self: self.tasks, feature="pause", number=NUMBER, again=SELDOM)
    def pause_channel(self, number: int, again: bool) -> None:
        (task,) = chosen(self.tasks, [number])
        channel = task.new.channel
        paused = (channel in self.model.paused_channels) == again
        self.did("pause_channel" if paused else "resume_channel", channel)
        (self.model.paused_channels.add if paused else self.model.paused_channels.discard)(channel)
        answer = self.ask(PAUSE_CHANNEL if paused else RESUME_CHANNEL, name=self.prefix + channel)
        assert answer["channel"] == {"isPaused": paused}

    @verb(1, when=may_cancel, feature="cancel", numbers=SOME, descendants=YES)
    def cancel(self, numbers: list[int], descendants: bool) -> None:
        tasks = chosen(self.tasks_in(*(UNSETTLED if descendants else ALL_STATES)) or self.tasks[:1], numbers)
        self._cancel(tasks, ids=self.ids_of(tasks), descendants=descendants)

    @verb(1, when=may_cancel, feature="cancel", by=FILTER, number=NUMBER, descendants=YES)
    def cancel_found(self, by: str, number: int, descendants: bool) -> None:
        found, wanted, words = self.filter_input(by, number, chosen(UNSETTLED, [number, number + 2]))
        self._cancel(found, words, filter=wanted, descendants=descendants)

    def _cancel(self, tasks: Sequence[Task], words: str = "", *, descendants: bool, **given: Any) -> None:
        descendants = descendants and all(task.state in UNSETTLED for task in tasks)
        self.did("cancel", words, *(task.name for task in tasks), "and descendants" * descendants)
        least, most = self.model.cancel(tasks, descendants=descendants)
        assert least <= self.ask(CANCEL, **given, descendants=descendants)["affected"] <= most

    @verb(2, when=lambda self: self.tasks_in("FAILED"), numbers=SOME, attempts=st.integers(1, 2))
    def retry(self, numbers: list[int], attempts: int) -> None:
        tasks = chosen(self.tasks_in("FAILED") + self.tasks[:2], numbers)
        self.did("retry", *(task.name for task in tasks), "with", attempts)
        affected = self.model.retry(tasks, attempts)
        assert self.ask(RETRY, ids=self.ids_of(tasks), attempts=attempts)["affected"] == affected

    @verb(
        1,
        when=lambda self: self.tasks_in("FAILED"),
        feature="cancel",
        by=FILTER,
        number=NUMBER,
        attempts=st.integers(1, 2),
    )
    def retry_found(self, by: str, number: int, attempts: int) -> None:
        found, wanted, words = self.filter_input(by, number, [])
        self.did("retry", words, "with", attempts)
        affected = self.model.retry(found, attempts)
        assert self.ask(RETRY_FOUND, filter=wanted, attempts=attempts)["affected"] == affected

    @verb(1, when=lambda self: len(self.tasks) > 6, feature="delete", number=NUMBER)
    def delete(self, number: int) -> None:
        (task,) = chosen(self.tasks, [number])
        with contextlib.suppress(life_model.Unclear):
            gone = life_steering.delete(self.model, task)
            self.did("delete", task.name, "→", *sorted(t.name for t in gone))
            assert self.ask(DELETE, id=self.ids[task.name])["deletedTasks"] == len(gone)
            self.forget(gone)

    @verb(1, when=lambda self: len(self.model.groups) > 2, feature="delete", number=NUMBER)
    def delete_group(self, number: int) -> None:
        (group,) = chosen(list(self.model.groups.values()), [number])
        gone = life_steering.delete_group(self.model, group)
        self.did("delete_group", group.name, "→", *sorted(t.name for t in gone))
        assert self.ask(DELETE_GROUP, id=self.ids[group.name])["deletedTasks"] == len(gone)
        self.creations = [(g, news) for g, news in self.creations if g is not group]
        self.forget(gone)

    @verb(3, when=lambda self: self.tasks, feature="reset", numbers=SOME)
    def reset(self, numbers: list[int]) -> None:
        tasks = chosen(
            self.tasks_in("SUCCEEDED", "FAILED", "CANCELLED", "RUNNING", "MERGED") or self.tasks, numbers[:2]
        )
        with contextlib.suppress(life_model.Unclear):
            again, gone = life_steering.reset(self.model, tasks)
            self.did("reset", *(t.name for t in tasks), "without", *sorted(t.name for t in gone))
            answer = self.ask(RESET, ids=self.ids_of(tasks))
            assert answer["affected"] == len(again)
            assert [(t["name"], t["state"]) for t in answer["tasks"]] == [(t.name, t.state) for t in again]
            self.forget(gone)

    def forget(self, gone: Iterable[Task]) -> None:
        """Calls that name what is gone are not repeated: they would make it anew."""
        names = {task.name for task in gone}
        self.creations = [
            (group, news)
            for group, news in self.creations
            if not any(new.name in names or names & {name for name, _ in new.parents} for new in news)
        ]

    @verb(
        1,
        when=lambda self: self.tasks,
        feature="update",
        number=NUMBER,
        priority=st.sampled_from([None, 0, 1, 2]),
        policy=one_of(None, "BLOCK", "CANCEL", "RUN", feature="on_parent_failure"),
    )
    def update(self, number: int, priority: int | None, policy: str | None) -> None:
        (task,) = chosen(self.tasks, [number])
        changes: dict[str, Any] = {"priority": priority, "on_parent_failure": policy}
        changes = {name: value for name, value in changes.items() if value is not None}
        self.did("update", task.name, *changes.items())
        life_steering.update(self.model, task, changes)
        given = {{"on_parent_failure": "onParentFailure"}.get(name, name): value for name, value in changes.items()}
        shown = self.ask(UPDATE, input={"id": self.ids[task.name], **given})["task"]
        assert shown == {
            "name": task.name,
            "priority": task.new.priority,
            "onParentFailure": task.new.on_parent_failure,
        }


# -- both sides in one form -------------------------------------------------------------------------------------------


def shown_links(task: Task) -> list[Link]:
    """Whether a cancelled join goes on adopting is nobody's business."""
    return [link for link in task.links if not (link.adopted and task.state == "CANCELLED")]


def shown_by_api(read: dict[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    """What was read, in the form of `said_by_model`."""
    groups = read["taskGroups"]["nodes"]
    nodes = {node["id"]: node for group in groups for node in group["graph"]["nodes"]}
    shown: dict[str, dict[str, Any]] = {
        channel: {c["state"]: c["count"] for c in (read[channel] or {"counts": []})["counts"]} for channel in CHANNELS
    }
    for group in groups:
        name = group["name"].removeprefix(prefix)
        shown[name] = {**group["progress"], **{key: group[key] for key in group if key == "isPaused"}}
        for node in group["graph"]["nodes"]:
            facts = {key: node[key] for key in ("state", "attempt", "remainingAttempts", "heldBy", "output")}
            into = node.get("mergedInto")
            shown[node["name"]] = {**facts, "group": name, "errors": len(node["errors"]), "parents": []}
            shown[node["name"]]["mergedInto"] = into and nodes.get(into["id"], {"name": into["id"]})["name"]
        for edge in group["graph"]["edges"]:
            child, adopted = nodes[edge["childId"]], edge.get("isAdopted", False)
            link = (nodes[edge["parentId"]]["name"], edge.get("waitFor") == "SUBTREE", adopted)
            if not (adopted and child["state"] == "CANCELLED"):
                shown[child["name"]]["parents"].append(link)
    for facts in shown.values():
        if "parents" in facts:
            facts["parents"].sort()
    return shown


# -- steps as people read them ----------------------------------------------------------------------------------------


def described_lease(lease: Lease) -> str:
    return lease.task.name + (f" (its lease was {lease.end})" if lease.end else "")


def described_completion(item: Completion) -> str:
    words = [repr(item.output), *map(str, item.children)]
    words += ["delays its children"] * item.delays_children + ["suspends its workgroup"] * item.suspends
    return f"[{described_lease(item.lease)}: {' '.join(words)}]"


def described_failure(item: Failure) -> str:
    words = [{None: "its own delay", False: "no delay", True: "an hour's delay"}[item.retry_delay]]
    words += ["keep"] * item.keep + ["discard"] * item.discard + ["suspends its workgroup"] * item.suspends
    return f"[{described_lease(item.lease)}: {', '.join(words)}]"


# -- the tests --------------------------------------------------------------------------------------------------------


def live(dsn: str, examples: int, steps: int, **more: Any) -> World:
    """So many lives of so many steps each."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = crew_on(dsn, rhythm=Rhythm(longest_silence=HOUR))
        world = World(runner, runner.run(server.__aenter__()))
        try:
            run_state_machine_as_test(
                type("LifeMachine", (LifeMachine,), {"world": world}),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    print_blob=True,
                    report_multiple_bugs=False,
                    phases=[phase for phase in Phase if phase is not Phase.explain],
                    suppress_health_check=list(HealthCheck),
                    **more,
                ),
            )
        except Flaky as flaky:
            flaky.add_note("\n".join(["It did not happen again. What was done when it did:", *world.failed]))
            raise
        finally:
            runner.run(server.__aexit__(None, None, None))
    return world


@pytest.mark.timeout(900)
def test_lives_go_as_the_model_says(dsn: str) -> None:
    """The same steps in every run: a red one is due to a change."""
    world = live(dsn, 16, 40, derandomize=True, database=None)
    assert world.steps.total() > 400


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_lives_go_as_the_model_says(dsn: str) -> None:
    """Other steps in every run."""
    world = live(dsn, 340, 50)
    print(f"{world.steps.total()} steps: {dict(world.steps)}; compared: {dict(world.seen)}")
    assert world.steps.total() >= 10_000
    if FEATURES == ALL_FEATURES:
        assert {*ALL_STATES, *HOLDS, "link", "subtree", "adopted"} <= {*world.seen}
