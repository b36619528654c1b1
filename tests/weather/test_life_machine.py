"""A Hypothesis state machine lives many lives through the API and compares each step with the model of DESIGN.md §3.

Each example works in groups, channels, workgroups and keys of its own on one server and one database. Delays, suspensions,
leases and time-outs last an hour; time passes only where a step moves what is due into the past, and the server's clock
takes it from there. After every step one query reads all tasks and links of the example; all of it must be as the model
(tests/support/life_model.py) says, and so must every answer: which tasks a claim hands out, in which order, what is
refused, and why. A failing example prints what was done, line by line, in the names of the model.

CREW_LIFE_FEATURES narrows it: a list of some of keys, subtree, on_parent_failure, timeouts, pause, cancel, delete, reset, update
(or nothing).
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.support import life_steering, life_things
from tests.support.crew import COMPLETE, CREATE, CREATE_TASKS, EXTEND, FAIL, RELEASE
from tests.support.life_draws import (
    FAILING,
    FILTER,
    NUMBER,
    RESULT,
    RICH,
    SELDOM,
    SIDE_SHOWS,
    SKETCHES,
    SOME,
    YES,
    Result,
    Sketch,
    Step,
    chosen,
    next_step,
    one_of,
    verb,
)
from tests.support.life_player import LifePlayer, live
from tests.support.life_things import Completion, Failure, Group, Lease, New, Task
from tests.support.life_words import (
    ALL_FEATURES,
    ALL_STATES,
    CANCEL,
    CHANNELS,
    CLAIM,
    DEADLINE_IS_OVER,
    DELAY_IS_OVER,
    DELETE,
    DELETE_GROUP,
    FEATURES,
    HOLDS,
    HOUR,
    LEASE_IS_OVER,
    MOST_GROUPS,
    MOST_TASKS,
    PAUSE_CHANNEL,
    PAUSE_GROUP,
    PAUSE_TASKS,
    RESET,
    RESUME,
    RESUME_CHANNEL,
    RESUME_GROUP,
    RESUME_TASKS,
    RETRY,
    RETRY_FOUND,
    STILL_ASIDE,
    SUSPEND,
    SUSPENSION_IS_OVER,
    TURN,
    UNSETTLED,
    UPDATE,
    WORKGROUPS,
    described_completion,
    described_failure,
    described_lease,
)
from tests.support.wait import move_clock, until


class LifeMachine(LifePlayer):
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
        except life_things.Refused as refused:
            return self.is_refused(refused.codes, CREATE, input=given)
        except life_things.Unclear:
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

    @verb(1, when=LifePlayer.repeatable_creations, number=NUMBER)
    def repeat_create_tasks(self, number: int) -> None:
        ((group, news),) = chosen(self.repeatable_creations(), [number])
        self._create_tasks("repeat_create_tasks", group, news)

    def _create_tasks(self, verb: str, group: Group, news: Sequence[New]) -> None:
        self.did(verb, "in", group.name, *news)
        given = {"groupId": self.ids[group.name], "tasks": self.inputs(news)}
        try:
            expected = self.model.create_tasks(group, news)
        except life_things.Refused as refused:
            return self.is_refused(refused.codes, CREATE_TASKS, input=given)
        except life_things.Unclear:
            return None
        tasks = self.ask(CREATE_TASKS, input=given)["tasks"]
        self.ids |= {t["name"]: t["id"] for t in tasks}
        return self.expect_tasks(tasks, expected)

    # -- working ------------------------------------------------------------------------------------------------------

    @verb(5, when=LifePlayer.may_claim, limit=st.integers(1, 4), with_id=YES)
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

    @verb(1, when=LifePlayer.repeatable_claims, number=NUMBER)
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
        except life_things.Unclear:
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

    @verb(2, when=LifePlayer.is_a_group_paused, feature="pause", number=NUMBER, again=SELDOM)
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

    @verb(1, when=LifePlayer.may_cancel, feature="cancel", numbers=SOME, descendants=YES)
    def cancel(self, numbers: list[int], descendants: bool) -> None:
        tasks = chosen(self.tasks_in(*(UNSETTLED if descendants else ALL_STATES)) or self.tasks[:1], numbers)
        self._cancel(tasks, ids=self.ids_of(tasks), descendants=descendants)

    @verb(1, when=LifePlayer.may_cancel, feature="cancel", by=FILTER, number=NUMBER, descendants=YES)
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
        with contextlib.suppress(life_things.Unclear):
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
        with contextlib.suppress(life_things.Unclear):
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


# -- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_lives_go_as_the_model_says(dsn: str) -> None:
    """The same steps in every run: a red one is due to a change."""
    world = live(LifeMachine, dsn, 16, 40, derandomize=True, database=None)
    assert world.steps.total() > 400


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_lives_go_as_the_model_says(dsn: str) -> None:
    """Other steps in every run."""
    world = live(LifeMachine, dsn, 340, 50)
    print(f"{world.steps.total()} steps: {dict(world.steps)}; compared: {dict(world.seen)}")
    assert world.steps.total() >= 10_000
    if FEATURES == ALL_FEATURES:
        assert {*ALL_STATES, *HOLDS, "link", "subtree", "adopted"} <= {*world.seen}
