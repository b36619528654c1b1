"""Groups, tasks and channels: made, listed, read and steered."""

from __future__ import annotations

from typing import Any

from db.group import counts_by_state, read_channels
from db.task import Filter
from resolvers import check, steer
from resolvers import group as groups
from resolvers import task as lists
from resolvers.errors import BadInput
from resolvers.group import GroupFilter
from server.transports.rest import documents, making
from server.transports.rest.call import Call
from server.transports.rest.reading import whole

Document = dict[str, Any]
MOST = 10_000
"""In one list."""
_PAGE = 1000
_ATTEMPTS = 2
_RUNNING, _SUCCEEDED = 3, 5


# -- groups -----------------------------------------------------------------------------------------------------------


async def list_groups(call: Call) -> list[Document]:
    limit, skip = whole(call.query, "limit", 50, 0, MOST), whole(call.query, "skip", 0, 0, MOST)
    rows, after = list[Any](), None
    while len(rows) < skip + limit:
        first = min(_PAGE, skip + limit - len(rows))
        page = await groups.page(call.core, GroupFilter(), "created_desc", after, first)
        rows += page.rows
        if not page.has_next:
            break
        after = page.cursors[-1]
    return [documents.group(row) for row in rows[skip:]]


async def count_groups(call: Call) -> Document:
    """Exact up to 10,000, and no more than that."""
    return {"count": (await groups.total(call.core, GroupFilter())).n}


async def create_group(call: Call) -> Document:
    made = await making.make_group(call.context, call.body)
    call.params = {"id": str(made.group_id)}
    return documents.group(await call.group())


async def read_group(call: Call) -> Document:
    return documents.group(await call.group())


async def pause_group(call: Call) -> Document:
    row, _ = await steer.pause_group(call.core, call.params["id"])
    return documents.group(row)


async def resume_group(call: Call) -> Document:
    row, _ = await steer.resume_group(call.core, call.params["id"])
    return documents.group(row)


async def retry_group(call: Call) -> Document:
    """Its failed tasks get so many more attempts."""
    await steer.retry_group(call.core, call.params["id"], call.body.whole("remainingAttempts", _ATTEMPTS))
    return documents.group(await call.group())


# -- tasks ------------------------------------------------------------------------------------------------------------


async def tasks_of_group(call: Call) -> list[Document]:
    row = await call.group()
    return await _list(call, Filter(group_id=row.id), -1)


async def tasks_of_channel(call: Call) -> list[Document]:
    return await _list(call, Filter(channels=[check.text(call.params["channel"], ("channel",), "channel")]), 50)


async def _list(call: Call, narrowed: Filter, limit: int) -> list[Document]:
    """Newest first. A limit of -1 is all there are."""
    asked, skip = whole(call.query, "limit", limit, -1, MOST), whole(call.query, "skip", 0, 0, MOST)
    want = MOST + 1 if asked < 0 else skip + asked
    nos, after = list[int](), None
    while len(nos) < want:
        page = await lists.page(call.core, "created_desc", narrowed, after, min(_PAGE, want - len(nos)))
        nos += [row.no for row in page.rows]
        if not page.has_next:
            break
        after = page.cursor(-1)
    if len(nos) > MOST and asked < 0:
        raise BadInput(f"there are more than {MOST} tasks: ask for a part with limit and skip", ("limit",))
    return await documents.tasks(call.context, nos[skip:])


async def create_task(call: Call) -> Document:
    made = await making.make_tasks(call.context, call.params["id"], [call.body])
    return await call.task_document(made.tasks[0][0])


async def read_task(call: Call) -> Document:
    return await call.task_document((await call.task()).no)


async def pause_task(call: Call) -> Document:
    row = await call.task()
    await steer.pause_tasks(call.core, [row.no])
    return await call.task_document(row.no)


async def resume_task(call: Call) -> Document:
    row = await call.task()
    await steer.resume_tasks(call.core, [row.no])
    return await call.task_document(row.no)


async def retry_task(call: Call) -> Document:
    row = await call.task()
    await steer.retry(call.core, [row.no], call.body.whole("remainingAttempts", _ATTEMPTS))
    return await call.task_document(row.no)


# -- channels ---------------------------------------------------------------------------------------------------------


async def channels(call: Call) -> list[Document]:
    core = call.core
    rows = await read_channels(core.pool, core.ns, None, None, MOST)
    counts: dict[int, dict[int, int]] = {}
    for one in await counts_by_state(core.pool, core.ns, [row.number for row in rows]):
        counts.setdefault(one.number, {})[one.state] = one.n
    return [
        {
            "name": row.name,
            "totalCount": sum(counts.get(row.number, {}).values()),
            "completedCount": counts.get(row.number, {}).get(_SUCCEEDED, 0),
            "assignedCount": counts.get(row.number, {}).get(_RUNNING, 0),
        }
        for row in rows
    ]
