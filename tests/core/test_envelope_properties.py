import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.envelope import BadEnvelope, Envelope, error_body, normalise
from tests.harness.calls import CALLS, LIKELY_CALLS, VERSIONS


def mint() -> str:
    return str(uuid4())


def look(raw: bytes, version: str | None = None) -> Envelope | BadEnvelope:
    return normalise(raw, a2a_version=version, mint=mint)


@dataclass(frozen=True)
class Digits:
    """A number as it was written."""

    text: str


def exact(text: bytes | str) -> Any:
    return json.loads(text, parse_int=Digits, parse_float=Digits)


def as_repaired(call: dict[str, Any], minted: dict[str, Any]) -> dict[str, Any]:
    """Return what the wire contract makes of a v0.x call, written once more over decoded values."""
    call = dict(call)
    if "jsonrpc" not in call:
        call = {"id": minted.get("id"), **call, "jsonrpc": "2.0"}
    params = call.get("params")
    if not isinstance(params, dict) or not isinstance(params.get("message"), dict):
        return call
    message = {"messageId": minted["params"]["message"].get("messageId"), **params["message"]}
    content = message.pop("content", None)
    if content is not None and message.get("parts") is None:
        said = [content] if isinstance(content, str) else content
        message["parts"] = [{"kind": "text", "text": one} if isinstance(one, str) else one for one in said]
    if isinstance(message.get("parts"), list):
        message["parts"] = [with_kind(part) for part in message["parts"]]
    return {**call, "params": {**params, "message": message}}


def with_kind(part: Any) -> Any:
    if not isinstance(part, dict) or "kind" in part:
        return part
    if isinstance(part.get("type"), str):
        return {"kind" if name == "type" else name: value for name, value in part.items()}
    kind = next((kind for kind in ("text", "file", "data") if kind in part), None)
    return part if kind is None else {"kind": kind, **part}


@settings(deadline=None)
@given(CALLS | LIKELY_CALLS, VERSIONS)
def test_a_call_goes_on_repaired_and_with_everything_else_as_it_was(text: str, version: str | None):
    raw = text.encode()
    call = look(raw, version)
    if isinstance(call, BadEnvelope):
        return
    before, after = exact(raw), exact(call.body)
    assert after == (before if call.v1 else as_repaired(before, after))
    assert (call.body is raw) == (after == before)
    again = normalise(call.body, a2a_version=version, mint=mint)
    assert isinstance(again, Envelope)
    assert again.body is call.body
    assert (again.id_json, again.message_id, again.method) == (call.id_json, call.message_id, call.method)


@settings(deadline=None)
@given(CALLS | LIKELY_CALLS, VERSIONS)
def test_a_call_is_refused_for_the_reasons_of_the_contract_and_for_no_other(text: str, version: str | None):
    names = [name for name, _ in json.loads(text, object_pairs_hook=list)]
    call = json.loads(text)
    deciding = ("jsonrpc", "id", "method", "params")
    method, params = call.get("method"), call.get("params")
    is_v1 = (version or "").strip().startswith("1") or method == "SendMessage"
    message = params.get("message") if isinstance(params, dict) else None
    mute = (
        isinstance(message, dict)
        and message.get("parts") is None
        and (
            not isinstance(message["content"], str | list) or not message["content"]
            if "content" in message
            else "parts" not in message
        )
    )
    if any(names.count(name) > 1 for name in deciding) or ("jsonrpc" not in call and "method" not in call):
        expected = -32600
    else:
        expected = -32602 if mute and not is_v1 else 0
    found = look(text.encode(), version)
    assert (found.code if isinstance(found, BadEnvelope) else 0) == expected


@settings(deadline=None)
@given(
    st.binary()
    | st.tuples(CALLS, st.binary(max_size=3), st.integers(0, 99)).map(
        lambda drawn: drawn[0].encode()[: drawn[2]] + drawn[1] + drawn[0].encode()[drawn[2] :]
    )
)
def test_no_bytes_make_it_raise_and_every_answer_is_json(raw: bytes):
    match look(raw):
        case BadEnvelope() as bad:
            assert json.loads(error_body(bad))["error"]["code"] == bad.code
        case call:
            json.loads(call.body)
