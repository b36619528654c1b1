"""Names as numbers, remembered up to a point."""

from __future__ import annotations

import pytest

from db.name import Names
from tests.support.crew import Crew


async def test_a_full_memory_forgets_but_answers_all_that_was_asked(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.name._REMEMBER", 3)
    names = Names(crew.services.core.pool, crew.services.core.ns, "workgroup")
    first = await names.numbers(["a", "b"])
    both = await names.numbers(["a", "b", "c", "d", "e"])
    assert sorted(both) == ["a", "b", "c", "d", "e"]
    assert len(set(both.values())) == 5
    assert {n: both[n] for n in "ab"} == first
    assert await names.known(["e", "nobody"]) == {"e": both["e"]}


async def test_tasks_of_more_names_than_are_remembered_are_made_and_claimed(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.name._REMEMBER", 2)
    channels = tuple(f"c{n}" for n in range(6))
    await crew.create(*({"name": c, "channel": c, "workgroup": f"w-{c}"} for c in channels))
    leases = await crew.claim(10, channels=channels)
    assert sorted(lease["task"]["channel"] for lease in leases) == list(channels)
