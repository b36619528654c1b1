"""A task's way from creation to its end."""

from __future__ import annotations

from tests.support.crew import Crew


async def test_a_child_waits_for_its_parents_and_can_be_claimed_when_the_last_complete_returns(crew: Crew) -> None:
    made = await crew.create(
        {"name": "a", "ref": "a"},
        {"name": "b", "ref": "b"},
        {"name": "join", "parents": [{"ref": "a"}, {"ref": "b"}]},
    )
    assert [t["state"] for t in made["tasks"]] == ["READY", "READY", "BLOCKED"]
    first, second = await crew.claim(10)
    await crew.complete(first)
    assert await crew.claim(10) == []
    await crew.complete(second)
    (join,) = await crew.claim(10)
    assert join["task"]["name"] == "join"
