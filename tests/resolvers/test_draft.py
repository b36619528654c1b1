"""Drafts: a call's graph, checked without a database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolvers.draft import Inside, Outside, drafts, new_id
from resolvers.errors import BadInput, TooLarge
from schema.new_task import NewTask, ParentInput

PATH = ("input", "tasks")


def task(name: str, *parents: str, **more: Any) -> NewTask:
    return NewTask(name=name, channel="c", ref=name, parents=[ParentInput(ref=p) for p in parents], **more)


def test_refs_become_places() -> None:
    made = drafts([task("a", "b", "c"), task("b"), task("c", "b")], PATH, 10)
    assert [d.inside for d in made] == [[Inside(1, 0), Inside(2, 1)], [], [Inside(1, 0)]]
    assert [d.outside for d in made] == [[], [], []]


def test_ids_of_others_stay_ids() -> None:
    id = new_id()
    (made,) = drafts([NewTask(name="a", channel="c", parents=[ParentInput(id=str(id))])], PATH, 10)  # type: ignore[arg-type]
    assert made.outside == [Outside(id, 0, (*PATH, 0, "parents", 0, "id"))]
    assert not made.names_no_parent


def test_priority_is_kept_as_its_negative() -> None:
    assert [d.rank for d in drafts([task("a", priority=5), task("b", priority=-5)], PATH, 10)] == [-5, 5]


def test_more_than_the_most_is_too_large() -> None:
    assert len(drafts([task(str(n)) for n in range(3)], PATH, 3)) == 3
    with pytest.raises(TooLarge) as refused:
        drafts([task(str(n)) for n in range(4)], PATH, 3)
    assert refused.value.path == PATH


def test_a_cycle_deep_in_a_large_graph_is_found() -> None:
    tasks = [task(str(n), *([str(n - 1)] if n else [])) for n in range(5000)]
    assert len(drafts(tasks, PATH, 10_000)) == 5000
    tasks[2000] = replace(tasks[2000], parents=[ParentInput(ref="1999"), ParentInput(ref="2003")])
    with pytest.raises(BadInput) as refused:
        drafts(tasks, PATH, 10_000)
    place = refused.value.path[2]
    assert isinstance(place, int)
    assert 2000 <= place <= 2003
    assert len(refused.value.message) < 1000


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_graph_is_taken_just_when_it_has_no_cycle(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 8))
    links = data.draw(st.sets(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))))
    parents = {n: sorted(p for p, c in links if c == n) for n in range(size)}
    tasks = [task(str(n), *map(str, parents[n])) for n in range(size)]
    left, changed = set(range(size)), True
    while changed:
        free = {n for n in left if not left & set(parents[n])}
        left, changed = left - free, bool(free)
    if not left:
        made = drafts(tasks, PATH, 100)
        assert [[link.parent for link in d.inside] for d in made] == [parents[n] for n in range(size)]
        return
    with pytest.raises(BadInput) as refused:
        drafts(tasks, PATH, 100)
    _, _, child, word, nth, *rest = refused.value.path
    assert word == "parents"
    assert isinstance(child, int)
    assert isinstance(nth, int)
    assert child in left
    assert parents[child][nth] in left or rest == ["ref"]


def test_new_ids_are_version_7_and_in_order_of_time() -> None:
    ids = [new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert {(i.version, i.variant) for i in ids} == {(7, UUID(int=0x2 << 62).variant)}
    assert [i.int >> 80 for i in ids] == sorted(i.int >> 80 for i in ids)
