"""The routes and their models as an OpenAPI 3.1 document."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

import orjson
from pydantic import TypeAdapter

from events.event import CATALOGUE
from gateway.core.endings import Ending
from gateway.core.envelope import CODES
from gateway.core.rates import Tariff
from gateway.core.refusals import Code
from gateway.web.parse import MAX_SEARCH_CHARS, SESSION_COOKIE
from gateway.web.routes import Route, Scope

Schema = Mapping[str, Any]
_Mode = Literal["validation", "serialization"]

_UUID: Final[Schema] = {"type": "string", "format": "uuid"}
_SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
_TEXT: Final[Schema] = {"type": "string"}


def _header(name: str, about: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": about, "schema": schema}


_REFUSAL: Final[Schema] = {
    "type": "object",
    "description": "What went wrong, for people, and its stable code, for programs; some refusals add fields.",
    "properties": {"error": {"type": "string"}, "code": {"type": "string", "enum": sorted({*Code, *Ending})}},
    "required": ["error", "code"],
}
_RPC_ERROR: Final[Schema] = {
    "type": "object",
    "description": "A call that cannot be read, as a JSON-RPC error with the stable code beside it.",
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {},
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer", "enum": sorted(CODES)},
                "message": {"type": "string"},
                "data": {"type": "object", "properties": {"field": {"type": "string"}}},
            },
            "required": ["code", "message", "data"],
        },
        "code": {"type": "string", "enum": sorted(CODES.values())},
    },
    "required": ["jsonrpc", "id", "error", "code"],
}
_CALL: Final[Schema] = {
    "type": "object",
    "description": "A JSON-RPC request of A2A 0.2, 0.3 or 1.0; small faults of old clients are mended.",
    "anyOf": [{"required": ["jsonrpc"]}, {"required": ["method"]}],
    "examples": [
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "message/send",
            "params": {
                "message": {
                    "kind": "message",
                    "messageId": "9a1f6c1e-4d1b-4c57-9d0e-2f1f2a0c7b11",
                    "role": "user",
                    "parts": [{"kind": "text", "text": "Hello"}],
                }
            },
        }
    ],
}
_PLAIN: Final[Schema] = {
    "type": "object",
    "description": "What A2A's HTTP+JSON binding has for this path; without one where that needs none.",
    "examples": [{"message": {"messageId": "b2c3", "role": "ROLE_USER", "parts": [{"text": "Hello"}]}}],
}
_WAITING: Final[Sequence[Schema]] = (
    _header(
        "Prefer", "`wait=N`: stay N seconds for the answer if the call has to wait; who streams stays anyway.", _TEXT
    ),
    _header("X-A2A-Priority", "If it has to wait: 50, for the operator also 100 or 10.", _TEXT),
)
_ENDS: Final = frozenset({402, 409, 500, 502, 503, 504, 508})
"""How calls are refused, or end without an answer, beside what is implied otherwise."""
_ANYTHING: Final[Schema] = {"content": {"*/*": {}}}
_OPERATIONS: Final[Mapping[str, Schema]] = {
    verb: {
        "description": f"A path of the binding, with `v1/` before it in A2A 0.3: {', '.join(paths)}.",
        "schema": _TEXT,
        "example": example,
    }
    for verb, example, paths in (
        ("GET", "tasks", ("`tasks`", "`tasks/{id}`", "`tasks/{id}:subscribe`", "`tasks/{id}/pushNotificationConfigs`")),
        (
            "POST",
            "message:send",
            ("`message:send`", "`message:stream`", "`tasks/{id}:cancel`", "`tasks/{id}/pushNotificationConfigs`"),
        ),
        ("DELETE", "tasks/1/pushNotificationConfigs/1", ("`tasks/{id}/pushNotificationConfigs/{id}`",)),
    )
}


def document(routes: Iterable[Route], *, version: str) -> bytes:
    """Return the document."""
    rows = list(routes)
    schemas = _Schemas(rows)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schemas)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "A2A gateway",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas.definitions, "Refusal": _REFUSAL, "RpcError": _RPC_ERROR, "A2ARequest": _CALL},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
            },
        },
    }
    return orjson.dumps(whole)


class _Schemas:
    """The schemas of all bodies that come and go; those with a name are defined once and referred to."""

    def __init__(self, rows: Sequence[Route]) -> None:
        types: list[tuple[Any, _Mode, TypeAdapter[Any]]] = []
        for row in rows:
            if row.body is not None:
                types.append((row.body, "validation", TypeAdapter(row.body)))
            if row.gives is not None:
                types.append((row.gives, "serialization", TypeAdapter(row.gives)))
        by_type, shared = TypeAdapter.json_schemas(types, ref_template="#/components/schemas/{model}")
        self._by_type = {kind: schema for (kind, _), schema in by_type.items()}
        self.definitions: Schema = shared.get("$defs", {})

    def of(self, kind: Any) -> Schema:
        """Return the schema of one type."""
        return self._by_type[kind]


def _operation(row: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": row.about,
        "operationId": f"{row.method.lower()} {row.path}",
        "responses": {str(status): _response(status, row, schemas) for status in sorted(_statuses(row))},
    }
    if row.scope is not Scope.EVERYBODY:
        operation["security"] = [{"bearer": []}]
        if row.scope not in (Scope.RUNTIME, Scope.TESTER):
            operation["security"].append({"session": []})
        if row.scope is Scope.INSPECTOR:
            operation["security"].append({})
        operation["description"] = f"For: {row.scope.value}."
    parameters = _parameters(row)
    if parameters:
        operation["parameters"] = parameters
    if row.body is not None:
        operation["requestBody"] = {"required": True, **_json(schemas.of(row.body))}
    if row.a2a:
        if row.takes_body:
            operation["requestBody"] = _json(_PLAIN) if row.plain else {"required": True, **_json(_named("A2ARequest"))}
        operation["responses"]["default"] = {"description": "Whatever else the agent answers."}
    return operation


def _statuses(row: Route) -> set[int]:
    statuses = {row.status, *row.refuses}
    if row.scope is not Scope.EVERYBODY:
        statuses |= {401, 403, 429, 503}  # who shows no good credential pays, too
    if row.tariff is not Tariff.FREE:
        statuses.add(429)
    if row.a2a:
        statuses |= _ENDS
    if row.rpc:  # those by HTTP+JSON do not wait
        statuses.add(HTTPStatus.ACCEPTED)
    if "{workspace_id}" in row.path:
        statuses |= {404, 410}
    if row.takes_body:
        statuses |= {400, 408, 413, 415}
    return statuses


def _response(status: int, row: Route, schemas: _Schemas) -> dict[str, Any]:
    description = HTTPStatus(status).phrase
    if status >= 400 and row.path != "/readyz":
        refusal = _named("Refusal")
        if row.rpc and status == HTTPStatus.BAD_REQUEST:
            refusal = {"anyOf": [refusal, _named("RpcError")]}
        return {"description": description, **_json(refusal)}
    if row.stream or (row.relays and status == HTTPStatus.OK):
        return {"description": description, "content": {"text/event-stream": {}}}
    if row.status == status == HTTPStatus.SWITCHING_PROTOCOLS:
        return {"description": description}
    if row.html:
        return {"description": description, "content": {"text/html": {}}}
    if row.text:
        return {"description": description, "content": {"text/plain": {}}}
    if row.a2a and status == HTTPStatus.ACCEPTED:
        return {"description": "Its agent is busy, and the call waits: `Location` tells how it stands.", **_ANYTHING}
    if row.a2a:
        return {"description": "The agent's answer, as it is.", **_ANYTHING}
    return {"description": description, **_json({} if row.gives is None else schemas.of(row.gives))}


def _json(schema: Schema) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameters(row: Route) -> list[Schema]:
    parameters: list[Schema] = []
    if "{workspace_id}" in row.path:
        parameters.append({"name": "workspace_id", "in": "path", "required": True, "schema": _UUID})
    if "{token_id}" in row.path:
        parameters.append({"name": "token_id", "in": "path", "required": True, "schema": _UUID})
    if "{call_id}" in row.path:
        parameters.append({"name": "call_id", "in": "path", "required": True, "schema": _UUID})
    if "{delegation_id}" in row.path:
        parameters.append({"name": "delegation_id", "in": "path", "required": True, "schema": _UUID})
    if "{operation}" in row.path:
        parameters.append({"name": "operation", "in": "path", "required": True, **_OPERATIONS[row.method]})
    parameters += [_query(name, schema) for name, schema in row.query.items()]
    if row.confirm:
        parameters.append(_query("confirm", {"type": "string", "enum": ["true", "false"]}))
    if row.search:
        parameters.append(_query("q", {"type": "string", "maxLength": MAX_SEARCH_CHARS}))
    if row.a2a:
        parameters.append(_header("X-Workspace-ID", "The calling workspace; it must agree with the token.", _UUID))
        parameters.append(_header("X-Timeout", "Seconds that the call may take in all; 0 lifts the ceiling.", _SECONDS))
        if row.rpc:  # those by HTTP+JSON do not wait
            parameters += _WAITING
        parameters.append(
            _header(
                "X-On-Disconnect",
                "`cancel`: the call is called off if its caller leaves its stream; `detach`, the default: it goes on.",
                {"type": "string", "enum": ["detach", "cancel"]},
            )
        )
        parameters.append(
            _header(
                "Last-Event-ID", "Of a stream that the gateway goes on with for its agent: the last event seen.", _TEXT
            )
        )
        parameters.append(_header("A2A-Version", "The protocol version of the message.", _TEXT))
    if row.scope is Scope.VIEWER:
        parameters.append(_query("workspace", {"type": "array", "items": _UUID}))
    if row.stream or row.status == HTTPStatus.SWITCHING_PROTOCOLS:
        parameters.append(_query("type", {"type": "array", "items": {"type": "string", "enum": sorted(CATALOGUE)}}))
    if row.stream or row.relays or row.status == HTTPStatus.SWITCHING_PROTOCOLS:
        parameters.append(
            _header("Last-Event-ID", "The last event seen; what has happened since is sent first.", _TEXT)
        )
        parameters.append(_query("last_event_id", _TEXT))
    return parameters


def _query(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}
