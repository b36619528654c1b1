"""The server itself: its version, its clock, its limits."""

from __future__ import annotations

from datetime import datetime

import strawberry

from db.group import server_now
from schema.context import Info

of = strawberry.field


@strawberry.type(description="What one call may ask for.")
class ServerLimits:
    max_batch: int = of(description="The most tasks, groups, leases or results in one call.")
    max_wait_seconds: float = of(description="The longest a call waits, in seconds; longer waits are cut to it.")
    max_input_bytes: int = of(description="The largest input, output, error or metadata, in bytes of JSON.")
    max_lease_seconds: float = of(description="The longest lease, in seconds.")


@strawberry.type(description="The server that answers.")
class Server:
    version: str = of(description="Crew's version.")
    limits: ServerLimits = of(description="What one call may ask for.")

    @strawberry.field(description="PostgreSQL's clock.")
    async def now(self, info: Info) -> datetime:
        return await server_now(info.context.core.pool)


@strawberry.type
class ServerQuery:
    @strawberry.field(description="The server that answers.")
    def server(self, info: Info) -> Server:
        limits = info.context.core.limits
        return Server(
            version=info.context.services.version,
            limits=ServerLimits(
                max_batch=limits.max_batch,
                max_wait_seconds=limits.max_wait_seconds,
                max_input_bytes=limits.max_input_bytes,
                max_lease_seconds=limits.max_lease_seconds,
            ),
        )
