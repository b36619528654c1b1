"""Channels: kinds of work, and how much of each waits."""

from __future__ import annotations

from typing import Annotated

import strawberry

from db.cap import Asked
from db.group import ChannelRow, read_channels
from resolvers import cap, steer
from resolvers.workgroup import checked_name, checked_place
from schema.context import Info, page_size
from schema.operator import Operator
from schema.task import STATES, StateCount

of = strawberry.field


@strawberry.type(description="A kind of work.")
class Channel:
    number: strawberry.Private[int]
    name: str = of(description="As its tasks name it.")
    is_paused: bool = of(description="No task of it is handed out until it is resumed.")
    max_running: int | None = of(description="At most this many run at once; null for no limit.")

    @classmethod
    def of(cls, row: ChannelRow) -> Channel:
        return cls(number=row.number, name=row.name, is_paused=row.is_paused, max_running=row.max_running)

    @strawberry.field(description="How many of its tasks stand in each state; states with none are left out.")
    async def counts(self, info: Info) -> list[StateCount]:
        rows = await info.context.loaders.counts.load(self.number)
        return [StateCount(state=STATES[row.state], count=row.n) for row in rows]

    @strawberry.field(
        description="Age in seconds of the oldest task that could be claimed now; null when there is none."
    )
    async def oldest_ready_seconds(self, info: Info) -> float | None:
        return await info.context.loaders.oldest_ready.load(self.number)

    @strawberry.field(description="What delivers it by HTTP POST; null where nothing does.")
    async def operator(self, info: Info) -> Operator | None:
        row = await info.context.loaders.operators.load(self.number)
        return None if row is None else Operator.of(row)


@strawberry.input(description="What is to change of a channel.")
class ChannelInput:
    name: str = of(description="Its name; 1 to 255 characters.")
    max_running: int | None = of(
        default=strawberry.UNSET,
        description="At most this many run at once, 0 to 1,000,000; null lifts the limit, left out it stays as it is.",
    )


@strawberry.type(description="The channel as it is now.")
class ChannelPayload:
    channel: Channel = of(description="The channel.")


async def _read(info: Info, name: str) -> Channel | None:
    core = info.context.core
    found = await read_channels(core.pool, core.ns, [name], None, 1)
    return Channel.of(found[0]) if found else None


async def _payload(info: Info, name: str) -> ChannelPayload:
    found = await _read(info, name)
    if found is None:
        raise LookupError(f"channel {name} has vanished")
    return ChannelPayload(channel=found)


@strawberry.type
class ChannelQuery:
    @strawberry.field(description="A channel by its name; null when no task ever named it.")
    async def channel(
        self, info: Info, name: Annotated[str, strawberry.argument(description="Its name.")]
    ) -> Channel | None:
        return await _read(info, checked_name(name))

    @strawberry.field(description="In order of name; `after` is the last name seen.")
    async def channels(
        self,
        info: Info,
        first: Annotated[int | None, strawberry.argument(description="At most so many, 0 to 1000.")] = 100,
        after: Annotated[str | None, strawberry.argument(description="After this name.")] = None,
    ) -> list[Channel] | None:
        core, size = info.context.core, page_size(first, 100, info)
        return [Channel.of(row) for row in await read_channels(core.pool, core.ns, None, checked_place(after), size)]


@strawberry.type
class ChannelMutation:
    @strawberry.mutation(
        description=(
            "Hand out no task of this channel until it is resumed, however many it has and whenever they are created. "
            "Running tasks go on. Makes the channel when no task has named it yet."
        )
    )
    async def pause_channel(
        self, info: Info, name: Annotated[str, strawberry.argument(description="Its name; 1 to 255 characters.")]
    ) -> ChannelPayload | None:
        await steer.pause_channel(info.context.core, name)
        return await _payload(info, name)

    @strawberry.mutation(description="Hand out its tasks again. They can be claimed when the call returns.")
    async def resume_channel(
        self, info: Info, name: Annotated[str, strawberry.argument(description="Its name.")]
    ) -> ChannelPayload | None:
        await steer.resume_channel(info.context.core, name)
        return await _payload(info, name)

    @strawberry.mutation(
        description=(
            "Limit how many tasks of a channel run at once, over all servers. Running tasks go on, also where they are more. Makes "
            "the channel when no task has named it yet."
        )
    )
    async def configure_channel(
        self, info: Info, input: Annotated[ChannelInput, strawberry.argument(description="What is to change.")]
    ) -> ChannelPayload | None:
        asked = Asked()
        if input.max_running is not strawberry.UNSET:
            asked.max_running_given = True
            asked.max_running = cap.checked_most(input.max_running, ("input", "maxRunning"))
        await cap.configure_channel(info.context.core, input.name, asked)
        return await _payload(info, input.name)
