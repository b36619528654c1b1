"""PgBouncer in transaction mode in front of the tests' PostgreSQL, where it is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.process import free_port, open_directory, wait_for

CONNECTIONS = 4
"""To PostgreSQL, for all clients: transactions of one client meet many sessions."""


@contextlib.contextmanager
def bouncer_to(dsn: str) -> Iterator[str]:
    """A DSN that leads through it. Skips the test where there is no PgBouncer."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer here (Debian: apt install pgbouncer)")
    parts, port = urlsplit(dsn), free_port()
    database, host = parts.path.lstrip("/"), parse_qs(parts.query)["host"][0]
    with open_directory("crew-bouncer-") as home:
        config, log = home / "pgbouncer.ini", home / "pgbouncer.log"
        config.write_text(
            f"[databases]\n{database} = host={host} user={parts.username}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
            f"default_pool_size = {CONNECTIONS}\nmax_client_conn = 200\n"
        )
        command = [program, str(config)]
        if os.geteuid() == 0:
            command[1:1] = ["-u", "nobody"]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:

            def up() -> bool:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    return True
                return False

            wait_for(up, "pgbouncer starts")
            yield f"postgresql://{parts.username}@127.0.0.1:{port}/{database}?sslmode=disable"
        finally:
            process.terminate()
            process.wait()
