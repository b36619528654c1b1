"""Operators: channels that are delivered by HTTP POST."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Annotated, Any

import strawberry

from db.operator import OperatorRow, read_operators
from schema.context import Info
from schema.deleted import DeletedPayload
from schema.inputs import NullMeansDefault
from schema.scalars import JSON

of = strawberry.field
KEEP: Any = strawberry.UNSET


@strawberry.type(
    description="Delivers the tasks of one channel by HTTP POST instead of waiting for a worker to ask (docs/operators.md)."
)
class Operator:
    id: strawberry.ID = of(description="A UUID made by the server.")
    channel: str = of(description="The channel that it delivers.")
    url: str = of(description="Where to.")
    header_names: list[str] = of(
        description="The names of the headers sent with each delivery; their values are never read back."
    )
    is_paused: bool = of(description="It delivers nothing more until it is resumed; workers may still claim.")
    max_running: int = of(description="At most so many deliveries at once, over all servers.")
    timeout_seconds: float = of(description="How long a delivery may take until the whole answer is there.")
    created_at: datetime = of(description="When it was created.")

    @classmethod
    def of(cls, row: OperatorRow) -> Operator:
        return cls(
            id=strawberry.ID(str(row.id)),
            channel=row.name,
            url=row.url,
            header_names=row.header_names,
            is_paused=row.is_paused,
            max_running=row.max_running,
            timeout_seconds=row.timeout,
            created_at=row.created_at,
        )


@strawberry.input(description="An operator to be made.")
class OperatorInput(NullMeansDefault):
    channel: str = of(description="The channel that it delivers, which has no operator yet; 1 to 255 characters.")
    url: str = of(
        description=(
            "Where to: absolute, http or https, without credentials; up to 2,000 characters. Not at a private, loopback or "
            "link-local address unless the server's settings allow it. Redirects are not followed."
        )
    )
    headers: JSON | None = of(
        default=None,
        description=(
            "Sent with each delivery, an object of strings; stored encrypted under CREW_SECRET_KEY, never read back. At most 50."
        ),
    )
    is_paused: bool | None = of(default=False, description="Deliver nothing until it is resumed.")
    max_running: int | None = of(default=10, description="At most so many deliveries at once, 1 to 1,000.")
    timeout_seconds: float | None = of(
        default=60.0, description="How long a delivery may take, 0.1 seconds to an hour."
    )


@strawberry.input(
    description="What to change of an operator. A field left out stays as it is; null is what a new one has."
)
class UpdateOperatorInput:
    id: strawberry.ID = of(description="The operator's UUID.")
    url: str | None = of(default=KEEP, description="Where to. It cannot be cleared.")
    headers: JSON | None = of(default=KEEP, description="All of them, instead of those it has; null for none.")
    is_paused: bool | None = of(default=KEEP, description="Pause or resume it; null is false.")
    max_running: int | None = of(default=KEEP, description="1 to 1,000; null is 10.")
    timeout_seconds: float | None = of(default=KEEP, description="0.1 seconds to an hour; null is 60.")


@strawberry.type(description="The operator as it is now.")
class OperatorPayload:
    operator: Operator = of(description="The operator.")
    signing_secret: str | None = of(
        description="Signs each delivery (Standard Webhooks). Shown once, when made; null afterwards."
    )


@strawberry.type
class OperatorQuery:
    @strawberry.field(description="All of them, in order of creation.")
    async def operators(self, info: Info) -> list[Operator] | None:
        core = info.context.core
        return [Operator.of(row) for row in await read_operators(core.pool, core.ns)]


@strawberry.type
class OperatorMutation:
    @strawberry.mutation(description="Have a channel delivered by HTTP POST. CONFLICT when it has an operator already.")
    async def create_operator(
        self, info: Info, input: Annotated[OperatorInput, strawberry.argument(description="The operator.")]
    ) -> OperatorPayload | None:
        operators = info.context.services.operators
        row = await operators.create(input)
        return OperatorPayload(operator=Operator.of(row), signing_secret=operators.shown_secret(row.id))

    @strawberry.mutation(
        description="Change, pause or resume an operator. What it delivers already goes on as it was sent."
    )
    async def update_operator(
        self, info: Info, input: Annotated[UpdateOperatorInput, strawberry.argument(description="What to change.")]
    ) -> OperatorPayload | None:
        fields = {f.name: getattr(input, f.name) for f in dataclasses.fields(input) if f.name != "id"}
        given = {name: value for name, value in fields.items() if value is not KEEP}
        row = await info.context.services.operators.update(input.id, given)
        return OperatorPayload(operator=Operator.of(row), signing_secret=None)

    @strawberry.mutation(
        description="Deliver the channel no more. What it delivers just now may end; workers may claim the rest."
    )
    async def delete_operator(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The operator's UUID.")]
    ) -> DeletedPayload | None:
        return DeletedPayload(id=strawberry.ID(str(await info.context.services.operators.delete(id))))
