"""Groups of more tasks than one call takes: sent in pieces, some at once, parents before their children."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crew_worker import Crew, Refused, Task
from crew_worker import group as groups
from crew_worker.testing import in_memory


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST", 5)
    monkeypatch.setattr(groups, "PIECE", 3)
    monkeypatch.setattr(groups, "FIRST", 2)


class Recorder:
    """An Api that answers each call when it is told to."""

    def __init__(self, refuse: str = "") -> None:
        self.calls: list[list[str]] = []
        self.on_way: list[asyncio.Future[None]] = []
        self.most = 0
        self.refuse = refuse

    async def ask(self, document: str, variables: dict[str, Any], **_: Any) -> dict[str, Any]:
        names = [task["name"] for task in variables["input"]["tasks"]]
        self.calls.append(names)
        answer = asyncio.get_running_loop().create_future()
        self.on_way.append(answer)
        self.most = max(self.most, len(self.on_way))
        await answer
        if self.refuse in names:
            raise Refused(f"{self.refuse} is bad")
        return {}

    async def answer_all(self, sending: asyncio.Task[Any]) -> None:
        """One call after another, the newest first, once nothing more is sent."""
        while not sending.done():
            before = len(self.calls)
            for _ in range(5):
                await asyncio.sleep(0)
            if self.on_way and len(self.calls) == before:
                self.on_way.pop().set_result(None)


def recorded(refuse: str = "") -> tuple[Crew, Recorder]:
    crew, api = Crew("http://nobody.invalid"), Recorder(refuse)
    crew._api = lambda: api  # type: ignore[method-assign, assignment, return-value]
    return crew, api


def planned(crew: Crew, count: int) -> groups.Group:
    group = crew.group("pieces")
    for n in range(count):
        group.task("work", name=str(n))
    return group


async def test_few_go_in_one_call():
    crew, api = recorded()
    group = planned(crew, 5)
    sending = asyncio.create_task(group.send())
    await api.answer_all(sending)
    assert api.calls == [["0", "1", "2", "3", "4"]]


async def test_many_go_in_pieces_three_at_once_after_the_one_that_makes_the_group():
    crew, api = recorded()
    group = planned(crew, 20)
    sending = asyncio.create_task(group.send())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(api.calls) == 1
    await api.answer_all(sending)
    assert (await sending) is group
    assert [name for piece in api.calls for name in piece] == [str(n) for n in range(20)]
    assert [len(piece) for piece in api.calls] == [2, 3, 3, 3, 3, 3, 3]
    assert api.most == 3
    assert all(task.sent for task in group.tasks)


async def test_no_piece_goes_while_parents_of_its_tasks_are_on_the_way():
    crew, api = recorded()
    group = crew.group("chain")
    tasks = [group.task("work", name=str(n)) for n in range(12)]
    for n in range(11):
        tasks[n].after(tasks[n + 1])
    sending = asyncio.create_task(group.send())
    await api.answer_all(sending)
    assert [name for piece in api.calls for name in piece] == [str(n) for n in range(11, -1, -1)]
    assert api.most == 1


async def test_what_was_created_stays_when_a_later_piece_is_refused():
    crew, api = recorded(refuse="7")
    group = planned(crew, 9)
    sending = asyncio.create_task(group.send())
    await api.answer_all(sending)
    with pytest.raises(Refused, match="7 is bad"):
        await sending
    assert [task.name for task in group.tasks if not task.sent] == ["5", "6", "7"]
    api.refuse = ""
    sending = asyncio.create_task(group.send())
    await api.answer_all(sending)
    await sending
    assert api.calls[-1] == ["5", "6", "7"]
    assert all(task.sent for task in group.tasks)


async def test_a_send_that_is_cut_off_leaves_no_call_behind():
    crew, api = recorded()
    group = planned(crew, 20)
    sending = asyncio.create_task(group.send())
    for _ in range(5):
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert [answer.cancelled() for answer in api.on_way] == [True]


async def test_a_graph_in_pieces_is_done():
    crew, ran = Crew("http://nobody.invalid"), []

    @crew.task("work")
    async def work(task: Task) -> None:
        ran.append(task.name)

    async with in_memory(crew):
        group = crew.group("graph")
        tasks = [group.task("work", name=str(n)) for n in range(30)]
        for n in range(29):
            tasks[n].after(tasks[n + 1])
        await group.finished(20)
    assert ran == [str(n) for n in range(29, -1, -1)]


async def test_tasks_that_wait_for_each_other_are_left_to_the_server():
    crew = Crew("http://nobody.invalid")
    group = crew.group("cycle")
    a, b = group.task("work", name="a"), group.task("work", name="b")
    a.after(b)
    b.after(a)
    assert {task.name for task in groups.parents_first([a, b])} == {"a", "b"}
