"""A TCP line to a server that does to bytes what bad networks do. It knows nothing of HTTP: faults fall where they fall."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

FAULTS = {
    "none": "nothing",
    "cut": "each connection is reset after a random number of bytes, in mid-frame, request or response",
    "delay": "each piece of data is held up to 0.1 s",
    "stall": "for 1 s in 2 nothing passes, and nothing is closed; then it goes on",
    "black hole": "for 2 s in 4 what is sent vanishes, also from new connections; those open never speak again",
    "refuse": "for 2 s in 4 connections are reset, and new ones refused",
    "truncate": "one response in 8 breaks off at a random byte, after the server has done the work",
    "half-open": "every 3 to 6 s all open connections go dead without a word on either side, as after a sleep",
}
_SPELL = {"stall": 1.0, "black hole": 2.0, "refuse": 2.0}
_DELAY = 0.1
_CUT_BYTES = 200, 200_000
_TRUNCATED = 1 / 8
_SLEEP = 3.0, 6.0


class RoughLine:
    """`port` leads through it. `struck` are the moments (monotonic) from which a client could get through again."""

    def __init__(self, host: str, port: int, fault: str, rng: random.Random) -> None:
        self._target = host, port
        self._fault, self._rng = fault, rng
        self._open = asyncio.Event()
        self._open.set()
        self._wires: set[_Wire] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.struck: list[float] = []
        self.connections = 0

    def strike(self) -> None:
        self.struck.append(time.monotonic())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        wire = _Wire(self, asyncio.current_task(), writer)
        self._wires.add(wire)
        try:
            if self._fault == "black hole":
                await self._open.wait()
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            wire.writers.append(up_writer)
            pumps = [
                asyncio.ensure_future(self._pump(wire, reader, up_writer, down=False)),
                asyncio.ensure_future(self._pump(wire, up_reader, writer, down=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._wires.discard(wire)
            wire.abort()

    async def _pump(
        self, wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool
    ) -> None:
        """Ends when the connection is to be closed."""
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 14):
                if self._fault == "delay":
                    await asyncio.sleep(self._rng.uniform(0, _DELAY))
                if self._fault == "stall":
                    await self._open.wait()
                if wire.dead:
                    await asyncio.Event().wait()
                passed = self._passed(wire, data, down)
                writer.write(passed)
                await writer.drain()
                if len(passed) < len(data):
                    self.strike()
                    if down and self._fault == "truncate":
                        writer.close()
                        await writer.wait_closed()
                    return

    def _passed(self, wire: _Wire, data: bytes, down: bool) -> bytes:
        if self._fault == "truncate" and down and self._rng.random() < _TRUNCATED:
            return data[: self._rng.randrange(len(data))]
        if self._fault == "cut":
            left = wire.left
            wire.left -= len(data)
            return data[: max(left, 0)]
        return data

    def bytes_until_cut(self) -> int:
        low, high = _CUT_BYTES
        return int(low * (high / low) ** self._rng.random())

    async def _change(self) -> None:
        """Spells come and go."""
        while self._fault in _SPELL:
            await asyncio.sleep(_SPELL[self._fault] * self._rng.uniform(0.8, 1.2))
            await self._begin_spell()
            await asyncio.sleep(_SPELL[self._fault])
            await self._end_spell()
            self.strike()
        while self._fault == "half-open":
            await asyncio.sleep(self._rng.uniform(*_SLEEP))
            self._deaden()
            self.strike()

    async def _begin_spell(self) -> None:
        self._open.clear()
        if self._fault == "black hole":
            self._deaden()
        if self._fault == "refuse":
            assert self._server is not None
            self._server.close()
            for wire in list(self._wires):
                wire.end()

    async def _end_spell(self) -> None:
        self._open.set()
        if self._fault == "refuse":
            await self._listen()

    def _deaden(self) -> None:
        for wire in self._wires:
            wire.dead = True

    async def close(self) -> None:
        """Until no socket is left: one that is closed with the loop warns in a test that comes later."""
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(wire.gone() for wire in list(self._wires)))


class _Wire:
    """One connection through the line."""

    def __init__(self, line: RoughLine, task: asyncio.Task[None] | None, writer: asyncio.StreamWriter) -> None:
        self._task = task
        self.writers = [writer]
        self.left = line.bytes_until_cut()
        self.dead = False

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    def end(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def gone(self) -> None:
        self.end()
        assert self._task is not None
        await asyncio.wait({self._task})
        for writer in self.writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def rough_line(host: str, port: int, fault: str, rng: random.Random) -> AsyncIterator[RoughLine]:
    line = RoughLine(host, port, fault, rng)
    await line._listen()
    changing = asyncio.create_task(line._change())
    try:
        yield line
    finally:
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        await line.close()
