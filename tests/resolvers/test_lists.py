"""Lists, however they are walked: each equals what the rows say, in every order, a page at a time; or is refused whole."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict
from functools import partial
from typing import Any

import asyncpg
import pytest

from db.create import create_tasks
from db.progress import fold_groups
from db.task import read_tasks
from resolvers import drive, group, task
from server.loops import upkeep
from tests.support.crew import Crew, Refused
from tests.support.races import batch_of

Row = dict[str, Any]
STATES = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED", "SUCCEEDED", "FAILED", "CANCELLED"]
ORDERS = {
    "CREATED_ASC": lambda t: t["no"],
    "CREATED_DESC": lambda t: -t["no"],
    "PRIORITY_DESC": lambda t: (-t["priority"], t["no"]),
    "FINISHED_DESC": lambda t: (-t["ended"], -t["no"]),
}
WAYS = {"sorted": (1000, 64), "walked": (0, 64), "without lanes": (0, 0)}
"""How small a set must be to be sorted, and how many lanes may be walked."""


@pytest.fixture(params=WAYS)
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    small, lanes = WAYS[request.param]
    monkeypatch.setattr(drive, "SMALL", small)
    monkeypatch.setattr(group, "SMALL", small)
    monkeypatch.setattr(drive, "LANES", lanes)
    return request.param


async def storm(crew: Crew, dice: random.Random) -> None:
    """Tasks in every state, in several groups, channels and workgroups."""
    channels, workgroups = ("c", "d", "e"), ("v", "w", None)
    for n in range(8):
        tasks: list[Row] = [
            {
                "name": f"{n} {i}",
                "ref": str(i),
                "channel": dice.choice(channels),
                "workgroup": dice.choice(workgroups),
                "priority": dice.choice([0, 0, 0, 5, -3]),
                "key": dice.choice([None, None, "k", "l"]),
                "parents": [{"ref": str(dice.randrange(i))}] if i and dice.random() < 0.3 else [],
                "delaySeconds": dice.choice([None, None, None, 100]),
                "progressWeight": dice.choice([1, 1, 0, 7]),
            }
            for i in range((0, 1, 9, 3, 14, 1, 9, 9)[n])
        ]
        await crew.create(*tasks, name=dice.choice("pqr"), isPaused=n == 5)
        leases = await crew.claim(4, channels, workerId=dice.choice(["one", "two"]))
        dice.shuffle(leases)
        if leases:
            await crew.complete(*leases[:2])
            for lease in leases[2:3]:
                await crew.fail(lease, discard=True)
    made = await crew.create(*({"name": f"last {n}", "priority": n, "workgroup": "v"} for n in range(5)), name="p")
    cancelled = [t["id"] for t in made["tasks"][1:4]]
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=cancelled)
    await crew.ask('mutation { suspendWorkgroup(name: "v", seconds: 100) { workgroup { name } } }')


async def rows(crew: Crew) -> list[Row]:
    found = await crew.sql(
        "select no, id::text, group_id::text, name, channel, workgroup, key, state, priority, worker_id,"
        " coalesce(extract(epoch from finished_at) * 1000000, -1)::bigint as ended, created_at from task_now"
    )
    return [dict(row) for row in found]


async def paged(crew: Crew, what: str, order: str, given: str, size: int) -> list[str]:
    """All pages of a list; the ids."""
    query = "query($after: String) { %s(orderBy: %s, filter: %s, first: %d, after: $after) %s }" % (
        *(what, order, given, size),
        "{ nodes { id } totalCount pageInfo { endCursor hasNextPage } }",
    )
    found: list[str] = []
    cursor = None
    while True:
        page = (await crew.ask(query, after=cursor))[what]
        found += [node["id"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            assert page["totalCount"] == len(found)
            return found
        cursor = page["pageInfo"]["endCursor"]


FILTERS: dict[str, Any] = {
    "{}": lambda t: True,
    **{f"{{states: [{state}]}}": lambda t, n=n: t["state"] == n for n, state in enumerate(STATES)},
    "{states: [READY, SUCCEEDED]}": lambda t: t["state"] in (2, 5),
    "{states: [BLOCKED, FAILED, CANCELLED]}": lambda t: t["state"] in (0, 6, 7),
    "{states: [RUNNING, READY, SCHEDULED, MERGED]}": lambda t: t["state"] in (1, 2, 3, 4),
    '{channels: ["d"]}': lambda t: t["channel"] == "d",
    '{channels: ["c", "e"], states: [READY]}': lambda t: t["channel"] in "ce" and t["state"] == 2,
    '{workgroups: ["v"], states: [READY]}': lambda t: t["workgroup"] == "v" and t["state"] == 2,
    '{key: "k"}': lambda t: t["key"] == "k",
    '{key: "k", states: [MERGED, SUCCEEDED]}': lambda t: t["key"] == "k" and t["state"] in (4, 5),
    '{workerId: "one"}': lambda t: t["worker_id"] == "one",
    '{workerId: "one", states: [RUNNING]}': lambda t: t["worker_id"] == "one" and t["state"] == 3,
    '{nameContains: "3"}': lambda t: "3" in t["name"],
    '{createdAfter: "2020-01-01T00:00:00Z", states: [FAILED, SUCCEEDED]}': lambda t: t["state"] in (5, 6),
}


async def test_a_list_is_what_the_rows_say_in_every_order_and_however_it_is_walked(crew: Crew, ways: str) -> None:
    dice = random.Random(ways)
    await storm(crew, dice)
    tasks = await rows(crew)
    assert {t["state"] for t in tasks} >= {0, 1, 2, 3, 5, 6, 7}
    group_id = max(tasks, key=lambda t: t["state"] == 3)["group_id"]
    filters = {
        **FILTERS,
        f'{{groupId: "{group_id}"}}': lambda t: t["group_id"] == group_id,
        f'{{groupId: "{group_id}", states: [READY, RUNNING]}}': lambda t: (
            t["group_id"] == group_id and t["state"] in (2, 3)
        ),
    }
    for given, holds in filters.items():
        for order, key in ORDERS.items():
            expected = [t["id"] for t in sorted(filter(holds, tasks), key=key)]
            assert await paged(crew, "tasks", order, given, dice.choice([3, 10, 1000])) == expected, (given, order)


LEFT_OUT = {"not_before", "holds", "progress", "progress_message"}


async def test_lean_rows_leave_out_what_holds_a_task_back_and_its_progress_alone(crew: Crew) -> None:
    await storm(crew, random.Random(1))
    nos = [t["no"] for t in await rows(crew)]
    read = partial(read_tasks, crew.services.core.pool, crew.services.core.ns, nos=nos)
    lean, full = [{row.no: asdict(row) for row in await read(lean=lean)} for lean in (True, False)]
    assert {row["state"] for row in full.values()} >= {0, 1, 2, 3, 5, 6, 7}
    told = {name for no in nos for name, value in full[no].items() if value != lean[no][name]}
    assert told <= LEFT_OUT
    assert "holds" in told


SELECTIONS = [
    "nodes { id %s }",
    "nodes { id x: %s }",
    "nodes { id ... { %s } }",
    "nodes { id ...F }",
    "nodes { id } edges { node { id %s } }",
]


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("field", ["heldBy", "notBefore", "progress", "progressMessage"])
async def test_a_list_tells_of_holds_and_progress_however_it_is_asked(crew: Crew, selection: str, field: str) -> None:
    await crew.create({"name": "a", "priority": 1}, {"name": "b", "workgroup": "w"})
    (lease,) = await crew.claim(1)
    report = {"leases": [lease["id"]], "progress": [{"lease": lease["id"], "fraction": 0.5, "message": "half"}]}
    await crew.ask("mutation($i: ExtendLeasesInput!) { extendLeases(input: $i) { expiresAt } }", i=report)
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { name } } }')
    asked = selection.replace("%s", field)
    more = "fragment F on Task { ...G } fragment G on Task { %s }" % field if "...F" in selection else ""
    found = (await crew.ask("{ tasks(orderBy: CREATED_ASC) { %s } } %s" % (asked, more)))["tasks"]
    told = [
        t.get(field, t.get("x")) for t in ([e["node"] for e in found["edges"]] if "edges" in found else found["nodes"])
    ]
    assert told == [(await crew.task(t["id"], field))[field] for t in found["nodes"]]
    assert told not in ([None, None], [[], []])


async def test_times_bound_a_list_whose_numbers_do_not_quite_go_by_time(crew: Crew, ways: str) -> None:
    await crew.create(*({"name": str(n)} for n in range(40)))
    await crew.sql("update task set created_at = now() - interval '1 day' + no * interval '20 minutes'")
    await crew.sql("update task set created_at = created_at - interval '90 s' where no % 7 = 3")
    tasks = sorted(await rows(crew), key=lambda t: t["no"])
    middle = [tasks[13]["created_at"], tasks[20]["created_at"]]
    given = '{createdAfter: "%s", createdBefore: "%s"}' % tuple(at.isoformat() for at in middle)
    inside = [t for t in tasks if middle[0] < t["created_at"] < middle[1]]
    assert 4 < len(inside) < 8
    for order, key in ORDERS.items():
        assert await paged(crew, "tasks", order, given, 3) == [t["id"] for t in sorted(inside, key=key)], order


# -- groups -------------------------------------------------------------------------------------------------------------

GROUP_STATES = {"OPEN": "open", "FINISHED": "finished", "FAILING": "failing", "PAUSED": "paused"}
GROUP_ORDERS = {
    "CREATED_ASC": lambda g: g["no"],
    "CREATED_DESC": lambda g: -g["no"],
    "NAME_ASC": lambda g: (g["name"], g["no"]),
    "FINISHED_DESC": lambda g: (-g["ended"], -g["no"]),
}


async def group_rows(crew: Crew) -> list[Row]:
    """Told from the places of the tasks."""
    found = await crew.sql(
        "select g.group_no as no, g.id::text, g.name, count(t.no)::int as total,"
        " count(*) filter (where t.state not in (5, 7))::int as unsettled, count(*) filter (where t.state = 6) > 0 as failing,"
        " exists (select from pause p where p.kind = 2 and p.ref = g.group_no) as paused,"
        " max(extract(epoch from t.finished_at) * 1000000)::bigint as last, sum(t.weight)::int as weight,"
        " coalesce(sum(t.weight) filter (where t.state in (5, 7)), 0)::int as settled,"
        " array(select count(x.no)::int from generate_series(0, 7) s left join task_place x on x.group_no = g.group_no"
        "   and x.state = s group by s order by s) as counts"
        " from task_group g left join task_place t on t.ns = g.ns and t.group_no = g.group_no group by g.ns, g.group_no"
    )
    groups = [dict(row) for row in found]
    for one in groups:
        one["finished"] = one["total"] > 0 and one["unsettled"] == 0
        one["open"] = not one["finished"]
        one["ended"] = one["last"] if one["finished"] else -1
    return groups


@pytest.mark.parametrize("folded", [True, False])
async def test_a_list_of_groups_is_what_the_rows_say_folded_or_not(crew: Crew, ways: str, folded: bool) -> None:
    await storm(crew, random.Random(3))
    if folded:
        await fold(crew)
    await crew.create(name="empty")
    await crew.complete(*await crew.claim(5, ("c", "d", "e")))
    groups = await group_rows(crew)
    assert {one["finished"] for one in groups} == {True, False}
    given = [*([state] for state in GROUP_STATES), ["OPEN", "FAILING"], ["FINISHED", "PAUSED"], ["FAILING", "PAUSED"]]
    for states in given:
        matching = [one for one in groups if any(one[GROUP_STATES[state]] for state in states)]
        for order, key in GROUP_ORDERS.items():
            expected = [one["id"] for one in sorted(matching, key=key)]
            assert await paged(crew, "taskGroups", order, f"{{states: [{', '.join(states)}]}}", 2) == expected, (
                states,
                order,
            )
    for order, key in GROUP_ORDERS.items():
        assert await paged(crew, "taskGroups", order, "{}", 3) == [one["id"] for one in sorted(groups, key=key)]


# -- progress -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No loop folds: `fold` does."""
    monkeypatch.setattr(upkeep, "fold", lambda _: asyncio.sleep(3600))


async def fold(crew: Crew) -> None:
    await fold_groups(crew.services.core.pool, 1)


async def told(crew: Crew) -> dict[str, Row]:
    answer = await crew.ask(
        "{ taskGroups(first: 1000) { nodes { id finishedAt progress { fraction total counts { state count } } } } }"
    )
    return {node["id"]: node for node in answer["taskGroups"]["nodes"]}


async def assert_exact(crew: Crew) -> None:
    found = await told(crew)
    for one in await group_rows(crew):
        progress = found[one["id"]]["progress"]
        counts = {c["state"]: c["count"] for c in progress["counts"]}
        assert [counts.get(state, 0) for state in STATES] == one["counts"]
        assert progress["total"] == one["total"]
        all_settled = float(one["finished"])
        assert progress["fraction"] == (one["settled"] / one["weight"] if one["weight"] else all_settled)
        assert (found[one["id"]]["finishedAt"] is not None) == one["finished"]


@pytest.mark.parametrize("seed", range(3))
async def test_progress_is_exact_whatever_is_folded_and_whatever_is_not(crew: Crew, by_hand: None, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(2):
        await storm(crew, dice)
        await assert_exact(crew)
        await fold(crew)
        await assert_exact(crew)
        await crew.complete(*await crew.claim(7, ("c", "d", "e")))
        await assert_exact(crew)
    failed = await crew.sql("select id::text from task_now where state = 6")
    await crew.ask("mutation($ids: [ID!]) { retryTasks(ids: $ids) { affected } }", ids=[r["id"] for r in failed])
    await assert_exact(crew)


async def test_what_commits_while_others_fold_is_folded_later_and_once(crew: Crew, by_hand: None) -> None:
    """A transaction that is older than the fold, and commits after it, is in the tail until the next one."""
    await crew.create({"name": "a"})
    other = await asyncpg.connect(crew.dsn)
    try:
        await other.execute("insert into channel (ns, channel, name) values (1, 1001, 'x') on conflict do nothing")
        transaction = other.transaction()
        await transaction.start()
        await create_tasks(other, 1, batch_of({"x": (), "y": ("x",)}))
        await crew.create({"name": "b"}, {"name": "c"})
        await fold(crew)
        await assert_exact(crew)
        await transaction.commit()
        await assert_exact(crew)
        await fold(crew)
        await assert_exact(crew)
        await fold(crew)
        await assert_exact(crew)
    finally:
        await other.close()
    assert len(await told(crew)) == 3


# -- bounds -------------------------------------------------------------------------------------------------------------


async def test_a_list_that_would_look_too_far_is_refused_with_what_to_do(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.create(*({"name": f"t{n}"} for n in range(300)))
    await crew.create({"name": "last"}, {"name": "last"})
    monkeypatch.setattr(task, "BUDGET", 400)
    for order in ("CREATED_ASC", "PRIORITY_DESC"):
        with pytest.raises(Refused) as refused:
            await crew.ask('{ tasks(orderBy: %s, filter: {nameContains: "last"}) { nodes { name } } }' % order)
        assert (refused.value.code, refused.value.path) == ("TOO_BROAD", ["filter"])
        assert "nameContains" in refused.value.message
        assert "name a group, a key, fewer states" in refused.value.message
        assert refused.value.data == {"tasks": None}
    found = await crew.ask('{ tasks(filter: {nameContains: "last"}, first: 1) { nodes { name } } }')
    assert found["tasks"]["nodes"] == [{"name": "last"}]


async def test_a_count_that_would_look_too_far_says_that_it_is_not_exact(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crew.create(*({"name": f"t{n}"} for n in range(300)))
    monkeypatch.setattr(task, "BUDGET", 400)
    query = '{ tasks(first: 0, filter: {nameContains: "t"}) { totalCount totalCountIsExact pageInfo { hasNextPage } } }'
    found = (await crew.ask(query))["tasks"]
    assert found == {"totalCount": 200, "totalCountIsExact": False, "pageInfo": {"hasNextPage": True}}
    exact = (await crew.ask("{ tasks(first: 0, filter: {states: [READY]}) { totalCount totalCountIsExact } }"))["tasks"]
    assert exact == {"totalCount": 300, "totalCountIsExact": True}


async def test_a_list_of_groups_that_would_look_too_far_is_refused(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    await crew.ask(
        "mutation($i: CreateTaskGroupsInput!) { createTaskGroups(input: $i) { groups { taskGroup { id } } } }",
        i={"groups": [{"name": f"g{n}"} for n in range(300)]},
    )
    await fold(crew)
    monkeypatch.setattr(group, "BUDGET", 1600)
    for order in GROUP_ORDERS:
        with pytest.raises(Refused) as refused:
            await crew.ask('{ taskGroups(orderBy: %s, filter: {nameContains: "no"}) { nodes { id } } }' % order)
        assert (refused.value.code, refused.value.path) == ("TOO_BROAD", ["filter"])


# -- change -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["CREATED_ASC", "CREATED_DESC", "PRIORITY_DESC"])
async def test_no_task_that_stays_is_skipped_or_repeated_while_others_change(crew: Crew, ways: str, order: str) -> None:
    """Between pages some of the READY ones are claimed and others are made; the rest come once each, in order."""
    await crew.create(*({"name": f"stays {n}", "priority": n % 3} for n in range(40)))
    await crew.create(*({"name": f"goes {n}", "channel": "d", "priority": n % 3} for n in range(40)))
    query = (
        "query($after: String) { tasks(orderBy: %s, first: 7, filter: {states: [READY]}, after: $after) "
        "{ nodes { name priority } pageInfo { endCursor hasNextPage } } }" % order
    )
    found: list[Row] = []
    cursor, more = None, True
    while more:
        page = (await crew.ask(query, after=cursor))["tasks"]
        found += page["nodes"]
        cursor, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        await crew.complete(*await crew.claim(3, ("d",)))
        await crew.create({"name": "new", "channel": "e", "priority": 1})
    stayed = [n["name"] for n in found if n["name"].startswith("stays")]
    expected = [f"stays {n}" for n in range(40)]
    if order == "CREATED_DESC":
        expected.reverse()
    if order == "PRIORITY_DESC":
        expected.sort(key=lambda name: -(int(name.split()[1]) % 3))
    assert stayed == expected
    gone = [n["name"] for n in found if n["name"].startswith("goes")]
    assert len(gone) == len(set(gone))


# -- throughput ---------------------------------------------------------------------------------------------------------


async def test_throughput_counts_what_was_created_succeeded_and_failed_and_how_long_it_waited(crew: Crew) -> None:
    await crew.create(*({"name": str(n)} for n in range(5)), {"name": "elsewhere", "channel": "d"})
    await crew.sql(
        "update ready set ready_at = now() - interval '20 s' where channel = (select channel from channel where name = 'c')"
    )
    leases = await crew.claim(4)
    await crew.complete(*leases[:3])
    await crew.fail(leases[3], discard=True)
    await fold(crew)
    await fold(crew)
    fields = "at created succeeded failed waitP50 waitP99"
    query = "query($c: String) { throughput(channel: $c, seconds: 600, buckets: 6) { %s } }" % fields
    for channel, created in (("c", 5), (None, 6), ("d", 1), ("nobody", 0)):
        buckets = (await crew.ask(query, c=channel))["throughput"]
        assert len(buckets) == 6
        assert [b["at"] for b in buckets] == sorted(b["at"] for b in buckets)
        assert sum(b["created"] for b in buckets) == created
        ended = (sum(b["succeeded"] for b in buckets), sum(b["failed"] for b in buckets))
        waits = [(b["waitP50"], b["waitP99"]) for b in buckets if b["waitP50"] is not None]
        assert ended == ((3, 1) if channel in ("c", None) else (0, 0))
        if channel in ("c", None):
            ((median, highest),) = waits
            assert 17 < median <= highest < 30
        else:
            assert waits == []


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("seconds: 5", "seconds"),
        ("seconds: 90000", "seconds"),
        ("buckets: 0", "buckets"),
        ("seconds: 60, buckets: 7", "buckets"),
    ],
)
async def test_throughput_finer_or_longer_than_is_kept_is_refused(crew: Crew, given: str, path: str) -> None:
    with pytest.raises(Refused) as refused:
        await crew.ask("{ throughput(%s) { at } }" % given)
    assert (refused.value.code, refused.value.path) == ("BAD_INPUT", [path])
