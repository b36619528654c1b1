"""Crew as one more peer of the harness: produced and worked on through the public API, with our Python SDK. And the bare queue.

Called by bench.harness with the harness's own arguments (`peer_py.py` there): enqueue, bulk, worker, latency. CREW_URL names
the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from typing import Any

import orjson
import peer_py  # type: ignore[import-not-found]  # the harness's: when handlers start, and what a job carries
import uvloop

from crew_worker import Crew
from crew_worker.group import AT_ONCE, PIECE
from crew_worker.http import Http
from crew_worker.pool import COURIERS


class CrewPeer:
    async def open(self, clients: int) -> None:
        """Each client has its own connection and its own group."""
        self._clients = [Crew() for _ in range(clients)]
        self._groups = [crew.group("bench") for crew in self._clients]
        await asyncio.gather(*(group.send() for group in self._groups))

    async def enqueue(self, t0: int, client: int) -> None:
        group = self._groups[client]
        group.task("noop", peer_py.pay(t0))
        await group.send()

    async def bulk(self, tasks: int, chunk: int = 0) -> None:
        """One group, as the others' one call."""
        group = self._clients[0].group("bench")
        for _ in range(tasks):
            group.task("noop", peer_py.pay(0))
        await group.send()

    async def worker(self, options: dict[str, Any], tag: str) -> None:
        crew = Crew(worker_id=tag, **options)

        @crew.task("noop")
        async def noop(task: Any) -> None:
            peer_py.hit(task.input["t"])

        peer_py.gate(tag)
        await crew.work()


class SharedCrewPeer(CrewPeer):
    """Clients of one program: each adds task after task to the group that all of them share."""

    async def open(self, clients: int) -> None:
        await super().open(1)

    async def enqueue(self, t0: int, client: int) -> None:
        await self._groups[0].add("noop", peer_py.pay(t0))


class BarePeer:
    """The client of bench.bare_queue: as many calls at once, and as large, as the SDK's; with what is sent and nothing else."""

    async def open(self, clients: int) -> None:
        self._clients = [_Bare() for _ in range(clients)]

    async def enqueue(self, t0: int, client: int) -> None:
        await self._clients[client].post("create", tasks=[peer_py.pay(t0)])

    async def bulk(self, tasks: int, chunk: int = 0) -> None:
        left = [min(PIECE, tasks - begin) for begin in range(0, tasks, PIECE)]

        async def send() -> None:
            while left:
                await self._clients[0].post("create", tasks=[peer_py.pay(0) for _ in range(left.pop())])

        await asyncio.gather(*(send() for _ in range(AT_ONCE)))

    async def worker(self, options: dict[str, Any], tag: str) -> None:
        peer_py.gate(tag)
        await asyncio.gather(*(self._courier(options["concurrency"] // COURIERS) for _ in range(COURIERS)))

    async def _courier(self, limit: int) -> None:
        client, lease = _Bare(), None
        while True:
            leased = await client.post("work", lease=lease, limit=limit, wait=20)
            lease = leased["lease"]
            for task in leased["inputs"]:
                peer_py.hit(task["t"])


class _Bare:
    def __init__(self) -> None:
        headers = {"content-type": "application/json"}
        self._paths = {name: Http(f"{os.environ['CREW_URL']}/{name}", headers) for name in ("create", "work")}

    async def post(self, path: str, **given: Any) -> Any:
        return orjson.loads((await self._paths[path].post(orjson.dumps(given), silence=60)).content)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("peer")
    arguments.add_argument("cmd", choices=("enqueue", "bulk", "worker", "latency"))
    for name, default in {"n": 0, "c": 1, "chunk": 0}.items():
        arguments.add_argument(f"--{name}", type=int, default=default)
    for name, seconds in {"secs": 3.0, "gap": 0.06}.items():
        arguments.add_argument(f"--{name}", type=float, default=seconds)
    arguments.add_argument("--tag", default="w")
    arguments.add_argument("--cfg", type=json.loads, default={})
    given = arguments.parse_args()
    given.cfg = json.dumps(given.cfg)
    logging.disable(logging.WARNING)
    peer_py.PEERS[given.peer] = {"bare": BarePeer, "crew_shared": SharedCrewPeer}.get(given.peer, CrewPeer)
    uvloop.run(peer_py.main(given))


if __name__ == "__main__":
    assert os.environ["CREW_URL"]
    main()
