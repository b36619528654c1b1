"""The paths of the second Crew's REST protocol, and how what goes wrong is answered: `{message}` with a proper status."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from db.errors import OUTAGE, DatabaseUnavailable
from resolvers.access import Role
from resolvers.errors import CrewError, Forbidden
from schema.context import Context
from server.access import Access
from server.operations import read, written
from server.refusal import Refusal
from server.transports.http import JSON, whole_body
from server.transports.rest import changing, steering, work
from server.transports.rest.call import Call
from server.transports.rest.reading import Fields

log = structlog.get_logger("crew")

Handler = Callable[[Call], Awaitable[Any]]
PATHS: dict[str, dict[str, Handler]] = {
    "/task_groups": {"GET": steering.list_groups, "POST": steering.create_group},
    "/task_groups/count": {"GET": steering.count_groups},
    "/task_group/{id}": {"GET": steering.read_group, "PUT": changing.update_group, "DELETE": changing.delete_group},
    "/task_group/{id}/reset": {"POST": changing.reset_group},
    "/task_group/{id}/pause": {"POST": steering.pause_group},
    "/task_group/{id}/resume": {"POST": steering.resume_group},
    "/task_group/{id}/retry": {"POST": steering.retry_group},
    "/task_group/{id}/tasks": {"GET": steering.tasks_of_group, "POST": steering.create_task},
    "/task/{id}": {"GET": steering.read_task, "PUT": changing.update_task, "DELETE": changing.delete_task},
    "/task/{id}/reset": {"POST": changing.reset_task},
    "/task/{id}/pluck": {"POST": changing.pluck_task},
    "/task/{id}/pause": {"POST": steering.pause_task},
    "/task/{id}/resume": {"POST": steering.resume_task},
    "/task/{id}/retry": {"POST": steering.retry_task},
    "/task/{id}/release": {"POST": work.release},
    "/channels": {"GET": steering.channels},
    "/channel/{channel:path}/tasks": {"GET": steering.tasks_of_channel},
    "/channel/{channel:path}/acquire": {"POST": work.acquire},
}
PREFIX = "/api/v1"
_OF_WORKERS = {work.acquire, work.release, steering.create_group, steering.create_task}
"""Reading is for VIEWERs, these for WORKERs, and all else for ADMINs."""

_STATUS = {
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "CONFLICT": 409,
    "DUPLICATE_KEY": 409,
    "TOO_LARGE": 413,
    "UNAVAILABLE": 503,
}


class Rest:
    """All paths. `lease_seconds`: those workers never extend."""

    def __init__(self, access: Access, *, max_body: int, lease_seconds: float) -> None:
        self.access = access
        self._max_body = max_body
        self._lease_seconds = lease_seconds

    def routes(self) -> list[BaseRoute]:
        made: list[BaseRoute] = [Route(PREFIX + path, endpoint=_View(self, by)) for path, by in PATHS.items()]
        return [*made, Route(PREFIX + "/{rest:path}", endpoint=_View(self, {}))]

    async def answer(self, handlers: Mapping[str, Handler], request: Request) -> Response:
        try:
            return _written(200, await self._run(handlers, request))
        except Refusal as refusal:
            return _written(refusal.status, {"message": str(refusal)}, refusal.headers)
        except CrewError as error:
            return _written(_STATUS.get(error.code, 400), {"message": error.message})
        except (DatabaseUnavailable, *OUTAGE) as error:
            log.warning("database unavailable", error=str(error))
            return _written(503, {"message": "the database cannot be reached: try again"})
        except Exception:
            request_id = secrets.token_hex(8)
            log.exception("unexpected error", request_id=request_id)
            return _written(500, {"message": f"something went wrong on the server; it is logged as {request_id}"})

    async def _run(self, handlers: Mapping[str, Handler], request: Request) -> Any:
        if not handlers:
            raise Refusal(404, "NOT_FOUND", f"there is nothing at {request.url.path[:200]}")
        handler = handlers.get(request.method)
        if handler is None:
            allowed = ", ".join(handlers)
            raise Refusal(405, "METHOD_NOT_ALLOWED", f"use {allowed} on this path", {"allow": allowed})
        headers = dict(request.scope["headers"])
        self.access.check_source(headers)
        asker = await self.access.asker(request.scope, headers)
        role = Role.VIEWER if request.method == "GET" else Role.WORKER if handler in _OF_WORKERS else Role.ADMIN
        if asker.caller.role < role:
            raise Forbidden(
                f"an API key of the role {role.name} is needed for this; the one that was sent is of {asker.caller.role.name}"
            )
        body = {} if request.method == "GET" else await self._body(request)
        context = Context(asker.services, caller=asker.caller)
        call = Call(context, request.path_params, request.query_params, Fields(body), self._lease_seconds)
        try:
            return await handler(call)
        finally:
            if request.method != "GET":
                asker.services.core.stir()

    async def _body(self, request: Request) -> dict[str, Any]:
        """A JSON object, or nothing."""
        text = await whole_body(dict(request.scope["headers"]), request.receive, self._max_body)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A body of any other type is what a web page can send without asking.
        if kind != JSON and (text or kind):
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"the content type must be {JSON}", {"accept": JSON})
        given = read(text) if text.strip() else {}
        if not isinstance(given, dict):
            raise Refusal(400, "BAD_REQUEST", "the body must be a JSON object")
        return given


class _View:
    """Starlette takes an instance with __call__ for an ASGI application of all methods."""

    def __init__(self, rest: Rest, handlers: Mapping[str, Handler]) -> None:
        self._rest = rest
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        sending = self._rest.access.with_cors(headers, send)
        if scope["method"] == "OPTIONS" and (allowed := self._rest.access.preflight(headers)) is not None:
            methods = (b"access-control-allow-methods", b"GET, POST, PUT, DELETE")
            named = [methods, *((name, value) for name, value in allowed if name != methods[0])]
            await sending({"type": "http.response.start", "status": 204, "headers": named})
            await sending({"type": "http.response.body", "body": b""})
            return
        answer = await self._rest.answer(self._handlers, Request(scope, receive, send))
        await answer(scope, receive, sending)


def _written(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(written(body), status, headers, media_type=JSON)
