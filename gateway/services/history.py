"""What the end of a call leaves behind: the row of a stored one, its caller's, and the events that tell of any."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from events.bus import Bus
from events.event import event
from gateway.core import delegation, views
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.core.usage import Usage
from gateway.services.activity import Line

NOTHING: Final = Usage()
STATUSES: Final[Mapping[State, HTTPStatus]] = {
    State.COMPLETED: HTTPStatus.OK,
    State.FAILED: HTTPStatus.BAD_GATEWAY,
    State.EXPIRED: HTTPStatus.GONE,
    State.CANCELLED: HTTPStatus.CONFLICT,
    State.INTERRUPTED: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""What who asks for the answer of an ended call is told, where no answer is stored with its own."""


def ended_row(call: Call, shown: Any = None, used: Usage = NOTHING, cost: int = 0) -> Mapping[str, Any]:
    """Return what becomes of the call's row in its target's history.

    shown: the view of its answer. used: the tokens that the answer tells of, and what they cost (millionths of a cent).
    """
    return {
        "id": call.id,
        "status": _word(call),
        "summary": _summary(call),
        "duration_ms": call.duration_ms,
        "error_detail": _detail(call),
        "response_body": shown,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "millionths": cost,
    }


def sent_line(call: Call) -> list[Line]:
    """Return the line in the history of the workspace that called; none where a person did, or it called itself.

    Of a delegation it is the result, with what its agent has answered: one row, however often it is written.
    """
    if call.kind is Kind.DELEGATION:
        return [_result_line(call)]
    if call.caller_id is None or call.caller_id == call.workspace_id:
        return []
    return [
        Line(
            workspace_id=call.caller_id,
            activity_type="a2a_send",
            method=call.method,
            summary=_summary(call),
            status=_word(call),
            source_id=call.caller_id,
            target_id=call.workspace_id,
            call_id=call.id,
            duration_ms=call.duration_ms,
            error_detail=_detail(call),
        )
    ]


def _result_line(call: Call) -> Line:
    """What its source reads of a delegation that has ended."""
    assert call.caller_id is not None
    assert call.result_id is not None
    said = None if call.answer is None or call.state is not State.COMPLETED else views.parse(call.answer)
    error = delegation.error(call.state, call.ending, call.last_error)
    return Line(
        id=call.result_id,
        workspace_id=call.caller_id,
        activity_type="a2a_receive",
        method="delegate_result",
        summary=delegation.preview(said, delegation.PREVIEW_CHARS) if error is None else error,
        status=_word(call),
        source_id=call.workspace_id,
        target_id=call.caller_id,
        call_id=call.id,
        duration_ms=call.duration_ms,
        error_detail=error,
        response_body=None if said is None or call.answer is None else views.view(call.answer, said),
    )


def publish_status(bus: Bus, call: Call, state: State) -> None:
    """Tell the source of a delegation how that stands now; nothing of any other call."""
    if call.kind is Kind.DELEGATION and call.caller_id is not None:
        shown = {
            "delegation_id": call.id,
            "target_id": call.workspace_id,
            "status": delegation.status(state, call.told).value,
        }
        bus.publish(event("DELEGATION_STATUS", call.caller_id, shown))


def publish_end(bus: Bus, call: Call, *, via: str | None = None) -> None:
    """Tell everybody that a call has ended: its caller is woken by it, wherever it waits.

    via: how the answer to a delegation came, None for the usual way.
    """
    assert call.ending is not None
    if call.kind is Kind.DELEGATION and call.caller_id is not None:
        _publish_result(bus, call, call.caller_id, via)
    status = int(call.answer_status or STATUSES[call.state])
    publish_ended(bus, call.workspace_id, call.id, ending=call.ending, status=status, duration_ms=call.duration_ms)


def publish_ended(bus: Bus, workspace_id: str, call_id: str, *, ending: Ending, status: int, duration_ms: int) -> None:
    """Tell everybody that a call to this workspace has ended, with the status that its caller gets."""
    shown = {"call_id": call_id, "ending": ending.value, "status": status, "duration_ms": duration_ms}
    bus.publish(event("CALL_ENDED", workspace_id, shown))


def publish_answer(
    bus: Bus, workspace_id: str, body: bytes, shown: Any, *, method: str | None, duration_ms: int
) -> None:
    """Tell browsers what a workspace has answered a person: all of it, though people's view of it (`shown`) is cut."""
    whole = shown if len(body) <= views.VIEW_BYTES else orjson.Fragment(views.whole(body))
    reply = {"response_body": whole, "method": method, "duration_ms": duration_ms}
    bus.publish(event("A2A_RESPONSE", workspace_id, reply, sign=True))


def _publish_result(bus: Bus, call: Call, source_id: str, via: str | None) -> None:
    shown: dict[str, Any] = {"delegation_id": call.id, "target_id": call.workspace_id}
    error = delegation.error(call.state, call.ending, call.last_error)
    if error is not None:
        bus.publish(event("DELEGATION_FAILED", source_id, {**shown, "error": error}))
        return
    said = None if call.answer is None else views.parse(call.answer)
    shown["response_preview"] = delegation.preview(said, delegation.TOLD_CHARS)
    if via is not None:
        shown["via"] = via
    bus.publish(event("DELEGATION_COMPLETE", source_id, shown))


def _word(call: Call) -> str:
    return "ok" if call.state is State.COMPLETED else "error"


def _summary(call: Call) -> str:
    assert call.ending is not None
    return f"{call.method}: {call.ending.value}"


def _detail(call: Call) -> str | None:
    return None if call.state is State.COMPLETED or call.ending is None else call.ending.value
