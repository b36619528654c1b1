"""The application: the only place that puts everything together. Its lifespan owns the pool and the loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from db.errors import OUTAGE, DatabaseUnavailable
from db.lease import Place
from db.namespace import lease_key, namespace_number
from db.pool import Pool
from resolvers.core import Core, Limits, Rhythm
from resolvers.create import Creator
from resolvers.dispatch import Dispatcher
from resolvers.lease import Finisher
from schema.context import Context, Services
from schema.root import schema
from server import graphiql
from server.loops import heartbeat, upkeep
from server.loops.clock import Clock
from server.loops.hints import Hints
from server.loops.run import forever
from server.loops.vacuum import Vacuum
from server.settings import Settings
from server.transports.http import GraphQLOverHTTP


def create_app(settings: Settings, dsn: str, rhythm: Rhythm | None = None) -> Starlette:
    """The ASGI application on the (migrated) database `dsn`."""
    services: list[Services] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        pool = Pool(
            dsn,
            size=settings.pool_size,
            patience=settings.patience_seconds,
            through_pooler=settings.database_direct_url is not None,
        )
        await pool.open()
        try:
            made = await make_services(pool, settings, rhythm or Rhythm())
            services.append(made)
            app.state.services = made
            async with running_loops(made, settings.database_direct_url or dsn):
                yield
        finally:
            services.clear()
            await pool.close()

    view = GraphQLOverHTTP(schema._schema, lambda: Context(services[0]), settings.max_body_bytes)
    return Starlette(
        lifespan=lifespan,
        routes=[
            *graphiql.routes(),
            Route("/graphql", endpoint=_Endpoint(view)),
            Route("/healthz", endpoint=_healthz),
            Route("/", endpoint=_home),
        ],
    )


class _Endpoint:
    """Starlette takes an instance with __call__ for an ASGI application of all methods."""

    def __init__(self, view: GraphQLOverHTTP) -> None:
        self._view = view

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._view(scope, receive, send)


async def make_services(pool: Pool, settings: Settings, rhythm: Rhythm) -> Services:
    limits = Limits(
        max_batch=settings.max_batch,
        max_wait_seconds=settings.max_wait_seconds,
        max_input_bytes=settings.max_input_bytes,
        max_lease_seconds=settings.max_lease_seconds,
    )
    core = Core.of(pool, await namespace_number(pool, "default"), await lease_key(pool), limits, rhythm)
    creator = Creator(core)
    return Services(core, creator, Finisher(core, creator), Dispatcher(core), version("crew"))


@asynccontextmanager
async def running_loops(services: Services, direct_dsn: str) -> AsyncIterator[None]:
    core, dispatcher, clock = services.core, services.dispatcher, Clock(services.core)
    hints = Hints(core, dispatcher, direct_dsn, services.version)

    def wake(places: list[Place]) -> None:
        dispatcher.wake(places)
        hints.tell(places)

    core.wake, core.due = wake, clock.due
    # The first beat comes before any sweep: it prolongs what stood when the last server went.
    await heartbeat.once(core)
    steps = {
        "heartbeat": lambda: heartbeat.step(core),
        "clock": clock.step,
        "fold": lambda: upkeep.fold(core),
        "park": lambda: upkeep.park(core),
        "workers": lambda: upkeep.workers(services),
        "forget": lambda: upkeep.forget(core),
        "floor": dispatcher.floor,
        "announce": hints.announce,
        "hints": hints.send,
        "listen": hints.listen,
        "vacuum": Vacuum(core, direct_dsn).step,
    }
    loops = [asyncio.create_task(forever(name, step), name=name) for name, step in steps.items()]
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await services.creator.gather.idle()
        await services.finisher.completions.idle()
        await services.finisher.failures.idle()
        with suppress(DatabaseUnavailable, *OUTAGE):
            await asyncio.wait_for(hints.withdraw(), 1)


async def _healthz(_: Request) -> Response:
    return Response(orjson.dumps({"status": "ok"}), media_type="application/json")


async def _home(_: Request) -> Response:
    return RedirectResponse("/graphql")
