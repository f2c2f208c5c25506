"""What the end of a stored call leaves behind: its row of history, its caller's, and the event that tells of it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from events.bus import Bus
from events.event import event
from gateway.core.calls import Call, State
from gateway.core.usage import Usage
from gateway.services.activity import Line

NOTHING: Final = Usage()
STATUSES: Final[Mapping[State, HTTPStatus]] = {
    State.COMPLETED: HTTPStatus.OK,
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
    """Return the line in the history of the workspace that called; none where a person did, or it called itself."""
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


def publish_end(bus: Bus, call: Call) -> None:
    """Tell everybody that a call has ended: its caller is woken by it, wherever it waits."""
    assert call.ending is not None
    shown = {
        "call_id": call.id,
        "ending": call.ending.value,
        "status": int(STATUSES[call.state]),
        "duration_ms": call.duration_ms,
    }
    bus.publish(event("CALL_ENDED", call.workspace_id, shown))


def _word(call: Call) -> str:
    return "ok" if call.state is State.COMPLETED else "error"


def _summary(call: Call) -> str:
    assert call.ending is not None
    return f"{call.method}: {call.ending.value}"


def _detail(call: Call) -> str | None:
    return None if call.state is State.COMPLETED or call.ending is None else call.ending.value
