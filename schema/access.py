"""Who may: API keys, and the role that each operation needs."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated

import strawberry
from graphql import OperationType

from db.access import ApiKeyRow, api_keys
from resolvers import access as deciding
from schema.context import Info
from schema.deleted import DeletedPayload

of = strawberry.field

WORKERS = frozenset(
    {
        "createTaskGroup",
        "createTaskGroups",
        "createTasks",
        "claimTasks",
        "completeTasks",
        "failTasks",
        "extendLeases",
        "releaseLeases",
        "claimedTasks",
    }
)
"""What a WORKER may do besides reading. Every other mutation needs an ADMIN; every query, and `taskEvents`, is a VIEWER's."""


def role_for(operation: OperationType, field: str) -> deciding.Role:
    """The least that may call this field of Query, Mutation or Subscription."""
    if field in WORKERS:
        return deciding.Role.WORKER
    return deciding.Role.ADMIN if operation is OperationType.MUTATION else deciding.Role.VIEWER


@strawberry.enum(description="What an API key may do. Each may do what those before it may.")
class Role(enum.Enum):
    VIEWER = strawberry.enum_value(1, description="Reads everything, changes nothing.")
    WORKER = strawberry.enum_value(
        2,
        description="Claims and finishes tasks of the key's channels; creates tasks in any; reads like a VIEWER.",
    )
    ADMIN = strawberry.enum_value(3, description="Everything.")


_ROLES = dict(zip(Role, deciding.Role, strict=True))
_SHOWN = {role: shown for shown, role in _ROLES.items()}


@strawberry.type(description="A key to this API. Its secret is shown once, when it is made.")
class ApiKey:
    id: strawberry.ID = of(description="A UUID.")
    name: str = of(description="What people call it; 1 to 255 characters.")
    role: Role = of(description="What it may do.")
    channels: list[str] | None = of(description="The channels whose tasks it may claim and finish; null for all.")
    namespace: str | None = of(description="The only namespace that it may enter; null for any.")
    created_at: datetime = of(description="When it was made.")
    expires_at: datetime | None = of(description="When it stops to count; null for never.")
    last_used_at: datetime | None = of(description="When it was last used, exact to about a minute; null for never.")

    @classmethod
    def of(cls, row: ApiKeyRow) -> ApiKey:
        return cls(
            id=strawberry.ID(str(row.id)),
            name=row.name,
            role=_SHOWN[deciding.Role(row.role)],
            channels=row.channels,
            namespace=row.namespace,
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
        )


@strawberry.input(description="A key to be made.")
class ApiKeyInput:
    name: str = of(description="What people call it; 1 to 255 characters.")
    role: Role = of(description="What it may do.")
    channels: list[str] | None = of(default=None, description="Null for every channel; else 1 to 1,000.")
    namespace: str | None = of(
        default=None,
        description=(
            "The only namespace that it may enter, made if it is not there; null for any, named by the Crew-Namespace header."
        ),
    )
    expires_at: datetime | None = of(default=None, description="When it stops to count; null for never.")


@strawberry.type(description="A key that was made.")
class ApiKeyPayload:
    api_key: ApiKey = of(description="The key.")
    secret: str = of(description="Shown once; only its hash is kept.")


@strawberry.type
class AccessQuery:
    @strawberry.field(description="The API keys that are not revoked, oldest first.")
    async def api_keys(self, info: Info) -> list[ApiKey] | None:
        bound = info.context.caller.namespace
        rows = await api_keys(info.context.core.pool)
        return [ApiKey.of(row) for row in rows if bound is None or row.namespace == bound]


@strawberry.type
class AccessMutation:
    @strawberry.mutation(
        description=(
            "Make an API key. From the first one on, every request needs a key, for good: make an ADMIN first. Other servers know "
            "of it within seconds. Not safe to repeat: each call makes a key."
        )
    )
    async def create_api_key(
        self, info: Info, input: Annotated[ApiKeyInput, strawberry.argument(description="Which key.")]
    ) -> ApiKeyPayload | None:
        context = info.context
        namespace = deciding.own_namespace(context.caller, input.namespace)
        row, secret = await deciding.create_key(
            context.core.pool, input.name, _ROLES[input.role], input.channels, namespace, input.expires_at
        )
        await context.services.keys.read()
        return ApiKeyPayload(api_key=ApiKey.of(row), secret=secret)

    @strawberry.mutation(
        description="Revoke an API key. It is refused here at once, by other servers and on open streams within seconds."
    )
    async def revoke_api_key(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The key's id.")]
    ) -> DeletedPayload | None:
        context = info.context
        uuid = await deciding.revoke_key(context.core.pool, id, bound=context.caller.namespace)
        await context.services.keys.read()
        return DeletedPayload(id=strawberry.ID(str(uuid)))
