"""Identical queries at once are answered together, and none by what began before it came."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from schema.root import schema
from server.documents import Documents
from server.operations import Operations
from server.reads import Reads
from tests.support.crew import CREATE, Crew
from tests.support.wait import until

NAMES = "{ tasks(orderBy: CREATED_ASC) { nodes { name } } }"


class Source:
    """What is read: a value as of the beginning of each read, which ends when it is let go."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.go = asyncio.Semaphore(0)

    def let_all_go(self) -> None:
        for _ in range(9):
            self.go.release()

    async def read(self) -> int:
        found = self.value
        self.reads += 1
        await self.go.acquire()
        if found < 0:
            raise LookupError(found)
        return found


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def begun(reads: Reads[int], source: Source, n: int, key: str = "a") -> list[asyncio.Task[int]]:
    """So many callers, each as far as it comes."""
    callers = [asyncio.create_task(reads.answer(key, source.read)) for _ in range(n)]
    await settle()
    return callers


async def test_who_comes_while_one_runs_is_answered_by_the_next_together_with_the_others() -> None:
    reads, source = Reads[int](), Source()
    first = await begun(reads, source, 1)
    source.value = 1
    others = await begun(reads, source, 3)
    assert source.reads == 1
    source.value = 2
    source.let_all_go()
    assert await asyncio.gather(*first, *others) == [0, 2, 2, 2]
    assert source.reads == 2


async def test_who_comes_while_the_next_runs_waits_for_the_one_after_it() -> None:
    reads, source = Reads[int](), Source()
    first, second = await begun(reads, source, 1), await begun(reads, source, 1)
    source.go.release()
    await asyncio.gather(*first)
    await settle()
    assert source.reads == 2
    source.value = 1
    third = await begun(reads, source, 2)
    source.let_all_go()
    assert await asyncio.gather(*second, *third) == [0, 1, 1]
    assert source.reads == 3


async def test_who_comes_in_the_moment_in_which_one_ends_is_answered_by_the_next() -> None:
    reads, source = Reads[int](), Source()
    first = await begun(reads, source, 1)
    late = [asyncio.create_task(reads.answer("a", source.read))]
    # Woken after `late` has begun, and before what that begins.
    source.let_all_go()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*first, *late) == [0, 0]
        assert await reads.answer("a", source.read) == 0
    assert source.reads == 3


async def test_other_keys_do_not_wait_for_each_other() -> None:
    reads, source = Reads[int](), Source()
    callers = [*await begun(reads, source, 1, "a"), *await begun(reads, source, 1, "b")]
    assert source.reads == 2
    source.let_all_go()
    assert await asyncio.gather(*callers) == [0, 0]


@pytest.mark.parametrize("who", [0, 1, 2], ids=["who runs", "who made the next", "who shares it"])
async def test_a_caller_that_is_cancelled_takes_nobody_with_it(who: int) -> None:
    reads, source = Reads[int](), Source()
    callers = [*await begun(reads, source, 1), *await begun(reads, source, 2)]
    source.value = 1
    callers.pop(who).cancel()
    await settle()
    source.let_all_go()
    assert set(await asyncio.gather(*callers)) <= {0, 1}
    assert await reads.answer("a", source.read) == 1
    assert not reads._running
    assert not reads._next


async def test_an_error_reaches_all_that_shared_it_and_nobody_else() -> None:
    reads, source = Reads[int](), Source()
    first = await begun(reads, source, 1)
    source.value = -1
    others = await begun(reads, source, 3)
    source.let_all_go()
    assert await asyncio.gather(*first) == [0]
    errors = await asyncio.gather(*others, return_exceptions=True)
    assert [str(error) for error in errors] == ["-1"] * 3
    source.value = 2
    assert await reads.answer("a", source.read) == 2


# ---------------------------------------------------------------- over HTTP


class Held:
    """Queries have read, and are not answered yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came = self.ran = 0
        self.go = asyncio.Event()
        answer, body = Reads.answer, Operations.body

        async def arrive(*args: Any) -> Any:
            self.came += 1
            return await answer(*args)

        async def run(operations: Operations, document: Any, params: Any, asker: Any) -> tuple[bytes, bool]:
            done = await body(operations, document, params, asker)
            if not document.is_mutation(params.operation_name):
                self.ran += 1
                await self.go.wait()
            return done

        monkeypatch.setattr(Reads, "answer", arrive)
        monkeypatch.setattr(Operations, "body", run)

    async def asked(self, crew: Crew, query: str, n: int = 1, **headers: str) -> list[asyncio.Task[Any]]:
        before = self.came

        async def all_came() -> bool:
            return self.came == before + n

        asked = [
            asyncio.create_task(crew.http.post("/graphql", json={"query": query}, headers=headers)) for _ in range(n)
        ]
        await until(all_came)
        return asked


async def test_a_query_sees_what_was_committed_while_the_same_ran(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    await crew.create({"name": "a"})
    held = Held(monkeypatch)

    async def one_has_read() -> bool:
        return held.ran == 1

    first = await held.asked(crew, NAMES)
    await until(one_has_read)
    await crew.ask(CREATE, input={"name": "g", "tasks": [{"name": "b", "channel": "c"}]})
    later = await held.asked(crew, NAMES, 2)
    assert held.ran == 1
    held.go.set()
    answers = [await task for task in (*first, *later)]
    assert [[t["name"] for t in x.json()["data"]["tasks"]["nodes"]] for x in answers] == [["a"], ["a", "b"], ["a", "b"]]
    assert held.ran == 2
    assert answers[1].content == answers[2].content


def test_what_waits_on_purpose_is_not_shared() -> None:
    documents = {
        "{ tasks { nodes { id } } }": True,
        "query A { __typename } query B { server { version } }": True,
        "{ taskEvents(waitSeconds: 9) { cursor } }": False,
        "{ x: taskEvents(waitSeconds: 9) { cursor } }": False,
        "{ ... { taskEvents(waitSeconds: 9) { cursor } } }": False,
        "query A { ...F } fragment F on Query { taskEvents(waitSeconds: 9) { cursor } }": False,
        "mutation { cancelTasks(ids: []) { affected } }": False,
        "subscription { taskEvents { cursor } }": False,
        "{ nothing": False,
    }

    kept = Documents(schema._schema)
    for text, shared in documents.items():
        document = kept.get(text)
        assert document.only_reads("A" if "query A" in text else None) is shared, (text, document.errors)
