"""Which database errors are the weather: worth running the same transaction again."""

from __future__ import annotations

import asyncpg
from asyncpg.exceptions import InternalClientError

OUTAGE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TooManyConnectionsError,
)
"""The connection or the server is gone, or not there yet."""

CONFLICT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
"""Two transactions met; PostgreSQL undid one, or let it wait for `lock_timeout`. (DESIGN.md §3.5: every statement may be run
again.)"""


class NewerSchema(RuntimeError):
    """The database was migrated by a newer Crew than this one."""


class DatabaseUnavailable(Exception):
    """The database did not answer for as long as a call may wait for it."""
