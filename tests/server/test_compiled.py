"""A compiled operation answers what the executor answers: documents made at random from the schema, sent both ways."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from graphql import GraphQLEnumType, GraphQLObjectType, GraphQLScalarType, get_named_type

from schema.compiled import Compiled, compile_operation
from schema.root import schema
from server.documents import Document, Documents
from tests.support.crew import Crew

TYPES = schema._schema.type_map


def selection(random_: random.Random, kind: GraphQLObjectType, depth: int, sizes: tuple[int, ...] = ()) -> str:
    """A selection of the type: fields, aliases, __typename, inline and nested objects; of lists so many, if `sizes` are given."""
    names = [
        n
        for n, f in kind.fields.items()
        if not any(a.type.__class__.__name__ == "NonNull" for a in f.args.values()) and n != "oldestReadySeconds"
    ]
    parts = []
    for n, name in enumerate(random_.sample(names, random_.randint(1, min(8, len(names))))):
        of = get_named_type(kind.fields[name].type)
        alias = f"a{n}: " if random_.random() < 0.2 else ""
        if isinstance(of, (GraphQLScalarType, GraphQLEnumType)):
            parts.append(alias + name)
        elif isinstance(of, GraphQLObjectType) and depth:
            limits = [a for a in ("first", "limit") if a in kind.fields[name].args] if sizes else []
            how_many = f"({limits[0]}: {random_.choice(sizes)})" if limits and random_.random() < 0.7 else ""
            parts.append(f"{alias}{name}{how_many} {selection(random_, of, depth - 1, sizes)}")
    parts.append(random_.choice(["__typename", f"... on {kind.name} {{ __typename }}", "... { t: __typename }"]))
    return "{ " + " ".join(parts) + " }"


def payload(name: str) -> GraphQLObjectType:
    found = TYPES[name]
    assert isinstance(found, GraphQLObjectType)
    return found


@pytest.fixture
def executor_only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it to switch compiled operations off or on."""
    on = Document.compiled_operation

    def switch(off: bool) -> None:
        monkeypatch.setattr(Document, "compiled_operation", (lambda self, name: None) if off else on)

    return switch


@pytest.mark.parametrize("seed", range(12))
async def test_answers_are_equal(crew: Crew, executor_only: Any, seed: int) -> None:
    random_ = random.Random(seed)
    group, first, second = (str(uuid.uuid4()) for _ in range(3))
    creation = {
        "id": group,
        "name": "g",
        "metadata": {"n": None},
        "tasks": [
            {
                "id": first,
                "ref": "a",
                "name": "a",
                "channel": "c",
                "workgroup": "w",
                "input": {"x": [1, 2.5, "é", False]},
            },
            {"id": second, "name": "b", "channel": "c", "parents": [{"ref": "a"}], "retry": {"backoff": 2}},
        ],
    }
    covered = 0
    documents = Documents(schema._schema)

    async def both(name: str, kind: str, input: dict[str, Any], input_type: str) -> list[Any]:
        nonlocal covered
        chosen = selection(random_, payload(kind), 3)
        text = f"mutation M($input: {input_type}!) {{ {name}(input: $input) {chosen} }}"
        answers = []
        for off in (False, True):
            executor_only(off)
            answers.append((await crew.send(text, input=input)).json())
        covered += bool(documents.get(text).compiled)
        return answers

    await crew.ask(
        "mutation($i: CreateTaskGroupInput!) { createTaskGroup(input: $i) { taskGroup { id } } }", i=creation
    )
    compiled, executed = await both("createTaskGroup", "CreateTaskGroupPayload", creation, "CreateTaskGroupInput")
    assert compiled == executed
    claim = {"workerId": "w1", "channels": ["c"], "limit": 5, "claimId": str(uuid.uuid4())}
    (lease,) = await crew.claim(limit=5, workerId="w1", claimId=claim["claimId"])
    compiled, executed = await both("claimTasks", "ClaimTasksPayload", claim, "ClaimTasksInput")
    assert compiled == executed
    bad = {"results": [{"lease": lease["id"], "output": 0}, {"lease": "nonsense"}, {"lease": lease["id"]}]}
    await crew.complete(lease, output=0)
    compiled, executed = await both("completeTasks", "CompleteTasksPayload", bad, "CompleteTasksInput")
    assert compiled == executed
    failing = {"failures": [{"lease": lease["id"], "error": ""}]}
    compiled, executed = await both("failTasks", "FailTasksPayload", failing, "FailTasksInput")
    assert compiled == executed
    assert covered >= 2


QUERIES = {
    "task": ("task(id: $task)", "Task"),
    "taskGroup": ("taskGroup(id: $group)", "TaskGroup"),
    "tasks": ("tasks(filter: $filter, orderBy: PRIORITY_DESC, first: 2)", "TaskConnection"),
    "taskGroups": ("taskGroups(orderBy: $order, first: $first)", "TaskGroupConnection"),
    "channels": ("channels(first: 1)", "Channel"),
    "workers": ("workers(aliveOnly: false)", "Worker"),
}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("sizes", [(1, 2, 1000), (2, -1)], ids=["right", "sometimes refused"])
async def test_queries_are_answered_alike(crew: Crew, executor_only: Any, seed: int, sizes: tuple[int, ...]) -> None:
    random_ = random.Random(seed)
    made = await crew.create(
        {"name": "a", "ref": "a", "input": {"x": None}},
        *({"name": f"b{n}", "workgroup": "w", "parents": [{"ref": "a"}]} for n in range(3)),
    )
    await crew.complete(*await crew.claim(), output=[1])
    await crew.fail(*await crew.claim())
    known = {"task": made["tasks"][1]["id"], "group": made["taskGroup"]["id"], "order": "NAME_ASC", "first": 3}
    known["filter"] = {"states": ["READY", "SCHEDULED"], "channels": ["c"]}
    types = {"task": "ID!", "group": "ID!", "filter": "TaskFilter", "order": "TaskGroupOrder", "first": "Int"}
    covered = 0
    for field, kind in QUERIES.values():
        used = {name: type_ for name, type_ in types.items() if f"${name}" in field}
        head = f"({', '.join(f'${name}: {type_}' for name, type_ in used.items())})" if used else ""
        text = f"query Q{head} {{ {field} {selection(random_, payload(kind), 3, sizes)} }}"
        answers = []
        for off in (False, True):
            executor_only(off)
            answer = (await crew.send(text, **{name: known[name] for name in used})).json()
            for error in answer.get("errors", ()):
                error.get("extensions", {}).pop("requestId", None)
            answers.append(answer)
        assert answers[0] == answers[1], text
        covered += compiled(text) is not None
    assert covered == len(QUERIES)


@pytest.mark.parametrize(
    "variables",
    [
        {"input": {"workerId": 7, "channels": ["c"]}},
        {"input": {"workerId": "w"}},
        {"input": {"workerId": "w", "channels": ["c"], "limit": 1 << 40}},
        {"input": {"workerId": "w", "channels": ["c"], "limit": True}},
        {"input": {"workerId": "w", "channels": ["c"], "more": 1}},
        {"input": {"workerId": "", "channels": ["c"]}},
        {"input": {"workerId": "w", "channels": "c"}},
        {"input": None},
        {},
    ],
)
async def test_bad_variables_are_refused_alike(crew: Crew, executor_only: Any, variables: dict[str, Any]) -> None:
    text = "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) { leases { id } } }"
    answers = []
    for off in (False, True):
        executor_only(off)
        answers.append((await crew.send(text, **variables)).json())
    assert answers[0] == answers[1]


def compiled(text: str) -> Compiled | None:
    document = Documents(schema._schema).get(text)
    assert document.node is not None
    return compile_operation(schema._schema, document.node, next(iter(document.operations.values())))


@pytest.mark.parametrize(
    "text",
    [
        "mutation($i: ClaimTasksInput!, $b: Boolean!) { claimTasks(input: $i) @include(if: $b) { leases { id } } }",
        'mutation { claimTasks(input: { workerId: "w", channels: ["c"] }) { leases { id } } }',
        "mutation($i: ClaimTasksInput!) { claimTasks(input: $i) { leases { id @skip(if: true) } } }",
        "mutation($i: ClaimTasksInput!) { claimTasks(input: $i) { leases { id } leases { attempt } } }",
        "mutation($i: ClaimTasksInput!) { claimTasks(input: $i) { leases { parents(first: 3) { output } } } }",
        'query { tasks(filter: { channels: ["c"] }) { nodes { id } } }',
        "query($first: Int = 3) { tasks(first: $first) { nodes { id } } }",
        "{ __schema { queryType { name } } }",
    ],
)
def test_what_is_not_covered_is_left_to_the_executor(text: str) -> None:
    assert compiled(text) is None


def test_the_hot_path_is_covered() -> None:
    hot = (
        "mutation($c: CompleteTasksInput!, $k: ClaimTasksInput!) { completeTasks(input: $c) { completed errors { index code } } "
        "claimTasks(input: $k) { leases { id attempt task { id name channel input } parents { taskId output } } } }"
    )
    assert compiled(hot) is not None
