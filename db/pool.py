"""The pool: few connections, time-outs on each, no session state; and transactions that survive the weather."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import asyncpg

from db.errors import CONFLICT, OUTAGE, DatabaseUnavailable

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection
Result = TypeVar("Result")

SESSION = {
    "application_name": "crew",
    "timezone": "UTC",
    "statement_timeout": "30000",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "15000",
    "jit": "off",
    # Planning a claim anew each time doubles its cost (0.95 ms against 1.74 with the default), and the planner cannot know
    # that its parameters make no difference.
    "plan_cache_mode": "force_generic_plan",
}

LOCAL = "; ".join(f"set local {name} = '{value}'" for name, value in SESSION.items())
"""The same for one transaction: through a pooler in transaction mode the next one has another session."""

REPLAN = "discard plans"
REPLAN_SECONDS, REPLAN_IDLE_SECONDS, BUSY = 1.0, 10.0, 0.1
"""A connection's plans are made anew after so long if it was busy for a tenth of that, else after ten times as long. PostgreSQL
keeps them until the next ANALYZE: those made while the tables were empty read whole tables when a burst comes (seconds instead of
milliseconds, tests/db/test_plans.py). Where little goes on, a plan takes as long as what it is for."""

_AT_HAND = 4
"""So many connections are kept at hand between uses: the way out of asyncpg's own pool and back takes a third of a statement's time
in Python."""


async def _keep(_: Any) -> None:
    """No reset between uses (about 0.1 ms each): the pool owns its connections and keeps no session state."""


@dataclass(slots=True)
class _Plans:
    """Of one connection: since when, and for how long it has been busy with them."""

    since: float
    busy: float = 0.0


class Pool:
    """A bounded pool on `dsn`. Statements of one call go through `run`, which repeats them while the weather is bad.

    `through_pooler`: `dsn` leads to PgBouncer or its like in transaction mode, so nothing outlives a transaction: each call is
    one, with its own settings, and no statement is prepared for later.
    """

    def __init__(self, dsn: str, *, size: int = 16, patience: float = 20.0, through_pooler: bool = False) -> None:
        self.dsn = dsn
        self.size = size
        self.patience = patience
        self._through_pooler = through_pooler
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._plans: WeakKeyDictionary[Any, _Plans] = WeakKeyDictionary()
        self._at_hand: list[Any] = []
        self._asking = 0
        """How many wait for a connection that is not at hand."""

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(
            self.dsn,
            min_size=1,
            max_size=self.size,
            max_inactive_connection_lifetime=600,
            command_timeout=40,
            timeout=10,
            reset=_keep,
            **({"statement_cache_size": 0} if self._through_pooler else {"server_settings": SESSION}),
        )

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                while self._at_hand:
                    await pool.release(self._at_hand.pop())
                await asyncio.wait_for(pool.close(), 5)
            except (TimeoutError, *OUTAGE):
                pool.terminate()

    async def run(
        self,
        work: Callable[[Connection], Awaitable[Result]],
        *,
        transaction: bool = False,
        planned: bool = False,
    ) -> Result:
        """`work(connection)`, in one transaction if asked; for `patience` again after an outage, a deadlock, a lock not got.

        `planned`: in that transaction each statement is planned for its arguments.

        `work` must be safe to repeat: a commit whose acknowledgement was lost has happened all the same.
        Raises DatabaseUnavailable when that outlasts the patience.
        """
        give_up = time.monotonic() + self.patience
        pause = 0.01
        while True:
            try:
                return await self._once(work, transaction, planned)
            except CONFLICT as error:
                if time.monotonic() > give_up:
                    raise DatabaseUnavailable(
                        f"other transactions have been in the way for {self.patience:g} s: {error}"
                    ) from error
            except OUTAGE as error:
                if time.monotonic() > give_up:
                    raise DatabaseUnavailable(
                        f"the database has not answered for {self.patience:g} s: {error}"
                    ) from error
                pause = max(pause, 0.05)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 1.0)

    async def _once(self, work: Callable[[Connection], Awaitable[Result]], transaction: bool, planned: bool) -> Result:
        if self._pool is None:
            raise DatabaseUnavailable("the server is stopping")
        pool, is_well = self._pool, False
        connection = await self._take(pool)
        try:
            result = await self._work(connection, work, transaction, planned)
            is_well = True
            return result
        finally:
            if is_well and pool is self._pool and not self._asking and len(self._at_hand) < _AT_HAND:
                self._at_hand.append(connection)
            else:
                await pool.release(connection)

    async def _take(self, pool: asyncpg.Pool[asyncpg.Record]) -> Any:
        """A connection: the one used last, if that still stands."""
        while self._at_hand:
            connection = self._at_hand.pop()
            # asyncpg takes one that was lost back by itself.
            if connection._con is not None and not connection.is_closed():
                return connection
            await pool.release(connection)
        self._asking += 1
        try:
            return await pool.acquire(timeout=10)
        finally:
            self._asking -= 1

    async def _work(
        self,
        connection: Connection,
        work: Callable[[Connection], Awaitable[Result]],
        transaction: bool,
        planned: bool,
    ) -> Result:
        plans, began = await self._fresh_plans(connection), time.monotonic()
        try:
            if not (transaction or self._through_pooler):
                return await work(connection)
            async with connection.transaction():
                if self._through_pooler:
                    await connection.execute(LOCAL)
                if planned:
                    await connection.execute("set local plan_cache_mode = force_custom_plan")
                return await work(connection)
        finally:
            plans.busy += time.monotonic() - began

    async def _fresh_plans(self, connection: Any) -> _Plans:
        now, raw = time.monotonic(), connection._con
        plans = self._plans.get(raw)
        if plans is None:
            plans = self._plans[raw] = _Plans(now)
        elif now - plans.since < REPLAN_SECONDS or self._through_pooler:
            return plans
        elif now - plans.since >= REPLAN_IDLE_SECONDS or plans.busy >= BUSY * (now - plans.since):
            plans.since, plans.busy = now, 0.0
            await connection.execute(REPLAN)
        return plans

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of one statement."""
        return await self.run(lambda connection: connection.fetch(sql, *args))

    async def fetch_planned(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """As `fetch`, planned for these arguments: for lists with filters, of which most are null."""
        return await self.run(lambda connection: connection.fetch(sql, *args), transaction=True, planned=True)
