"""What several callers want made, in one transaction of ours: together where it can be, else each in a savepoint of its own, so
that what is refused is undone alone."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import structlog

from db.errors import CONFLICT, OUTAGE
from db.pool import Connection
from resolvers.call import Call, Made
from resolvers.create import Creator, Moved
from resolvers.errors import CrewError
from resolvers.follow import After

log = structlog.get_logger("crew")
TASKS = 5000
"""So many in one transaction, or what one caller wants."""


async def make_each(
    creator: Creator, connection: Connection, calls: Sequence[Call | CrewError], after: After
) -> list[Made | CrewError]:
    """What was made for each call, or why nothing was; a call that is refused already stays so."""
    taken = [call for call in calls if isinstance(call, Call)]
    together = await _together(creator, connection, taken, after) if len(taken) > 1 else None
    answers: list[Made | CrewError] = []
    for call in calls:
        if isinstance(call, CrewError):
            answers.append(call)
        elif together is not None:
            answers.append(together.pop(0))
        else:
            answers.append(await _alone(creator, connection, call, after))
    return answers


async def _together(creator: Creator, connection: Connection, calls: list[Call], after: After) -> list[Made] | None:
    try:
        return await _make(creator, connection, calls, after)
    except (CrewError, asyncpg.UniqueViolationError):
        # One is bad, or needs what another of them makes.
        return None


async def _alone(creator: Creator, connection: Connection, call: Call, after: After) -> Made | CrewError:
    try:
        return (await _make(creator, connection, [call], after))[0]
    except CrewError as error:
        return error
    except (asyncpg.UniqueViolationError, Moved, *CONFLICT, *OUTAGE):
        raise
    except Exception:
        log.exception("tasks could not be made")
        return CrewError("something went wrong on the server; it is logged there")


async def _make(creator: Creator, connection: Connection, calls: list[Call], after: After) -> list[Made]:
    found = After()
    async with connection.transaction():
        refused = await creator.find_groups(connection, [call for call in calls if call.new_group is None])
        for error in refused.values():
            raise error
        await creator.lock_groups(connection, calls)
        made = await creator.look_and_make(connection, calls, found)
    after.places += found.places
    after.due += found.due
    return made
