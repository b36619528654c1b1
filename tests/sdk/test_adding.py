"""Tasks that many callers add to one group: they share calls, and each fares as if it had been alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from crew_worker import Crew, Draft, Refused, Unavailable, adding, sync
from crew_worker.group import Group
from crew_worker.ids import new_id
from crew_worker.testing import in_memory
from tests.support.process import ServerProcess

TASKS = "query($id: ID!) { tasks(filter: {groupId: $id}, first: 500) { nodes { name state key parents { name } } } }"


class Recorder:
    """An Api that answers each call a moment later, or refuses it."""

    def __init__(self, refuse: Callable[[list[str]], Exception | None] = lambda names: None) -> None:
        self.calls: list[list[str]] = []
        self.refuse = refuse
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, document: str, variables: dict[str, Any], **_: Any) -> dict[str, Any]:
        names = [task["name"] for task in variables["input"]["tasks"]]
        self.calls.append(names)
        await self.open.wait()
        await asyncio.sleep(0.001)
        if refused := self.refuse(names):
            raise refused
        return {}


def recorded(refuse: Callable[[list[str]], Exception | None] = lambda names: None) -> tuple[Group, Recorder]:
    crew, api = Crew("http://nobody.invalid"), Recorder(refuse)
    crew._api = lambda: api  # type: ignore[method-assign, assignment, return-value]
    return crew.group("many"), api


def naming(*bad: str) -> Callable[[list[str]], Exception | None]:
    def refuse(names: list[str]) -> Exception | None:
        found = [n for n, name in enumerate(names) if name in bad]
        return Refused("is bad", "BAD_INPUT", ("input", "tasks", found[0], "channel")) if found else None

    return refuse


async def add(group: Group, names: str) -> list[Any]:
    await group.send()
    return await asyncio.gather(*(group.add("work", name=name) for name in names), return_exceptions=True)


async def test_one_that_meets_nobody_goes_at_once_and_makes_the_group_first():
    group, api = recorded()
    planned = group.task("work", name="planned")
    added = await group.add("work", {"n": 1}, name="a", after=[planned])
    assert api.calls == [["planned"], ["a"]]
    assert added.sent
    assert group.tasks == [planned], "a group that is added to for years keeps nothing of it"


async def test_ten_that_add_task_after_task_share_calls():
    group, api = recorded()

    async def each(who: int) -> None:
        for n in range(10):
            await group.add("work", name=f"{who}.{n}")

    await asyncio.gather(*map(each, range(10)))
    assert api.calls[0] == []
    assert api.calls.count([]) == 1, "the group, made once"
    names = [name for call in api.calls[1:] for name in call]
    assert len(names) == len(set(names)) == 100
    assert len(api.calls) < 50


async def test_no_more_than_two_calls_are_on_the_way_and_none_is_larger_than_the_most(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adding, "MOST", 3)
    group, api = recorded()
    await group.send()
    api.open.clear()
    adds = []
    for name in "abcdefgh":
        adds.append(asyncio.create_task(group.add("work", name=name)))
        for _ in range(5):
            await asyncio.sleep(0)
    assert api.calls[1:] == [["a"], ["b"]]
    api.open.set()
    await asyncio.gather(*adds)
    assert sorted(map(len, api.calls[3:])) == [3, 3]


@pytest.mark.parametrize("bad", ["c", "ce", "abcde"])
async def test_who_is_refused_is_refused_alone(bad: str):
    group, _ = recorded(naming(*bad))
    found = await add(group, "abcde")
    assert [name for name, end in zip("abcde", found, strict=True) if isinstance(end, Refused)] == list(bad)
    refused = [end for end in found if isinstance(end, Refused)]
    assert len(set(map(id, refused))) == len(refused), "each has its own to raise"
    assert all(end.path == ("input", "tasks", 0, "channel") for end in refused), "its own call had one task"


async def test_what_is_too_large_together_goes_in_halves():
    group, api = recorded(lambda names: Refused("too large", "TOO_LARGE") if len(names) > 2 else None)
    assert all(isinstance(end, Draft) for end in await add(group, "abcde"))
    assert api.calls[1:] == [list("abcde"), list("ab"), list("cde"), list("c"), list("de")]


@pytest.mark.parametrize(
    "error", [Refused("no such group", "NOT_FOUND", ("input", "groupId")), Unavailable("no answer")]
)
async def test_what_concerns_no_task_concerns_all_of_them(error: Exception):
    group, api = recorded(lambda names: error if names else None)
    found = await add(group, "ab")
    assert [(type(end), str(end)) for end in found] == [(type(error), str(error))] * 2
    assert len(api.calls) == 2


async def test_what_is_no_json_is_refused_before_anything_is_sent():
    group, api = recorded()
    with pytest.raises(ValueError, match="not JSON"):
        await group.add("work", float("nan"))
    assert api.calls == []


async def test_who_is_cancelled_before_its_call_is_not_created_and_holds_nobody_up():
    group, api = recorded()
    await group.send()
    api.open.clear()
    first = [asyncio.create_task(group.add("work", name=name)) for name in "ab"]
    for _ in range(5):
        await asyncio.sleep(0)
    gone, stays = (asyncio.create_task(group.add("work", name=name)) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    first[0].cancel()
    await asyncio.sleep(0)
    api.open.set()
    await asyncio.gather(first[1], stays)
    assert sorted(name for call in api.calls[1:] for name in call) == ["a", "b", "stays"]


def test_a_group_outlives_the_loop_that_was_cut_off():
    group, api = recorded()

    async def cut_off() -> None:
        await group.send()
        api.open.clear()
        asyncio.create_task(group.add("work", name="cut off"))  # noqa: RUF006
        asyncio.create_task(group.add("work", name="waits"))  # noqa: RUF006
        await asyncio.sleep(0.01)

    asyncio.run(cut_off())
    api.open = asyncio.Event()
    api.open.set()
    asyncio.run(group.add("work", name="later"))
    assert api.calls[-1] == ["later"]


async def test_a_server_in_memory_takes_them():
    crew, ran = Crew("http://nobody.invalid"), []

    @crew.task("work")
    async def work(task: Any) -> str:
        ran.append(task.name)
        return f"{task.name} done"

    async with in_memory(crew):
        group = crew.group("many")
        found = await asyncio.gather(
            *(group.add("" if n == 3 else "work", name=str(n)) for n in range(9)), return_exceptions=True
        )
        assert isinstance(found.pop(3), Refused)
        assert await found[0].result(5) == "0 done"
        await group.finished(5)
    assert sorted(ran) == [str(n) for n in range(9) if n != 3]


async def test_a_server_takes_them(served: ServerProcess):
    async with Crew(served.url) as crew:
        group = crew.group("many")
        root, same = group.task("held", name="root"), new_id()

        async def each(who: int) -> list[Any]:
            given = [{"key": "one", "on_duplicate": "REJECT"}, {"after": [root]}, {"workgroup": ""}, {"id": same}]
            return await asyncio.gather(
                *(group.add("held", {"who": who}, name=f"{who}.{n}", **more) for n, more in enumerate(given)),
                return_exceptions=True,
            )

        keyed, waiting, nameless, repeats = zip(*await asyncio.gather(*map(each, range(10))), strict=True)
        assert [end.code for end in keyed if isinstance(end, Refused)] == ["DUPLICATE_KEY"] * 9
        assert all(isinstance(end, Draft) for end in waiting)
        assert [(end.code, end.path) for end in nameless] == [("BAD_INPUT", ("input", "tasks", 0, "workgroup"))] * 10
        found = (await crew.ask(TASKS, {"id": group.id}))["tasks"]["nodes"]
        assert [end.id for end in repeats] == [same] * 10, "created once, as a call that is repeated"
        assert len(found) == 1 + 1 + 10 + 1
        assert all(t["parents"] == [{"name": "root"}] for t in found if t["name"].endswith(".1"))


def test_threads_share_calls(served: ServerProcess):
    with sync.Crew(served.url) as crew:
        group = crew.group("threads").send()
        threads = [threading.Thread(target=group.add, args=("held", n)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(crew.ask(TASKS, {"id": group.id})["tasks"]["nodes"]) == 20
