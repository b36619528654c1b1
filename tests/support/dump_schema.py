"""The schema as pg_dump shows it after all migrations: `python -m tests.support.dump_schema` writes sql/schema.sql."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from db.embedded import EmbeddedPostgres
from db.migrate import migrate
from tests.support.process import ROOT, open_directory

FILE = ROOT / "sql" / "schema.sql"
HEADER = "-- What all migrations make, as pg_dump shows it. Written by `make schema`; a test compares it.\n\n"
_NOISE = re.compile(r"--|SET |SELECT pg_catalog\.set_config|\\(un)?restrict")


def dump(home: Path) -> str:
    """Migrates a new embedded PostgreSQL in `home`, and dumps it. Not to be called from a running event loop."""
    server = EmbeddedPostgres(home)
    try:
        dsn = server.start()
        asyncio.run(migrate(dsn))
        return normal(server._command("pg_dump", "--schema-only", "--no-owner", "--no-privileges", "-d", dsn))
    finally:
        server.stop()


def normal(text: str) -> str:
    """Without what depends on the program that wrote it: comments, settings, versions, tokens."""
    kept = "\n".join(line for line in text.splitlines() if not _NOISE.match(line))
    return HEADER + re.sub(r"\n{3,}", "\n\n", kept).strip() + "\n"


def main() -> None:
    with open_directory("crew-dump-") as home:
        FILE.write_text(dump(home))


if __name__ == "__main__":
    main()
