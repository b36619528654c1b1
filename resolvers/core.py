"""One namespace's moving parts in this process: what resolvers work with. The server makes it and starts its loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from db.claim import ClaimedRow, ClaimRequest
from db.name import Names
from db.pool import Pool
from resolvers.lease_id import LeaseIds


@dataclass(frozen=True)
class Limits:
    """What one call may ask for. Shown in `server { limits }`."""

    max_batch: int = 10_000
    max_wait_seconds: float = 25.0
    max_input_bytes: int = 1 << 20
    max_lease_seconds: float = 86_400.0
    max_page: int = 1000
    max_body_bytes: int = 32 << 20
    max_depth: int = 20
    max_nodes: int = 3_000_000
    max_fields: int = 400
    max_aliases: int = 50
    max_directives: int = 20
    max_tokens: int = 20_000
    max_connections: int = 10_000
    max_subscriptions: int = 10_000


@dataclass(frozen=True)
class Rhythm:
    """How often and how long, in seconds."""

    longest_silence: float = 5.0
    """A heartbeat older than this is an outage: no lease is swept, and all are prolonged after it (DESIGN.md §3.4)."""
    grace: float = 15.0
    """What every lease gets on top of the outage."""
    beat: float = 1.0
    floor: float = 1.0
    """A poll at least this often, in case a hint was lost."""
    listen_ping: float = 5.0
    """How often the connection that listens to other servers must show that it still stands."""
    ping: float = 15.0
    """How often the workers heard of are written down."""
    vacuum: float = 10.0
    """How often hot tables are looked at for dead rows."""
    worker_silence: float = 60.0
    """A worker not heard of for so long is not alive."""
    quiet: float = 10.0
    """So long after the last message of a stream an empty one follows."""


_REMEMBERED = 10_000


@dataclass
class KnownGroups:
    """Groups met lately. Neither a number nor an id ever changes; but the group may be gone, and its id be another's."""

    numbers: dict[UUID, int] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)

    def remember(self, found: Mapping[int, UUID]) -> None:
        if len(self.ids) + len(found) > _REMEMBERED:
            self.numbers.clear()
            self.ids.clear()
        for number, uuid in found.items():
            self.numbers[uuid] = number
            self.ids[number] = str(uuid)


MakeAndLease = Callable[[ClaimRequest], Awaitable[ClaimedRow | None]]
"""Makes a task, and leases it for a claim that waits: None where that must not have it."""


async def _nothing(*_: object) -> bool:
    return False


@dataclass
class Core:
    pool: Pool
    ns: int
    limits: Limits
    rhythm: Rhythm
    lease_ids: LeaseIds
    channels: Names
    workgroups: Names
    workers: Names
    wake: Callable[[list[tuple[int, int, int]]], None] = lambda _: None
    """Tasks became ready at these places: the dispatcher looks there."""
    hand_over: Callable[[str, MakeAndLease], Awaitable[object]] = _nothing
    """One that is about to be made goes to a claim that waits for its channel, if there is one: the dispatcher's."""
    due: Callable[[float], None] = lambda _: None
    """Something ends in so many seconds: the clock is set."""
    scheduled: Callable[[float], None] = lambda _: None
    """A schedule is due in so many seconds."""
    stir: Callable[[], None] = lambda: None
    """Events were written: the log is put in order, if somebody follows it."""
    ended: Callable[[list[tuple[int, int]]], None] = lambda _: None
    """Leases, as (lease number, task number), have ended here: a stream that they were pushed to has room."""
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Many tasks stand aside that nothing holds any more: a loop brings them back."""
    others: bool = True
    """Other servers have been heard of lately, or it is not known yet."""
    limited: bool = False
    """Workgroups are limited, as far as this server knows yet."""
    admit: Callable[[], Awaitable[bool]] = _nothing
    """Bring ready tasks of limited workgroups to where claims look; whether there were any."""
    seen: dict[int, tuple[list[str], str]] = field(default_factory=dict)
    """Workers heard of since the last ping: number → channels and transport."""

    groups: KnownGroups = field(default_factory=KnownGroups)

    @staticmethod
    def of(pool: Pool, ns: int, lease_key: bytes, limits: Limits, rhythm: Rhythm) -> Core:
        return Core(
            pool=pool,
            ns=ns,
            limits=limits,
            rhythm=rhythm,
            lease_ids=LeaseIds(lease_key, ns),
            channels=Names(pool, ns, "channel"),
            workgroups=Names(pool, ns, "workgroup"),
            workers=Names(pool, ns, "worker"),
        )
