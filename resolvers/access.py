"""API keys: what their callers may do, and which secret is whose.

A server has all keys in memory, and reads them again when their mark is another, which it sees every second:
a request adds no statement, a revoked key is refused everywhere within `STALE` seconds while the database answers, and a wrong one
costs the database nothing.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from db import access as rows
from db.namespace import make_namespace
from db.pool import Pool
from resolvers import check
from resolvers.core import Core
from resolvers.errors import BadInput, Forbidden, NotFound, Path, Unauthenticated

FRESH = 2.0
"""Keys are read again when they were sure to stand longer ago than this, while requests go on with what is known."""
STALE = 4.0
"""Requests wait for them when it is longer ago than this …"""
_LONGEST = 60.0
"""They are read again after so long anyway: when one expires PostgreSQL's clock decides."""
_PATIENCE = 1.0
"""… for so long: while the database is away, what was read last counts."""
_UNKNOWN = 0.2
"""A secret that is not known is looked for again when none was in vain for so long."""
_PREFIX = "crew_"
MOST_CHANNELS = 1000


class Role(enum.IntEnum):
    """Each may do what those below it may."""

    VIEWER = 1
    WORKER = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    role: Role
    channels: frozenset[str] | None = None
    """Those that it may claim from and finish tasks of; None for all."""
    namespace: str | None = None
    """The only one that it may enter; None for any."""
    key: UUID | None = None

    def may_work_on(self, channels: Iterable[str], path: Path) -> None:
        """Raises Forbidden."""
        if self.channels is None:
            return
        for n, channel in enumerate(channels):
            if channel not in self.channels:
                raise Forbidden(f"the API key does not allow channel {check.shown(channel)}", (*path, n))


async def check_leases(core: Core, caller: Caller, leases: Sequence[str], path: Path, below: Path = ()) -> None:
    """Raises Forbidden for one of a channel that the caller's key does not allow. One statement, for such keys only."""
    if caller.channels is None or not leases or len(leases) > core.limits.max_batch:
        return
    places = {found[1]: n for n, lease in enumerate(leases) if (found := core.lease_ids.read(lease)) is not None}
    for no, channel in await rows.channels_of_tasks(core.pool, core.ns, list(places)):
        if channel not in caller.channels:
            message = f"the API key does not allow channel {check.shown(channel)}, which this lease is of"
            raise Forbidden(message, (*path, places[no], *below))


ANYONE = Caller(Role.ADMIN)
"""While there is no key."""


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    ends: float
    """By the monotonic clock of this process."""


class Keyring:
    """The keys as read last. `open_to_all`: while there has never been a key, whoever comes may do everything."""

    def __init__(self, pool: Pool, open_to_all: bool) -> None:
        self._pool = pool
        self._open_to_all = open_to_all
        self._by_hash: dict[bytes, _Known] = {}
        self._by_id: dict[UUID, _Known] = {}
        self._mark = "?"
        """Of what was read; empty when there has never been a key."""
        self._read_at = float("-inf")
        self._sure_at = float("-inf")
        """Nothing else had been made or revoked by then."""
        self._in_vain = float("-inf")
        """When a secret was looked for, and still not known."""
        self._reading: asyncio.Task[None] | None = None
        self._used: set[UUID] = set()

    @property
    def needed(self) -> bool:
        """Whether a caller needs a key."""
        return bool(self._mark) or not self._open_to_all

    async def caller(self, secret: str | None) -> Caller:
        """Raises Unauthenticated."""
        if time.monotonic() - self._sure_at > FRESH:
            await self._look()
        if not self.needed:
            return ANYONE
        if secret is None:
            raise Unauthenticated(self._why_needed())
        hash = hashed(secret)
        known = self._by_hash.get(hash)
        if known is None and time.monotonic() - self._in_vain > _UNKNOWN:
            await self.read()
            known = self._by_hash.get(hash)
            if known is None:
                self._in_vain = time.monotonic()
        if known is None or known.ends < time.monotonic():
            raise Unauthenticated("this API key does not count: it was revoked, has expired, or is not of this server")
        assert known.caller.key is not None
        self._used.add(known.caller.key)
        return known.caller

    def stands(self, caller: Caller) -> bool:
        """Whether one who was let in would be let in now, as far as is known; looks again in the background."""
        if time.monotonic() - self._sure_at > FRESH:
            self._begin_to_read()
        if caller.key is None:
            return not self.needed
        known = self._by_id.get(caller.key)
        return known is not None and known.ends >= time.monotonic()

    def _why_needed(self) -> str:
        if self._mark:
            return "an API key is needed: send `authorization: Bearer <key>`"
        return (
            "there is no API key yet, and this server can be reached from elsewhere: make one with `crew keys create`"
        )

    async def _look(self) -> None:
        reading = self._begin_to_read()
        if time.monotonic() - self._sure_at > STALE:
            await asyncio.wait({reading}, timeout=_PATIENCE)

    def _begin_to_read(self) -> asyncio.Task[None]:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._has_read)
        return self._reading

    def _has_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # Whoever needs the database is told of it; what was read before still counts.

    async def read(self) -> None:
        """Now; a reading that has begun before may miss what was just made. Raises what the database raises."""
        if self._reading is not None:
            await asyncio.wait({self._reading})
        await asyncio.shield(self._begin_to_read())

    async def _read(self) -> None:
        began = time.monotonic()
        # The mark first: what changes in between is read once more.
        mark = await rows.keys_mark(self._pool)
        found = await rows.api_keys(self._pool)
        known = {row.hash: _known(row, began) for row in found}
        self._by_hash, self._mark = known, mark
        self._read_at = self._sure_at = began
        self._by_id = {row.id: known[row.hash] for row in found}

    def confirm(self, mark: str, at: float) -> None:
        """The mark was this one at that time, by the monotonic clock: while it stays the same, little need be read."""
        if mark == self._mark and at - self._read_at < _LONGEST:
            self._sure_at = max(self._sure_at, at)
        else:
            self._begin_to_read()

    async def write_down_uses(self) -> None:
        used, self._used = self._used, set()
        if used:
            await rows.note_key_uses(self._pool, used)


def _known(row: rows.ApiKeyRow, now: float) -> _Known:
    channels = None if row.channels is None else frozenset(row.channels)
    ends = float("inf") if row.expires_in is None else now + row.expires_in
    return _Known(Caller(Role(row.role), channels, row.namespace, row.id), ends)


def hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


async def create_key(
    pool: Pool,
    name: str,
    role: Role,
    channels: list[str] | None = None,
    namespace: str | None = None,
    expires_at: datetime | None = None,
    path: Path = ("input",),
) -> tuple[rows.ApiKeyRow, str]:
    """The key, and its secret, which is kept nowhere. A namespace that is not there is made."""
    check.text(name, (*path, "name"), "name")
    if channels is not None:
        if not 1 <= len(channels) <= MOST_CHANNELS:
            message = f"channels names {len(channels)}; 1 to {MOST_CHANNELS} are allowed, or null for all"
            raise BadInput(message, (*path, "channels"))
        channels = sorted({check.text(c, (*path, "channels", n), "channel") for n, c in enumerate(channels)})
    check.instant(expires_at, (*path, "expiresAt"), "expiresAt")
    ns = None
    if namespace is not None:
        ns = await make_namespace(pool, check.text(namespace, (*path, "namespace"), "namespace"))
    id, secret = uuid4(), _PREFIX + secrets.token_urlsafe(32)
    await rows.make_api_key(pool, id, ns, name, hashed(secret), role, channels, expires_at)
    (made,) = [row for row in await rows.api_keys(pool) if row.id == id]
    return made, secret


def own_namespace(caller: Caller, asked: str | None, path: Path = ("input", "namespace")) -> str | None:
    """Where a key may be made by this caller: who is bound to a namespace makes keys for it alone. Raises Forbidden."""
    if caller.namespace is not None and asked not in (None, caller.namespace):
        raise Forbidden(
            f"this API key is of namespace {check.shown(caller.namespace)}: it makes keys for no other", path
        )
    return asked if caller.namespace is None else caller.namespace


async def revoke_key(pool: Pool, id: object, *, bound: str | None = None) -> UUID:
    """Of the namespace that the caller is bound to, if it is. Raises NotFound."""
    path = ("id",)
    uuid = check.uuid(id, path, "id")
    if not await rows.revoke_api_key(pool, uuid, bound):
        raise NotFound(f"no API key {uuid}: it was never made, or is revoked already", path)
    return uuid
