"""Refusals as GraphQL errors: `extensions.code` is stable, `extensions.path` leads to the bad field of the input."""

from __future__ import annotations

import re
import secrets
from typing import Any

import structlog
from graphql import GraphQLError

from db.errors import OUTAGE, DatabaseUnavailable
from resolvers.errors import CrewError

log = structlog.get_logger("crew")

_VARIABLE = re.compile(r"^Variable '\$(\w+)' has invalid value(?: at ([^:\s]+))?")
_STEP = re.compile(r"[^.\[\]]+")


def formatted(error: GraphQLError) -> dict[str, Any]:
    """An error as the response carries it: a refusal with its code and path, anything unexpected masked."""
    shape: dict[str, Any] = dict(error.formatted)
    original = error.original_error
    if original is None or isinstance(original, GraphQLError):
        return shape
    if isinstance(original, CrewError):
        shape["message"] = original.message
        shape["extensions"] = {"code": original.code, "path": list(original.path)}
    elif isinstance(original, (DatabaseUnavailable, *OUTAGE)):
        log.warning("database unavailable", error=str(original))
        shape["message"] = "the database cannot be reached: try again"
        shape["extensions"] = {"code": "UNAVAILABLE"}
    else:
        request_id = secrets.token_hex(8)
        log.error("unexpected error", request_id=request_id, exc_info=original)
        shape["message"] = f"something went wrong on the server; it is logged as {request_id}"
        shape["extensions"] = {"code": "INTERNAL", "requestId": request_id}
    return shape


def refused_request(error: GraphQLError, code: str) -> dict[str, Any]:
    """An error before execution: the document, or its variables."""
    shape: dict[str, Any] = dict(error.formatted)
    extensions: dict[str, Any] = {"code": code}
    if code == "BAD_INPUT":
        extensions["path"] = _path_of(error.message)
    shape["extensions"] = {**extensions, **(error.extensions or {})}
    return shape


def _path_of(message: str) -> list[str | int]:
    """graphql-core says where a variable is bad in the message only: `Variable '$input' has invalid value at .tasks[0].name: …`."""
    found = _VARIABLE.match(message)
    if found is None:
        return []
    steps = _STEP.findall(found.group(2) or "")
    return [found.group(1), *(int(step) if step.isdigit() else step for step in steps)]
