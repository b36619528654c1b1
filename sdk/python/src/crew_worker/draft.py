"""A task that is being planned: by a producer for a group, or by a handler as a continuation of its own task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from crew_worker.api import Json
from crew_worker.ids import new_id

if TYPE_CHECKING:
    from crew_worker.group import Group

Result = TypeVar("Result")
OnDuplicate = Literal["MERGE", "RETURN_EXISTING", "REJECT", "ALLOW"]
OnParentFailure = Literal["BLOCK", "CANCEL", "RUN"]
Seconds = float | timedelta


@dataclass(frozen=True)
class RetryPolicy:
    """Up to `attempts`; before the next one delay × backoff^(n−1) seconds, at most `max_delay`."""

    attempts: int = 5
    delay: Seconds = 30.0
    backoff: float = 1.0
    max_delay: Seconds = 3600.0

    def as_input(self) -> Json:
        return {
            "maxAttempts": self.attempts,
            "delaySeconds": seconds(self.delay),
            "backoff": self.backoff,
            "maxDelaySeconds": seconds(self.max_delay),
        }


def seconds(value: Seconds) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


class Draft(Generic[Result]):
    """One planned task. `after` and `after_subtree` say what it waits for; both return it."""

    __slots__ = ("_options", "_parents", "channel", "group", "id", "input", "metadata", "name", "returns", "sent")

    def __init__(
        self,
        channel: str,
        input: Any = None,
        *,
        name: str | None = None,
        workgroup: str | None = None,
        key: str | None = None,
        on_duplicate: OnDuplicate | None = None,
        priority: int | None = None,
        run_after: datetime | None = None,
        delay: Seconds | None = None,
        retry: RetryPolicy | int | None = None,
        timeout: Seconds | None = None,
        weight: int | None = None,
        seed: bool | None = None,
        on_parent_failure: OnParentFailure | None = None,
        metadata: Any = None,
        returns: Callable[[Any], Result] | type[Result] | None = None,
        id: str | None = None,
        group: Group | None = None,
    ) -> None:
        self.id = id or new_id()
        self.channel, self.input, self.name = channel, input, channel if name is None else name
        self.metadata, self.returns, self.group = metadata, returns, group
        self.sent = False
        self._parents: list[tuple[Draft[Any] | str, str]] | None = None
        given = (
            workgroup,
            key,
            on_duplicate,
            priority,
            run_after,
            delay,
            retry,
            timeout,
            weight,
            seed,
            on_parent_failure,
        )
        self._options = _NOTHING if given == _NOT_GIVEN else options(*given)

    def after(self, *parents: Draft[Any] | str) -> Self:
        """Wait for these tasks: planned here, or the ids of tasks of the same group."""
        self._hang(parents, "TASK")
        return self

    def after_subtree(self, *parents: Draft[Any] | str) -> Self:
        """Wait for these tasks and all that they go on to spawn: the join of a tree that still grows."""
        self._hang(parents, "SUBTREE")
        return self

    def _hang(self, parents: Iterable[Draft[Any] | str], wait_for: str) -> None:
        self._parents = self._parents or []
        self._parents += [(parent, wait_for) for parent in parents]

    @property
    def parent_ids(self) -> list[str]:
        """The tasks it waits for, in any way."""
        if not self._parents:
            return []
        return [parent.id if isinstance(parent, Draft) else parent for parent, _ in self._parents]

    def as_input(self) -> Json:
        """The NewTask to send."""
        made: Json = {"id": self.id, "name": self.name, "channel": self.channel, **self._options}
        if self.input is not None:
            made["input"] = self.input
        if self.metadata is not None:
            made["metadata"] = self.metadata
        if self._parents:
            made["parents"] = [link(parent, wait_for) for parent, wait_for in self._parents]
        return made

    async def finished(self, timeout: float | None = None) -> str:
        """The state in which the task has ended. Raises TimeoutError."""
        return (await self._of_group()._ended(self, timeout)).state

    async def result(self, timeout: float | None = None) -> Result:
        """Its output, through `returns`, once it has succeeded. Raises TaskFailed, TimeoutError."""
        output = await self._of_group()._output(self, timeout)
        return output if self.returns is None else typed(self.returns, output)

    def _of_group(self) -> Group:
        if self.group is None:
            raise RuntimeError(f"{self.name} is a continuation: only tasks of a group can be waited for here")
        return self.group


def options(
    workgroup: str | None,
    key: str | None,
    on_duplicate: OnDuplicate | None,
    priority: int | None,
    run_after: datetime | None,
    delay: Seconds | None,
    retry: RetryPolicy | int | None,
    timeout: Seconds | None,
    weight: int | None,
    seed: bool | None,
    on_parent_failure: OnParentFailure | None,
) -> Json:
    """The fields of a NewTask that are given."""
    policy = RetryPolicy(attempts=retry) if isinstance(retry, int) else retry
    made = {
        "workgroup": workgroup,
        "key": key,
        "onDuplicate": on_duplicate,
        "priority": priority,
        "runAfter": run_after and run_after.astimezone().isoformat(),
        "delaySeconds": None if delay is None else seconds(delay),
        "retry": policy and policy.as_input(),
        "timeoutSeconds": None if timeout is None else seconds(timeout),
        "progressWeight": weight,
        "isSeed": seed,
        "onParentFailure": on_parent_failure,
    }
    return {name: value for name, value in made.items() if value is not None}


_NOT_GIVEN = (None,) * 11
_NOTHING: Json = {}


def link(parent: Draft[Any] | str, wait_for: str) -> Json:
    """A ParentInput."""
    place = {"id": parent.id if isinstance(parent, Draft) else parent}
    return place if wait_for == "TASK" else {**place, "waitFor": wait_for}


def typed(returns: Callable[[Any], Result] | type[Result], output: Any) -> Result:
    """An output as `returns` makes it: a pydantic model, a dataclass from an object, or any function of one value."""
    validate = getattr(returns, "model_validate", None)
    if validate is not None:
        made: Result = validate(output)
        return made
    make: Callable[..., Result] = returns
    if hasattr(returns, "__dataclass_fields__") and isinstance(output, Mapping):
        return make(**output)
    return make(output)
