"""What a Starlette endpoint can do at best on the server that `crew serve` is: its loop, parser, socket and settings.

    python -m bench.bare PORT FILE

`POST /json` reads JSON and answers a small object; `POST /bytes` reads JSON and sends what is in FILE. bench.http starts it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.serve import Server, listen, uvicorn_config
from server.settings import Settings


def application(body: bytes) -> Starlette:
    async def json(request: Request) -> Response:
        await request.json()
        return JSONResponse({"data": {"__typename": "Query"}})

    async def same_bytes(request: Request) -> Response:
        await request.json()
        return Response(body, media_type="application/json")

    return Starlette(
        routes=[Route("/json", json, methods=["POST"]), Route("/bytes", same_bytes, methods=["POST"])],
    )


def main() -> None:
    settings = Settings(port=int(sys.argv[1]))  # type: ignore[call-arg]
    listener = listen(settings)
    # As server.serve does.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    server = Server(uvicorn_config(application(Path(sys.argv[2]).read_bytes()), settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
