"""Takes in what applications asked for in transactions of their own (crew.create_tasks): by the same code as the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from db import inbox as rows
from db.inbox import InboxRow, RefusedCall
from db.pool import Connection
from resolvers.call import Call
from resolvers.core import Core
from resolvers.create import Creator
from resolvers.errors import BadInput, CrewError, Path
from resolvers.follow import After
from resolvers.many import TASKS, make_each

_AT_ONCE = 100
"""Calls in one transaction."""


@dataclass
class Inbox:
    core: Core
    creator: Creator
    group: Callable[[object], Any]
    """JSON → the input of createTaskGroup. Raises BadInput."""
    tasks: Callable[[object], Any]
    """JSON → the input of createTasks."""

    async def take(self) -> int:
        """One transaction of what waits, oldest first; answers how many calls it took."""
        if not await rows.inbox_waits(self.core.pool, self.core.ns):
            return 0
        taken = await self.creator.transact(self._take)
        if taken:
            self.core.stir()
        return taken

    async def _take(self, connection: Connection, after: After) -> int:
        waiting = await rows.read_inbox(connection, self.core.ns, _AT_ONCE, TASKS)
        if not waiting:
            return 0
        answers = await make_each(self.creator, connection, [self._call(row) for row in waiting], after)
        made, refused = [], []
        for row, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, CrewError):
                refused.append(RefusedCall(row.seq, answer.code, answer.message, _shown(answer.path)))
            else:
                made.append(row.seq)
        await rows.end_inbox(connection, self.core.ns, made, refused)
        return len(waiting)

    def _call(self, row: InboxRow) -> Call | CrewError:
        try:
            given = json.loads(row.call)
            if "groupId" in given:
                tasks = self.tasks(given)
                return self.creator.into_old(tasks.group_id, tasks.tasks, ())
            return self.creator.into_new(self.group(given), ())
        except CrewError as error:
            return error
        except (ValueError, RecursionError) as error:
            return BadInput(f"the call cannot be read: {error}")


def _shown(path: Path) -> str:
    """tasks[0].parents[1].ref"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
