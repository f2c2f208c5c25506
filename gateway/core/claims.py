"""When a call is the same as an earlier one: somebody's same message to the same target, and the same words."""

import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final, assert_never

from gateway.core import jsontext
from gateway.core.answers import Answer
from gateway.core.callers import Admin, Anonymous, Holder, Local, Member, Principal, Stranger, System, find_credential
from gateway.core.envelope import Envelope
from gateway.core.inbox import under
from gateway.core.refusals import Code, Refusal

KEY_BYTES: Final = 20
FIELD: Final = "params.message.messageId"
LONG_BYTES: Final = 16 * 1024
"""An event that takes long to go through, for each of all those who have joined its stream."""
_END_BYTES: Final = 1024
"""How far its id may be from either end, as those write it who write JSON-RPC."""
_ID: Final = rb"""("(?:[^"\\\r\n]|\\[^\r\n])*"|-?[0-9]+|null)"""
_FIRST: Final = re.compile(
    rb"""(?:^|\n|\r)data: ?\{(?:"jsonrpc": ?"2\.0", ?"id": ?%b(?=,)|"id": ?%b(?=, ?"jsonrpc"))""" % (_ID, _ID)
)
_LAST: Final = re.compile(rb""", ?"id": ?%b\}(?=[\r\n]*\Z)""" % _ID)
_JSONRPC: Final = re.compile(rb"""(?:^|\n|\r)data: ?\{(?:"jsonrpc"|"result"|"error")""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Both in hexadecimal. `key`: which message of whom to whom. `words`: what it says, the JSON-RPC id left out."""

    key: str
    words: str


def find_claim(principal: Principal, caller_id: str | None, target_id: str, message: Envelope) -> Claim | None:
    """Return what a call claims; None where the caller has not chosen a message id: such a call is always a new one."""
    if not message.client_message_id or message.message_id is None:
        return None
    whose = f"workspace:{caller_id}" if caller_id is not None else _person(principal)
    key = blake2b(f"{target_id}\n{whose}\n{message.message_id}".encode(), digest_size=KEY_BYTES)
    return Claim(key=key.hexdigest(), words=message.digest.hex())


def _person(principal: Principal) -> str:
    """Whoever is no workspace is known by what was shown: a token, or a browser's session."""
    shown = find_credential(principal)
    if shown is not None:
        return f"{shown.proof.value}:{shown.hash.hex()}"
    match principal:
        case System(kind=kind, name=name):
            return f"{kind}{name}"
        case Admin() | Member() | Holder() | Local() | Anonymous() | Stranger():
            return type(principal).__name__.lower()
        case never:
            assert_never(never)


def readdress(answer: Answer, call_id: str, id_json: bytes | None) -> Answer:
    """Return the answer of an earlier call under the JSON-RPC id of the one that asks now.

    So are the events of a stream. What is no response of JSON-RPC has no such id and keeps its bytes.
    """
    kind, body = answer.headers.get("Content-Type", "").lower(), answer.body
    if b'"jsonrpc"' in body:
        if "json" in kind:
            body = _under(body, id_json)
        elif "text/event-stream" in kind:
            body = address_events(body, id_json)
    return replace(answer, body=body, call_id=call_id)


def _under(body: bytes, id_json: bytes | None) -> bytes:
    try:
        said = jsontext.parse(body)
    except jsontext.Unparsable:  # an agent may answer anything
        return body
    return under(body, id_json) if isinstance(said, dict) and "jsonrpc" in said else body


def address_event(raw: bytes, id_json: bytes | None) -> bytes:
    """Return one event of a stream under another JSON-RPC id. Of a long one not all is looked at where its id is the
    first or the last member of its response, as with nearly all: it takes as long as to copy it."""
    if len(raw) > LONG_BYTES:
        head, tail = raw[:_END_BYTES], raw[-_END_BYTES:]
        first, last = _FIRST.search(head), _LAST.search(tail)
        if first is not None and last is None:
            start, end = first.span(first.lastindex or 0)
            return b"".join((raw[:start], id_json or b"null", raw[end:]))
        if first is None and last is not None and _JSONRPC.search(head):
            start, end = (len(raw) - len(tail) + at for at in last.span(1))
            return b"".join((raw[:start], id_json or b"null", raw[end:]))
    return address_events(raw, id_json)


def address_events(body: bytes, id_json: bytes | None) -> bytes:
    """Return events of a stream under another JSON-RPC id, their bytes otherwise as they are."""
    parts: list[bytes] = []
    lines: list[bytes] = []
    for line in body.splitlines(keepends=True):
        lines.append(line)
        if not line.strip(b"\r\n"):
            parts += _address_event(lines, id_json)
            lines = []
    return b"".join((*parts, *_address_event(lines, id_json)))


def _address_event(lines: list[bytes], id_json: bytes | None) -> list[bytes]:
    """The lines of one event; where its JSON goes over several, so does what it becomes."""
    said = [line for line in lines if line.startswith(b"data:")]
    text = b"\n".join(line.removeprefix(b"data:").removeprefix(b" ").rstrip(b"\r\n") for line in said)
    other = _under(text.strip(), id_json) if text else text
    if other == text.strip():
        return lines
    end = said[0][len(said[0].rstrip(b"\r\n")) :]
    at = lines.index(said[0])
    told = [b"data: %b%b" % (line, end) for line in other.split(b"\n")]
    return [*lines[:at], *told, *(line for line in lines[at:] if not line.startswith(b"data:"))]


def reused(call_id: str) -> Refusal:
    """Refuse a message id that already stands for other words."""
    sentence = f"{FIELD}: an earlier call with it said something else"
    return Refusal(Code.MESSAGE_ID_REUSED, sentence, field=FIELD, call_id=call_id)


def not_kept(call_id: str) -> Refusal:
    """Refuse a call that was made before, and whose answer is not kept."""
    return Refusal(Code.ALREADY_COMPLETED, "the call has ended and its answer is not kept", call_id=call_id)


def interrupted(call_id: str) -> Refusal:
    """Refuse a call that was made before by a replica that is gone: nobody knows how far it came."""
    sentence = "the call was interrupted; whether its agent has done it is not known"
    return Refusal(Code.INTERRUPTED, sentence, call_id=call_id, outcome="unknown", delivery_confirmed=None)
