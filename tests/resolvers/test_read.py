"""Reading: lists, filters, orders, pages, progress, graphs, counts, workers."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.support.crew import Crew
from tests.support.wait import expire_leases

COUNTS = "counts { state count }"


async def listed(crew: Crew, arguments: str = "", fields: str = "name") -> list[Any]:
    """The tasks' names (or other single field)."""
    answer = await crew.ask("{ tasks%s { nodes { %s } } }" % (f"({arguments})" if arguments else "", fields))
    return [n[fields] for n in answer["tasks"]["nodes"]]


async def mixed(crew: Crew) -> dict[str, str]:
    """A group with tasks in many states; name → id."""
    made = await crew.create(
        {"name": "Done", "ref": "done", "priority": 9, "workgroup": "w"},
        {"name": "failed", "ref": "failed", "priority": 8},
        {"name": "running", "ref": "running", "priority": 7, "channel": "d", "workgroup": "w"},
        {"name": "ready", "priority": -1},
        {"name": "scheduled", "delaySeconds": 1000, "workgroup": "v"},
        {"name": "blocked", "parents": [{"ref": "failed"}], "channel": "d"},
    )
    done, failed = await crew.claim(2, workerId="one")
    await crew.claim(1, ("d",), workerId="two")
    await crew.complete(done)
    await crew.fail(failed, discard=True)
    ids = {t["name"]: t["id"] for t in made["tasks"]}
    return {**ids, "group": made["taskGroup"]["id"]}


FILTERS: dict[str, list[str]] = {
    "{}": ["Done", "failed", "running", "ready", "scheduled", "blocked"],
    "{states: [SUCCEEDED]}": ["Done"],
    "{states: [FAILED, RUNNING]}": ["failed", "running"],
    "{states: [READY]}": ["ready"],
    "{states: [SCHEDULED, BLOCKED]}": ["scheduled", "blocked"],
    "{states: [CANCELLED, MERGED]}": [],
    "{states: []}": [],
    '{channels: ["d"]}': ["running", "blocked"],
    '{channels: ["d", "nobody"]}': ["running", "blocked"],
    "{channels: []}": [],
    '{workgroups: ["w"]}': ["Done", "running"],
    '{workgroups: ["w", "v"], states: [SCHEDULED, RUNNING]}': ["running", "scheduled"],
    '{workerId: "one"}': ["Done", "failed"],
    '{workerId: "two"}': ["running"],
    '{workerId: "nobody"}': [],
    '{nameContains: "D"}': ["Done", "failed", "ready", "scheduled", "blocked"],
    '{nameContains: "doNE"}': ["Done"],
    '{nameContains: "%"}': [],
    '{nameContains: ""}': ["Done", "failed", "running", "ready", "scheduled", "blocked"],
    '{createdAfter: "2020-01-01T00:00:00Z"}': ["Done", "failed", "running", "ready", "scheduled", "blocked"],
    '{createdBefore: "2020-01-01T00:00:00Z"}': [],
    "{states: null, channels: null, groupId: null}": ["Done", "failed", "running", "ready", "scheduled", "blocked"],
}


async def test_filters_narrow_a_list_and_its_count(crew: Crew) -> None:
    ids = await mixed(crew)
    await crew.create({"name": "elsewhere", "channel": "other", "workgroup": "other"}, name="other")
    for given, expected in FILTERS.items():
        inside = f'{{groupId: "{ids["group"]}", {given[1:]}'.replace("groupId: null", "key_: null")
        inside = inside.replace(", key_: null", "")
        answer = await crew.ask(
            "{ tasks(orderBy: CREATED_ASC, filter: %s) { nodes { name } totalCount totalCountIsExact } }" % inside
        )
        assert [n["name"] for n in answer["tasks"]["nodes"]] == expected, given
        assert answer["tasks"]["totalCount"] == len(expected), given
        assert answer["tasks"]["totalCountIsExact"] is True
        group = await crew.ask(
            "query($id: ID!) { taskGroup(id: $id) { tasks(filter: %s) { nodes { name } totalCount } } }" % given,
            id=ids["group"],
        )
        found = group["taskGroup"]["tasks"]
        assert ([n["name"] for n in found["nodes"]], found["totalCount"]) == (expected, len(expected)), given


async def test_a_list_of_an_unknown_group_is_empty(crew: Crew) -> None:
    await crew.create({"name": "a"})
    assert await listed(crew, 'filter: {groupId: "018f5a3e-7c11-7a55-8d3c-0242ac120002"}') == []


async def test_orders(crew: Crew) -> None:
    await mixed(crew)
    assert await listed(crew) == ["blocked", "scheduled", "ready", "running", "failed", "Done"]
    assert await listed(crew, "orderBy: CREATED_ASC") == ["Done", "failed", "running", "ready", "scheduled", "blocked"]
    assert await listed(crew, "orderBy: PRIORITY_DESC") == [
        "Done",
        "failed",
        "running",
        "scheduled",
        "blocked",
        "ready",
    ]
    assert (await listed(crew, "orderBy: FINISHED_DESC"))[:2] == ["failed", "Done"]


@pytest.mark.parametrize("order", ["CREATED_ASC", "CREATED_DESC", "PRIORITY_DESC", "FINISHED_DESC"])
@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_pages_together_are_the_list(crew: Crew, order: str, size: int) -> None:
    await crew.create(*({"name": str(n), "priority": n % 4} for n in range(20)))
    await crew.complete(*await crew.claim(6))
    whole = await listed(crew, f"orderBy: {order}, first: 1000")
    found, cursor, pages = [], None, 0
    while True:
        query = (
            "query($after: String) { tasks(orderBy: %s, first: %d, after: $after) { edges { cursor node { name } } "
            "nodes { name } totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"
            % (order, size)
        )
        page = (await crew.ask(query, after=cursor))["tasks"]
        pages += 1
        assert [e["node"] for e in page["edges"]] == page["nodes"]
        assert page["totalCount"] == 20
        info = page["pageInfo"]
        assert info["hasPreviousPage"] is (cursor is not None)
        assert (info["startCursor"], info["endCursor"]) == (page["edges"][0]["cursor"], page["edges"][-1]["cursor"])
        found += [n["name"] for n in page["nodes"]]
        if not info["hasNextPage"]:
            break
        cursor = info["endCursor"]
    assert found == whole
    assert pages == -(-20 // size)


async def test_pages_stay_in_place_while_tasks_are_added(crew: Crew) -> None:
    made = await crew.create(*({"name": str(n)} for n in range(10)))
    query = (
        "query($order: TaskOrder, $after: String) { tasks(orderBy: $order, first: 4, after: $after) "
        "{ nodes { name } pageInfo { endCursor } } }"
    )
    for order, expected in (("CREATED_DESC", range(9, -1, -1)), ("PRIORITY_DESC", range(10))):
        names: list[str] = []
        cursor = None
        for _ in range(3):
            page = (await crew.ask(query, order=order, after=cursor))["tasks"]
            names += [n["name"] for n in page["nodes"] if n["name"] != "new"]
            cursor = page["pageInfo"]["endCursor"]
            await crew.create_tasks(made["taskGroup"]["id"], {"name": "new", "priority": 1})
        assert names == [str(n) for n in expected][: len(names)]
        assert len(names) == len(set(names))


async def test_an_empty_page(crew: Crew) -> None:
    await crew.create({"name": "a"})
    answer = await crew.ask(
        "{ tasks(first: 0) { nodes { name } totalCount pageInfo { hasNextPage startCursor endCursor } } }"
    )
    assert answer["tasks"] == {
        "nodes": [],
        "totalCount": 1,
        "pageInfo": {"hasNextPage": True, "startCursor": None, "endCursor": None},
    }


async def test_the_count_of_a_list_stops_at_ten_thousand_and_says_so(crew: Crew) -> None:
    await crew.create(*({"name": "a"} for _ in range(10_000)))
    query = "{ tasks(first: 1) { totalCount totalCountIsExact } }"
    assert (await crew.ask(query))["tasks"] == {"totalCount": 10_000, "totalCountIsExact": True}
    await crew.create({"name": "a"})
    assert (await crew.ask(query))["tasks"] == {"totalCount": 10_000, "totalCountIsExact": False}


# -- groups -------------------------------------------------------------------------------------------------------------


async def group(crew: Crew, id: str, fields: str) -> dict[str, Any]:
    return (await crew.ask("query($id: ID!) { taskGroup(id: $id) { %s } }" % fields, id=id))["taskGroup"]


async def test_progress_goes_by_weight(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "progressWeight": 3, "priority": 1}, {"name": "b", "progressWeight": 0}, {"name": "c"}
    )
    id = made["taskGroup"]["id"]
    fields = "progress { fraction total counts { state count } } finishedAt"
    assert await group(crew, id, fields) == {
        "progress": {"fraction": 0, "total": 3, "counts": [{"state": "READY", "count": 3}]},
        "finishedAt": None,
    }
    await crew.complete(*await crew.claim())
    found = await group(crew, id, fields)
    assert found["progress"]["fraction"] == 0.75
    assert found["progress"]["counts"] == [{"state": "READY", "count": 2}, {"state": "SUCCEEDED", "count": 1}]
    await crew.complete(*await crew.claim())
    assert (await group(crew, id, fields))["progress"]["fraction"] == 0.75
    await crew.fail(*await crew.claim(), discard=True)
    found = await group(crew, id, fields)
    assert (found["progress"]["fraction"], found["finishedAt"]) == (0.75, None)


async def test_a_group_is_finished_when_its_last_task_is_settled(crew: Crew) -> None:
    made = await crew.create({"name": "a"}, {"name": "b"})
    id = made["taskGroup"]["id"]
    first, second = await crew.claim(2)
    await crew.complete(second)
    assert (await group(crew, id, "finishedAt"))["finishedAt"] is None
    await crew.complete(first)
    end = (await crew.task(made["tasks"][0]["id"], "finishedAt"))["finishedAt"]
    assert await group(crew, id, "finishedAt progress { fraction }") == {"finishedAt": end, "progress": {"fraction": 1}}
    await crew.create_tasks(id, {"name": "c"})
    assert (await group(crew, id, "finishedAt"))["finishedAt"] is None


async def test_an_empty_group_has_no_progress_and_is_not_finished(crew: Crew) -> None:
    made = await crew.create()
    found = await group(crew, made["taskGroup"]["id"], "finishedAt progress { fraction total counts { state } }")
    assert found == {"finishedAt": None, "progress": {"fraction": 0, "total": 0, "counts": []}}


async def test_a_graph_larger_than_the_limit_is_truncated(crew: Crew) -> None:
    made = await crew.create(
        {"name": "0", "ref": "0"},
        {"name": "1", "ref": "1", "parents": [{"ref": "0"}]},
        {"name": "2", "parents": [{"ref": "1"}]},
    )
    id = made["taskGroup"]["id"]
    for limit, links in ((0, 0), (1, 0), (2, 1), (3, 2), (1000, 2)):
        graph = (await group(crew, id, "graph(limit: %d) { nodes { name } edges { parentId } truncated }" % limit))[
            "graph"
        ]
        assert [n["name"] for n in graph["nodes"]] == [str(n) for n in range(min(limit, 3))]
        assert len(graph["edges"]) == links
        assert graph["truncated"] is (limit < 3)


async def test_groups_are_listed_in_each_order_and_by_state(crew: Crew) -> None:
    for name in ("b", "a", "c", "empty"):
        await crew.create(*([{"name": name, "channel": name}] if name != "empty" else []), name=name)
    await crew.complete(*await crew.claim(channels=("c",)))
    await crew.fail(*await crew.claim(channels=("a",)), discard=True)

    async def names(arguments: str) -> list[str]:
        answer = await crew.ask("{ taskGroups(%s) { nodes { name } totalCount } }" % arguments)
        assert answer["taskGroups"]["totalCount"] == len(answer["taskGroups"]["nodes"])
        return [n["name"] for n in answer["taskGroups"]["nodes"]]

    assert await names("orderBy: CREATED_DESC") == ["empty", "c", "a", "b"]
    assert await names("orderBy: CREATED_ASC") == ["b", "a", "c", "empty"]
    assert await names("orderBy: NAME_ASC") == ["a", "b", "c", "empty"]
    assert (await names("orderBy: FINISHED_DESC"))[0] == "c"
    assert await names("orderBy: NAME_ASC, filter: {states: [FINISHED]}") == ["c"]
    assert await names("orderBy: NAME_ASC, filter: {states: [FAILING]}") == ["a"]
    assert await names("orderBy: NAME_ASC, filter: {states: [OPEN]}") == ["a", "b", "empty"]
    assert await names('orderBy: NAME_ASC, filter: {nameContains: "MP"}') == ["empty"]
    assert await names('filter: {createdBefore: "2020-01-01T00:00:00Z"}') == []
    since = '{createdAfter: "2020-01-01T00:00:00Z", nameContains: "p"}'
    assert await names(f"filter: {since}") == ["empty"]


@pytest.mark.parametrize("order", ["CREATED_ASC", "CREATED_DESC", "NAME_ASC", "FINISHED_DESC"])
async def test_pages_of_groups_together_are_the_list(crew: Crew, order: str) -> None:
    for n in range(7):
        await crew.create(*([{"name": "t"}] if n % 2 else []), name=f"g{n // 2}")
    await crew.complete(*await crew.claim(2))
    query = (
        "query($first: Int, $after: String) { taskGroups(orderBy: %s, first: $first, after: $after) "
        "{ nodes { id } totalCount pageInfo { hasNextPage endCursor } } }" % order
    )
    whole = (await crew.ask(query, first=100))["taskGroups"]["nodes"]
    found, cursor, more = [], None, True
    while more:
        page = (await crew.ask(query, first=2, after=cursor))["taskGroups"]
        found += page["nodes"]
        assert page["totalCount"] == 7
        cursor, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert found == whole


# -- channels, workgroups, workers --------------------------------------------------------------------------------------


async def direct_counts(crew: Crew, column: str) -> dict[str, dict[int, int]]:
    """Counted from the tasks themselves."""
    rows = await crew.sql(
        f"select {column} as name, state, count(*)::int as n from task_now where {column} is not null group by 1, 2"
    )
    found: dict[str, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row["name"], {})[row["state"]] = row["n"]
    return found


STATES = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED"]


async def shown_counts(crew: Crew, what: str) -> dict[str, dict[int, int]]:
    answer = await crew.ask("{ %s { name counts { state count } } }" % what)
    return {
        one["name"]: {STATES.index(c["state"]): c["count"] for c in one["counts"]}
        for one in answer[what]
        if one["counts"]
    }


@pytest.mark.parametrize("seed", range(3))
async def test_counts_equal_direct_counts_after_a_mix_of_operations(crew: Crew, seed: int) -> None:
    dice = random.Random(seed)
    channels, workgroups = ("c", "d", "e"), ("v", "w", None)
    held: list[dict[str, Any]] = []
    for _ in range(12):
        tasks: list[dict[str, Any]] = [
            {
                "name": str(n),
                "ref": str(n),
                "channel": dice.choice(channels),
                "workgroup": dice.choice(workgroups),
                "parents": [{"ref": str(dice.randrange(n))}] if n and dice.random() < 0.4 else [],
                "delaySeconds": dice.choice([None, None, None, 100]),
                "retry": {"maxAttempts": 2, "delaySeconds": dice.choice([0, 100])},
            }
            for n in range(6)
        ]
        await crew.create(*tasks)
        held += await crew.claim(4, channels)
        dice.shuffle(held)
        for act in (crew.complete, crew.fail, crew.release):
            if held:
                await act(held.pop())
        if held:
            await crew.complete(held.pop(), children=[{"name": "x", "channel": "d", "workgroup": "w"}])
        if dice.random() < 0.2:
            await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 0.01) { workgroup { name } } }')
        if dice.random() < 0.2:
            await expire_leases(crew)
            held.clear()
        failed = await listed(crew, "filter: {states: [FAILED]}", "id")
        if failed and dice.random() < 0.5:
            await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=failed[:1])
        assert await shown_counts(crew, "channels") == await direct_counts(crew, "channel")
        assert await shown_counts(crew, "workgroups") == await direct_counts(crew, "workgroup")


async def test_channels_and_workgroups_are_listed_by_name_a_page_at_a_time(crew: Crew) -> None:
    await crew.create(*({"name": "a", "channel": c, "workgroup": c} for c in ("b", "Z", "a", "ä", "B")))
    for what in ("channels", "workgroups"):
        names = [x["name"] for x in (await crew.ask("{ %s { name } }" % what))[what]]
        assert names == ["B", "Z", "a", "b", "ä"]
        page = (await crew.ask('{ %s(first: 2, after: "Z") { name } }' % what))[what]
        assert page == [{"name": "a"}, {"name": "b"}]
        assert (await crew.ask("{ %s(first: 0) { name } }" % what))[what] == []


async def test_an_unknown_channel_and_workgroup_are_null(crew: Crew) -> None:
    assert await crew.ask('{ channel(name: "x") { name } workgroup(name: "x") { name } }') == {
        "channel": None,
        "workgroup": None,
    }


async def test_a_channel_says_how_long_its_oldest_claimable_task_waits(crew: Crew) -> None:
    await crew.create(
        {"name": "a", "workgroup": "w"}, {"name": "b"}, {"name": "later", "channel": "d", "delaySeconds": 99}
    )
    await crew.sql(
        "update ready set ready_at = now() - case when workgroup <> 0 then interval '90 s' else interval '50 s' end"
    )
    query = '{ channel(name: "c") { oldestReadySeconds } d: channel(name: "d") { oldestReadySeconds } }'
    answer = await crew.ask(query)
    assert 90 <= answer["channel"]["oldestReadySeconds"] < 120
    assert answer["d"]["oldestReadySeconds"] is None
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { name } } }')
    assert 50 <= (await crew.ask(query))["channel"]["oldestReadySeconds"] < 80
    await crew.claim(5)
    assert (await crew.ask(query))["channel"]["oldestReadySeconds"] is None


async def test_workers_are_listed_by_id_with_what_they_run(crew: Crew) -> None:
    await crew.create(*({"name": str(n)} for n in range(5)))
    await crew.claim(2, ("c", "b"), workerId="z")
    await crew.claim(1, workerId="a")
    await crew.claim(0 + 1, ("nothing",), workerId="idle", waitSeconds=0.01)
    fields = "{ id channels running transport isAlive lastSeenAt }"
    workers = (await crew.ask("{ workers %s }" % fields))["workers"]
    seen = [w.pop("lastSeenAt") for w in workers]
    assert all(seen)
    assert workers == [
        {"id": "a", "channels": ["c"], "running": 1, "transport": "poll", "isAlive": True},
        {"id": "idle", "channels": ["nothing"], "running": 0, "transport": "long-poll", "isAlive": True},
        {"id": "z", "channels": ["b", "c"], "running": 2, "transport": "poll", "isAlive": True},
    ]
    assert [w["id"] for w in (await crew.ask('{ workers(first: 1, after: "a") { id } }'))["workers"]] == ["idle"]
    await crew.sql("update worker set last_seen_at = now() - interval '1 h' where name = 'z'")
    assert [w["id"] for w in (await crew.ask("{ workers { id } }"))["workers"]] == ["a", "idle"]
    every = (await crew.ask("{ workers(aliveOnly: false) { id isAlive } }"))["workers"]
    assert [(w["id"], w["isAlive"]) for w in every] == [("a", True), ("idle", True), ("z", False)]


async def test_the_server_tells_its_version_clock_and_limits(crew: Crew) -> None:
    answer = await crew.ask(
        "{ server { version now limits { maxBatch maxWaitSeconds maxInputBytes maxLeaseSeconds } } }"
    )
    assert answer["server"]["version"]
    assert answer["server"]["now"].endswith("+00:00")
    assert answer["server"]["limits"] == {
        "maxBatch": 10_000,
        "maxWaitSeconds": 25,
        "maxInputBytes": 1 << 20,
        "maxLeaseSeconds": 86_400,
    }


async def test_links_can_be_cut_and_counted(crew: Crew) -> None:
    made = await crew.create(
        *({"name": f"p{n}", "ref": str(n)} for n in range(5)),
        *({"name": f"c{n}", "parents": [{"ref": str(p)} for p in (4, 2, 0)]} for n in range(3)),
    )
    child = await crew.task(
        made["tasks"][5]["id"], "parents(first: 2) { name } parentCount children { name } childCount"
    )
    assert child == {"parents": [{"name": "p4"}, {"name": "p2"}], "parentCount": 3, "children": [], "childCount": 0}
    parent = await crew.task(
        made["tasks"][4]["id"], "children(first: 2) { name } childCount parents(first: 0) { name }"
    )
    assert parent == {"children": [{"name": "c0"}, {"name": "c1"}], "childCount": 3, "parents": []}
