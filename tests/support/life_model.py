"""The life of tasks as DESIGN.md §3 and the contract tell it: an oracle that shares nothing with our code.

The model. All is held in plain objects; a call changes what it names and then lets *whatever can go on go on* (`settle`),
over and over until nothing moves:

    READY or SCHEDULED again → BLOCKED   a parent was reset while it ran, or after it had failed, and has not succeeded
    BLOCKED → CANCELLED   policy CANCEL, and a parent has FAILED or is CANCELLED
    BLOCKED → SCHEDULED   no parent is waited for any more, its time is yet to come
    BLOCKED → READY       the same, and its time has come
    READY   → MERGED      a task of the same channel and key runs

Time has two values: *now*, and *an hour from now*, which is never reached unless a call says so (`time_comes` and the like).
The order of creation is the order of `tasks`. A call checks before it changes: when it raises, nothing has happened.

What neither contract nor design decides is not modelled. A caller leaves these out (`Unclear` says so where only the
model can see it): a parent named twice through RETURN_EXISTING; workgroupDelaySeconds in the failure of a task that twins
ride with; children that RETURN_EXISTING or REJECT in a call that finishes other tasks too; cancelling the descendants of
what is settled; what life_steering.py leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tests.support.life_things import (
    ENDED,
    SETTLED,
    Answer,
    Completion,
    End,
    Failure,
    Group,
    Lease,
    Link,
    New,
    Refused,
    Task,
    Unclear,
)


@dataclass
class Model:
    groups: dict[str, Group] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    leases: list[Lease] = field(default_factory=list)
    paused_channels: set[str] = field(default_factory=set)
    suspended: set[str] = field(default_factory=set)

    # -- what people see ------------------------------------------------------------------------------------------------

    def holds(self, task: Task) -> list[str]:
        if task.state != "READY":
            return []
        held = {
            "TASK_PAUSED": task.paused,
            "GROUP_PAUSED": task.group.paused,
            "CHANNEL_PAUSED": task.new.channel in self.paused_channels,
            "WORKGROUP_SUSPENDED": task.new.workgroup in self.suspended,
        }
        return [hold for hold, holds in held.items() if holds]

    def standing(self) -> list[Lease]:
        return [lease for lease in self.leases if lease.end is None]

    def tasks_of(self, group: Group) -> list[Task]:
        return [task for task in self.tasks.values() if task.group is group]

    def counts(self, channel: str) -> Counter[str]:
        return Counter(task.state for task in self.tasks.values() if task.new.channel == channel)

    # -- making ---------------------------------------------------------------------------------------------------------

    def create_group(self, name: str, news: Sequence[New], *, paused: bool = False) -> list[Task]:
        """The tasks, in the order sent. A repeat answers what was made."""
        if name not in self.groups:
            group = Group(name, paused)
            group.answered = self._make(group, news)
            self.groups[name] = group
            self.settle()
        return self.groups[name].answered

    def create_tasks(self, group: Group, news: Sequence[New]) -> list[Task]:
        answered = self._make(group, news)
        self.settle()
        return answered

    def _make(
        self, group: Group, news: Sequence[New], spawner: Task | None = None, ending: Collection[Task] = ()
    ) -> list[Task]:
        """Those there and those made, in the order sent. What ends in the same transaction has ended for keys."""
        called: dict[str, Task] = {}
        made: list[Task] = []
        refused: set[str] = set()
        for new in news:
            there = self.tasks[new.name] if self._is_repeat(new) else self._twin_of(new, made, ending)
            if there and new.on_duplicate == "REJECT" and not self._is_repeat(new):
                refused.add("DUPLICATE_KEY")
            if not there:
                there = Task(new, group, spawner)
                made.append(there)
            called[new.name] = there
        for task in made:
            parents = [(called.get(name) or self.tasks[name], subtree) for name, subtree in task.new.parents]
            task.links = [Link(parent, subtree) for parent, subtree in parents]
            if spawner and not parents:
                task.links = [Link(spawner)]
        if any(parent.group is not group for task in made for parent in task.parents) or _has_cycle(made):
            refused.add("BAD_INPUT")
        if refused:
            raise Refused(*refused)
        if any(len(set(task.parents)) < len(task.parents) for task in made):
            raise Unclear
        self.tasks |= {task.name: task for task in made}
        self._adopt(made)
        return list(called.values())

    def _is_repeat(self, new: New) -> bool:
        return new.own_id and new.name in self.tasks

    def _twin_of(self, new: New, made: Sequence[Task], ending: Collection[Task]) -> Task | None:
        """For one that minds: the oldest of its channel and key, of whatever policy, that has not ended."""
        for task in [*self.tasks.values(), *made] if new.is_picky else []:
            same = (task.new.channel, task.new.key) == (new.channel, new.key)
            if same and task.state not in ENDED and task not in ending:
                return task
        return None

    def _adopt(self, made: Collection[Task]) -> None:
        """Joins gain what is new of their subtrees, and new joins all of it. The oldest join goes first."""
        for join in self.tasks.values():
            if join.has_started and join.state != "BLOCKED":
                continue
            before = len(join.links)
            for root in [link.parent for link in join.links if link.subtree and not link.adopted]:
                for task in self.tasks.values():
                    if (join in made or task in made) and self._counts_for(join, root, task):
                        join.links.append(Link(task, subtree=True, adopted=True))
            if len(join.links) > before and join.waits:
                join.state = "BLOCKED"

    def adopt_missed(self, join: Task) -> None:
        """All that was spawned in its subtrees while it had started: now it never has."""
        for root in [link.parent for link in join.links if link.subtree and not link.adopted]:
            for task in self.tasks.values():
                if self._counts_for(join, root, task):
                    join.links.append(Link(task, subtree=True, adopted=True))

    def _counts_for(self, join: Task, root: Task, task: Task) -> bool:
        excluded = task is join or task in join.parents or task.waits_for(join) or task.joins_subtree_of(root)
        return task.is_spawned_under(root) and not excluded

    # -- going on -------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        while any(self._goes_on(task) for task in self.tasks.values()):
            pass

    def _goes_on(self, task: Task) -> bool:
        before = task.state
        if task.ahead and task.state in ("READY", "SCHEDULED"):
            task.ahead = False
            if any(parent.state != "SUCCEEDED" for parent in task.parents):
                task.state = "BLOCKED"
        elif task.state == "BLOCKED":
            has_lost_one = any(parent.state in ("FAILED", "CANCELLED") for parent in task.parents)
            if task.new.on_parent_failure == "CANCEL" and has_lost_one:
                task.state = "CANCELLED"
            elif not task.waits:
                task.state = "SCHEDULED" if task.delayed else "READY"
        elif task.state == "READY":
            for runner in self.tasks.values():
                if runner.state == "RUNNING" and runner.is_same_work(task):
                    task.state, task.merged_into = "MERGED", runner
        return task.state != before

    def time_comes(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            task.delayed, task.early, task.state = False, False, "READY"
        self.settle()

    # -- working --------------------------------------------------------------------------------------------------------

    def claim(self, channels: Collection[str], limit: int) -> list[Lease]:
        """The highest priority first, then the oldest. Each takes its twins out of the way; those among the first `limit` count."""
        given: list[Lease] = []
        ready = [task for task in self.tasks.values() if task.state == "READY" and not self.holds(task)]
        fit = [task for task in ready if task.new.channel in channels]
        for task in sorted(fit, key=lambda t: -t.new.priority)[:limit]:
            if task.state != "READY":
                continue
            task.state, task.attempt, task.remaining = "RUNNING", task.attempt + 1, task.remaining - 1
            given.append(Lease(task))
            self.settle()
        self.leases += given
        return given

    def complete(self, results: Sequence[Completion]) -> Answer:
        answer = Answer()
        for place, result in enumerate(results):
            codes = refusal_of(result.lease, but="completed")
            try:
                if result.lease.end is None:
                    self._succeed(result)
            except Refused:
                codes = {"INVALID_CHILDREN"}
            if codes:
                answer.errors.append((place, codes))
            else:
                answer.taken += 1
        self.settle()
        return answer

    def _succeed(self, result: Completion) -> None:
        task = result.lease.task
        twins = self.twins(task)
        self._make(task.group, result.children, spawner=task, ending=[task, *twins])
        result.lease.end = "completed"
        for twin in twins:
            twin.attempt, twin.remaining = twin.attempt + 1, twin.remaining - 1
        for each in [task, *twins]:
            each.state, each.output = "SUCCEEDED", result.output
        if result.delays_children:
            for child in self.tasks.values():
                child.delayed |= child.state == "BLOCKED" and task in child.parents
        if result.suspends and task.new.workgroup:
            self.suspended.add(task.new.workgroup)

    def fail(self, failures: Sequence[Failure]) -> Answer:
        answer = Answer()
        for place, failure in enumerate(failures):
            codes = refusal_of(failure.lease, but="failed")
            if codes:
                answer.errors.append((place, codes))
                continue
            answer.taken += 1
            if failure.lease.end is None:
                failure.lease.end = "failed"
                self._fail(failure)
        self.settle()
        return answer

    def _fail(self, failure: Failure) -> None:
        """An attempt of the task and of each of its twins, which then goes on by its own policy."""
        runner = failure.lease.task
        workgroup = runner.new.workgroup if failure.suspends else None
        twins = self.free_twins(runner)
        for twin in twins:
            twin.attempt, twin.remaining = twin.attempt + 1, twin.remaining - 1
        for task in [runner, *twins]:
            task.errors += 1
            task.remaining += failure.keep
            task.delayed = task.new.backs_off if failure.retry_delay is None else failure.retry_delay
            if failure.suspends and not workgroup:
                task.delayed = True
            if workgroup and failure.keep and failure.retry_delay is None:
                task.delayed = False
            if failure.discard or task.remaining == 0:
                task.state, task.delayed = "FAILED", False
            else:
                task.state = "SCHEDULED" if task.delayed else "READY"
        if workgroup:
            self.suspended.add(workgroup)

    def extend(self, leases: Sequence[Lease]) -> tuple[Answer, list[Lease]]:
        """The second is those whose workgroup is suspended."""
        errors = [(place, codes) for place, lease in enumerate(leases) if (codes := refusal_of(lease))]
        stand = [lease for lease in leases if lease.end is None]
        return Answer(len(stand), errors), [x for x in stand if x.task.new.workgroup in self.suspended]

    def release(self, leases: Sequence[Lease]) -> Answer:
        answer, _ = self.extend(leases)
        for lease in leases:
            if lease.end is None:
                task = lease.task
                lease.end = "lost"
                task.state, task.attempt, task.remaining = "READY", task.attempt - 1, task.remaining + 1
                self.free_twins(task)
        self.settle()
        return answer

    def expire(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            lease.end = "lost"
            lease.task.errors += 1
            lease.task.state = "READY" if lease.task.remaining else "FAILED"
            self.free_twins(lease.task)
        self.settle()

    def time_out(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            lease.end = "lost"
            self._fail(Failure(lease))
        self.settle()

    def twins(self, runner: Task) -> list[Task]:
        return [task for task in self.tasks.values() if task.state == "MERGED" and task.merged_into is runner]

    def free_twins(self, runner: Task) -> list[Task]:
        twins = self.twins(runner)
        for twin in twins:
            twin.state, twin.merged_into = "READY", None
        return twins

    # -- steering -------------------------------------------------------------------------------------------------------

    def cancel(self, tasks: Iterable[Task], *, descendants: bool = False) -> tuple[int, int]:
        """How many were cancelled by the call itself, and with those that CANCEL took with them."""
        before = self._cancelled()
        chosen = set(tasks)
        while descendants and (more := named_children(self.tasks.values(), chosen) - chosen):
            chosen |= more
        hit = [task for task in chosen if task.state not in SETTLED]
        for task in hit:
            task.state, task.merged_into = "CANCELLED", None
        for lease in self.standing():
            if lease.task in hit:
                lease.end = "cancelled"
        for task in hit:
            self.free_twins(task)
        self.settle()
        return len(hit), self._cancelled() - before

    def _cancelled(self) -> int:
        return sum(task.state == "CANCELLED" for task in self.tasks.values())

    def retry(self, tasks: Iterable[Task], attempts: int) -> int:
        failed = [task for task in tasks if task.state == "FAILED"]
        for task in failed:
            task.state, task.remaining, task.delayed = "READY", attempts, False
        self.settle()
        return len(failed)

    def pause_tasks(self, tasks: Iterable[Task]) -> int:
        hit = [task for task in tasks if task.state not in ENDED and not task.paused]
        for task in hit:
            task.paused = True
        return len(hit)

    def resume_tasks(self, tasks: Iterable[Task]) -> tuple[int, int]:
        """How many of those that have not ended, and of all."""
        hit = [task for task in tasks if task.paused]
        for task in hit:
            task.paused = False
        return sum(task.state not in ENDED for task in hit), len(hit)

    def set_group_paused(self, group: Group, paused: bool) -> tuple[int, int]:
        """How many READY tasks nothing else holds, and how many in all."""
        if group.paused == paused:
            return 0, 0
        group.paused = False
        ready = [task for task in self.tasks_of(group) if task.state == "READY"]
        free = [task for task in ready if not self.holds(task)]
        group.paused = paused
        return len(free), len(ready)


def refusal_of(lease: Lease, *, but: End | None = None) -> set[str]:
    """The codes that it may be refused with; none when it stands, or has ended in the way of the call."""
    if lease.end in (None, but):
        return set()
    if lease.end == "cancelled":
        return {"CANCELLED"}
    # A lease that was lost before its task was cancelled is both.
    return {"LOST", "CANCELLED"} if lease.task.state == "CANCELLED" else {"LOST"}


def _has_cycle(tasks: Collection[Task]) -> bool:
    """Links lead to tasks of the call or to older ones: take away, again and again, what waits for none of the call."""
    left = set(tasks)
    while free := {task for task in left if not left & set(task.parents)}:
        left -= free
    return bool(left)


def named_children(tasks: Iterable[Task], parents: Collection[Task]) -> set[Task]:
    return {task for task in tasks for link in task.links if not link.adopted and link.parent in parents}
