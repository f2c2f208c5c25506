"""JSON-RPC 2.0 from bytes to a request, and from a result or an error back to bytes."""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

JsonObject = dict[str, Any]
Id = str | int | orjson.Fragment | None


class Code(IntEnum):
    """Error codes of JSON-RPC 2.0 (section 5.1) and of A2A v0.3 (section 8.2)."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    BUSY = -32000
    TASK_NOT_FOUND = -32001
    TASK_NOT_CANCELABLE = -32002
    PUSH_NOTIFICATION_NOT_SUPPORTED = -32003
    UNSUPPORTED_OPERATION = -32004
    CONTENT_TYPE_NOT_SUPPORTED = -32005
    EXTENDED_CARD_NOT_CONFIGURED = -32007


class RpcError(Exception):
    """A request that is answered with an error object; `id` is set where the request's own id was readable."""

    def __init__(self, code: Code, sentence: str, *, id: Id = None) -> None:  # noqa: A002 - the field's name in JSON-RPC
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.id = id


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call: `params` is an object, empty where the caller sent none."""

    id: Id
    method: str
    params: JsonObject


def read_request(body: bytes) -> Request:
    """Read one request or raise `RpcError`. A request without an id is answered too, with id null."""
    try:
        call = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RpcError(Code.PARSE_ERROR, "the body is not JSON") from error
    if not isinstance(call, dict):
        raise RpcError(Code.INVALID_REQUEST, "the body is not one JSON-RPC request object")
    id_ = _read_id(call.get("id"), body)
    if call.get("jsonrpc") != "2.0":
        raise RpcError(Code.INVALID_REQUEST, 'jsonrpc must be "2.0"', id=id_)
    method = call.get("method")
    if not isinstance(method, str):
        raise RpcError(Code.INVALID_REQUEST, "method must be a string", id=id_)
    params = call.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise RpcError(Code.INVALID_PARAMS, "params must be an object", id=id_)
    return Request(id=id_, method=method, params=params)


def answer(id_: Id, result: JsonObject) -> bytes:
    """The response that carries a result."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "result": result})


def refuse(id_: Id, error: RpcError) -> bytes:
    """The response that carries an error."""
    return orjson.dumps(
        {"jsonrpc": "2.0", "id": id_, "error": {"code": int(error.code), "message": error.sentence}},
    )


def _read_id(value: object, body: bytes) -> Id:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _literal_id(body)
    raise RpcError(Code.INVALID_REQUEST, "id must be a string, a number or null")


def _literal_id(body: bytes) -> orjson.Fragment:
    """The id's own digits: a float cannot hold an integer beyond 64 bits, and ids go back as they came."""
    try:
        call = json.loads(body, parse_int=_Literal, parse_float=_Literal)
    except RecursionError as error:
        raise RpcError(Code.PARSE_ERROR, "the body is nested too deeply") from error
    return orjson.Fragment(str(call["id"]))


class _Literal(str):
    """A number that was not converted."""

    __slots__ = ()
