"""crew_worker.http against servers and proxies as they are met: what is whole, what is half, what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crew_worker.errors import CrewError
from crew_worker.http import Http, HttpError


@dataclass
class Tls:
    server: ssl.SSLContext
    authority: str
    """The file of the certificate that vouches for the server."""


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    """A certificate for localhost.crew.example that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost.crew.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost.crew.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, both = tmp_path / "authority.pem", tmp_path / "both.pem"
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(secret + authority.read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    return Tls(context, str(authority))


Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PLAIN = b"HTTP/1.1 200 OK\r\nX-A: 1\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next of `answers`; keeps what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.heads, self.bodies, self.connections = list(answers), [], [], 0
        self.host, self.port = "127.0.0.1", 0

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.answers:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0] or 0)
                self.bodies.append(await reader.readexactly(length))
                writer.write(self.answers.pop(0))
                await writer.drain()
        writer.close()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/graphql"


@contextlib.asynccontextmanager
async def listening(speak: Speak, server: Any = None) -> AsyncIterator[int]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        finally:
            writer.close()

    made = await asyncio.start_server(closing, "127.0.0.1", 0)
    async with made:
        port: int = made.sockets[0].getsockname()[1]
        if server:
            server.port = port
        yield port


@contextlib.asynccontextmanager
async def client(server: Server, **more: Any) -> AsyncIterator[Http]:
    async with listening(server.speak, server):
        http = Http(server.url, {"accept": "a/b"}, **{"trust_env": False, **more})
        yield http
        await http.close()


async def test_a_connection_is_kept_for_the_next_request() -> None:
    server = Server(PLAIN, PLAIN)
    async with client(server) as http:
        one, two = await http.post(b"1", silence=5), await http.post(b"22", silence=5)
    assert (one.status, one.content, one.headers) == (200, b"ok", {"x-a": "1", "content-length": "2"})
    assert two == one
    assert (server.connections, server.bodies) == (1, [b"1", b"22"])
    assert server.heads[0].startswith(f"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\naccept: a/b\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
    ids=["told to close", "no length"],
)
async def test_a_connection_that_ends_with_its_answer_is_not_kept(answer: bytes) -> None:
    server = Server(answer)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.answers = [answer]
        await server.speak(reader, writer)

    async with listening(speak, server):
        http = Http(server.url, {}, trust_env=False)
        assert [(await http.post(b"", silence=5)).content for _ in range(2)] == [b"ok", b"ok"]
    assert server.connections == 2


async def test_a_body_in_chunks_and_interim_answers() -> None:
    chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n3\r\n...\r\n0\r\n\r\n"
    server = Server(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + chunks, PLAIN)
    async with client(server) as http:
        one = await http.post(b"", silence=5)
        assert (one.status, one.content, one.headers) == (200, b"ok...", {"transfer-encoding": "chunked"})
        assert (await http.post(b"", silence=5)).content == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nha", "closed"),
        (b"", "closed"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "not HTTP|closed"),
    ],
    ids=["half", "none", "another protocol", "an upgrade"],
)
async def test_what_is_no_whole_answer_is_an_error(answer: bytes, told: str) -> None:
    server = Server(answer)
    async with client(server) as http:
        with pytest.raises(HttpError, match=told):
            await http.post(b"", silence=5)


async def test_silence_is_an_error_and_bytes_now_and_then_are_none() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"o", b"k", b"!"):
            writer.write(byte)
            await asyncio.sleep(0.15)
        await reader.read()

    async with listening(slow) as port:
        http = Http(f"http://127.0.0.1:{port}", {}, trust_env=False)
        began = asyncio.get_running_loop().time()
        with pytest.raises(HttpError, match=r"nothing was heard for 0.3 s"):
            await http.post(b"", silence=0.3)
        assert 0.7 < asyncio.get_running_loop().time() - began < 1.5


async def test_a_body_that_goes_out_slowly_is_no_silence() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = 20_000_000
        await reader.readuntil(b"\r\n\r\n")
        while left > 0:
            left -= len(await reader.read(1 << 20))
            await asyncio.sleep(0.01)
        writer.write(PLAIN)
        await writer.drain()

    async with listening(slow) as port:
        http = Http(f"http://127.0.0.1:{port}", {}, trust_env=False)
        assert (await http.post(bytes(20_000_000), silence=0.8)).content == b"ok"


async def test_a_request_that_is_given_up_takes_its_connection_along() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()

    async with listening(silent) as port:
        http = Http(f"http://127.0.0.1:{port}", {}, trust_env=False)
        call = asyncio.create_task(http.post(b"", silence=60))
        await asyncio.wait_for(asked.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.wait(), 5)


async def test_nobody_there_is_an_error_at_once() -> None:
    async with listening(Server().speak) as port:
        pass
    with pytest.raises(HttpError, match="no connection"):
        await Http(f"http://127.0.0.1:{port}", {}, trust_env=False).post(b"", silence=5)


async def test_a_stream_is_told_as_it_comes() -> None:
    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await go_on.wait()
        writer.write(b"1\r\nc\r\n0\r\n\r\n")
        await writer.drain()

    go_on = asyncio.Event()
    async with listening(stream) as port:
        http = Http(f"http://127.0.0.1:{port}", {}, trust_env=False)
        async with http.stream(b"", {}, opening=5, silence=5) as (head, parts):
            assert head.status == 200
            assert await anext(parts) == b"ab"
            go_on.set()
            assert [part async for part in parts] == [b"c"]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x/", "http://", "/graphql"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(CrewError, match="not the URL of a server"):
        Http(url, {})


@pytest.mark.parametrize("value", ["a\r\nb: c", "schlüssel", "\0"])
def test_a_header_that_cannot_be_carried_is_refused(value: str) -> None:
    with pytest.raises(CrewError, match="authorization holds characters"):
        Http("http://127.0.0.1", {"authorization": value})


@pytest.mark.parametrize("named", ["http_proxy", "all_proxy"])
async def test_plain_requests_go_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    proxy = Server(PLAIN)
    async with listening(proxy.speak, proxy):
        monkeypatch.setenv(named, f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        http = Http("http://crew.example:81/graphql", {})
        assert (await http.post(b"x", silence=5)).content == b"ok"
        await http.close()
    assert proxy.heads[0].startswith("POST http://crew.example:81/graphql HTTP/1.1\r\nhost: crew.example:81\r\n")
    assert "proxy-authorization: Basic bWU6cEBzcw==\r\n" in proxy.heads[0]
    monkeypatch.setenv("no_proxy", "crew.example")
    with pytest.raises(HttpError, match="no connection"):
        await Http("http://crew.example:81/graphql", {}, opening=5).post(b"x", silence=5)


def test_a_proxy_of_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(CrewError, match="speaks socks5"):
        Http("http://crew.example/graphql", {})


async def test_secure_requests_go_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, tls: Tls) -> None:
    """Through CONNECT, then TLS with the server behind, whose certificate is checked."""
    server = Server(PLAIN)
    made = await asyncio.start_server(server.speak, "127.0.0.1", 0, ssl=tls.server)
    behind = made.sockets[0].getsockname()[1]
    asked: list[str] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if "refuse" in asked[-1]:
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there, back = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

    async with made, listening(tunnel) as port:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", tls.authority)
        http = Http("https://localhost.crew.example:444/graphql", {})
        assert (await http.post(b"x", silence=5)).content == b"ok"
        await http.close()
        assert asked[0].startswith("CONNECT localhost.crew.example:444 HTTP/1.1\r\n")
        with pytest.raises(HttpError, match="certificate"):
            await Http("https://other.example/graphql", {}).post(b"x", silence=5)
        with pytest.raises(HttpError, match="403"):
            await Http("https://refuse.example/graphql", {}).post(b"x", silence=5)
