"""How streams end for their readers: the last event of one that has not completed, and refusals told as such."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson

from gateway.core import http_json, jsontext, streams, views
from gateway.core.answers import Answer, Ended
from gateway.core.causes import RETRIABLE
from gateway.core.endings import Ending
from gateway.core.refusals import Code, Refusal

STATUS_TOLD_IN_BAND: Final = frozenset({502, 503, 504})
"""Answers of ours that a streaming caller gets as an event: clients of streams lose the body of any other answer ..."""
CODES_TOLD_IN_BAND: Final[Mapping[Code, int]] = {
    Code.UNSAFE_URL: 502,
    Code.NO_URL: 503,
    Code.INBOX_FULL: 503,
    Code.OVERLOADED: 503,
    Code.DRAINING: 503,
    Code.INTERRUPTED: 503,
    Code.PLATFORM_UNAVAILABLE: 503,
}
"""... and the refusals that have such a status, once it is known who calls."""
SERVER_ERROR: Final = -32000


def of_ended(ended: Ended, *, call_id: str, last: int, resumable: bool = True, plain: bool = False) -> bytes | None:
    """Return the farewell of a stream that has come to this end; None: it has completed."""
    if ended.ending is Ending.COMPLETED:
        return None
    return farewell(ended.answer, ended.ending.value, call_id=call_id, last=last, resumable=resumable, plain=plain)


def farewell(
    answer: Answer, ending: str, *, call_id: str, last: int, resumable: bool = True, plain: bool = False
) -> bytes:
    """Return what the last event of a stream says that has not completed: a JSON-RPC error, without its id.

    answer: what a caller of the same call would have got that does not stream. last: the number of the event before.
    resumable: whether its journal has it all, as far as is known. plain: as HTTP+JSON has it, without JSON-RPC.
    """
    fields = jsontext.find_object(answer.body)
    sentence = fields.pop("error", None)
    retriable = ending in _RETRIABLE and not last
    fields.pop("busy", None)  # the code says it, of who is
    if not retriable:
        fields.pop("retry_after", None)
    if last:
        fields["delivery_confirmed"] = True
    data = {
        **fields,
        "code": ending,
        "http_status": int(answer.status),
        "retriable": retriable,
        "call_id": call_id,
        "last_event_id": streams.event_id(call_id, last) if last else None,
    }
    if not resumable:
        data["resumable"] = False
    message = sentence if isinstance(sentence, str) else f"the stream has ended: {ending}"
    if plain:
        return http_json.error(answer.status, message, data)
    return orjson.dumps({"code": SERVER_ERROR, "message": message, "data": data})


def failure(
    code: str, sentence: str, *, call_id: str, last: int, retriable: bool = False, plain: bool = False
) -> bytes:
    """Return what the last event says to a reader who cannot have the rest here, though there may be one.

    retriable: who asks for it once more may get it. plain: as HTTP+JSON has it, without JSON-RPC.
    """
    data = {
        "code": code,
        "retriable": retriable,
        "call_id": call_id,
        "last_event_id": streams.event_id(call_id, last) if last else None,
    }
    if plain:
        return http_json.error(HTTPStatus.SERVICE_UNAVAILABLE, sentence, data)
    return orjson.dumps({"code": SERVER_ERROR, "message": sentence, "data": data})


_RETRIABLE: Final = frozenset(ending.value for ending in RETRIABLE) | (
    {code.value for code in CODES_TOLD_IN_BAND} - {Code.INTERRUPTED.value}
)
"""What a program may send again without asking anybody, if no event of a stream has come."""


def error_event(error: bytes, id_json: bytes | None, *, plain: bool = False) -> bytes:
    """Return the event of a JSON-RPC error, or of one of HTTP+JSON, which has no id."""
    if plain:
        return http_json.error_event(error)
    return b'data: {"jsonrpc":"2.0","id":%b,"error":%b}\n\n' % (id_json or b"null", error)


def in_band(answer: Answer, *, call_id: str, id_json: bytes | None) -> Answer:
    """Return the answer to a streaming method as an event, where its client would lose it otherwise."""
    if answer.status not in STATUS_TOLD_IN_BAND:
        return answer
    said = jsontext.find_object(answer.body)
    if "jsonrpc" in said or not isinstance(said.get("code"), str):  # the agent's own, for whoever speaks its language
        return answer
    error = farewell(answer, said["code"], call_id=call_id, last=0)
    kept = {name: value for name, value in answer.headers.items() if name != "Content-Type"}
    return Answer(
        status=200,
        body=error_event(error, id_json),
        headers={**kept, "Content-Type": streams.MEDIA_TYPE},
        call_id=answer.call_id,
    )


def refused_in_band(refused: Refusal, *, call_id: str, id_json: bytes | None) -> Answer:
    """Return a refusal with one of CODES_TOLD_IN_BAND as an event.

    call_id: of the call that was asked for, unless the refusal is about an earlier one.
    """
    status = CODES_TOLD_IN_BAND[refused.code]
    earlier = refused.fields.get("call_id")
    headers = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    answer = Answer(status=status, body=orjson.dumps(refused.to_json()), headers=headers, call_id=earlier)
    return in_band(answer, call_id=earlier or call_id, id_json=id_json)


def of_answer(answer: Answer, ending: str, *, call_id: str, id_json: bytes | None) -> bytes:
    """Return the events that an answer is to a caller that streams: its own, if it is a stream, or one."""
    if answer.status < HTTPStatus.MULTIPLE_CHOICES:
        if streams.is_stream(answer.headers):
            return streams.address(answer.body, id_json)
        return streams.address(b"data: %b\n\n" % views.whole(answer.body), id_json)
    return error_event(farewell(answer, ending, call_id=call_id, last=0), id_json)
