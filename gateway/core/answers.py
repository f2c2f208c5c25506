"""What the caller of a call gets: from what happened on the wire to the one ending and its answer."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, assert_never

import orjson

from gateway.core import jsontext
from gateway.core.causes import RULES, Cause, cause_of
from gateway.core.endings import Ending
from gateway.core.outcomes import (
    Answered,
    Broke,
    Cancelled,
    Clock,
    Cut,
    Dead,
    Expired,
    Lapsed,
    NotConnected,
    Orphaned,
    Outcome,
    Parked,
    Rejected,
    Reset,
    Spent,
    Stopped,
    Streamed,
    TooLarge,
    Unheld,
)

JSON: Final = "application/json"
LAST_STATUS: Final = 599
OVERLOADED_RETRY_S: Final = 2
RESTARTING_RETRY_S: Final = 15
BUSY_RETRY_S: Final = 30
"""Seconds after which a caller of a busy or silent agent may ask again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What goes back to the caller. `call_id`: of the earlier call whose answer it is, None for the caller's own.

    `waits`: it says no more than that the call waits for its agent.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    call_id: str | None = None
    waits: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """One ending, with the answer it gives. `delivered`: whether the agent got the message; None when nobody knows.

    retry_after_s: when a busy agent may be asked again, None if it has not said so.
    """

    cause: Cause
    answer: Answer
    delivered: bool | None
    retry_after_s: float | None = None

    @property
    def ending(self) -> Ending:
        """How the call has ended, as all of it is called by the world."""
        return RULES[self.cause].ending

    @property
    def succeeded(self) -> bool:
        """Whether the history shows the call as a success: the agent took it, even if its answer was lost."""
        return self.delivered is True and self.ending is not Ending.AGENT_ERROR


def classify(outcome: Outcome, *, native_session: bool = False, plain: bool = False) -> Ended:
    """Return the ending of a call, and its unary answer.

    native_session: the agent keeps sessions of its own, so that its caller may wait for it (capability `session`).
    plain: it was made by HTTP+JSON, where an agent's own errors are objects without JSON-RPC.
    """
    cause = cause_of(outcome)
    ending = RULES[cause].ending
    match outcome:
        case Answered(status=status) if not HTTPStatus.OK <= status <= LAST_STATUS:
            answer = _refused(HTTPStatus.BAD_GATEWAY, "agent answered with an impossible status", ending)
            return Ended(cause=cause, answer=answer, delivered=True)
        case Answered(status=status) if status < HTTPStatus.MULTIPLE_CHOICES:
            return Ended(cause=cause, answer=_as_is(outcome), delivered=True)
        case Streamed(status=status, headers=headers):
            return Ended(cause=cause, answer=Answer(status=status, body=b"", headers=headers), delivered=True)
        case Answered() if cause is Cause.BUSY:
            return Ended(
                cause=cause,
                answer=_busy("agent is busy", ending, native_session),
                delivered=False,
                retry_after_s=outcome.retry_after_s,
            )
        case Answered():
            return Ended(cause=cause, answer=_agent_error(outcome, plain), delivered=True)
        case NotConnected(unsafe=True):
            answer = _refused(HTTPStatus.BAD_GATEWAY, "workspace URL is not publicly routable", "unsafe_url")
            return Ended(cause=cause, answer=answer, delivered=False)
        case NotConnected():
            answer = _refused(HTTPStatus.BAD_GATEWAY, "failed to reach workspace agent", ending)
            return Ended(cause=cause, answer=answer, delivered=False)
        case Dead():
            answer = _refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "workspace agent is being restarted",
                ending,
                retry_after_s=RESTARTING_RETRY_S,
                restarting=True,
                retry_after=RESTARTING_RETRY_S,
            )
            return Ended(cause=cause, answer=answer, delivered=False)
        case Reset():
            answer = _unknown("agent closed the connection before answering", ending, native_session)
            return Ended(cause=cause, answer=answer, delivered=None)
        case Cut(status=status, closed=closed):
            taken = status < HTTPStatus.BAD_REQUEST
            sentence = "agent ended its stream without a last event" if closed else "failed to read agent response"
            answer = _refused(HTTPStatus.BAD_GATEWAY, sentence, ending, delivery_confirmed=taken)
            return Ended(cause=cause, answer=answer, delivered=taken)
        case TooLarge():
            answer = _refused(
                HTTPStatus.BAD_GATEWAY,
                "agent response is too large",
                ending,
                delivery_confirmed=True,
            )
            return Ended(cause=cause, answer=answer, delivered=True)
        case Unheld(status=status):
            taken = status < HTTPStatus.BAD_REQUEST
            answer = _refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the gateway has no room for the agent's response",
                ending,
                retry_after_s=OVERLOADED_RETRY_S,
                delivery_confirmed=taken,
            )
            return Ended(cause=cause, answer=answer, delivered=taken)
        case Expired(clock=Clock.IDLE):
            return Ended(
                cause=cause,
                answer=_unknown("agent gave no sign of life", ending, native_session),
                delivered=None,
            )
        case Expired(clock=Clock.FIRST_BYTE):
            return Ended(
                cause=cause,
                answer=_unknown("agent did not begin to answer in time", ending, native_session),
                delivered=None,
            )
        case Expired(clock=Clock.BUS_LOST):
            return Ended(
                cause=cause,
                answer=_unknown("the gateway could not hear the agent", ending, native_session),
                delivered=None,
            )
        case Expired(clock=Clock.STALLED):
            return Ended(
                cause=cause,
                answer=_unknown("agent is alive, and its stream does not go on", ending, native_session),
                delivered=None,
            )
        case Expired(clock=clock):
            sentence = (
                "the caller's deadline passed" if clock is Clock.DEADLINE else "the call took longer than calls may"
            )
            answer = _refused(HTTPStatus.GATEWAY_TIMEOUT, sentence, ending, outcome="unknown")
            return Ended(cause=cause, answer=answer, delivered=None)
        case Stopped():
            answer = _refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the gateway is shutting down",
                ending,
                retry_after_s=5,
                outcome="unknown",
            )
            return Ended(cause=cause, answer=answer, delivered=None)
        case Spent():
            answer = _refused(
                HTTPStatus.PAYMENT_REQUIRED,
                "workspace budget limit exceeded",
                ending,
                outcome="unknown",
                delivery_confirmed=True,
            )
            return Ended(cause=cause, answer=answer, delivered=True)
        case Orphaned():
            answer = _refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the gateway that made the call has died",
                ending,
                outcome="unknown",
                delivery_confirmed=None,
            )
            return Ended(cause=cause, answer=answer, delivered=None)
        case Parked(call_id=call_id, method=method):
            shown = {"status": "queued", "delivery_mode": "poll", "method": method, "id": call_id}
            answer = Answer(status=HTTPStatus.OK, body=orjson.dumps(shown), headers={"Content-Type": JSON}, waits=True)
            return Ended(cause=cause, answer=answer, delivered=True)
        case Lapsed():
            answer = _refused(HTTPStatus.GONE, "the call's time was over before its agent took it", ending)
            return Ended(cause=cause, answer=answer, delivered=False)
        case Rejected(reason=reason):
            sentence = "the call has waited, and may not be sent any more"
            answer = _refused(HTTPStatus.FORBIDDEN, sentence, ending, reason=reason)
            return Ended(cause=cause, answer=answer, delivered=False)
        case Cancelled(under_way=True):
            answer = _refused(
                HTTPStatus.CONFLICT,
                "the call was cancelled",
                ending,
                outcome="unknown",
                delivery_confirmed=None,
            )
            return Ended(cause=cause, answer=answer, delivered=None)
        case Cancelled():
            answer = _refused(HTTPStatus.CONFLICT, "the call was cancelled", ending)
            return Ended(cause=cause, answer=answer, delivered=False)
        case Broke():
            answer = _refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", ending, outcome="unknown")
            return Ended(cause=cause, answer=answer, delivered=None)
        case never:
            assert_never(never)


def _as_is(answer: Answered) -> Answer:
    return Answer(status=answer.status, body=answer.body, headers=answer.headers)


def _agent_error(answer: Answered, plain: bool) -> Answer:
    """A body of the binding as it is; else the agent's own string error, or the reason phrase of its status."""
    said: Any = None
    if not jsontext.is_crowded(answer.body):
        with suppress(orjson.JSONDecodeError):
            said = orjson.loads(answer.body)
    match said:
        case {"jsonrpc": _}:
            return _as_is(answer)
        case dict() if plain and _is_plain_error(said):
            return _as_is(answer)
        case {"error": str(sentence)}:
            pass
        case _:
            sentence = _phrase(answer.status)
    kept = {name: value for name, value in answer.headers.items() if name != "Content-Type"}
    body = orjson.dumps({"error": sentence, "code": Ending.AGENT_ERROR.value})
    return Answer(status=answer.status, body=body, headers={**kept, "Content-Type": JSON})


def _is_plain_error(said: dict[str, Any]) -> bool:
    """An error of HTTP+JSON: as A2A 1.0 has it, as RFC 9457 does, or as published agents of A2A 0.3 do."""
    match said:
        case {"error": {"message": str()}} | {"title": str()} | {"message": str()}:
            return True
    return False


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def _refused(status: int, sentence: str, code: str, *, retry_after_s: int | None = None, **fields: Any) -> Answer:
    headers = {"Content-Type": JSON}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return Answer(status=status, body=orjson.dumps({"error": sentence, "code": str(code), **fields}), headers=headers)


def _busy(sentence: str, code: Ending, native_session: bool, **fields: Any) -> Answer:
    if native_session:
        fields["native_session"] = True
    return _refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        sentence,
        code,
        retry_after_s=BUSY_RETRY_S,
        busy=True,
        retry_after=BUSY_RETRY_S,
        **fields,
    )


def _unknown(sentence: str, code: Ending, native_session: bool) -> Answer:
    """The agent may be working on it or not: nothing is sent again, and the caller is told that nobody knows."""
    return _busy(sentence, code, native_session, outcome="unknown", delivery_confirmed=None)
