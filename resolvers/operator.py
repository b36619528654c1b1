"""Operators: what one may be, and what it is changed to. Deliveries are made in server/delivery/."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from db import operator as rows
from db.operator import NewOperator, OperatorChange, OperatorRow
from resolvers import check
from resolvers.core import Core
from resolvers.draft import new_id
from resolvers.errors import BadInput, Conflict, NotFound, Path
from resolvers.target import checked_url
from resolvers.vault import Vault

MAX_RUNNING, TIMEOUT = 10, 60.0
MOST_RUNNING = 1000
_SHORTEST, _LONGEST = 0.1, 3600.0
_MOST_HEADERS, _HEADER_BYTES = 50, 8192
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = {
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
}


@dataclass
class Operators:
    """Makes, changes and deletes them. `changed` is called when a delivery may have to go otherwise."""

    core: Core
    vault: Vault
    signing_key: bytes
    allow_private: bool
    changed: Callable[[], None] = field(default=lambda: None)
    draining: bool = False
    """The server stops: nothing more is delivered."""

    def drain(self) -> None:
        self.draining = True
        self.changed()

    async def create(self, given: Any) -> OperatorRow:
        """From an OperatorInput. Raises BadInput, and Conflict when its channel has one."""
        core, path = self.core, ("input",)
        channel = check.text(given.channel, (*path, "channel"), "channel")
        url = checked_url(given.url, (*path, "url"), allow_private=self.allow_private)
        headers, names = self._sealed(given.headers, (*path, "headers"))
        running, timeout = _running(given.max_running, path), _timeout(given.timeout_seconds, path)
        number = (await core.channels.numbers([channel]))[channel]
        new = NewOperator(new_id(), number, url, headers, names, bool(given.is_paused), running, timeout)
        if not await rows.create_operator(core.pool, core.ns, new):
            raise Conflict(
                f"channel {check.shown(channel)} has an operator already: update or delete that one", (*path, "channel")
            )
        self.changed()
        return await self.read(new.id)

    async def update(self, operator_id: object, given: Mapping[str, Any]) -> OperatorRow:
        """Fields that were sent, by their names here; null is what a new one has. Raises BadInput and NotFound."""
        core, path = self.core, ("input",)
        uuid = check.uuid(operator_id, (*path, "id"), "id")
        change = OperatorChange()
        if "url" in given:
            if given["url"] is None:
                raise BadInput("url is null, and every operator has one: leave it out to keep it", (*path, "url"))
            change.url = checked_url(given["url"], (*path, "url"), allow_private=self.allow_private)
        if "headers" in given:
            change.headers = self._sealed(given["headers"], (*path, "headers"))
        if "is_paused" in given:
            change.is_paused = bool(given["is_paused"])
        if "max_running" in given:
            change.max_running = _running(given["max_running"], path)
        if "timeout_seconds" in given:
            change.timeout = _timeout(given["timeout_seconds"], path)
        if not await rows.update_operator(core.pool, core.ns, uuid, change):
            raise _no_operator(uuid, (*path, "id"))
        self.changed()
        return await self.read(uuid)

    async def delete(self, operator_id: object) -> UUID:
        """What it delivers just now may end. Raises NotFound."""
        uuid = check.uuid(operator_id, ("id",), "id")
        if not await rows.delete_operator(self.core.pool, self.core.ns, uuid):
            raise _no_operator(uuid, ("id",))
        self.changed()
        return uuid

    async def read(self, uuid: UUID) -> OperatorRow:
        found = await rows.read_operators(self.core.pool, self.core.ns, ids=[uuid])
        if not found:
            raise NotFound(f"operator {uuid} was deleted meanwhile", ("input", "id"))
        return found[0]

    def headers(self, row: OperatorRow) -> list[tuple[str, str]]:
        """To be sent, and never shown. Raises Sealed."""
        if row.headers is None:
            return []
        return list(json.loads(self.vault.open(row.headers)).items())

    def signing_secret(self, uuid: UUID) -> bytes:
        """Made anew from the key of the database whenever it is needed: no row holds it."""
        return hmac.digest(self.signing_key, b"operator " + uuid.bytes, hashlib.sha256)

    def shown_secret(self, uuid: UUID) -> str:
        """As receivers take it (Standard Webhooks)."""
        return "whsec_" + base64.b64encode(self.signing_secret(uuid)).decode()

    def _sealed(self, given: object, path: Path) -> tuple[bytes | None, list[str]]:
        headers = _headers(given, path)
        if not headers:
            return None, []
        return self.vault.seal(json.dumps(headers), path, "headers"), list(headers)


def _headers(given: object, path: Path) -> dict[str, str]:
    """Checked. What a message says of a value never quotes it."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise BadInput("headers must be an object of names and values, all strings", path)
    if len(given) > _MOST_HEADERS:
        raise BadInput(f"headers has {len(given)} names; at most {_MOST_HEADERS} are allowed", path)
    seen: set[str] = set()
    for name, value in given.items():
        here = (*path, str(name))
        if not _NAME.fullmatch(name):
            raise BadInput(f"{check.shown(name)} is no name of a header: letters, digits and hyphens, 1 to 100", here)
        if name.lower() in _OURS:
            raise BadInput(f"the header {name} is set by the server: leave it out", here)
        if name.lower() in seen:
            raise BadInput(f"the header {name} is given twice", here)
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise BadInput(f"the value of the header {name} must be a string of printable ASCII characters", here)
        seen.add(name.lower())
    if sum(len(name) + len(value) for name, value in given.items()) > _HEADER_BYTES:
        raise BadInput(f"headers are larger than the {_HEADER_BYTES} bytes that are allowed", path)
    return dict(given)


def _running(given: int | None, path: Path) -> int:
    value = MAX_RUNNING if given is None else given
    return check.whole(value, (*path, "maxRunning"), "maxRunning", 1, MOST_RUNNING)


def _timeout(given: float | None, path: Path) -> float:
    value = TIMEOUT if given is None else given
    return check.number(value, (*path, "timeoutSeconds"), "timeoutSeconds", _SHORTEST, _LONGEST)


def _no_operator(uuid: UUID, path: Path) -> NotFound:
    return NotFound(f"no operator {uuid}: it never was, or is deleted", path)
