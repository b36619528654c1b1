"""What the commands say when there is no answer or a strange one; what they send; and words and tables."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest
import typer
from rich.console import Console

from server.terminal.client import Away, Client, Refused, client
from server.terminal.options import endpoint
from server.terminal.output import write_json
from server.terminal.table import Column, fitted, table
from server.terminal.text import age, length, percent, printable, short, wait
from tests.support.drawing import NOW, text
from tests.support.process import ROOT, environment
from tests.support.terminal import Terminal


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client(httpx.Client(transport=httpx.MockTransport(answer)), "http://crew/graphql")


def crew(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", *args]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, timeout=30, check=False
    )


def test_a_server_that_is_not_there_is_named_with_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = crew("groups", CREW_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"crew: UNREACHABLE: no answer from {url}/graphql \(.*Connection refused\): "
        r"start a server with `crew serve`, or name another one with --url or CREW_URL\n",
        done.stderr,
    )


async def test_a_command_as_a_process_prints_plain_text(terminal: Terminal):
    made = await terminal.crew.create({"name": "a"}, name="日本")
    done = await asyncio.to_thread(crew, "groups", "--url", terminal.url, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[:2] == [made["taskGroup"]["id"], "??"], "what it lacks is replaced"
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("response", "kind", "code"),
    [
        (httpx.Response(404, text="<html>"), Refused, "NOT_CREW"),
        (httpx.Response(200, json=[1]), Refused, "NOT_CREW"),
        (httpx.Response(302, headers={"location": "http://elsewhere/"}), Refused, "NOT_CREW"),
        (httpx.Response(502, text="<html>"), Away, "UNREACHABLE"),
        (httpx.Response(429), Away, "UNREACHABLE"),
        (
            httpx.Response(
                200, json={"errors": [{"message": "m", "extensions": {"code": "UNAVAILABLE"}}], "data": None}
            ),
            Away,
            "UNAVAILABLE",
        ),
        (
            httpx.Response(401, json={"errors": [{"message": "m", "extensions": {"code": "UNAUTHENTICATED"}}]}),
            Refused,
            "UNAUTHENTICATED",
        ),
        (httpx.Response(200, json={"errors": [{"message": "m"}]}), Refused, "INTERNAL"),
    ],
)
def test_answers_that_are_none(response: httpx.Response, kind: type[Exception], code: str):
    with pytest.raises(kind) as refused:
        answering(lambda _: response).ask("{ server { now } }")
    assert refused.value.errors[0]["code"] == code


def test_a_lost_answer_says_that_the_call_may_have_been_taken():
    def lose(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out")

    with pytest.raises(Away, match=r"no answer from http://crew/graphql \(timed out\): it may have taken the call"):
        answering(lose).ask("{ server { now } }")


def test_an_error_cannot_steer_the_terminal():
    error = {"message": "no \x1b[2J", "extensions": {"code": "BAD_INPUT", "path": ["ids", 0]}}
    with pytest.raises(Refused) as refused:
        answering(lambda _: httpx.Response(200, json={"errors": [error]})).ask("{ server { now } }")
    assert str(refused.value) == r"BAD_INPUT: no \x1b[2J (at ids.0)"


def test_the_key_is_sent_as_a_bearer_token_and_proxies_are_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with client("http://127.0.0.1:8000/graphql", "secret") as local, client("http://crew/graphql", None) as remote:
        assert local.http.headers["authorization"] == "Bearer secret"
        assert "authorization" not in remote.http.headers
        assert (local.http.trust_env, remote.http.trust_env) == (False, True)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("http://crew:8000", "http://crew:8000/graphql"),
        ("http://crew:8000/", "http://crew:8000/graphql"),
        ("https://crew.example.com/graphql", "https://crew.example.com/graphql"),
        ("https://example.com/crew/", "https://example.com/crew/graphql"),
        ("http://[::1]:8000", "http://[::1]:8000/graphql"),
    ],
)
def test_a_server_is_named_with_or_without_the_path(given: str, found: str):
    assert endpoint(given) == found


@pytest.mark.parametrize("given", ["", "crew:8000", "http://", "http://crew:port", "http://[::1", "http://a:b@crew"])
def test_what_is_no_url_is_refused(given: str):
    with pytest.raises(typer.BadParameter):
        endpoint(given)


def test_words():
    assert [length(s) for s in (0, 59.9, 60, 3599, 3600, 86_399, 86_400 * 9)] == [
        "0 s",
        "59 s",
        "1 min",
        "59 min",
        "1 h",
        "23 h",
        "9 d",
    ]
    assert (wait(0.2), wait(59.1)) == ("1 s", "1 min")
    assert age("2024-12-31T23:58:00+00:00", NOW) == "2 min ago"
    assert age("2025-01-01T00:00:01Z", NOW) == "0 s ago", "a clock that runs ahead"
    assert [percent(f) for f in (0, 0.004, 0.5, 0.999, 1)] == ["0%", "0%", "50%", "99%", "100%"]
    assert printable("a\tb\x85c\u2066\u200d") == "a b c\\u2066\u200d"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("no\n  more", "no more"),
        ("", ""),
        ({"status": 500, "message": "no"}, "no"),
        ({"error": "no"}, "no"),
        ({"message": {"text": "no"}}, '{"message": {"text": "no"}}'),
        (["ü", 1], '["ü", 1]'),
        (None, "null"),
        ("x" * 500, "x" * 199 + "…"),
    ],
)
def test_an_error_on_one_line(error: object, line: str):
    assert short(error) == line


def test_cells_are_cut_widest_first_and_never_below_their_least():
    assert fitted([10, 20, 30], [10, 5, 5], 40) == [10, 15, 15]
    assert fitted([10, 20, 30], [10, 5, 5], 60) == [10, 20, 30]
    assert fitted([10, 20, 30], [10, 5, 5], 20) == [10, 5, 5]
    assert fitted([10, 20, 30], [10, 5, 5], 19) is None


def test_columns_are_left_out_when_empty_or_when_there_is_no_room():
    columns = (Column("id"), Column("name", least=3), Column("much", spare=1), Column("more", spare=2))
    rows = [["1234", "abcdef", "xxxx", ""]]
    wide, narrow = (text(table(columns, rows, Console(width=w)), w).splitlines() for w in (30, 14))
    assert wide == ["id    name    much", "1234  abcdef  xxxx"]
    assert narrow[:2] == ["id    name", "1234  abcdef"]
    assert narrow[2].startswith("Too narrow")


def test_json_is_ascii_on_one_line(capsys: pytest.CaptureFixture[str]):
    write_json({"name": "日本\n", "n": 2**63})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.count("\n") == 1
    assert json.loads(printed) == {"name": "日本\n", "n": 2**63}
