"""The server itself: its version, its clock, its limits."""

from __future__ import annotations

from dataclasses import fields
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
    max_page: int = of(description="The largest page of a list.")
    max_body_bytes: int = of(description="The largest body of a request, or message on a websocket, in bytes.")
    max_depth: int = of(description="The most levels of fields in a document.")
    max_nodes: int = of(
        description=(
            "The most nodes that a document may ask for: the sizes of its pages, each multiplied with those of the pages around it."
        )
    )
    max_fields: int = of(description="The most fields in a document, its fragments opened.")
    max_aliases: int = of(description="The most aliases in a document.")
    max_directives: int = of(description="The most directives in a document.")
    max_tokens: int = of(description="The most tokens in a document.")
    max_connections: int = of(
        description="The most websockets and event streams that one client (a key, or an address) has on one server process."
    )
    max_subscriptions: int = of(
        description="The most subscriptions that one client (a key, or an address) has on one server process."
    )


_LIMITS = [field.name for field in fields(ServerLimits)]


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
            limits=ServerLimits(**{name: getattr(limits, name) for name in _LIMITS}),
        )
