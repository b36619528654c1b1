"""Crew as one more peer of the harness: produced and worked on through the public API, with our Python SDK.

Called by bench.beside_peers with the harness's own arguments (`peer_py.py` there): enqueue, bulk, worker, latency. CREW_URL names
the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from typing import Any

import peer_py  # type: ignore[import-not-found]  # the harness's: when handlers start, and what a job carries
import uvloop

from crew_worker import Crew


class Peer:
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
    peer_py.PEERS[given.peer] = Peer
    uvloop.run(peer_py.main(given))


if __name__ == "__main__":
    assert os.environ["CREW_URL"]
    main()
