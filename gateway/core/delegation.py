"""What a delegation is: the message that is sent, what others say of it, and what its source is told."""

from enum import StrEnum
from typing import Any, Final, assert_never

import orjson

from gateway.core.calls import FINAL, Call, State
from gateway.core.endings import Ending

METHOD: Final = "message/send"
SUMMARY_CHARS: Final = 100
"""Characters of a task that are shown where delegations are listed or told of ..."""
PREVIEW_CHARS: Final = 300
"""... and of an answer where they are listed ..."""
TOLD_CHARS: Final = 200
"""... or told of."""
LISTED: Final = 50
"""Delegations that are listed: the newest."""
REPEATED: Final = (frozenset(State) - FINAL) | {State.COMPLETED, State.INTERRUPTED}
"""While a delegation is in one of these, another one with its key is the same one: its agent has it, or may have it."""


class Status(StrEnum):
    """How a delegation stands, as its source sees it."""

    PENDING = State.PENDING
    DISPATCHED = State.DISPATCHED
    QUEUED = State.QUEUED
    COMPLETED = State.COMPLETED
    FAILED = State.FAILED
    CANCELLED = State.CANCELLED
    EXPIRED = State.EXPIRED
    INTERRUPTED = State.INTERRUPTED


class Report(StrEnum):
    """What its source or its target may say of a delegation."""

    COMPLETED = Status.COMPLETED
    FAILED = Status.FAILED
    QUEUED = Status.QUEUED


class Follows(StrEnum):
    """What follows from such a report: nothing, since it is known already; it is noted, or it is the end."""

    NOTHING = "nothing"
    NOTE = "note"
    END = "end"
    LATE = "late"
    """It has come to another end."""
    UNDER_WAY = "under way"
    """The gateway has sent it, or will, and hears of its end itself."""


def message(delegation_id: str, task: str) -> bytes:
    """Return the call that carries a task (A2A 0.3)."""
    said = {
        "kind": "message",
        "role": "user",
        "messageId": delegation_id,
        "parts": [{"kind": "text", "text": task}],
        "metadata": {"delegation_id": delegation_id},
    }
    return orjson.dumps({"jsonrpc": "2.0", "id": delegation_id, "method": METHOD, "params": {"message": said}})


def summary(task: str) -> str:
    """Return how a task begins, in one line."""
    return _cut(" ".join(task[: 4 * SUMMARY_CHARS].split()), SUMMARY_CHARS)


def status(state: State, told: str | None) -> Status:
    """Return how a delegation in this state stands; `told`: what its source says of one that it has sent itself."""
    match state:
        case State.PARKED:
            return Status.QUEUED
        case State.STREAMING:
            return Status.DISPATCHED
        case State.DISPATCHED if told is not None:
            return Status(told)
        case _:
            return Status(state)


def decide_report(call: Call, report: Report) -> Follows:
    """Return what follows when somebody reports how a delegation stands."""
    if status(call.state, call.told) is Status(report):
        return Follows.NOTHING
    if call.ended:
        return Follows.LATE
    if call.carried:
        return Follows.UNDER_WAY
    match report:
        case Report.COMPLETED | Report.FAILED:
            return Follows.END
        case Report.QUEUED:
            return Follows.NOTE
        case never:
            assert_never(never)


def answer(delegation_id: str, text: str) -> bytes:
    """Return the answer to a delegation of which nothing but a text is known, as its agent would have given it."""
    said = {
        "kind": "message",
        "role": "agent",
        "messageId": f"{delegation_id}-result",
        "parts": [{"kind": "text", "text": text}],
    }
    return orjson.dumps({"jsonrpc": "2.0", "id": delegation_id, "result": said})


def error(state: State, ending: Ending | None, last_error: str | None) -> str | None:
    """Return why a delegation has not been completed, None while that is not so.

    last_error: of the last attempt; it says why one has failed, not why one was called off or came too late.
    """
    if ending is None or state is State.COMPLETED:
        return None
    return last_error or ending.value if state is State.FAILED else ending.value


def preview(said: Any, chars: int) -> str:
    """Return how an answer begins: the text of its message or task, or else of its error; nothing where there is none.

    said: the answer as it was parsed.
    """
    match said:
        case {"error": {"message": str(text)}}:
            return _cut(text, chars)
        case {"result": dict(result)}:
            return _cut("\n".join(_texts(result)), chars)
        case _:
            return ""


def _texts(result: dict[str, Any]) -> list[str]:
    """The texts of a message or a task, of A2A 0.3 or 1.0: those of its artifacts, if it has any."""
    match result:
        case {"message": dict(inner)} | {"task": dict(inner)}:
            return _texts(inner)
        case {"artifacts": [*artifacts]} if found := [text for one in artifacts for text in _parts(one)]:
            return found
        case {"status": {"message": dict(inner)}}:
            return _parts(inner)
        case _:
            return _parts(result)


def _parts(holder: object) -> list[str]:
    match holder:
        case {"parts": [*parts]}:
            return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
        case _:
            return []


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "\u2026"
