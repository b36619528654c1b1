"""Pausing tasks, groups and channels: how many, what is answered, what is refused."""

from __future__ import annotations

import uuid

import pytest

from tests.support.crew import Crew, Refused
from tests.support.pauses import (
    CHANNEL,
    GROUP,
    PAUSES,
    TASK,
    hold,
    let_go,
    names,
    one,
    shown,
    tasks,
)

# -- order, counts, many ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PAUSES)
async def test_what_was_held_comes_in_its_order_again(crew: Crew, kind: str) -> None:
    made = await crew.create(*({"name": str(n), "priority": n % 2} for n in range(6)))
    await crew.create({"name": "later"})
    if kind == TASK:
        ids = [t["id"] for t in made["tasks"]]
        await tasks(crew, "pause", *ids)
        await tasks(crew, "resume", *reversed(ids))
    else:
        ref = made["taskGroup"]["id"] if kind == GROUP else "c"
        await hold(crew, kind, ref)
        await let_go(crew, kind, ref)
    assert names(await crew.claim(9)) == ["1", "3", "5", "0", "2", "4", "later"]


@pytest.mark.parametrize("kind", PAUSES)
async def test_thousands_are_held_and_let_go_by_one_call(crew: Crew, kind: str) -> None:
    made = await crew.create(*({"name": str(n), "workgroup": "w" if n % 2 else None} for n in range(2500)))
    ids = [t["id"] for t in made["tasks"]]
    for _ in range(2):
        if kind == TASK:
            assert (await tasks(crew, "pause", *ids))["affected"] == 2500
        else:
            await hold(crew, kind, made["taskGroup"]["id"] if kind == GROUP else "c")
        assert await crew.claim(99) == []
        if kind == TASK:
            assert (await tasks(crew, "resume", *ids))["affected"] == 2500
        else:
            await let_go(crew, kind, made["taskGroup"]["id"] if kind == GROUP else "c")
    assert names(await crew.claim(5000)) == [str(n) for n in range(2500)]


@pytest.mark.parametrize("kind", PAUSES)
async def test_a_held_task_is_counted_as_ready_but_not_as_the_oldest_that_could_be_claimed(
    crew: Crew, kind: str
) -> None:
    refs = await one(crew, name="old")
    await crew.create({"name": "young"})
    await crew.sql(
        "update ready r set ready_at = now() - case t.name when 'old' then interval '90 s' else interval '50 s' end "
        "from task t where t.ns = r.ns and t.no = r.no"
    )
    query = (
        '{ channel(name: "c") { isPaused oldestReadySeconds counts { state count } } '
        'workgroup(name: "w") { counts { state count } } }'
    )
    counts = [{"state": "READY", "count": 2}]

    async def look() -> tuple[bool, float | None]:
        answer = await crew.ask(query)
        assert answer["channel"]["counts"] == counts
        assert answer["workgroup"]["counts"] == [{"state": "READY", "count": 1}]
        return answer["channel"]["isPaused"], answer["channel"]["oldestReadySeconds"]

    is_paused, oldest = await look()
    assert (is_paused, 90 <= (oldest or 0) < 120) == (False, True)
    await hold(crew, kind, refs[kind])
    is_paused, oldest = await look()
    if kind == CHANNEL:
        assert (is_paused, oldest) == (True, None)
    else:
        assert (is_paused, 50 <= (oldest or 0) < 80) == (False, True)
    await let_go(crew, kind, refs[kind])
    is_paused, oldest = await look()
    assert (is_paused, 90 <= (oldest or 0) < 120) == (False, True)


# -- tasks --------------------------------------------------------------------------------------------------------------


async def test_tasks_that_have_not_ended_are_paused_and_resumed_once(crew: Crew) -> None:
    made = await crew.create(
        {"name": "SUCCEEDED", "priority": 9},
        {"name": "FAILED", "priority": 8},
        {"name": "RUNNING", "priority": 7},
        {"name": "CANCELLED"},
        {"name": "READY", "ref": "r"},
        {"name": "BLOCKED", "parents": [{"ref": "r"}]},
        {"name": "SCHEDULED", "delaySeconds": 1000},
        {"name": "other"},
    )
    ids = {t["name"]: t["id"] for t in made["tasks"]}
    done, failed, _ = await crew.claim(3)
    await crew.complete(done)
    await crew.fail(failed, discard=True)
    await crew.ask("mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }", ids=[ids["CANCELLED"]])
    before = await crew.states(made["taskGroup"]["id"])
    given = [str(uuid.uuid4()), *(i for n, i in ids.items() if n != "other"), ids["READY"], str(uuid.uuid4())]
    for verb, held in (("pause", [TASK]), ("resume", [])):
        answer = await tasks(crew, verb, *given)
        assert answer["affected"] == 4
        assert sorted(answer["tasks"], key=lambda t: t["name"]) == [
            {"id": ids[n], "name": n, "state": n, "heldBy": held if n == "READY" else []}
            for n in ("BLOCKED", "READY", "RUNNING", "SCHEDULED")
        ]
        assert await tasks(crew, verb, *given) == {"affected": 0, "tasks": []}
        assert await crew.states(made["taskGroup"]["id"]) == before
        (lease,) = await crew.claim()
        assert lease["task"]["name"] == ("other" if verb == "pause" else "READY")
        await crew.release(lease)


async def test_some_of_those_named_may_be_paused_already(crew: Crew) -> None:
    made = await crew.create(*({"name": n} for n in "abc"))
    a, b, c = (t["id"] for t in made["tasks"])
    await tasks(crew, "pause", b)
    answer = await tasks(crew, "pause", a, b, c)
    assert (answer["affected"], sorted(t["name"] for t in answer["tasks"])) == (2, ["a", "c"])
    answer = await tasks(crew, "resume", b)
    assert (answer["affected"], answer["tasks"][0]["heldBy"]) == (1, [])
    answer = await tasks(crew, "resume", a, b)
    assert (answer["affected"], [t["name"] for t in answer["tasks"]]) == (1, ["a"])
    assert names(await crew.claim(9)) == ["a", "b"]


# -- groups -------------------------------------------------------------------------------------------------------------


async def is_paused(crew: Crew, group: str) -> bool:
    found: bool = (await crew.ask("query($id: ID!) { taskGroup(id: $id) { isPaused } }", id=group))["taskGroup"][
        "isPaused"
    ]
    return found


async def test_a_group_says_that_it_is_paused_and_how_many_tasks_that_holds(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a"},
        {"name": "b"},
        {"name": "blocked", "parents": [{"ref": "a"}]},
        {"name": "later", "delaySeconds": 1000},
    )
    id = made["taskGroup"]["id"]
    await crew.create({"name": "other", "priority": -1})
    (lease,) = await crew.claim()
    for verb, paused in ((hold, True), (let_go, False)):
        assert await verb(crew, GROUP, id) == {"affected": 1, "taskGroup": {"id": id, "isPaused": paused}}
        assert await verb(crew, GROUP, id) == {"affected": 0, "taskGroup": {"id": id, "isPaused": paused}}
        assert await is_paused(crew, id) is paused
    await hold(crew, GROUP, id)
    await crew.complete(lease)
    assert names(await crew.claim(9)) == ["other"]
    assert (await let_go(crew, GROUP, id))["affected"] == 2
    assert sorted(names(await crew.claim(9))) == ["b", "blocked"]


async def test_an_empty_group_can_be_paused(crew: Crew) -> None:
    id = (await crew.create())["taskGroup"]["id"]
    assert (await hold(crew, GROUP, id))["affected"] == 0
    (task,) = await crew.create_tasks(id, {"name": "a"})
    assert await shown(crew, task["id"]) == ("READY", [GROUP])
    assert (await let_go(crew, GROUP, id))["affected"] == 1


async def test_a_group_can_be_born_paused(crew: Crew) -> None:
    id = str(uuid.uuid4())
    made = await crew.create({"name": "a", "ref": "a"}, {"name": "b", "parents": [{"ref": "a"}]}, id=id, isPaused=True)
    assert [t["state"] for t in made["tasks"]] == ["READY", "BLOCKED"]
    assert await is_paused(crew, id) is True
    assert await shown(crew, made["tasks"][0]["id"]) == ("READY", [GROUP])
    assert await crew.claim(9) == []
    assert (await let_go(crew, GROUP, id))["affected"] == 1
    again = await crew.create({"name": "a"}, {"name": "b"}, id=id, isPaused=True)
    assert again["tasks"] == made["tasks"]
    assert await is_paused(crew, id) is False
    assert names(await crew.claim(9)) == ["a"]


async def test_groups_made_together_are_paused_each_as_it_says(crew: Crew) -> None:
    groups = [
        {"name": n, "tasks": [{"name": n, "channel": "c"}], "isPaused": p}
        for n, p in (("a", True), ("b", False), ("c", None), ("d", True))
    ]
    query = (
        "mutation($input: CreateTaskGroupsInput!) { createTaskGroups(input: $input) "
        "{ groups { taskGroup { id isPaused } tasks { heldBy } } } }"
    )
    made = (await crew.ask(query, input={"groups": groups}))["createTaskGroups"]["groups"]
    assert [m["taskGroup"]["isPaused"] for m in made] == [True, False, False, True]
    assert [m["tasks"][0]["heldBy"] for m in made] == [[GROUP], [], [], [GROUP]]
    assert names(await crew.claim(9)) == ["b", "c"]


async def test_groups_are_listed_by_whether_they_are_paused(crew: Crew) -> None:
    made = [await crew.create({"name": "t", "channel": n}, name=n, isPaused=n in "bd") for n in "abcd"]
    await crew.complete(*await crew.claim(channels=("a",)))

    async def listed(states: str) -> str:
        query = "{ taskGroups(orderBy: NAME_ASC, filter: {states: [%s]}) { totalCount nodes { name isPaused } } }"
        found = (await crew.ask(query.replace("%s", states)))["taskGroups"]
        assert found["totalCount"] == len(found["nodes"])
        assert [n["isPaused"] for n in found["nodes"]] == [n["name"] in paused for n in found["nodes"]]
        return "".join(n["name"] for n in found["nodes"])

    paused = "bd"
    assert [await listed(s) for s in ("PAUSED", "OPEN", "FINISHED", "FINISHED, PAUSED", "")] == [
        "bd",
        "bcd",
        "a",
        "abd",
        "",
    ]
    await let_go(crew, GROUP, made[1]["taskGroup"]["id"])
    await hold(crew, GROUP, made[0]["taskGroup"]["id"])
    paused = "ad"
    assert [await listed(s) for s in ("PAUSED", "OPEN", "FINISHED", "PAUSED, OPEN")] == ["ad", "bcd", "a", "abcd"]


# -- channels -----------------------------------------------------------------------------------------------------------


async def test_a_channel_says_that_it_is_paused(crew: Crew) -> None:
    await crew.create({"name": "c"}, {"name": "d", "channel": "d"})
    for _ in range(2):
        assert await hold(crew, CHANNEL, "c") == {"channel": {"name": "c", "isPaused": True}}
        assert (await crew.ask("{ channels { name isPaused } }"))["channels"] == [
            {"name": "c", "isPaused": True},
            {"name": "d", "isPaused": False},
        ]
    assert names(await crew.claim(9, ("c", "d"))) == ["d"]
    for _ in range(2):
        assert await let_go(crew, CHANNEL, "c") == {"channel": {"name": "c", "isPaused": False}}
    assert (await crew.ask('{ channel(name: "c") { isPaused } }'))["channel"] == {"isPaused": False}


async def test_a_channel_can_be_paused_before_it_has_tasks(crew: Crew) -> None:
    assert (await crew.ask('{ channel(name: "new") { name } }'))["channel"] is None
    await hold(crew, CHANNEL, "new")
    found = (await crew.ask('{ channel(name: "new") { isPaused counts { count } } }'))["channel"]
    assert found == {"isPaused": True, "counts": []}
    made = await crew.create({"name": "a", "channel": "new"}, {"name": "b", "channel": "newer"})
    assert await shown(crew, made["tasks"][0]["id"]) == ("READY", [CHANNEL])
    assert names(await crew.claim(9, ("new", "newer"))) == ["b"]


async def test_a_paused_channel_hides_nothing_of_the_others_behind_it(crew: Crew) -> None:
    await crew.create(*({"name": "x", "priority": 9} for _ in range(50)), {"name": "y", "channel": "d"})
    await hold(crew, CHANNEL, "c")
    assert names(await crew.claim(1, ("c", "d"))) == ["y"]


@pytest.mark.parametrize("kind", [TASK, GROUP])
async def test_what_is_held_hides_nothing_behind_it(crew: Crew, kind: str) -> None:
    made = await crew.create(*({"name": "x", "priority": 9} for _ in range(50)))
    await crew.create({"name": "y"})
    if kind == TASK:
        await tasks(crew, "pause", *(t["id"] for t in made["tasks"]))
    else:
        await hold(crew, kind, made["taskGroup"]["id"])
    assert names(await crew.claim(1)) == ["y"]


# -- what is refused ----------------------------------------------------------------------------------------------------

ID = "018f5a3e-7c11-7a55-8d3c-0242ac120002"
BAD: dict[str, tuple[str, str, list[str | int]]] = {
    "no tasks": ("Tasks(ids: []) { affected }", "BAD_INPUT", ["ids"]),
    "a bad task": (f'Tasks(ids: ["{ID}", "x"]) {{ affected }}', "BAD_INPUT", ["ids", 1]),
    "an unknown group": (f'TaskGroup(id: "{ID}") {{ affected }}', "NOT_FOUND", ["id"]),
    "a bad group": ('TaskGroup(id: "x") { affected }', "BAD_INPUT", ["id"]),
    "an empty channel": ('Channel(name: "") { channel { name } }', "BAD_INPUT", ["name"]),
    "a NUL in the channel": ('Channel(name: "\\u0000") { channel { name } }', "BAD_INPUT", ["name"]),
    "a long channel": (f'Channel(name: "{"c" * 256}") {{ channel {{ name }} }}', "BAD_INPUT", ["name"]),
}


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_what_names_nothing_is_refused_and_changes_nothing(
    crew: Crew, verb: str, subtests: pytest.Subtests
) -> None:
    await crew.create({"name": "a"})
    cases = dict(BAD)
    if verb == "resume":
        cases["an unknown channel"] = ('Channel(name: "nobody") { channel { name } }', "NOT_FOUND", ["name"])
    for case, (call, code, path) in cases.items():
        with subtests.test(case):
            with pytest.raises(Refused) as refused:
                await crew.ask(f"mutation {{ {verb}{call} }}")
            assert (refused.value.code, refused.value.path) == (code, path)
            assert refused.value.message
    assert await crew.ask("{ channels { name isPaused } }") == {"channels": [{"name": "c", "isPaused": False}]}
    assert names(await crew.claim()) == ["a"]


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_too_many_tasks_are_refused(crew: Crew, verb: str) -> None:
    with pytest.raises(Refused) as refused:
        await tasks(crew, verb, *(str(uuid.uuid4()) for _ in range(10_001)))
    assert (refused.value.code, refused.value.path) == ("TOO_LARGE", ["ids"])
