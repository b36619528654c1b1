"""Hints between servers: where tasks became ready, told by NOTIFY. A hint may be lost; the floor poll finds what it told of."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from uuid import uuid4

from db.claim import Place
from db.server import announce, hint, listen, withdraw
from schema.context import Services
from server.loops.run import pause

_GAP = 0.005
"""Hints of one server are so far apart, at least: the first goes out at once, what comes meanwhile goes together."""
_LONGEST = 7900
"""NOTIFY takes less than 8000 bytes."""
_SILENCE = 10.0


class Hints:
    """What this server has to tell the others, and what it hears of them."""

    def __init__(self, services: Services, dsn: str) -> None:
        core = services.core
        self._core = core
        self._dispatcher = services.dispatcher
        self._log = services.log
        self._dsn = dsn
        self._version = services.version
        self._keys = services.keys
        self._id = uuid4()
        self._channel = f"crew_{core.ns}"
        self._told: dict[int, tuple[int, int]] = {}
        """Channel → the first place in it."""
        self._ticked = False
        self._set = asyncio.Event()

    def tell(self, places: list[Place]) -> None:
        """Other servers, if there are any, shall look at these places."""
        if not self._core.others:
            return
        for channel, rank, no in places:
            self._told[channel] = min((rank, no), self._told.get(channel, (rank, no)))
        if self._told:
            self._set.set()

    def tell_tick(self) -> None:
        """Other servers shall read on in the event log."""
        self._ticked = True
        self._set.set()

    async def send(self) -> None:
        await self._set.wait()
        self._set.clear()
        places, self._told = [(channel, *place) for channel, place in self._told.items()], {}
        ticked, self._ticked = self._ticked, False
        payload = json.dumps([self._id.hex, places, ticked], separators=(",", ":"))
        if len(payload) > _LONGEST:
            payload = json.dumps([self._id.hex, None, ticked])
        await hint(self._core.pool, self._channel, payload)
        await asyncio.sleep(_GAP)

    def _heard(self, payload: str) -> None:
        sender, places, ticked = json.loads(payload)
        if sender == self._id.hex:
            return
        if ticked:
            self._log.heard()
        if places is None:
            self._dispatcher.sweep()
        elif places:
            self._dispatcher.wake([tuple(place) for place in places])

    async def listen(self) -> None:
        """Until the connection is lost. What was told meanwhile nobody heard, so all who wait look once it stands."""
        await listen(self._dsn, self._channel, self._heard, self._sweep, self._core.rhythm.listen_ping)

    def _sweep(self) -> None:
        self._dispatcher.sweep()
        self._log.heard()

    async def announce(self) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        core = self._core
        began = time.monotonic()
        others = await announce(core.pool, core.ns, self._id, name, self._version, _SILENCE, self._log.reads)
        core.others, self._log.others_read = others.count > 0, others.read
        self._keys.confirm(others.keys, began)
        await pause(core.rhythm.beat)

    async def withdraw(self) -> None:
        await withdraw(self._core.pool, self._core.ns, self._id)
