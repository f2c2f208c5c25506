"""What becomes of a call whose agent is busy: in which order it waits, and what its caller is told."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Final

import orjson

from gateway.core import answers, inbox, outcomes
from gateway.core.answers import Answer
from gateway.core.callers import Admin, Local, Principal, System
from gateway.core.calls import Call, Kind
from gateway.core.endings import Ending
from gateway.core.refusals import Code, Refusal, bad_field

NORMAL: Final = 50
PRIORITIES: Final = (10, NORMAL, 100)
"""The higher the sooner; all but the normal one are for the operator and for system callers."""
PEOPLE: Final = "people"
"""The lane of everybody who is no workspace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a call stands in the order of its queue: the highest priority first, then by turns, then as they came."""

    priority: int
    turn: int
    seq: int

    def __str__(self) -> str:
        """Return it as a cursor."""
        return f"{self.priority}.{self.turn}.{self.seq}"


FRONT: Final = Place(priority=32767, turn=0, seq=0)
"""Before every call."""
_CURSOR: Final = re.compile(r"([0-9]{1,3})\.([0-9]{1,18})\.([0-9]{1,18})")


def find_place(cursor: str) -> Place | None:
    """Return the place that a cursor names, None where it is none."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        return None
    priority, turn, seq = map(int, found.groups())
    return Place(priority=priority, turn=turn, seq=seq)


def read_priority(header: str | None, principal: Principal) -> int:
    """Return the priority that a call asks for; refuses what is none, and who may not ask for it."""
    if header is None:
        return NORMAL
    found = {str(one): one for one in PRIORITIES}.get(header.strip())
    if found is None:
        raise bad_field("X-A2A-Priority", f"must be one of {', '.join(map(str, PRIORITIES))}")
    if found != NORMAL and not isinstance(principal, Admin | Local | System):
        sentence = f"X-A2A-Priority: {found} is for the operator and system callers"
        raise Refusal(Code.NOT_ALLOWED, sentence, field="X-A2A-Priority")
    return found


def lane(principal: Principal, caller_id: str | None) -> str:
    """Return in whose name a call waits: callers take turns."""
    if isinstance(principal, System):
        return f"{principal.kind}{principal.name}"
    return caller_id or PEOPLE


def held(workspace_id: str, call_id: str, depth: int, expires_at: datetime | None) -> Answer:
    """Return what the caller of a busy agent gets: where its call waits, how many do, and until when."""
    shown = {
        "queued": True,
        "queue_id": call_id,
        "queue_depth": depth,
        "expires_at": expires_at,
        "message": "the agent is busy: the call waits, and is sent when the agent has time",
    }
    headers = {"Content-Type": answers.JSON, "Location": f"/workspaces/{workspace_id}/a2a/queue/{call_id}"}
    return Answer(status=HTTPStatus.ACCEPTED, body=orjson.dumps(shown), headers=headers, waits=True)


def unsure(answer: Answer) -> Answer:
    """Return what the caller of a busy agent gets if its call may wait all the same: nobody knows whether it does."""
    said = {**orjson.loads(answer.body), "outcome": "unknown", "delivery_confirmed": None}
    return replace(answer, body=orjson.dumps(said))


def waiting(call: Call, place: int | None) -> Answer:
    """Return what is told of a call that has not ended; place: among those that wait, None if it has been sent."""
    if call.kind is Kind.PARKED:
        return answers.classify(outcomes.Parked(call_id=call.id, method=call.method)).answer
    return held(call.workspace_id, call.id, place or 0, call.expires_at)


def find_answer(call: Call) -> Answer | None:
    """Return what the caller of a call that has ended gets, None while there is nothing."""
    if call.answer is not None and call.answer_status is not None:
        return Answer(status=call.answer_status, body=call.answer, headers=call.answer_headers)
    if call.answer is not None:  # it came by an inbox
        return Answer(status=HTTPStatus.OK, body=inbox.under(call.answer, None), headers={"Content-Type": answers.JSON})
    match call.ending:
        case Ending.EXPIRED:
            return answers.classify(outcomes.Lapsed()).answer
        case Ending.CANCELLED:
            return answers.classify(outcomes.Cancelled()).answer
        case Ending.INTERRUPTED:
            return answers.classify(outcomes.Orphaned()).answer
        case _:
            return None
