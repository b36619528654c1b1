"""Extending and releasing leases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.support.crew import EXTEND, Crew
from tests.support.wait import expire_leases


async def claimed(crew: Crew, n: int = 1, **more: Any) -> list[dict[str, Any]]:
    await crew.create(*({"name": str(i), **more} for i in range(n)))
    return await crew.claim(n)


async def end_of(crew: Crew, lease: dict[str, Any]) -> str:
    end: str = (await crew.task(lease["task"]["id"], "leaseExpiresAt"))["leaseExpiresAt"]
    return end


async def left(crew: Crew, end: str) -> float:
    now = (await crew.sql("select now() as now"))[0]["now"]
    return (datetime.fromisoformat(end) - now).total_seconds()


async def test_an_extended_lease_ends_later(crew: Crew) -> None:
    (lease,) = await claimed(crew)
    answer = await crew.extend(lease, leaseSeconds=500)
    assert (answer["suspended"], answer["errors"]) == ([], [])
    assert 490 < await left(crew, answer["expiresAt"]) <= 500
    assert await end_of(crew, lease) == answer["expiresAt"]


async def test_an_extension_never_shortens(crew: Crew) -> None:
    (lease,) = await claimed(crew)
    answer = await crew.extend(lease, leaseSeconds=1)
    assert answer["expiresAt"] == lease["expiresAt"]
    assert await end_of(crew, lease) == lease["expiresAt"]


async def test_the_answer_is_the_end_of_the_lease_that_ends_first(crew: Crew) -> None:
    (a,) = await claimed(crew)
    (b,) = await claimed(crew)
    await crew.extend(b, leaseSeconds=1000)
    answer = await crew.extend(a, b, leaseSeconds=200)
    assert 190 < await left(crew, answer["expiresAt"]) <= 200
    assert 990 < await left(crew, await end_of(crew, b)) <= 1000


async def test_extending_some_of_a_claim_leaves_the_others_at_their_end(crew: Crew) -> None:
    leases = await claimed(crew, 4)
    answer = await crew.extend(leases[1], leases[3], leaseSeconds=500)
    assert await end_of(crew, leases[0]) == leases[0]["expiresAt"]
    assert await end_of(crew, leases[2]) == leases[2]["expiresAt"]
    assert await end_of(crew, leases[1]) == answer["expiresAt"] == await end_of(crew, leases[3])
    again = await crew.extend(leases[3], leaseSeconds=900)
    assert await end_of(crew, leases[1]) == answer["expiresAt"]
    assert await end_of(crew, leases[3]) == again["expiresAt"]
    await crew.extend(*leases, leaseSeconds=2000)
    assert len({await end_of(crew, x) for x in leases}) == 1
    assert (await crew.complete(leases[0], leases[3]))["completed"] == 2
    assert (await crew.fail(leases[1]))["failed"] == 1
    assert (await crew.release(leases[2]))["released"] == 1


async def test_only_the_part_of_a_claim_that_was_not_extended_runs_out(crew: Crew) -> None:
    a, b = await claimed(crew, 2)
    await crew.extend(a, leaseSeconds=500)
    await crew.sql("update lease set until = now() - interval '1 s' where until < now() + interval '100 s'")
    (again,) = await crew.claim(2, waitSeconds=20)
    assert again["task"]["id"] == b["task"]["id"]
    assert (await crew.complete(a))["completed"] == 1
    assert (await crew.complete(b))["errors"][0]["code"] == "LOST"


@pytest.mark.parametrize("end", ["expired", "completed", "failed", "released"])
async def test_a_lease_that_has_ended_is_lost(crew: Crew, end: str) -> None:
    a, b = await claimed(crew, 2)
    if end == "completed":
        await crew.complete(a)
    elif end == "failed":
        await crew.fail(a)
    elif end == "released":
        await crew.release(a)
    else:
        await crew.extend(b, leaseSeconds=500)
        await crew.sql("update lease set until = now() - interval '1 s' where until < now() + interval '100 s'")
        (a,) = [a] if await crew.claim(waitSeconds=20) else []
    answer = await crew.extend(a, b, leaseSeconds=900)
    (error,) = answer["errors"]
    assert (error["index"], error["lease"], error["code"]) == (0, a["id"], "LOST")
    assert 890 < await left(crew, answer["expiresAt"]) <= 900


async def test_when_none_stands_there_is_no_end(crew: Crew) -> None:
    (lease,) = await claimed(crew)
    await crew.complete(lease)
    answer = await crew.extend(lease, "garbage")
    assert answer["expiresAt"] is None
    assert answer["suspended"] == []
    assert [(e["index"], e["code"]) for e in answer["errors"]] == [(0, "LOST"), (1, "UNKNOWN")]
    assert await crew.extend() == {"expiresAt": None, "suspended": [], "errors": []}


async def test_leases_of_a_suspended_workgroup_are_named(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"}, {"name": "b", "workgroup": "v"}, {"name": "c"})
    a, b, c = await crew.claim(3)
    assert (await crew.extend(a, b, c))["suspended"] == []
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { name } } }')
    assert (await crew.extend(a, b, c))["suspended"] == [a["id"]]
    assert (await crew.extend(b, c))["suspended"] == []
    assert (await crew.release(a))["released"] == 1
    await crew.ask('mutation { resumeWorkgroup(name: "w") { workgroup { name } } }')
    assert (await crew.extend(b, c))["suspended"] == []


async def progress(crew: Crew, lease: dict[str, Any], **report: Any) -> dict[str, Any]:
    given = {"leases": [lease["id"]], "progress": [{"lease": lease["id"], **report}]}
    return (await crew.ask(EXTEND, input=given))["extendLeases"]


async def test_progress_and_its_message_are_shown_on_the_task(crew: Crew) -> None:
    (lease,) = await claimed(crew)
    id = lease["task"]["id"]
    await progress(crew, lease, fraction=0.25, message="a quarter")
    assert await crew.task(id, "progress progressMessage") == {"progress": 0.25, "progressMessage": "a quarter"}
    await progress(crew, lease, fraction=0.5)
    assert await crew.task(id, "progress progressMessage") == {"progress": 0.5, "progressMessage": "a quarter"}
    await progress(crew, lease, fraction=None, message="")
    assert await crew.task(id, "progress progressMessage") == {"progress": 0.5, "progressMessage": ""}
    await progress(crew, lease, fraction=0)
    assert await crew.task(id, "progress progressMessage") == {"progress": 0, "progressMessage": ""}


async def test_the_last_report_of_a_lease_counts(crew: Crew) -> None:
    (lease,) = await claimed(crew)
    reports = [{"lease": lease["id"], "fraction": f} for f in (0.1, 0.9)]
    await crew.ask(EXTEND, input={"leases": [lease["id"]], "progress": reports})
    assert (await crew.task(lease["task"]["id"], "progress"))["progress"] == 0.9


async def test_a_lost_lease_reports_nothing(crew: Crew) -> None:
    (lease,) = await claimed(crew)
    await crew.release(lease)
    (second,) = await crew.claim()
    answer = await progress(crew, lease, fraction=0.5, message="stale")
    assert answer["errors"][0]["code"] == "LOST"
    assert await crew.task(lease["task"]["id"], "progress progressMessage") == {
        "progress": None,
        "progressMessage": None,
    }
    await progress(crew, second, fraction=1)
    assert (await crew.task(lease["task"]["id"], "progress"))["progress"] == 1


# -- release ------------------------------------------------------------------------------------------------------------


async def test_a_released_task_is_ready_at_once_and_its_attempt_is_not_counted(crew: Crew) -> None:
    (lease,) = await claimed(crew, retry={"maxAttempts": 1})
    answer = await crew.release(lease)
    assert answer == {"released": 1, "errors": []}
    task = await crew.task(
        lease["task"]["id"], "state attempt remainingAttempts notBefore errors { attempt } leaseExpiresAt"
    )
    assert task == {
        "state": "READY",
        "attempt": 0,
        "remainingAttempts": 1,
        "notBefore": None,
        "errors": [],
        "leaseExpiresAt": None,
    }
    (second,) = await crew.claim()
    assert (second["attempt"], second["task"]["id"]) == (1, lease["task"]["id"])
    assert second["id"] != lease["id"]


async def test_a_repeated_release_is_lost_and_does_not_touch_the_next_claim(crew: Crew) -> None:
    (lease,) = await claimed(crew)
    await crew.release(lease)
    assert [e["code"] for e in (await crew.release(lease))["errors"]] == ["LOST"]
    (second,) = await crew.claim()
    answer = await crew.release(lease)
    assert (answer["released"], answer["errors"][0]["code"]) == (0, "LOST")
    assert (await crew.complete(second))["completed"] == 1


async def test_part_of_a_claim_can_be_released_and_keeps_its_order(crew: Crew) -> None:
    leases = await claimed(crew, 5)
    assert (await crew.release(leases[3], leases[1]))["released"] == 2
    assert [x["task"]["name"] for x in await crew.claim(5)] == ["1", "3"]
    assert (await crew.complete(leases[0], leases[2], leases[4]))["completed"] == 3


async def test_a_released_task_of_high_priority_goes_first_again(crew: Crew) -> None:
    await crew.create({"name": "low"}, {"name": "high", "priority": 1})
    (high,) = await crew.claim()
    await crew.release(high)
    assert [x["task"]["name"] for x in await crew.claim(2)] == ["high", "low"]


@pytest.mark.parametrize("end", ["completed", "failed", "expired"])
async def test_a_release_of_a_lease_that_has_ended_is_lost(crew: Crew, end: str) -> None:
    (lease,) = await claimed(crew)
    if end == "completed":
        await crew.complete(lease)
    elif end == "failed":
        await crew.fail(lease)
    else:
        await expire_leases(crew)
    before = await crew.task(lease["task"]["id"])
    answer = await crew.release(lease)
    assert (answer["released"], answer["errors"][0]["code"]) == (0, "LOST")
    assert await crew.task(lease["task"]["id"]) == before


async def test_nothing_released_is_nothing(crew: Crew) -> None:
    assert await crew.release() == {"released": 0, "errors": []}
