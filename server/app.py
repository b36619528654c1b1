"""The application: the only place that puts everything together. Its lifespan owns the pool and the loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from importlib.metadata import version
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from db.claim import Place
from db.errors import OUTAGE, DatabaseUnavailable
from db.namespace import lease_key
from db.operator import webhook_key
from db.pool import Pool
from resolvers.access import Keyring
from resolvers.cap import Admission
from resolvers.core import Core, Limits, Rhythm
from resolvers.create import Creator
from resolvers.dispatch import Dispatcher
from resolvers.event_log import EventLog
from resolvers.inbox import Inbox
from resolvers.lease import Finisher
from resolvers.operator import Operators
from resolvers.push import Push
from resolvers.schedule import Schedules
from resolvers.vault import Vault
from schema.context import Services
from schema.given import Given
from schema.root import schema
from server import graphiql
from server.access import Access, is_loopback
from server.loops import heartbeat, upkeep
from server.loops.clock import Clock
from server.loops.hints import Hints
from server.loops.inbox import take_in
from server.loops.operators import OperatorLoop
from server.loops.run import forever
from server.loops.schedules import ScheduleLoop
from server.loops.vacuum import Vacuum
from server.namespaces import DEFAULT, Namespaces
from server.operations import Operations
from server.settings import Settings
from server.transports.http import GraphQLOverHTTP
from server.transports.rest.routes import Rest
from server.transports.websocket import GraphQLOverWebsocket


def create_app(settings: Settings, dsn: str, rhythm: Rhythm | None = None) -> Starlette:
    """The ASGI application on the (migrated) database `dsn`."""
    namespaces = Namespaces()
    access = Access(settings, namespaces)
    limits = limits_of(settings)

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
            keys = Keyring(pool, open_to_all=is_loopback(settings.host) or settings.no_keys)
            await keys.read()

            @asynccontextmanager
            async def begin(name: str, ns: int) -> AsyncIterator[Services]:
                made = await make_services(pool, ns, settings, limits, rhythm or Rhythm(), keys)
                async with running_loops(made, settings, settings.database_direct_url or dsn, namespaces, name):
                    yield made

            await namespaces.open(pool, begin)
            app.state.services = namespaces.default
            app.state.drain = namespaces.drain
            yield
        finally:
            await namespaces.close()
            await pool.close()

    operations = Operations(schema._schema, limits)
    graphql = GraphQLOverHTTP(operations, access, limits.max_body_bytes)
    rest = Rest(access, max_body=limits.max_body_bytes, lease_seconds=settings.rest_lease_seconds)
    return Starlette(
        lifespan=lifespan,
        middleware=[Middleware(_Shortcut, path="/graphql", view=graphql)],
        routes=[
            *graphiql.routes(),
            Route("/graphql", endpoint=_Endpoint(graphql)),
            WebSocketRoute("/graphql", endpoint=_Endpoint(GraphQLOverWebsocket(operations, access))),
            *rest.routes(),
            Route("/healthz", endpoint=_healthz),
            Route("/", endpoint=_home),
        ],
    )


class _Shortcut:
    """Requests to one path go past the router, which takes longer to find it than a small operation runs. (Its route leads those to
    `/graphql/` here.)"""

    def __init__(self, app: ASGIApp, path: str, view: GraphQLOverHTTP) -> None:
        self._app, self._path, self._view = app, path, view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = scope["type"] == "http" and scope["path"] == self._path
        await (self._view if here else self._app)(scope, receive, send)


class _Endpoint:
    """Starlette takes an instance with __call__ for an ASGI application of all methods."""

    def __init__(self, view: GraphQLOverHTTP | GraphQLOverWebsocket) -> None:
        self._view = view

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._view(scope, receive, send)


def limits_of(settings: Settings) -> Limits:
    return Limits(**{f.name: getattr(settings, f.name) for f in fields(Limits)})


async def make_services(
    pool: Pool, ns: int, settings: Settings, limits: Limits, rhythm: Rhythm, keys: Keyring
) -> Services:
    core = Core.of(pool, ns, await lease_key(pool), limits, rhythm)
    creator, dispatcher = Creator(core), Dispatcher(core)
    finisher = Finisher(core, creator)
    push = Push(core, dispatcher, finisher)
    operators = Operators(
        core, Vault(settings.secret_keys), await webhook_key(pool), allow_private=settings.operator_private_targets
    )
    given = Given(schema)
    schedules = Schedules(core, creator, given.group)
    inbox = Inbox(core, creator, given.group, given.tasks)
    log = EventLog(core)
    return Services(core, creator, finisher, dispatcher, log, push, operators, schedules, inbox, version("crew"), keys)


@asynccontextmanager
async def running_loops(
    services: Services, settings: Settings, direct_dsn: str, namespaces: Namespaces, name: str
) -> AsyncIterator[None]:
    core, dispatcher, clock = services.core, services.dispatcher, Clock(services.core)
    log = services.log
    schedules = ScheduleLoop(core, services.schedules)
    hints = Hints(services, direct_dsn)
    operators = OperatorLoop(services, settings)
    log.told = hints.tell_tick

    admission = Admission(core)

    def wake(places: list[Place]) -> None:
        dispatcher.wake(places)
        hints.tell(places)
        admission.stir()

    def ended(leases: list[tuple[int, int]]) -> None:
        services.push.ended(leases)
        admission.stir()
        hints.tell(dispatcher.room())

    core.scheduled, core.hand_over = schedules.due, dispatcher.hand_over
    core.wake, core.due, core.stir, core.ended, core.admit = wake, clock.due, log.stir, ended, admission.admit
    # The first beat comes before any sweep: it prolongs what stood when the last server went.
    await heartbeat.once(core)
    steps = {
        "heartbeat": lambda: heartbeat.step(core),
        "clock": clock.step,
        "schedules": schedules.step,
        "inbox": lambda: take_in(services.inbox),
        "fold": lambda: upkeep.fold(services),
        "log": log.step,
        "forget log": lambda: upkeep.forget_log(core, settings.event_retention_days * 86_400),
        "retain": lambda: upkeep.retain(core, settings.group_retention_days, settings.task_retention_days),
        "push": services.push.step,
        "operators": operators.step,
        "keep deliveries": operators.keep,
        "admission": admission.step,
        "park": lambda: upkeep.park(core),
        "unpark": lambda: upkeep.unpark(core),
        "workers": lambda: upkeep.workers(services),
        "forget": lambda: upkeep.forget(core),
        "floor": dispatcher.floor,
        "announce": hints.announce,
        "hints": hints.send,
        "listen": hints.listen,
    }
    if name == DEFAULT:
        # What is the same for all namespaces.
        steps |= {
            "vacuum": Vacuum(core, direct_dsn).step,
            "namespaces": namespaces.look,
            "keys": lambda: upkeep.keys(services),
        }
    loops = [asyncio.create_task(forever(name, step), name=name) for name, step in steps.items()]
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await operators.end()
        await services.creator.gather.idle()
        await services.finisher.completions.idle()
        await services.finisher.failures.idle()
        with suppress(DatabaseUnavailable, *OUTAGE):
            async with asyncio.timeout(1):
                await hints.withdraw()


async def _healthz(_: Request) -> Response:
    return Response(orjson.dumps({"status": "ok", "healthy": True}), media_type="application/json")


async def _home(_: Request) -> Response:
    return RedirectResponse("/graphql")
