"""resetTaskGroup: seeds, or with no seeds all that nobody spawned, start over."""

from __future__ import annotations

import uuid

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import group, id_of, links, t, work
from tests.support.steering import fold, progress, reset_group


async def test_without_seeds_every_task_starts_over_and_what_was_spawned_goes(crew: Crew) -> None:
    g = await group(crew, t("a"), t("b", "a"), t("c", "b"))
    await work(crew, {"a": [t("x")], "x": [t("y")]})
    assert await reset_group(crew, g) == 3
    assert await crew.states(g) == {"a": "READY", "b": "BLOCKED", "c": "BLOCKED"}
    assert set(await work(crew, {"a": [t("x")]})) == {"a", "b", "c", "x"}
    assert await progress(crew, g) == ({"SUCCEEDED": 4}, 1)


async def test_seeds_start_over_and_all_others_go(crew: Crew) -> None:
    g = await group(crew, t("seed", isSeed=True), t("second", "seed", isSeed=True), t("other"), t("below", "other"))
    await work(crew, {"seed": [t("x")]})
    await fold(crew)
    assert await reset_group(crew, g) == 2
    assert await crew.states(g) == {"seed": "READY", "second": "BLOCKED"}
    assert await links(crew, g) == {("seed", "second"): ("TASK", False)}
    assert await progress(crew, g) == ({"READY": 1, "BLOCKED": 1}, 0)
    await fold(crew)
    assert await progress(crew, g) == ({"READY": 1, "BLOCKED": 1}, 0)
    assert list(await work(crew, {"seed": [t("x")]})) == ["seed", "second", "x"]


async def test_a_seed_that_waited_for_one_that_is_no_seed_waits_no_more(crew: Crew) -> None:
    g = await group(crew, t("a"), t("seed", "a", isSeed=True))
    assert await reset_group(crew, g) == 1
    assert await crew.states(g) == {"seed": "READY"}


async def test_a_seed_that_joins_the_tree_of_another_starts_over_with_it(crew: Crew) -> None:
    g = await group(crew, t("seed", isSeed=True), t("join", "seed*", isSeed=True))
    grows = {"seed": [t("x"), t("y")], "x": [t("z")]}
    await work(crew, grows, limit=3)
    assert await reset_group(crew, g) == 2
    assert await crew.states(g) == {"seed": "READY", "join": "BLOCKED"}
    assert list(await work(crew, grows)) == ["seed", "x", "y", "z", "join"]


async def test_leases_are_lost_on_seeds_and_cancelled_on_others(crew: Crew) -> None:
    g = await group(crew, t("seed", isSeed=True), t("other"))
    seed, other = await crew.claim(2)
    await reset_group(crew, g)
    answer = await crew.complete(seed, other)
    assert [e["code"] for e in answer["errors"]] == ["LOST", "CANCELLED"]


async def test_a_paused_group_stays_paused(crew: Crew) -> None:
    g = (await crew.create({"name": "a"}, isPaused=True))["taskGroup"]["id"]
    assert await reset_group(crew, g) == 1
    assert await crew.claim() == []


async def test_there_is_one_event_of_the_group_and_its_tasks_have_their_own(crew: Crew) -> None:
    g = await group(crew, t("seed", isSeed=True), t("other"))
    await work(crew)
    seed, other = (r["no"] for r in await crew.sql("select no from task order by no"))
    (last,) = [r["seq"] for r in await crew.sql("select max(seq) as seq from event")]
    await reset_group(crew, g)
    events = await crew.sql(
        "select kind, was, state, nos, cardinality(groups) as n from event where seq > $1 order by seq", last
    )
    assert [tuple(e) for e in events] == [(13, None, None, [], 1), (15, 5, None, [other], 1), (13, 5, 2, [seed], 1)]


async def test_an_empty_group_starts_over_and_one_that_does_not_exist_is_refused(crew: Crew) -> None:
    assert await reset_group(crew, await group(crew)) == 0
    for given, code in ((str(uuid.uuid4()), "NOT_FOUND"), ("x", "BAD_INPUT")):
        with pytest.raises(Refused) as refused:
            await reset_group(crew, given)
        assert (refused.value.code, refused.value.path) == (code, ["id"])


async def test_thousands_of_tasks_start_over(crew: Crew) -> None:
    tree = [{"name": f"t{n}", "ref": f"t{n}", "parents": [{"ref": f"t{n // 7}"}] if n else []} for n in range(5000)]
    g = (await crew.create(*tree))["taskGroup"]["id"]
    await crew.complete(*await crew.claim(9))
    await crew.complete(*await crew.claim(9))
    assert await reset_group(crew, g) == 5000
    assert await progress(crew, g) == ({"READY": 1, "BLOCKED": 4999}, 0)
    await group(crew, t("other"))
    assert (await crew.task(id_of("other"), "state"))["state"] == "READY"
