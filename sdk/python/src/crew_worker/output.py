"""What a handler may return instead of a bare value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crew_worker.draft import Draft, Seconds


@dataclass(frozen=True)
class Output:
    """A value with continuations, which are made together with the completion or not at all.

    `children_delay`: every direct child of the task waits at least so long. `workgroup_delay`: its workgroup is suspended
    for so long.
    """

    value: Any = None
    children: Sequence[Draft[Any]] = ()
    children_delay: Seconds | None = None
    workgroup_delay: Seconds | None = None
