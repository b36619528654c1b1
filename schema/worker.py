"""Workers, as the server hears of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from db.group import WorkerRow, read_workers
from resolvers.workgroup import checked_place
from schema.context import Info, page_size

of = strawberry.field


@strawberry.type(description="A process that claims tasks.")
class Worker:
    id: strawberry.ID = of(description="Its name for itself.")
    channels: list[str] = of(description="The channels it last asked for.")
    running: int = of(description="How many leases it holds.")
    transport: str | None = of(description="How it is connected: poll, long-poll, websocket, sse, webhook.")
    last_seen_at: datetime = of(description="When it was last heard of, written down every 15 s.")
    is_alive: bool = of(description="Whether it was heard of within the last minute.")

    @classmethod
    def of(cls, row: WorkerRow) -> Worker:
        return cls(
            id=strawberry.ID(row.id),
            channels=row.channels,
            running=row.running,
            transport=row.transport,
            last_seen_at=row.last_seen_at,
            is_alive=row.is_alive,
        )


@strawberry.type
class WorkerQuery:
    @strawberry.field(description="In order of id.")
    async def workers(
        self,
        info: Info,
        alive_only: Annotated[
            bool | None, strawberry.argument(description="Only those heard of within the last minute.")
        ] = True,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 100,
        after: Annotated[str | None, strawberry.argument(description="After this id.")] = None,
    ) -> list[Worker] | None:
        core, size = info.context.core, page_size(first, 100, info)
        alive = True if alive_only is None else alive_only
        await info.context.services.write_down_workers()
        rows = await read_workers(core.pool, core.ns, alive, core.rhythm.worker_silence, checked_place(after), size)
        return [Worker.of(row) for row in rows]
