"""taskEvents: what is told, to whom, and from where on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from db.live import forget_events, forget_ticks
from resolvers.access import ANYONE
from resolvers.core import Rhythm
from resolvers.errors import TooSlow
from resolvers.event import Filter
from resolvers.subscribe import Subscriber
from schema.root import schema
from server.access import Asker
from server.operations import Operations, Params
from tests.support.crew import Crew, Refused, crew_on
from tests.support.steering import delete
from tests.support.streams import EVENTS, now, poll, reading
from tests.support.wait import end_suspensions, expire_leases, until

NO_EVENTS: dict[str, Any] = {"events": []}


async def log(crew: Crew, after: str, **filter: Any) -> list[tuple[str, str | None]]:
    """All that followed, as (kind, task's name)."""
    names: dict[str, str] = {str(row["id"]): row["name"] for row in await crew.sql("select id, name from task")}
    found = []
    while batch := await poll(crew, after, filter=filter or None):
        if not batch["events"]:
            return found
        found += [(e["kind"], names.get(e["taskId"] or "")) for e in batch["events"]]
        after = batch["cursor"]
    return found


async def test_a_life_is_told_in_order(crew: Crew) -> None:
    start = await now(crew)
    await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}]})
    await crew.complete(*await crew.claim())
    await crew.fail(*await crew.claim(), retryDelaySeconds=0)
    await crew.release(*await crew.claim())
    await crew.fail(*await crew.claim(), discard=True)
    assert await log(crew, start) == [
        ("GROUP_CREATED", None),
        ("CREATED", "a"),
        ("CREATED", "b"),
        ("STARTED", "a"),
        ("SUCCEEDED", "a"),
        ("READY", "b"),
        ("STARTED", "b"),
        ("RETRYING", "b"),
        ("STARTED", "b"),
        ("GIVEN_BACK", "b"),
        ("STARTED", "b"),
        ("FAILED", "b"),
    ]


async def test_an_event_says_what_a_live_view_needs(crew: Crew) -> None:
    start = await now(crew)
    made = await crew.create({"name": "a", "workgroup": "wg", "priority": 3})
    (lease,) = await crew.claim(workerId="bert")
    await crew.extend(lease, progress=[{"lease": lease["id"], "fraction": 0.25}])
    _, created, started, progressed = (await poll(crew, start))["events"]
    common = {
        "taskId": made["tasks"][0]["id"],
        "groupId": made["taskGroup"]["id"],
        "channel": "c",
        "workgroup": "wg",
        "until": None,
    }
    assert {k: v for k, v in created.items() if k != "at"} == {
        **common,
        "kind": "CREATED",
        "state": "READY",
        "attempt": 0,
        "workerId": None,
        "progress": None,
    }
    assert {k: v for k, v in started.items() if k != "at"} == {
        **common,
        "kind": "STARTED",
        "state": "RUNNING",
        "attempt": 1,
        "workerId": "bert",
        "progress": None,
    }
    assert (progressed["kind"], progressed["progress"], progressed["workerId"]) == ("PROGRESSED", 0.25, "bert")
    assert created["at"] <= started["at"] <= progressed["at"]


async def test_an_event_leads_to_its_task_as_it_is_now(crew: Crew) -> None:
    start = await now(crew)
    made = await crew.create({"name": "a"}, {"name": "b"})
    await crew.complete(*await crew.claim(1))
    await delete(crew, made["tasks"][1]["id"])
    events = "query($after: Cursor) { taskEvents(after: $after, filter: {kinds: [GROUP_CREATED, CREATED]}) "
    told = await crew.ask(events + "{ events { kind task { name state } } } }", after=start)
    assert told["taskEvents"]["events"] == [
        {"kind": "GROUP_CREATED", "task": None},
        {"kind": "CREATED", "task": {"name": "a", "state": "SUCCEEDED"}},
        {"kind": "CREATED", "task": None},
    ]


async def test_holds_are_told_with_what_they_hold_and_null_for_the_rest(crew: Crew) -> None:
    made = await crew.create({"name": "a", "workgroup": "wg"})
    task, group = made["tasks"][0]["id"], made["taskGroup"]["id"]
    start = await now(crew)
    await crew.ask('mutation { suspendWorkgroup(name: "wg", seconds: 60) { workgroup { name } } }')
    await crew.ask('mutation { pauseChannel(name: "c") { channel { name } } }')
    await crew.ask("mutation($id: ID!) { pauseTaskGroup(id: $id) { affected } }", id=group)
    await crew.ask("mutation($ids: [ID!]!) { pauseTasks(ids: $ids) { affected } }", ids=[task])
    await crew.ask("mutation($ids: [ID!]!) { resumeTasks(ids: $ids) { affected } }", ids=[task])
    await crew.ask("mutation($id: ID!) { resumeTaskGroup(id: $id) { affected } }", id=group)
    await crew.ask('mutation { resumeChannel(name: "c") { channel { name } } }')
    await end_suspensions(crew)
    events = (await poll(crew, start, filter={"kinds": ["HELD", "UNHELD"]}))["events"]
    shown = [(e["kind"], e["taskId"], e["groupId"], e["channel"], e["workgroup"]) for e in events]
    assert shown == [
        ("HELD", None, None, None, "wg"),
        ("HELD", None, None, "c", None),
        ("HELD", None, group, None, None),
        ("HELD", task, group, "c", "wg"),
        ("UNHELD", task, group, "c", "wg"),
        ("UNHELD", None, group, None, None),
        ("UNHELD", None, None, "c", None),
        ("UNHELD", None, None, None, "wg"),
    ]
    assert events[0]["until"] is not None
    assert [e["state"] for e in events] == [None, None, None, "READY", "READY", None, None, None]


async def test_a_lost_lease_is_told(crew: Crew) -> None:
    await crew.create({"name": "a"})
    await crew.claim(workerId="bert")
    start = await now(crew)
    await expire_leases(crew)
    (event,) = (await poll(crew, start, waitSeconds=5))["events"]
    assert (event["kind"], event["state"], event["workerId"]) == ("LEASE_EXPIRED", "READY", "bert")


async def test_a_group_that_is_finished_is_told_once(crew: Crew) -> None:
    start = await now(crew)
    made = await crew.create({"name": "a"}, {"name": "b"})
    only = {"kinds": ["GROUP_FINISHED"]}
    async with reading(crew, EVENTS, after=start, filter=only) as reader:
        await crew.complete(*await crew.claim())
        await crew.complete(*await crew.claim())
        (event,) = await reader.events(1)
        assert event["groupId"] == made["taskGroup"]["id"]
        await crew.create_tasks(made["taskGroup"]["id"], {"name": "c"})
        await crew.complete(*await crew.claim())
        (event,) = await reader.events(1)
        assert event["groupId"] == made["taskGroup"]["id"]
    assert len((await poll(crew, start, filter=only))["events"]) == 2


async def test_a_filter_lets_through_what_it_names(crew: Crew) -> None:
    start = await now(crew)
    one = await crew.create({"name": "a", "channel": "x", "workgroup": "wg"}, {"name": "b"})
    await crew.create({"name": "c"})
    a = one["tasks"][0]["id"]
    assert await log(crew, start, channels=["x"]) == [("CREATED", "a")]
    assert await log(crew, start, workgroups=["wg"]) == [("CREATED", "a")]
    assert await log(crew, start, taskIds=[a]) == [("CREATED", "a")]
    assert await log(crew, start, groupId=one["taskGroup"]["id"]) == [
        ("GROUP_CREATED", None),
        ("CREATED", "a"),
        ("CREATED", "b"),
    ]
    assert await log(crew, start, kinds=["CREATED"], channels=["c"]) == [("CREATED", "b"), ("CREATED", "c")]


async def test_a_filter_by_group_passes_what_happens_to_channels_and_workgroups(crew: Crew) -> None:
    made = await crew.create({"name": "a", "workgroup": "wg"})
    start = await now(crew)
    await crew.ask('mutation { pauseChannel(name: "c") { channel { name } } }')
    await crew.ask('mutation { suspendWorkgroup(name: "wg", seconds: 60) { workgroup { name } } }')
    await crew.create({"name": "b"})
    assert await log(crew, start, groupId=made["taskGroup"]["id"]) == [("HELD", None), ("HELD", None)]


async def test_a_call_without_a_cursor_answers_the_cursor_of_now(crew: Crew) -> None:
    await crew.create({"name": "a"})
    batch = await poll(crew)
    assert batch["events"] == []
    await crew.create({"name": "b"})
    assert await log(crew, batch["cursor"], kinds=["CREATED"]) == [("CREATED", "b")]


async def test_a_cursor_serves_with_any_filter_over_any_transport_at_any_server(dsn: str) -> None:
    async with crew_on(dsn) as one, crew_on(dsn) as two:
        start = await now(one)
        await one.create({"name": "a"}, {"name": "b"})
        batch = await poll(two, start, limit=2)
        async with reading(one, EVENTS, after=batch["cursor"]) as reader:
            (event,) = await reader.events(1)
        assert [event["kind"], batch["events"][1]["kind"]] == ["CREATED", "CREATED"]
        assert event["taskId"] != batch["events"][1]["taskId"]


@pytest.mark.parametrize("limit", [1, 2, 7, 500])
async def test_a_row_of_many_tasks_is_told_in_pieces_and_none_is_skipped_or_repeated(crew: Crew, limit: int) -> None:
    start = await now(crew)
    made = await crew.create(*({"name": str(n)} for n in range(1203)))
    found: list[str] = []
    cursor = start
    if limit == 1:
        made["tasks"] = made["tasks"][:50]
    while len(found) < len(made["tasks"]):
        batch = await poll(crew, cursor, limit=limit, filter={"kinds": ["CREATED"]})
        assert len(batch["events"]) <= limit
        found += [e["taskId"] for e in batch["events"]]
        cursor = batch["cursor"]
    assert found[: len(made["tasks"])] == [t["id"] for t in made["tasks"]]


async def test_a_long_poll_answers_as_soon_as_something_happens(crew: Crew) -> None:
    start = await now(crew)
    waiting = asyncio.create_task(poll(crew, start, waitSeconds=20, filter={"kinds": ["STARTED"]}))
    await until(lambda: _listens(crew))
    await crew.create({"name": "a"})
    assert not waiting.done()
    await crew.claim()
    assert [e["kind"] for e in (await asyncio.wait_for(waiting, 3))["events"]] == ["STARTED"]


async def test_a_long_poll_that_waits_in_vain_answers_a_cursor_that_has_moved_on(crew: Crew) -> None:
    start = await now(crew)
    await crew.create({"name": "a"})
    batch = await poll(crew, start, waitSeconds=0.2, filter={"kinds": ["STARTED"]})
    assert batch["events"] == []
    assert await log(crew, batch["cursor"]) == []


async def test_what_happens_at_another_server_is_told(dsn: str) -> None:
    async with crew_on(dsn) as one, crew_on(dsn) as two:
        async with reading(two, EVENTS) as reader:
            assert (await reader.next())["events"] == []
            await one.create({"name": "a"})
            assert [e["kind"] for e in await reader.events(2)] == ["GROUP_CREATED", "CREATED"]


async def test_the_first_batch_comes_at_once_and_quiet_spells_carry_empty_ones(dsn: str) -> None:
    async with crew_on(dsn, rhythm=Rhythm(quiet=0.1)) as crew:
        async with reading(crew, EVENTS) as reader:
            first = await reader.next(2)
            second = await reader.next(2)
        assert first["events"] == second["events"] == []
        assert await log(crew, second["cursor"]) == []


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"after": "nonsense"}, ["after"]),
        ({"after": ""}, ["after"]),
        ({"limit": 0}, ["limit"]),
        ({"limit": 5001}, ["limit"]),
        ({"waitSeconds": -1}, ["waitSeconds"]),
        ({"filter": {"groupId": "x"}}, ["filter", "groupId"]),
        ({"filter": {"taskIds": ["x"]}}, ["filter", "taskIds", 0]),
        ({"filter": {"channels": []}}, ["filter", "channels"]),
        ({"filter": {"workgroups": [""]}}, ["filter", "workgroups", 0]),
        ({"filter": {"kinds": []}}, ["filter", "kinds"]),
    ],
)
async def test_bad_input_is_refused_with_its_path(crew: Crew, given: dict[str, Any], path: list[Any]) -> None:
    with pytest.raises(Refused) as refused:
        await poll(crew, **given)
    assert (refused.value.code, refused.value.path) == ("BAD_INPUT", path)


async def test_a_cursor_past_retention_is_expired_and_the_log_goes_on(crew: Crew) -> None:
    start = await now(crew)
    await crew.create({"name": "a"})
    kept = await now(crew)
    await crew.sql("update tick set at = now() - interval '8 days' where tick < (select max(tick) from tick)")
    await until(lambda: _folded(crew))
    pool = crew.services.core.pool
    assert await forget_ticks(pool, 1, 7 * 86_400, 100) > 0
    await until(lambda: _all_forgotten(crew))
    crew.services.log._marks.clear()
    with pytest.raises(Refused) as refused:
        await poll(crew, start)
    assert (refused.value.code, refused.value.path) == ("CURSOR_EXPIRED", ["after"])
    await crew.create({"name": "b"})
    assert await log(crew, kept, kinds=["CREATED"]) == [("CREATED", "b")]
    assert (await crew.sql("select count(*)::int as n from tick"))[0]["n"] >= 1


async def _folded(crew: Crew) -> bool:
    """Every fold has counted all events there are."""
    rows = await crew.sql(
        "select count(*)::int as n from event e, fold f, group_fold g "
        "where not pg_visible_in_snapshot(e.xid, f.upto) or not pg_visible_in_snapshot(e.xid, g.upto)"
    )
    return rows[0]["n"] == 0


async def _all_forgotten(crew: Crew) -> bool:
    await forget_events(crew.services.core.pool, 1, 100, 7 * 86_400)
    rows = await crew.sql(
        "select count(*)::int as n from event where xid < (select min(pg_snapshot_xmin(snapshot)) from tick)"
    )
    return rows[0]["n"] == 0


async def test_a_log_that_was_lost_and_written_anew_is_not_gone_on_with(crew: Crew) -> None:
    """After a restore to a point in time the same tick numbers come again."""
    await crew.create({"name": "a"})
    cursor = await now(crew)
    await crew.sql("update tick set mark = mark # 1")
    crew.services.log._marks.clear()
    with pytest.raises(Refused) as refused:
        await poll(crew, cursor)
    assert refused.value.code == "CURSOR_EXPIRED"


async def test_who_falls_behind_what_is_kept_is_cut_off_with_its_cursor(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.event_log._KEEP", 10)
    async with reading(crew, EVENTS) as reader:
        await reader.next()
        await crew.create({"name": "a"})
        last = (await reader.next())["cursor"]
        for n in range(30):
            await crew.create({"name": f"b{n}"})
        await until(lambda: _read_up(crew))
        with pytest.raises(Refused, match="did not keep up") as refused:
            await reader.next()
    assert refused.value.code == "TOO_SLOW"
    rest = await log(crew, last, kinds=["CREATED"])
    assert [name for _, name in rest][-1] == "b29"


async def test_who_arrived_by_a_batch_that_another_took_is_cut_off_too(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.event_log._KEEP", 10)
    async with reading(crew, EVENTS) as reader:
        await reader.next()
        await until(lambda: _read_up(crew))
        both = [Subscriber(crew.services.log, await _cursor_of(crew), Filter()) for _ in range(2)]
        first, second = [await subscriber.next(10, 0) for subscriber in both]
        assert first is second
        for n in range(30):
            await crew.create({"name": f"b{n}"})
        await until(lambda: _read_up(crew))
        for subscriber in both:
            with pytest.raises(TooSlow):
                await subscriber.next(10, 0)


async def _read_up(crew: Crew) -> bool:
    rows = await crew.sql("select max(tick) as tick from tick")
    log = crew.services.log
    return log.end is not None and log.end.place.tick == rows[0]["tick"] and not log._unticked


async def test_who_comes_back_with_a_recent_cursor_costs_no_query(crew: Crew) -> None:
    start = await now(crew)
    await crew.create({"name": "a"})
    async with reading(crew, EVENTS, after=start) as reader:
        await reader.events(2)
        await until(lambda: _read_up(crew))
        log = crew.services.log
        subscriber = Subscriber(log, (await _cursor_of(crew)), Filter())
        crew.services.core.pool.dsn, broken = "", crew.services.core.pool._pool
        crew.services.core.pool._pool = None
        try:
            await log.check(subscriber.cursor)
            assert (await subscriber.next(10, 0)).events == []
        finally:
            crew.services.core.pool._pool = broken


async def test_subscribers_at_one_place_are_told_one_batch_written_once(crew: Crew) -> None:
    start = ""
    operations = Operations(schema._schema, crew.services.core.limits)
    asker = Asker(crew.services, ANYONE, "test")
    asked = [{}, {}, {"filter": {"channels": ["c"]}}, {"filter": {"channels": ["d"]}}]
    other = EVENTS.replace("progress until", "progress")
    documents = [(EVENTS, variables) for variables in asked] + [
        (other, {}),
        (other.replace("kind at", "kind task { name }"), {}),
    ] * 2

    def opened(query: str, variables: dict[str, Any]) -> Any:
        params = Params({"query": query, "variables": {**variables, "after": start}})
        return operations.stream(operations.documents.get(query), params, asker, "test")

    async with reading(crew, EVENTS) as reader:
        start = (await reader.next())["cursor"]
        await crew.create({"name": "a"}, {"name": "b", "channel": "d"})
        assert len(await reader.events(3)) == 3
        await until(lambda: _read_up(crew))
        streams = [opened(*document) for document in documents]
        told = [json.loads(body := (await anext(stream)).body) and body for stream in streams]
        for stream in streams:
            await stream.aclose()
    assert told[0] is told[1], "the same"
    assert told[4] is told[6], "of another selection"
    assert told[5] is not told[7], "what is read now is read for each"
    assert told[5] == told[7]
    names = [[e["channel"] for e in json.loads(body)["data"]["taskEvents"]["events"]] for body in told[:5]]
    assert names == [[None, "c", "d"], [None, "c", "d"], ["c"], ["d"], [None, "c", "d"]]


async def _cursor_of(crew: Crew) -> Any:
    assert crew.services.log.end is not None
    return crew.services.log.end


async def _listens(crew: Crew) -> bool:
    return crew.services.log.listeners > 0 and crew.services.log.end is not None
