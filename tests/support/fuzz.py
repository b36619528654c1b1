"""Random calls made from the schema: valid ones, ones with extremes in them, and slightly broken ones.

Every call is made by a random generator of its own, of the run's seed and the call's number, and of what answers have shown so far.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from urllib.parse import quote

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
)

from schema.root import schema
from server.transports.rest.routes import PATHS, PREFIX

DEPTH = 4
OFTEN = (
    "createTaskGroup",
    "createTasks",
    "claimTasks",
    "completeTasks",
    "failTasks",
    "extendLeases",
    "tasks",
    "taskGroups",
)
SELDOM = ("delete", "cancel", "reset", "revoke")
FULL = [("/task_group/{id}/tasks", "POST"), ("/task/{id}", "PUT"), ("/task/{id}/release", "POST")]
"""What takes a document."""
REMEMBERED = 15
"""Ids of a kind, and cursors: so few that calls meet at the same things."""
KINDS = ("TaskGroup", "Task", "Lease", "Schedule", "Operator", "ApiKey")
FRESH = ("NewTask.id", "CreateTaskGroupInput.id", "ClaimTasksInput.claimId")

NAMES = ["c0", "c1", "c2", "é/%2F ?#"]
WORDS = {
    "channel": NAMES,
    "channels": NAMES,
    "workerId": ["w0", "w1"],
    "namespace": ["g0", "g1"],
    "workgroup": ["g0", "g1"],
    "key": ["k0", "k1"],
}
WORDS |= {"ref": ["r0", "r1", "r2"], "cron": ["* * * * *", "0 3 * * 1", "30 2 29 2 *"]}
WORDS |= {"timeZone": ["UTC", "Europe/Berlin"], "url": ["http://127.0.0.1:9/"]}
NUMBERS = {"priority": [-5, 0, 7], "first": [0, 1, 3, 10], "limit": [1, 2, 10], "buckets": [1, 7], "attempts": [1, 5]}
SECONDS = [0, 0.001, 0.5, 1, 5, 60, 3600]
INSTANTS = ["2020-01-01T00:00:00Z", "2030-06-01T12:00:00+02:00", "2026-01-31T09:30:00.123456-11:30"]
PLAIN = [None, 0, 1.5, "", "é", False, [], {}, {"a": [1, {"b": None}]}, "x" * 300]

BAD_TEXT = [
    "",
    "\0",
    "a\0b",
    "\ud800",
    "x\udfff",
    "x" * 256,
    "y" * 5000,
    "%_\\",
    "'; drop table task; --",
    "\u202e\ufeff",
    " ",
]
BAD_NUMBERS = [
    -1,
    0,
    2**31 - 1,
    2**31,
    -(2**31),
    2**53,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**30,
    10**400,
    -(10**400),
]
BAD_FLOATS = [-1.0, -0.0, 1e-320, 1e-9, 1e15, 1e300, -1e308, 0.1, 2.5, 366 * 86_400.0, 1e10]
BAD_INSTANTS = [
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-02-30T00:00:00Z",
    "now",
    "",
    "1970-01-01",
]
BAD_INSTANTS += ["2026-01-01T00:00:00.123456789Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:60Z", "infinity"]
NOBODY = "018f5a3e-7c11-7a55-8d3c-0242ac120002"


def deep(levels: int) -> Any:
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


WRONG = [None, [], {}, "x", 7, True, 1.5, [[]], {"x": 1}, deep(60)]
"""Of some other type, mostly."""


class Known:
    """What answers have shown: ids by what they are of, and cursors."""

    def __init__(self, spared: frozenset[str]) -> None:
        self._spared = spared
        """Never given: the keys that the run asks with."""
        self.ids: dict[str, deque[str]] = {kind: deque([NOBODY], REMEMBERED) for kind in KINDS}
        self.cursors: deque[str] = deque(["x"], REMEMBERED)

    def learn(self, answer: Any) -> None:
        if isinstance(answer, list):
            for part in answer[:20]:
                self.learn(part)
        elif isinstance(answer, dict):
            id, kind = answer.get("id"), answer.get("__typename")
            if "_id" in answer:
                id, kind = answer["_id"], "Task" if "taskGroupId" in answer else "TaskGroup"
            if kind in self.ids and isinstance(id, str) and id not in self._spared:
                self.ids[kind].append(id)
            for name, part in answer.items():
                if name in ("cursor", "endCursor") and isinstance(part, str):
                    self.cursors.append(part)
                self.learn(part)


@dataclass(frozen=True)
class Call:
    """One request, as it is sent: surrogates as escapes, numbers of any size."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.headers} {self.body.decode('utf-8', 'backslashreplace')}"


class _Enum(str):
    """Written without quotes."""


class Fuzz:
    """The maker of one call. Some of its values are not what they should be: often just one, so that it is got to."""

    def __init__(self, random: Random, known: Known) -> None:
        self.random, self.known = random, known
        self._wild, self._left = random.choice([(0, 0), (0, 0), (0.1, 1), (0.2, 1), (0.1, 3), (0.3, 30)])
        self._variables: dict[str, tuple[str, Any]] = {}
        self._fragments: list[str] = []
        self._levels = 0

    def call(self) -> Call:
        return self.rest() if self.random.random() < 0.25 else self.graphql()

    def _now_and_then(self, share: float = 1) -> bool:
        found = self._left > 0 and self.random.random() < self._wild * share
        self._left -= found
        return found

    def _one_of(self, values: Any) -> Any:
        return self.random.choice(list(values))

    # -- GraphQL ----------------------------------------------------------------------------------------------------

    def graphql(self) -> Call:
        kind = self._one_of(["query", "mutation", "mutation"])
        root = schema._schema.type_map[kind.capitalize()]
        assert isinstance(root, GraphQLObjectType)
        fields = []
        for n in range(self._one_of([1, 1, 1, 2, 4])):
            name = self._one_of([n for n in (*root.fields, *OFTEN * 4) if n in root.fields])
            if name.startswith(SELDOM) and self.random.random() < 0.7:
                name = self._one_of(root.fields)
            fields.append(f"a{n}: {self._field(root, name, self.random.randint(1, DEPTH))}")
        if self._now_and_then():
            fields.append(
                self._one_of(["__typename", "nothing", "__schema { types { name } }", "...F", "... { __typename }"])
            )
        declared = ", ".join(f"${name}: {of}" for name, (of, _) in self._variables.items())
        text = f"{kind} Q{f'({declared})' if declared else ''} {{ {' '.join(fields)} }} {' '.join(self._fragments)}"
        if self._now_and_then():
            text = self._broken(text)
        variables = {name: value for name, (_, value) in self._variables.items() if not self._now_and_then(0.3)}
        body: Any = {"query": text, "variables": variables}
        if self._now_and_then():
            body |= {
                self._one_of(["query", "variables", "operationName", "extensions"]): self._one_of([*PLAIN, *BAD_TEXT])
            }
        return Call("POST", "/graphql", self._body(body), self._headers())

    def _headers(self) -> dict[str, str]:
        found = {}
        if self.random.random() < 0.03:
            found["crew-namespace"] = self._one_of(["default", "", "nowhere", "x" * 2000, *WORDS["workgroup"]])
        if self._now_and_then(0.5):
            found["accept"] = self._one_of(["application/graphql-response+json", "*/*", "text/html", "q=x;,"])
        return found

    def _body(self, body: Any) -> bytes:
        text = json.dumps(body)
        return (self._broken(text) if self._now_and_then(0.2) else text).encode()

    def _broken(self, text: str) -> str:
        """A piece left out, put twice, or something put between."""
        start = self.random.randrange(len(text) + 1)
        end = min(len(text), start + self.random.randint(0, 12))
        between = self._one_of(
            ["", text[start:end] * 2, "{", "}", ")", "$", "!", '"', "@skip(if: $x)", "\0", "é", "1e999", "..."]
        )
        return text[:start] + between + text[end:]

    def _field(self, parent: GraphQLObjectType, name: str, depth: int) -> str:
        field = parent.fields[name]
        given = []
        for argument, of in field.args.items():
            needed = isinstance(of.type, GraphQLNonNull)
            sent = (
                not self._now_and_then(0.05) if needed else self.random.random() < (0.1 if argument == "after" else 0.5)
            )
            if sent:
                given.append(f"{argument}: {self._argument(of, f'{name}.{argument}')}")
        directive = (
            self._one_of(["@skip(if: false)", "@include(if: true)", "@include(if: false)"])
            if self._now_and_then(0.3)
            else ""
        )
        of = get_named_type(field.type)
        below = f" {self._selection(of, depth - 1)}" if isinstance(of, GraphQLObjectType) else ""
        return f"{name}{'(' + ', '.join(given) + ')' if given else ''} {directive}{below}"

    def _selection(self, kind: GraphQLObjectType, depth: int) -> str:
        names = [
            n for n, f in kind.fields.items() if depth > 0 or not isinstance(get_named_type(f.type), GraphQLObjectType)
        ]
        chosen = self.random.sample(names, min(len(names), self.random.randint(1, 6)))
        parts = [
            f"b{n}: {self._field(kind, name, depth)}" if self.random.random() < 0.1 else self._field(kind, name, depth)
            for n, name in enumerate(chosen)
        ]
        parts.append(self._one_of(["__typename", f"... on {kind.name} {{ __typename }}"]))
        if "id" in names:
            parts.append("id")
        if self.random.random() < 0.1:
            self._fragments.append(f"fragment F{len(self._fragments)} on {kind.name} {{ {' '.join(parts)} }}")
            return f"{{ ...F{len(self._fragments) - 1} }}"
        return "{ " + " ".join(parts) + " }"

    def _argument(self, of: GraphQLArgument, name: str) -> str:
        value = self.value(of.type, name)
        if self.random.random() < 0.7:
            variable = f"v{len(self._variables)}"
            declared = (
                str(of.type)
                if not self._now_and_then(0.2)
                else self._one_of(["String", "Int!", "[ID!]!", "JSON", "Nothing"])
            )
            self._variables[variable] = (declared, value)
            return f"${variable}"
        return literal(value)

    # -- values -----------------------------------------------------------------------------------------------------

    def value(self, kind: Any, name: str) -> Any:
        if isinstance(kind, GraphQLNonNull):
            return None if self._now_and_then(0.05) else self.value(kind.of_type, name)
        if self._now_and_then(0.3):
            return self._one_of([*WRONG, self._one_of(BAD_TEXT), self._one_of(BAD_NUMBERS)])
        if isinstance(kind, GraphQLList):
            if kind_of(kind) == "NewTask":
                self._levels += 1
            many = self._one_of([1, 1, 2, 3, 5, 0]) if self._levels < 3 else 1
            items = [self.value(kind.of_type, name) for _ in range(many)]
            return self._graph(items) if kind_of(kind) == "NewTask" else items
        if isinstance(kind, GraphQLInputObjectType):
            found = {n: self.value(f.type, f"{kind.name}.{n}") for n, f in kind.fields.items() if self._sends(f, n)}
            return {**found, "more": 1} if self._now_and_then(0.1) else found
        if isinstance(kind, GraphQLEnumType):
            return _Enum("NOTHING") if self._now_and_then() else _Enum(self._one_of(kind.values))
        return self._scalar(kind.name, name)

    def _graph(self, tasks: list[Any]) -> list[Any]:
        """Each task, but a wild one, hangs from one before it or from a task that is there."""
        for n, task in enumerate(tasks):
            if isinstance(task, dict) and not self._now_and_then():
                task.pop(self._one_of(["runAfter", "delaySeconds"]), None)
                refs = [{"ref": f"r{self.random.randrange(n)}"}] if n else []
                parent = self._one_of([[], [], refs, [{"id": self.id("Task.id")}]])
                waiting = [{**one, "waitFor": _Enum(self._one_of(["TASK", "SUBTREE"]))} for one in parent]
                task |= {"ref": f"r{n}", "parents": waiting}
        return tasks

    def _sends(self, field: GraphQLInputField, name: str) -> bool:
        if isinstance(field.type, GraphQLNonNull):
            return not self._now_and_then(0.1)
        return self.random.random() < (0.7 if name in ("tasks", "leases") else 0.25)

    def _scalar(self, kind: str, name: str) -> Any:
        """`name`: that of the field or input, a dot, and that of the argument."""
        last = name.rpartition(".")[2]
        makers: dict[str, Callable[[], Any]] = {
            "ID": lambda: self.id(name),
            "Cursor": self.cursor,
            "String": self.cursor if last == "after" else lambda: self.text(last),
            "Int": lambda: self.number(last),
            "Float": self.seconds,
            "Boolean": lambda: self._one_of([True, False]),
            "JSON": self.json,
            "DateTime": self.instant,
        }
        return makers[kind]()

    def id(self, name: str) -> str:
        fresh = str(uuid.UUID(int=self.random.getrandbits(128)))
        if self._now_and_then(0.3):
            return str(self._one_of([*BAD_TEXT, NOBODY.upper(), fresh, *self.known.cursors]))
        if name in FRESH and self.random.random() < 0.8:
            return fresh
        low = name.lower().replace("_", "")
        fitting = (
            "Lease"
            if low.endswith(("lease", "leases", "holding"))
            else next((k for k in KINDS if k.lower() in low), "Task")
        )
        if low.endswith("groupid"):
            fitting = "TaskGroup"
        return str(self._one_of(self.known.ids[self._one_of(KINDS) if self._now_and_then() else fitting]))

    def cursor(self) -> str:
        return str(self._one_of([*BAD_TEXT, NOBODY] if self._now_and_then() else self.known.cursors))

    def text(self, name: str) -> str:
        return str(self._one_of(BAD_TEXT if self._now_and_then() else WORDS.get(name, NAMES)))

    def number(self, name: str) -> int:
        return int(self._one_of(BAD_NUMBERS if self._now_and_then() else NUMBERS.get(name, [0, 1, 2, 5])))

    def seconds(self) -> float:
        return self._one_of([*BAD_FLOATS, *BAD_NUMBERS] if self._now_and_then() else SECONDS)

    def instant(self) -> str:
        return str(self._one_of(BAD_INSTANTS if self._now_and_then() else INSTANTS))

    def json(self) -> Any:
        if self._now_and_then():
            odd = [deep(150), deep(250), {"\0": 1}, {"\ud800": [None]}]
            return self._one_of([*BAD_TEXT, *BAD_NUMBERS, *BAD_FLOATS, *odd])
        return self._one_of([*PLAIN, {"x-header": "y"}])

    # -- REST -------------------------------------------------------------------------------------------------------

    def rest(self) -> Call:
        path, method = self._one_of([(path, method) for path, by in PATHS.items() for method in by] + FULL * 4)
        body = b""
        if method in ("POST", "PUT"):
            body = self._body(self._one_of([*PLAIN, *BAD_NUMBERS]) if self._now_and_then(0.3) else self._document(1))
        if self._now_and_then(0.5):
            method = self._one_of(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"])
        path = path.replace("{id}", quoted(self.id(path))).replace("{channel:path}", quoted(self.text("channel")))
        if self._now_and_then(0.5):
            path += self._one_of(["/", "/more", "?x", "//", "/%00", "/%ff"])
        sizes = ["1", "5", "0", "-1", "", "x", "99999999999999", "\0"]
        asked = "&".join(f"{n}={quoted(self._one_of(sizes))}" for n in ("limit", "skip") if self.random.random() < 0.3)
        return Call(method, f"{PREFIX}{path}{f'?{asked}' if asked else ''}", body, self._headers())

    def _document(self, levels: int) -> dict[str, Any]:
        """The fields of a task or of a release, some of them."""
        makers: dict[str, Callable[[], Any]] = {
            **dict.fromkeys(("input", "output", "error"), self.json),
            **dict.fromkeys(("isSeed", "isPaused"), lambda: self._one_of([True, False])),
            **dict.fromkeys(("errorDelayInSeconds", "workgroupDelayInSeconds", "childrenDelayInSeconds"), self.seconds),
            "runAfter": self.instant,
            "parentIds": lambda: [self.id("task")],
            "_parent_ids": lambda: [self.text("ref")],
            "_child_id": lambda: self.text("ref"),
        }
        makers |= {n: partial(self.text, n) for n in ("name", "channel", "workerId", "workgroup", "key")}
        makers |= {n: partial(self.number, n) for n in ("priority", "remainingAttempts", "progressWeight")}
        found = {
            n: self.json() if self._now_and_then(0.5) else make()
            for n, make in makers.items()
            if n in ("name", "channel", "workerId") or self.random.random() < 0.4
        }
        if levels and self.random.random() < 0.3:
            found["children"] = [self._document(levels - 1) for _ in range(self.random.randint(0, 3))]
        return found


def kind_of(kind: Any) -> str:
    return str(get_named_type(kind))


def quoted(text: str) -> str:
    """In a URL; lone surrogates as bytes that are no UTF-8."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def literal(value: Any) -> str:
    """As it stands in a document."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {literal(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return str(value) if isinstance(value, _Enum) else json.dumps(value)
