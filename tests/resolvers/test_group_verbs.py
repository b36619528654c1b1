"""retryTaskGroup and cancelTaskGroup."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.crew import Crew, Refused
from tests.support.joins import group, id_of, t, work
from tests.support.steering import fold, progress

RETRY = (
    "mutation($id: ID!, $attempts: Int) { retryTaskGroup(id: $id, attempts: $attempts) "
    "{ affected taskGroup { progress { fraction } } } }"
)
CANCEL = "mutation($id: ID!) { cancelTaskGroup(id: $id) { affected taskGroup { finishedAt } } }"


async def retry(crew: Crew, id: str, **more: Any) -> int:
    return int((await crew.ask(RETRY, id=id, **more))["retryTaskGroup"]["affected"])


async def cancel(crew: Crew, id: str) -> dict[str, Any]:
    return dict((await crew.ask(CANCEL, id=id))["cancelTaskGroup"])


async def test_every_failed_task_of_the_group_and_no_other_may_run_again(crew: Crew) -> None:
    other = await group(crew, t("other"))
    g = await group(crew, t("a"), t("b"), t("c"), t("below", "a"), t("runs", priority=-1))
    await crew.fail(*await crew.claim(4), discard=True)
    await crew.claim()
    assert await crew.states(g) == {"a": "FAILED", "b": "FAILED", "c": "FAILED", "below": "BLOCKED", "runs": "RUNNING"}
    assert await retry(crew, g, attempts=7) == 3
    assert await crew.states(g) == {"a": "READY", "b": "READY", "c": "READY", "below": "BLOCKED", "runs": "RUNNING"}
    assert await crew.task(id_of("a"), "attempt remainingAttempts") == {"attempt": 1, "remainingAttempts": 7}
    assert await crew.states(other) == {"other": "FAILED"}
    assert await retry(crew, g) == 0


@pytest.mark.parametrize("given", [{}, {"attempts": None}])
async def test_they_get_two_attempts_unless_told_otherwise(crew: Crew, given: dict[str, None]) -> None:
    g = await group(crew, t("a"))
    await crew.fail(*await crew.claim(), discard=True)
    assert await retry(crew, g, **given) == 1
    assert await crew.task(id_of("a"), "remainingAttempts") == {"remainingAttempts": 2}


async def test_every_task_that_is_not_settled_is_cancelled_and_the_group_finishes(crew: Crew) -> None:
    other = await group(crew, t("stays", priority=-9))
    g = await group(
        crew,
        t("done", priority=9),
        t("failed", priority=8),
        t("runs", priority=7, key="k"),
        t("twin", key="k"),
        t("ready"),
        t("later", delaySeconds=1000),
        t("blocked", "ready"),
        t("join", "ready*"),
    )
    done, failed, runs = await crew.claim(3)
    await crew.complete(done)
    await crew.fail(failed, discard=True)
    assert await progress(crew, g) == (
        {"SUCCEEDED": 1, "FAILED": 1, "RUNNING": 1, "MERGED": 1, "READY": 1, "SCHEDULED": 1, "BLOCKED": 2},
        pytest.approx(1 / 8),
    )
    answer = await cancel(crew, g)
    assert answer["affected"] == 7
    assert answer["taskGroup"]["finishedAt"]
    assert await progress(crew, g) == ({"SUCCEEDED": 1, "CANCELLED": 7}, 1)
    assert [e["code"] for e in (await crew.complete(runs))["errors"]] == ["CANCELLED"]
    await fold(crew)
    assert await progress(crew, g) == ({"SUCCEEDED": 1, "CANCELLED": 7}, 1)
    assert await crew.states(other) == {"stays": "READY"}
    assert (await cancel(crew, g))["affected"] == 0
    assert list(await work(crew)) == ["stays"]


async def test_twins_in_other_groups_are_ready_as_before(crew: Crew) -> None:
    g = await group(crew, t("runner", key="k"))
    other = await group(crew, t("twin", key="k"))
    await crew.claim()
    await cancel(crew, g)
    assert await crew.states(other) == {"twin": "READY"}


async def test_there_is_one_event_of_the_group_and_its_tasks_have_their_own(crew: Crew) -> None:
    g = await group(crew, t("a"))
    await crew.fail(*await crew.claim(), discard=True)
    (no,) = [r["no"] for r in await crew.sql("select no from task")]
    (last,) = [r["seq"] for r in await crew.sql("select max(seq) as seq from event")]
    await retry(crew, g)
    await cancel(crew, g)
    events = await crew.sql(
        "select kind, was, state, nos, cardinality(groups) as n from event where seq > $1 order by seq", last
    )
    assert [tuple(e) for e in events] == [
        (3, None, None, [], 1),
        (3, 6, 2, [no], 1),
        (9, None, None, [], 1),
        (9, 2, 7, [no], 1),
    ]


async def test_what_cannot_be_taken_is_refused(crew: Crew) -> None:
    for call in (retry, cancel):
        for given, code in ((str(uuid.uuid4()), "NOT_FOUND"), ("x", "BAD_INPUT")):
            with pytest.raises(Refused) as refused:
                await call(crew, given)
            assert (refused.value.code, refused.value.path) == (code, ["id"])
    g = await group(crew, t("a"))
    for attempts in (0, -1, 1_000_001):
        with pytest.raises(Refused) as refused:
            await retry(crew, g, attempts=attempts)
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["attempts"])
