"""A server in a network namespace of its own, reached over a link that loses, delays, reorders and doubles IP packets.

The link is two TUN devices and what is between them, as many kernels come without `tc netem`. Linux and root only.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.process import environment
from tests.support.wait import until

ROOT = Path(__file__).parents[3]
HERE, THERE = "10.213.77.1", "10.213.77.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclass
class Link:
    """Of each packet, either way."""

    lost: float = 0.03
    doubled: float = 0.01
    delay: float = 0.010
    jitter: float = 0.020
    """Added to the delay at random, so that packets overtake each other."""
    packets: int = 0
    dropped: int = 0

    def carry(self, a: int, b: int, rng: random.Random) -> None:
        loop = asyncio.get_running_loop()

        def taken(source: int, target: int) -> None:
            with contextlib.suppress(BlockingIOError, OSError):
                packet = os.read(source, 1 << 16)
                self.packets += 1
                if rng.random() < self.lost:
                    self.dropped += 1
                    return
                for _ in range(2 if rng.random() < self.doubled else 1):
                    loop.call_later(self.delay + rng.random() * self.jitter, put, target, packet)

        def put(target: int, packet: bytes) -> None:
            with contextlib.suppress(OSError):
                os.write(target, packet)

        loop.add_reader(a, taken, a, b)
        loop.add_reader(b, taken, b, a)


def open_tun(name: str, address: str) -> int:
    """A TUN device with this address of a network of four. Raises OSError where it cannot be had."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22s", name.encode(), _IFF_TUN | _IFF_NO_PI, b""))
        for command in (f"addr add {address}/30 dev {name}", f"link set {name} up", "link set lo up"):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        os.close(device)
        raise OSError(f"no TUN device: {error}") from error
    return device


def why_not() -> str | None:
    """What this machine lacks for it."""
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        return "network namespaces cannot be made here"
    try:
        os.close(open_tun("crewtry", "10.213.78.1"))
    except OSError as error:
        return str(error)
    return None


@asynccontextmanager
async def behind(link: Link, dsn: str, seed: int) -> AsyncIterator[tuple[str, int]]:
    """A server process on this database, behind the link: its /graphql, and its process id."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    here = open_tun("crewhere", HERE)
    command = ["unshare", "-n", sys.executable, "-m", "tests.support.weather.packets", str(theirs.fileno())]
    given = environment(DATABASE_URL=dsn, CREW_NO_KEYS="true", PYTHONPATH=str(ROOT))
    server = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=given, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL
    )
    there = -1
    try:
        theirs.close()
        _, (there, *_), _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
        link.carry(here, there, random.Random(seed))
        url = f"http://{THERE}:8000"
        async with httpx.AsyncClient(timeout=5, verify=False) as http:

            async def up() -> bool:
                assert server.returncode is None, "the server ended"
                with contextlib.suppress(httpx.TransportError):
                    return (await http.get(f"{url}/healthz")).status_code == 200
                return False

            await until(up, 30)
        yield f"{url}/graphql", server.pid
    finally:
        server.terminate()
        await server.wait()
        for device in (here, there):
            if device >= 0:
                asyncio.get_running_loop().remove_reader(device)
                os.close(device)
        ours.close()


def _serve(parent: socket.socket) -> None:
    """In the namespace: hand our end of the link over, and become the server."""
    device = open_tun("crewthere", THERE)
    socket.send_fds(parent, [b"t"], [device])
    parent.close()
    os.execv(sys.executable, [sys.executable, "-m", "server.cli", "serve", "--host", THERE, "--port", "8000"])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
