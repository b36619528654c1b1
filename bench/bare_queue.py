"""The least that a queue behind an HTTP API can do, on the server that `crew serve` is: what nothing like it is faster than.

    DATABASE_URL=… python -m bench.bare_queue PORT

`POST /create {"tasks": [input, …]}` and `POST /work {"lease": id or null, "limit": n, "wait": seconds}`, which ends what was leased
and answers the next `{"lease": id, "inputs": […]}`. Durable, with a lease row for each batch and a row for each task that is
done; but no ids, groups, channels, retries, results, events or checks. bench.harness starts it beside Crew and the peers.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import Any

import asyncpg
import orjson
import uvloop
from starlette.types import Receive, Scope, Send

from db.pool import SESSION
from resolvers.gather import Gather
from server.serve import Server, listen, uvicorn_config
from server.settings import Settings

SCHEMA = """
create table if not exists ready (no bigint generated always as identity primary key, input json not null);
create table if not exists lease (id bigint generated always as identity primary key, nos bigint[] not null);
create table if not exists done (no bigint not null);
"""
CREATE = "insert into ready (input) select unnest($1::json[])"
WORK = """
with finished as (delete from lease where id = $1 returning nos),
kept as (insert into done (no) select unnest(nos) from finished),
claimed as (
  delete from ready where ctid = any (array(
    select ctid from ready where no > $3 order by no limit $2 for update skip locked))
  returning no, input),
leased as (insert into lease (nos) select array_agg(no) from claimed having count(*) > 0 returning id)
select (select id from leased) as lease, no, input from claimed
"""


class BareQueue:
    """The ASGI application."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._created = asyncio.Event()
        self._front = 0
        """The remembered key."""
        self._creations: Gather[list[str], None] = Gather(self._flush, weigh=len)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self._pool = await asyncpg.create_pool(self._dsn, min_size=4, max_size=4, server_settings=SESSION)
            await self._pool.execute(SCHEMA)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        answer = b"{}"
        if scope["path"] == "/create":
            await self._creations.add([orjson.dumps(task).decode() for task in orjson.loads(body)["tasks"]])
        elif scope["path"] == "/work":
            answer = await self._work(**orjson.loads(body))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _flush(self, batch: list[list[str]]) -> list[None]:
        await self._pool.execute(CREATE, [task for tasks in batch for task in tasks])
        created, self._created = self._created, asyncio.Event()
        created.set()
        return [None] * len(batch)

    async def _work(self, lease: int | None, limit: int, wait: float) -> bytes:
        created = self._created
        rows: list[Any] = await self._pool.fetch(WORK, lease, limit, self._front)
        if not rows and wait:
            await created.wait()
            rows = await self._pool.fetch(WORK, None, limit, self._front)
        if not rows:
            return b'{"lease":null,"inputs":[]}'
        self._front = max(self._front, max(row["no"] for row in rows))
        return orjson.dumps({"lease": rows[0]["lease"], "inputs": [orjson.Fragment(row["input"]) for row in rows]})


def main() -> None:
    settings = Settings(port=int(sys.argv[1]))  # type: ignore[call-arg]
    listener = listen(settings)
    # As server.serve does.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

    async def serve() -> None:
        application: Any = BareQueue(os.environ["DATABASE_URL"])
        await Server(uvicorn_config(application, settings)).serve(sockets=[listener])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
