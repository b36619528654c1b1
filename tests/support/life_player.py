"""Plays a life of tests/weather/test_life_machine.py: what there is to choose from, how it is said, whether both
sides agree."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from resolvers.core import Rhythm
from tests.support import life_things
from tests.support.crew import Refused, crew_on
from tests.support.life_draws import (
    Claim,
    Sketch,
    World,
    chosen,
)
from tests.support.life_model import Model
from tests.support.life_things import Answer, Completion, Failure, Group, Lease, New, Task
from tests.support.life_words import (
    ALL_STATES,
    CHANNELS,
    EVERYTHING,
    FEATURES,
    HOUR,
    KEYS,
    MOST_OPEN,
    MOST_TASKS,
    WORKGROUPS,
    shown_by_api,
    shown_links,
)
from tests.support.wait import move_clock, until

T = TypeVar("T")


class LifePlayer(RuleBasedStateMachine):
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
            settled = sum(task.state in life_things.SETTLED for task in tasks)
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


def live(machine: type[LifePlayer], dsn: str, examples: int, steps: int, **more: Any) -> World:
    """So many lives of so many steps each."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = crew_on(dsn, rhythm=Rhythm(longest_silence=HOUR))
        world = World(runner, runner.run(server.__aenter__()))
        try:
            run_state_machine_as_test(
                type(machine.__name__, (machine,), {"world": world}),
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
