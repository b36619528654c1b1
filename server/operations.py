"""GraphQL operations, whichever way they came: read, run, and written as bodies. On our own schema, compiled where that is covered.

A body is read by orjson, and by the slower exact reader where that would lose something: integers beyond 64 bits, lone
surrogates. What they hold is then refused with the path of the field, not as broken JSON.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import orjson
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, execute, located_error
from graphql.execution import Executor, create_source_event_stream

from resolvers.core import Limits
from schema.coercion import NotCovered
from schema.compiled import Compiled
from schema.context import Context
from schema.errors import formatted, refused_request
from server.access import Asker
from server.document_limits import rows, too_many_nodes
from server.documents import Document, Documents
from server.refusal import Refusal

_DIGITS = bytes(ord("0") if byte in b"0123456789" else byte for byte in range(256))
_LONG, _LONG_BELOW_ZERO = b"0" * 20, b"-" + b"0" * 19


class Params:
    """One operation to run."""

    __slots__ = ("operation_name", "query", "variables")

    def __init__(self, given: object) -> None:
        if not isinstance(given, dict):
            raise Refusal(400, "BAD_REQUEST", "the body must be a JSON object with a `query`")
        self.query: str = _typed(given, "query", str, "a string")
        if not self.query:
            raise Refusal(400, "BAD_REQUEST", "`query` is missing: send the text of a GraphQL document")
        self.variables: dict[str, Any] | None = _typed(given, "variables", dict, "an object")
        self.operation_name: str | None = _typed(given, "operationName", str, "a string")
        _typed(given, "extensions", dict, "an object")


def _typed(given: dict[str, Any], name: str, kind: type[Any], what: str) -> Any:
    value = given.get(name)
    if value is not None and not isinstance(value, kind):
        raise Refusal(400, "BAD_REQUEST", f"`{name}` must be {what}, not {type(value).__name__}")
    return value


class RequestRefused(Exception):
    """The document or its variables are bad, or the stream cannot go on: `errors` as a response has them."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors

    @staticmethod
    def of(document: Document) -> RequestRefused:
        return RequestRefused(refused(document.errors, document.code))


class Draining(Exception):
    """The server stops: the stream is to be begun again elsewhere."""


@dataclass(slots=True)
class Told:
    """One message of a stream: the response, and the cursor behind it if it has one."""

    body: bytes
    cursor: str | None


class Operations:
    """Runs them on the schema."""

    def __init__(self, schema: GraphQLSchema, limits: Limits = Limits()) -> None:
        self._schema = schema
        self._limits = limits
        self.documents = Documents(schema, limits)

    async def body(self, document: Document, params: Params, asker: Asker) -> tuple[bytes, bool]:
        """The response of a query or mutation, and whether the request itself was bad. Raises Refusal and RequestRefused."""
        if document.node is None:
            return written({"errors": refused(document.errors, document.code)}), True
        self._check(document, params, asker)
        data, errors = await self._answer(document, params, asker)
        if document.writes(params.operation_name):
            asker.services.core.stir()
        if data is None and errors and all(e.path is None for e in errors):
            return written({"errors": refused(errors, "BAD_INPUT")}), True
        if errors:
            return written({"errors": [formatted(e) for e in errors], "data": data}), False
        return written({"data": data}), False

    def _check(self, document: Document, params: Params, asker: Asker) -> None:
        """That the caller may, and asks for no more than is allowed."""
        asked = document.asked_by(params.operation_name)
        if asked is None:
            return
        role = asker.caller.role
        if role < asked.role:
            message = (
                f"an API key of the role {asked.role.name} is needed for this; the one that was sent is of {role.name}"
            )
            raise Refusal(403, "FORBIDDEN", message)
        if asked.pages is not None:
            nodes = rows(asked.pages, params.variables or {})
            if nodes > self._limits.max_nodes:
                error = too_many_nodes(nodes, self._limits)
                raise RequestRefused(refused([error], error.code))

    async def _answer(
        self, document: Document, params: Params, asker: Asker
    ) -> tuple[dict[str, Any] | None, list[GraphQLError]]:
        """Data and errors: compiled where that is covered, and by the executor."""
        ready = _compiled_inputs(document, params)
        if ready is not None:
            compiled, inputs = ready
            try:
                return await compiled.run(Context(asker.services, caller=asker.caller), inputs)
            except Exception:
                # A query: the executor says what is wrong and where, and answers the rest.
                pass
        done = await self._execute(document, params, asker, None)
        return done.data, done.errors or []

    async def _execute(self, document: Document, params: Params, asker: Asker, root: object) -> ExecutionResult:
        assert document.node is not None
        result = execute(
            self._schema,
            document.node,
            root,
            context_value=Context(asker.services, caller=asker.caller),
            variable_values=params.variables,
            operation_name=params.operation_name,
        )
        return result if isinstance(result, ExecutionResult) else await result

    # -- streams ----------------------------------------------------------------------------------------------------

    async def stream(
        self, document: Document, params: Params, asker: Asker, transport: str, last_event_id: str | None = None
    ) -> AsyncGenerator[Told, None]:
        """A subscription's messages. Raises Refusal and RequestRefused, also in the middle, and Draining when the server stops."""
        if document.node is None:
            raise RequestRefused.of(document)
        self._check(document, params, asker)
        context = Context(asker.services, last_event_id, transport, asker.caller)
        ready = _compiled_inputs(document, params)
        source = await self._source(document, params, context) if ready is None else ready[0].source(context, ready[1])
        async with aclosing(cast(AsyncGenerator[Any, None], source)) as values:
            while True:
                try:
                    value = await anext(values)
                except StopAsyncIteration:
                    break
                except Exception as error:
                    raise RequestRefused([formatted(_at_root(document, params, error))]) from None
                if not asker.stands():
                    raise Refusal(401, "UNAUTHENTICATED", "the API key of this stream does not count any more")
                yield Told(await self._told(document, params, asker, ready, value), getattr(value, "cursor", None))
        if asker.services.log.draining:
            raise Draining

    async def _source(self, document: Document, params: Params, context: Context) -> AsyncIterator[Any]:
        assert document.node is not None
        executor = Executor.build(
            self._schema,
            document.node,
            context_value=context,
            raw_variable_values=params.variables,
            operation_name=params.operation_name,
        )
        if isinstance(executor, list):
            raise RequestRefused(refused(executor, "BAD_INPUT"))
        found: Any = create_source_event_stream(executor)
        if hasattr(found, "__await__"):
            found = await found
        if isinstance(found, ExecutionResult):
            raise RequestRefused([formatted(e) for e in found.errors or ()])
        return cast(AsyncIterator[Any], found)

    async def _told(
        self,
        document: Document,
        params: Params,
        asker: Asker,
        ready: tuple[Compiled, dict[str, Any]] | None,
        value: Any,
    ) -> bytes:
        if ready is not None:
            compiled, inputs = ready
            shared: dict[object, bytes] | None = getattr(value, "shared", None) if compiled.is_plain else None
            if shared is not None and compiled in shared:
                return shared[compiled]
            try:
                context = Context(asker.services, caller=asker.caller)
                body = written({"data": await compiled.told(context, inputs, value)})
                if shared is not None:
                    shared[compiled] = body
                return body
            except Exception:
                # The executor says what is wrong and where, and answers the rest.
                pass
        done = await self._execute(document, params, asker, value)
        if done.errors:
            return written({"errors": [formatted(e) for e in done.errors], "data": done.data})
        return written({"data": done.data})


def _at_root(document: Document, params: Params, error: Exception) -> GraphQLError:
    if isinstance(error, GraphQLError):
        return error
    operation = document.operation(params.operation_name)
    nodes = list(operation.selection_set.selections[:1]) if operation else []
    return located_error(error, nodes, None)


def _compiled_inputs(document: Document, params: Params) -> tuple[Compiled, dict[str, Any]] | None:
    compiled = document.compiled_operation(params.operation_name)
    if compiled is None:
        return None
    try:
        return compiled, compiled.inputs(params.variables)
    except NotCovered:
        return None


def refused(errors: list[GraphQLError], code: str) -> list[dict[str, Any]]:
    return [refused_request(e, code) for e in errors]


def written(answer: Any) -> bytes:
    """As JSON. An answer may quote what was sent, lone surrogates too: those are written as U+FFFD."""
    try:
        return orjson.dumps(answer)
    except TypeError:
        return orjson.dumps(_whole(answer))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_whole(k): _whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_whole(v) for v in value]
    return value


def read(body: bytes) -> object:
    """JSON. Raises Refusal."""
    try:
        # orjson would round it. (Looking for it so takes a twentieth of what a regular expression does.)
        digits = body.translate(_DIGITS)
        if _LONG in digits or _LONG_BELOW_ZERO in digits:
            return json.loads(body, parse_constant=_no_constant)
        return orjson.loads(body)
    except ValueError:
        try:
            return json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "BAD_REQUEST", f"the body is not JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
