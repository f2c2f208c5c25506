"""The routes and their models as an OpenAPI 3.1 document."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson
from pydantic.json_schema import models_json_schema

from gateway.web.routes import Route, Scope

_REFUSAL = {
    "type": "object",
    "properties": {"error": {"type": ["string", "object"]}, "code": {"type": ["string", "integer"]}},
    "required": ["error"],
}


def document(routes: Iterable[Route], *, version: str) -> bytes:
    """Return the document."""
    rows = list(routes)
    _, schemas = models_json_schema(
        [(row.body, "validation") for row in rows if row.body is not None], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "A2A gateway",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Refusal": _REFUSAL},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    return orjson.dumps(whole)


def _operation(row: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": row.about,
        "operationId": f"{row.method.lower()} {row.path}",
        "responses": {str(status): _response(status, row) for status in sorted(_statuses(row))},
    }
    if row.scope is not Scope.EVERYBODY:
        operation["security"] = [{"bearer": []}]
        operation["description"] = f"For: {row.scope.value}."
    parameters = _parameters(row)
    if parameters:
        operation["parameters"] = parameters
    if row.body is not None:
        schema = {"$ref": f"#/components/schemas/{row.body.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif row.a2a:
        schema = {"type": "object", "description": "An A2A JSON-RPC request (v0.2, v0.3 or v1.0)."}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _statuses(row: Route) -> set[int]:
    statuses = {row.answers, *row.refuses}
    if row.scope is not Scope.EVERYBODY:
        statuses |= {401, 403, 503}
    if row.body is not None or row.a2a:
        statuses |= {400, 408, 413}
    return statuses


def _response(status: int, row: Route) -> dict[str, Any]:
    description = HTTPStatus(status).phrase
    if status >= 400:
        schema = {"$ref": "#/components/schemas/Refusal"}
        return {"description": description, "content": {"application/json": {"schema": schema}}}
    media = "text/event-stream" if row.stream else "application/json"
    return {"description": description, "content": {media: {}}}


def _parameters(row: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if "{workspace_id}" in row.path:
        schema: dict[str, Any] = {"type": "string", "format": "uuid"}
        parameters.append({"name": "workspace_id", "in": "path", "required": True, "schema": schema})
    if row.a2a:
        parameters.append(_header("X-Workspace-ID", "The calling workspace; it must agree with the token."))
        parameters.append(_header("X-Timeout", "Seconds that the call may take in all; 0 lifts the ceiling."))
        parameters.append(_header("A2A-Version", "The protocol version of the message."))
    if row.stream:
        parameters.append(_header("Last-Event-ID", "The last event seen; what has happened since is sent first."))
        parameters.append({"name": "last_event_id", "in": "query", "schema": {"type": "string"}})
    return parameters


def _header(name: str, about: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": about, "schema": {"type": "string"}}
