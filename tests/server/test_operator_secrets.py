"""What operators are given that nobody may see again; and that nothing is delivered where it may not be."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.test_operators import CREATE, UPDATE, create, ended, failed, one_task, update
from tests.support.crew import Crew, Refused, crew_on
from tests.support.stub import reply, stub
from tests.support.wait import until

SECRET = "s3cr3t-of-the-operator"
NOBODY = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
OLD, NEW = "the first secret key", "the second secret key"


async def everything(crew: Crew) -> str:
    """All that the database holds of operators, errors and workers."""
    rows = [await crew.sql(f"select * from {table}") for table in ("operator", "error", "worker", "delivery")]
    return repr([list(row.values()) for some in rows for row in some])


async def test_headers_are_never_read_back_never_logged_and_not_in_clear_in_the_database(dsn: str):
    async with stub() as operator, crew_on(dsn, operator_private_targets=True, secret_key=OLD) as crew:

        async def echo(got: Any) -> bytes:
            return reply(500, f"no access for {got.headers['authorization']}".encode(), "text/plain")

        operator.replies.append(echo)
        operator.replies.append(reply(302, b"", "", location=f"http://127.0.0.1/?token={SECRET}"))
        with capture_logs() as logs:
            made = await create(crew, operator, headers={"Authorization": f"Bearer {SECRET}", "X-Key": SECRET})
            error = await failed(crew, await one_task(crew))
            assert error.endswith("answered 500 Internal Server Error: no access for ***")
            assert "token=***" in await failed(crew, await one_task(crew))
            await update(crew, made, headers={"X-Key": SECRET + "2"})
            answer = await crew.ask("{ operators { id url headerNames } channels { operator { headerNames } } }")
        assert answer["operators"][0]["headerNames"] == ["X-Key"]
        assert answer["channels"][0]["operator"]["headerNames"] == ["X-Key"]
        assert SECRET not in repr((made, answer, logs))
        assert SECRET not in await everything(crew)
        assert made["signingSecret"] not in await everything(crew)
        assert operator.received[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_the_signing_secret_is_shown_once(dsn: str):
    async with stub() as operator, crew_on(dsn, operator_private_targets=True) as crew:
        made = await create(crew, operator)
        assert made["signingSecret"].startswith("whsec_")
        given = {"id": made["operator"]["id"], "maxRunning": 2}
        assert (await crew.ask(UPDATE, input=given))["updateOperator"]["signingSecret"] is None


async def test_without_a_key_headers_are_refused_and_nothing_is_made(dsn: str):
    async with stub() as operator, crew_on(dsn, operator_private_targets=True) as crew:
        with pytest.raises(Refused) as refused:
            await create(crew, operator, headers={"X-Key": SECRET})
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["input", "headers"])
        assert "CREW_SECRET_KEY" in refused.value.message
        assert SECRET not in refused.value.message
        assert (await crew.ask("{ operators { id } }"))["operators"] == []
        assert (await create(crew, operator, headers={}))["operator"]["headerNames"] == []


async def test_keys_are_rotated_by_a_list(dsn: str):
    async with stub() as operator:
        settings = {"operator_private_targets": True}
        async with crew_on(dsn, secret_key=OLD, **settings) as crew:
            await create(crew, operator, headers={"X-Key": SECRET})
            (before,) = await crew.sql("select headers from operator")
        async with crew_on(dsn, secret_key=f"{NEW}, {OLD}", **settings) as crew:
            await ended(crew, await one_task(crew))

            async def sealed_again() -> bool:
                (row,) = await crew.sql("select headers from operator")
                return row["headers"] != before["headers"]

            await until(sealed_again)
        async with crew_on(dsn, secret_key=NEW, **settings) as crew:
            await ended(crew, await one_task(crew))
        assert [r.headers["x-key"] for r in operator.received] == [SECRET, SECRET]


@pytest.mark.parametrize("key", [None, "yet another secret key"])
async def test_where_headers_cannot_be_opened_tasks_wait_rather_than_fail(dsn: str, key: str | None):
    async with stub() as operator:
        async with crew_on(dsn, secret_key=OLD, operator_private_targets=True) as crew:
            made = await create(crew, operator, headers={"X-Key": SECRET})
            (before,) = await crew.sql("select headers from operator")
        with capture_logs() as logs:
            async with crew_on(dsn, secret_key=key, operator_private_targets=True) as crew:
                id = await one_task(crew)
                await until(lambda: asyncio.sleep(0, [x for x in logs if "stands still" in x["event"]]))
                assert (await crew.task(id))["state"] == "READY"
                (after,) = await crew.sql("select headers from operator")
                assert after["headers"] == before["headers"]
                await update(crew, made, headers=None)
                await ended(crew, id)
        assert len([x for x in logs if "stands still" in x["event"]]) == 1


# ---------------------------------------------------------------- targets


async def test_a_private_target_is_refused_when_it_is_given(dsn: str):
    async with stub() as operator, crew_on(dsn) as crew:
        with pytest.raises(Refused) as refused:
            await create(crew, operator)
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["input", "url"])
        assert (await crew.ask("{ operators { id } }"))["operators"] == []


@pytest.mark.parametrize("host", ["localhost", "0x7f000001", "2130706433", "127.1"])
async def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_resolved(dsn: str, host: str):
    async with stub() as operator, crew_on(dsn) as crew:
        await crew.ask(CREATE, input={"channel": "c", "url": f"http://{host}:{operator.port}/"})
        error = await failed(crew, await one_task(crew))
        assert error.startswith(f"not delivered: {host} (")
        assert "a loopback address, where operators may not be" in error
        assert operator.received == []


async def test_the_address_that_was_checked_is_the_one_connected_to(dsn: str, monkeypatch: pytest.MonkeyPatch):
    """A name that is resolved twice may lead to two places: the second look would not be checked."""
    looks: list[str] = []
    there = asyncio.get_running_loop().getaddrinfo

    async with stub() as operator, crew_on(dsn, operator_private_targets=True) as crew:

        async def once(host: Any, port: Any, **more: Any) -> Any:
            if host == "rebound.example":
                looks.append(host)
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
            return await there(host, port, **more)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", once)
        await crew.ask(CREATE, input={"channel": "c", "url": f"http://rebound.example:{operator.port}/"})
        await ended(crew, await one_task(crew))
        assert looks == ["rebound.example"]
        assert operator.received[0].headers["host"] == f"rebound.example:{operator.port}"


async def test_one_private_address_among_public_ones_is_enough_to_refuse(dsn: str, monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    there = loop.getaddrinfo

    async def both(host: Any, port: Any, **more: Any) -> Any:
        if host == "both.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("1.1.1.1", "10.0.0.7")]
        return await there(host, port, **more)

    async with crew_on(dsn) as crew:
        monkeypatch.setattr(loop, "getaddrinfo", both)
        await crew.ask(CREATE, input={"channel": "c", "url": "http://both.example/"})
        assert "both.example (10.0.0.7) is a private" in await failed(crew, await one_task(crew))


async def test_a_redirect_is_not_followed(dsn: str):
    async with stub() as operator, stub() as other, crew_on(dsn, operator_private_targets=True) as crew:
        operator.replies.append(reply(307, b"", "", location=other.url))
        await create(crew, operator)
        assert "redirects are not followed" in await failed(crew, await one_task(crew))
        assert other.received == []


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"channel": ""}, ["channel"]),
        ({"url": "x"}, ["url"]),
        ({"maxRunning": 0}, ["maxRunning"]),
        ({"maxRunning": 1001}, ["maxRunning"]),
        ({"timeoutSeconds": 0}, ["timeoutSeconds"]),
        ({"timeoutSeconds": 3601}, ["timeoutSeconds"]),
        ({"headers": []}, ["headers"]),
        ({"headers": "x"}, ["headers"]),
        ({"headers": {"": "x"}}, ["headers", ""]),
        ({"headers": {"a b": "x"}}, ["headers", "a b"]),
        ({"headers": {"Host": "x"}}, ["headers", "Host"]),
        ({"headers": {"Webhook-Signature": "x"}}, ["headers", "Webhook-Signature"]),
        ({"headers": {"X": 1}}, ["headers", "X"]),
        ({"headers": {"X": "a\r\nY: b"}}, ["headers", "X"]),
        ({"headers": {"X": "ä"}}, ["headers", "X"]),
        ({"headers": {"X": "1", "x": "2"}}, ["headers", "x"]),
        ({"headers": {"X": "y" * 9000}}, ["headers"]),
        ({"headers": {f"X-{n}": "y" for n in range(51)}}, ["headers"]),
    ],
)
async def test_what_cannot_be_is_refused_with_its_path(dsn: str, more: dict[str, Any], path: list[str]):
    async with stub() as operator, crew_on(dsn, operator_private_targets=True, secret_key=OLD) as crew:
        with pytest.raises(Refused) as refused:
            await create(crew, operator, **more)
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["input", *path])
        assert (await crew.ask("{ operators { id } }"))["operators"] == []
        if "channel" not in more:
            made = await create(crew, operator, channel="d")
            before = await crew.sql("select * from operator")
            with pytest.raises(Refused) as refused:
                await update(crew, made, **more)
            assert refused.value.path == ["input", *path]
            assert await crew.sql("select * from operator") == before


async def test_a_channel_has_one_operator(dsn: str):
    async with stub() as operator, crew_on(dsn, operator_private_targets=True) as crew:
        await create(crew, operator)
        with pytest.raises(Refused) as refused:
            await create(crew, operator)
        assert (refused.value.code, refused.value.path) == ("CONFLICT", ["input", "channel"])
        await create(crew, operator, channel="d")
        assert [o["channel"] for o in (await crew.ask("{ operators { channel } }"))["operators"]] == ["c", "d"]


async def test_null_in_an_update_is_what_a_new_operator_has(dsn: str):
    async with stub() as operator, crew_on(dsn, operator_private_targets=True) as crew:
        made = await create(crew, operator, isPaused=True, maxRunning=3, timeoutSeconds=7)
        kept = await update(crew, made)
        assert (kept["isPaused"], kept["maxRunning"], kept["timeoutSeconds"]) == (True, 3, 7)
        new = await update(crew, made, isPaused=None, maxRunning=None, timeoutSeconds=None)
        assert (new["isPaused"], new["maxRunning"], new["timeoutSeconds"]) == (False, 10, 60)
        with pytest.raises(Refused) as refused:
            await update(crew, made, url=None)
        assert refused.value.path == ["input", "url"]


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        (UPDATE, {"input": {"id": NOBODY, "maxRunning": 1}}),
        ("mutation($id: ID!) { deleteOperator(id: $id) { id } }", {"id": NOBODY}),
    ],
    ids=["update", "delete"],
)
async def test_an_operator_that_is_not_there_is_not_found(dsn: str, document: str, variables: dict[str, Any]):
    async with crew_on(dsn) as crew:
        with pytest.raises(Refused) as refused:
            await crew.ask(document, **variables)
        assert refused.value.code == "NOT_FOUND"
