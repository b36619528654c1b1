"""`crew keys`: the API keys of a database, on the machine that can reach it: DATABASE_URL, or the embedded one in CREW_DATA_DIR.

It needs no key and no running server, so that the first key can be made, and one be made when all are lost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.text import Text

from server.settings import Settings
from server.terminal.output import console, show, write_json
from server.terminal.table import Column, table
from server.terminal.text import printable

if TYPE_CHECKING:
    from db.access import ApiKeyRow
    from db.pool import Pool

app = typer.Typer(no_args_is_help=True, help="API keys, straight in the database: no server and no key is needed.")

Done = TypeVar("Done")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document for programs, errors too.")]
_COLUMNS = [
    Column("ID"),
    Column("NAME", least=8),
    Column("ROLE"),
    Column("CHANNELS", least=8, spare=2),
    Column("NAMESPACE", least=8, spare=3),
    Column("EXPIRES", spare=1),
    Column("LAST USED", spare=4),
]


class RoleName(StrEnum):
    VIEWER = "VIEWER"
    WORKER = "WORKER"
    ADMIN = "ADMIN"


_ROLES = list(RoleName)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    role: Annotated[
        RoleName,
        typer.Option("--role", metavar="ROLE", case_sensitive=False, help=f"{', '.join(RoleName)}."),
    ],
    channels: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="NAME", help="For a WORKER: this channel alone; again for more."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", metavar="NAME", help="This namespace alone; made if it is not there.")
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", metavar="N", min=0, max=36_500, help="It stops to count after so long.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print its secret: the only time that it is shown."""
    from resolvers.access import Role, create_key

    until = None if days is None else datetime.now(UTC) + timedelta(days=days)
    row, secret = _run(
        lambda pool: create_key(pool, name, Role[role], channels or None, namespace, until, path=()), as_json
    )
    if as_json:
        write_json({"apiKey": _shown(row), "secret": secret})
        return
    typer.echo(f"made {row.id}; its secret, which is shown this once:", err=True)
    typer.echo(secret)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """The keys that are not revoked, oldest first."""
    from db.access import api_keys

    rows = _run(api_keys, as_json)
    if as_json:
        write_json({"apiKeys": [_shown(row) for row in rows]})
    elif rows:
        show(table(_COLUMNS, [_cells(row) for row in rows], console()))
    else:
        typer.echo("no keys", err=True)


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `crew keys list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key: servers refuse it within seconds. From the first key on, nobody gets in without one."""
    from resolvers.access import revoke_key

    _run(lambda pool: revoke_key(pool, id), as_json)
    if as_json:
        write_json({"id": id})
    else:
        typer.echo(f"revoked {id}")


def _run(work: Callable[[Pool], Awaitable[Done]], as_json: bool) -> Done:
    """`work` on the migrated database; what it refuses is told, and ends the command with status 1."""
    # What the commands for a running server need not load.
    from db.errors import DatabaseUnavailable
    from db.migrate import migrate
    from db.pool import Pool
    from resolvers.errors import CrewError
    from server.serve import database

    async def on(dsn: str, settings: Settings) -> Done:
        await migrate(settings.database_direct_url or dsn)
        pool = Pool(dsn, size=2, through_pooler=settings.database_direct_url is not None)
        await pool.open()
        try:
            return await work(pool)
        finally:
            await pool.close()

    try:
        settings = Settings()  # type: ignore[call-arg]
        with database(settings) as (dsn, _):
            return asyncio.run(on(dsn, settings))
    except CrewError as error:
        _fail({"code": error.code, "message": error.message, "path": list(error.path)}, as_json)
    except (OSError, RuntimeError, ValueError, DatabaseUnavailable) as error:
        _fail({"code": "UNAVAILABLE", "message": str(error), "path": []}, as_json)
    raise AssertionError("unreachable")


def _fail(error: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"errors": [error]}))
    else:
        typer.echo(f"crew: {printable(error['message'])}", err=True)
    raise typer.Exit(1)


def _shown(row: ApiKeyRow) -> dict[str, Any]:
    """As the API has it."""
    return {
        "id": str(row.id),
        "name": row.name,
        "role": _ROLES[row.role - 1],
        "channels": row.channels,
        "namespace": row.namespace,
        "createdAt": row.created_at.isoformat(),
        "expiresAt": row.expires_at.isoformat() if row.expires_at else None,
        "lastUsedAt": row.last_used_at.isoformat() if row.last_used_at else None,
    }


def _cells(row: ApiKeyRow) -> list[Text]:
    times = [f"{t:%Y-%m-%d %H:%M}" if t else "" for t in (row.expires_at, row.last_used_at)]
    channels = ", ".join(row.channels or ())
    return [
        Text(printable(cell))
        for cell in (str(row.id), row.name, _ROLES[row.role - 1], channels, row.namespace or "", *times)
    ]
