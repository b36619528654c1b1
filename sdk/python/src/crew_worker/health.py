"""An HTTP endpoint for probes and Prometheus: GET /healthz and GET /metrics. Only where it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crew_worker.worker import Worker

REQUEST_SECONDS = 5.0


class Health:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def answer(self, path: str) -> tuple[int, str, str]:
        """Status, content type, body."""
        worker = self._worker
        if path == "/healthz":
            stopping = worker._stopping.is_set()
            told = {
                "status": "stopping" if stopping else "ok",
                "worker": worker.id,
                "transport": worker.transport,
                "running": worker.running,
                "undelivered": worker.undelivered,
            }
            return (503 if stopping else 200), "application/json", json.dumps(told)
        if path == "/metrics":
            worker.counters.set("crew_worker_running", worker.running)
            worker.counters.set("crew_worker_undelivered", worker.undelivered)
            worker.counters.set("crew_worker_repeats_total", worker._api.repeats)
            return 200, "text/plain; version=0.0.4", worker.counters.exposition()
        return 404, "text/plain", "there are /healthz and /metrics\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(REQUEST_SECONDS):
                line, *_ = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
                status, kind, body = self.answer(line.split()[1].decode("latin-1").partition("?")[0])
                head = f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {len(body.encode())}"
                writer.write(f"{head}\r\nconnection: close\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serve_health(health: Health, address: tuple[str, int] | None) -> AsyncIterator[None]:
    if address is None:
        yield
        return
    server = await asyncio.start_server(health.serve, *address)
    async with server:
        yield
