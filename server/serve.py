"""The database (its own or a given one), migrations, one server process or several, and a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterator

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette

from db.access import keys_mark
from db.embedded import EmbeddedPostgres
from db.migrate import migrate
from db.pool import Pool
from server.access import is_loopback
from server.app import create_app
from server.impatient import ImpatientHTTP, ImpatientWebsocket
from server.settings import Settings
from server.workers import Workers

log = structlog.get_logger("crew")
_LOOK_AFTER_SECONDS = 0.25


class Server(uvicorn.Server):
    """uvicorn, but a signal asks waiting long polls to answer, and the process then ends with status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        app = self.config.loaded_app
        while not hasattr(app, "state"):
            app = app.app
        drain = getattr(app.state, "drain", None)
        if drain is not None:
            drain()


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    """The DSN to use: DATABASE_URL, or an embedded PostgreSQL that is stopped at the end."""
    if settings.database_url:
        yield settings.database_url, None
        return
    embedded = EmbeddedPostgres(settings.data_dir.resolve())
    dsn = embedded.start()
    try:
        yield dsn, embedded
    finally:
        embedded.stop()


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT: stop accepting, finish requests, leave leases as they are."""
    with contextlib.closing(listen(settings)) as listener, database(settings) as (dsn, embedded):
        for name in asyncio.run(migrate(settings.database_direct_url or dsn)):
            log.info("migrated", migration=name)
        access = asyncio.run(_access(settings, dsn))
        host, port = listener.getsockname()[:2]
        log.info(
            "serving",
            url=f"http://{host}:{port}/graphql",
            database="embedded" if embedded else "DATABASE_URL",
            workers=settings.workers,
            access=access,
        )
        if settings.workers > 1:
            Workers(settings, dsn, listener).run(functools.partial(_ensure, embedded))
        else:
            _run(_serve(settings, dsn, listener, _look_after(embedded) if embedded else None))
        log.info("stopped")


async def _access(settings: Settings, dsn: str) -> str:
    """Who may call. Raises RuntimeError where anyone who reaches the port could do everything, and nobody wants it on purpose."""
    pool = Pool(dsn, size=2, through_pooler=settings.database_direct_url is not None)
    await pool.open()
    try:
        if await keys_mark(pool):
            return "by API key"
    finally:
        await pool.close()
    if is_loopback(settings.host):
        return "open, on loopback alone: there is no API key yet"
    if settings.no_keys:
        return "open to whoever reaches it: CREW_NO_KEYS"
    raise RuntimeError(
        f"there is no API key, and on {settings.host} others could reach this server: make one first with "
        "`crew keys create admin --role admin`, or say that none is wanted with CREW_NO_KEYS=true"
    )


def serve_worker(settings: Settings, descriptor: int, parent: int) -> None:
    """One of several processes: accepts from the parent's socket, and stops when the parent is gone."""
    assert settings.database_url is not None, "given by the parent"
    with socket.socket(fileno=descriptor) as listener:
        _run(_serve(settings, settings.database_url, listener, _stop_without(parent)))


def listen(settings: Settings) -> socket.socket:
    """Bound before the database is touched, so that a taken port is told at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # An answer leaves in two writes; without this the second waits for the client's delayed ACK (40 ms).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that is gone without a word is noticed within half a minute, also where nothing is sent. Connections inherit these.
    for option, value in (
        ("SO_KEEPALIVE", 1),
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 15_000),
    ):
        if hasattr(socket, option):
            level = socket.SOL_SOCKET if option.startswith("SO_") else socket.IPPROTO_TCP
            listener.setsockopt(level, getattr(socket, option), value)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise RuntimeError(f"cannot serve on {settings.host}:{settings.port}: {error}") from error
    return listener


def _run(serving: Coroutine[None, None, None]) -> None:
    """On uvloop: uvicorn's own setting for it counts in `Server.run` alone."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


async def _serve(
    settings: Settings, dsn: str, listener: socket.socket, watch: Coroutine[None, None, None] | None
) -> None:
    # What is loaded by now lives as long as the process; batches of thousands of rows should not set off collections.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    watching = asyncio.create_task(watch) if watch else None
    try:
        await Server(uvicorn_config(create_app(settings, dsn), settings)).serve(sockets=[listener])
    finally:
        if watching is not None:
            watching.cancel()


def uvicorn_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=ImpatientHTTP,
        ws=ImpatientWebsocket,
        ws_max_size=settings.max_body_bytes,
        # The protocol has pings of its own (server/transports/websocket.py): one kind is enough for a thousand idle sockets.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
        server_header=False,
        date_header=False,
    )


async def _stop_without(parent: int) -> None:
    """A worker without its parent would keep the port, and nobody would start it again."""
    while os.getppid() == parent:
        await asyncio.sleep(_LOOK_AFTER_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


async def _look_after(embedded: EmbeddedPostgres) -> None:
    """In this thread: the end of the embedded PostgreSQL is tied to the thread that starts it."""
    while True:
        await asyncio.sleep(_LOOK_AFTER_SECONDS)
        _ensure(embedded)


def _ensure(embedded: EmbeddedPostgres | None) -> None:
    """Starts the embedded PostgreSQL again when it has died."""
    try:
        if embedded is not None and embedded.ensure():
            log.warning("the embedded PostgreSQL had died and was started again")
    except Exception:
        log.exception("the embedded PostgreSQL cannot be started; trying again")
        time.sleep(1)
