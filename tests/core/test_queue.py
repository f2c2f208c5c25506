from datetime import UTC, datetime

import orjson
import pytest

from gateway.core.answers import Answer, classify
from gateway.core.callers import Admin, Holder, Local, Member, Principal, System
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.core.outcomes import Answered, Broke, Clock, Cut, Expired, NotConnected, Outcome, Reset, Stopped, TooLarge
from gateway.core.queue import (
    ATTEMPTS,
    Back,
    backoff_s,
    decide,
    decide_refused,
    find_answer,
    held,
    lane,
    read_priority,
    wait,
)
from gateway.core.refusals import Code, Refusal

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ME = "00000000-0000-4000-8000-00000000000a"
CHANCES = {"first_s": 1.0, "jitter": 1.0}


def call(**fields: object) -> Call:
    return Call(
        **{
            "id": ME, "kind": Kind.QUEUED, "state": State.DISPATCHED, "workspace_id": ME, "caller_id": None,
            "method": "message/send", "attempts": 0, "created_at": NOW, "expires_at": NOW, **fields,
        }
    )  # fmt: skip


def test_what_is_busy_goes_back_however_often_and_comes_ever_later():
    busy = classify(Answered(status=429, headers={}, body=b""))
    delays = [decide(busy, call(busy=times, attempts=4), **CHANCES) for times in (1, 2, 3, 100)]
    assert delays == [Back(delay_s=delay_s, error="agent_busy", busy=True) for delay_s in (1, 2, 4, 32)]


def test_what_was_not_sent_is_tried_again_and_then_has_failed():
    away = classify(NotConnected())
    for attempts in range(ATTEMPTS - 1):
        then = decide(away, call(attempts=attempts), **CHANCES)
        assert then == Back(delay_s=2**attempts, error="agent_unreachable", counts=True)
    assert decide(away, call(attempts=ATTEMPTS - 1), **CHANCES) is away


@pytest.mark.parametrize(
    "outcome",
    [
        Answered(status=200, headers={}, body=b""),
        Answered(status=500, headers={}, body=b""),
        Reset(),
        Cut(status=200),
        TooLarge(),
        Stopped(),
        Broke(),
        *(Expired(clock=clock) for clock in Clock),
    ],
)
def test_what_its_agent_may_have_is_never_sent_again(outcome: Outcome):
    ended = classify(outcome)
    assert decide(ended, call(), **CHANCES) is ended


@pytest.mark.parametrize("code", [Code.REMOVED, Code.NOT_FOUND, Code.CANNOT_COMMUNICATE, Code.BUDGET_EXCEEDED])
def test_what_may_not_be_sent_any_more_ends(code: Code):
    then = decide_refused(code, call(), **CHANCES)
    assert not isinstance(then, Back)
    assert (then.ending, orjson.loads(then.answer.body)["reason"]) == (Ending.REJECTED, code.value)


def test_what_cannot_be_sent_just_now_is_tried_again_and_what_nobody_can_say_does_not_count():
    then = decide_refused(Code.NO_URL, call(attempts=1), **CHANCES)
    assert then == Back(delay_s=2, error="no_url", counts=True)
    assert not isinstance(decide_refused(Code.NO_URL, call(attempts=ATTEMPTS - 1), **CHANCES), Back)
    assert decide_refused(Code.PLATFORM_UNAVAILABLE, call(attempts=9), **CHANCES) == wait(
        Code.PLATFORM_UNAVAILABLE, **CHANCES
    )


def test_the_time_between_two_tries_is_somewhere_in_its_upper_half():
    assert [backoff_s(2.0, 3, jitter) for jitter in (0.0, 0.5, 1.0)] == [4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("principal", "may"),
    [(Admin(), True), (Local(), True), (System(kind="webhook:", name="x"), True), (Member(), False),
     (Holder(workspace_id=ME), False)],
)  # fmt: skip
def test_only_the_operator_and_system_callers_have_another_priority(principal: Principal, may: bool):
    assert read_priority(None, principal) == read_priority("50", principal) == 50
    for header in ("100", "10"):
        if may:
            assert read_priority(header, principal) == int(header)
        else:
            with pytest.raises(Refusal) as refused:
                read_priority(header, principal)
            assert (refused.value.code, refused.value.fields) == (Code.NOT_ALLOWED, {"field": "X-A2A-Priority"})
            assert "X-A2A-Priority" in refused.value.sentence


@pytest.mark.parametrize("header", ["", "high", "51", "1e2", "-10", "100, 100"])
def test_what_is_no_priority_is_refused(header: str):
    with pytest.raises(Refusal) as refused:
        read_priority(header, Admin())
    assert (refused.value.code, refused.value.fields) == (Code.INVALID_REQUEST, {"field": "X-A2A-Priority"})


def test_workspaces_and_system_callers_wait_for_themselves_and_people_together():
    found = [lane(Holder(workspace_id=ME), ME), lane(Admin(), ME), lane(Admin(), None), lane(Member(), None)]
    assert found == [ME, ME, "people", "people"]
    assert lane(System(kind="webhook:", name="x"), None) == "webhook:x"


def test_who_waits_is_told_where():
    answer = held(ME, "c-1", 3, NOW)
    assert (answer.status, answer.headers["Location"]) == (202, f"/workspaces/{ME}/a2a/queue/c-1")
    said = orjson.loads(answer.body)
    assert (said["queued"], said["queue_id"], said["queue_depth"]) == (True, "c-1", 3)
    assert said["expires_at"] == NOW.isoformat()


def test_the_answer_to_a_call_is_what_was_stored_or_how_it_ended_without_one():
    stored = call(answer=b"x", answer_status=201, answer_headers={"A2A-Version": "1.0"}, ending=Ending.COMPLETED)
    assert find_answer(stored) == Answer(status=201, body=b"x", headers={"A2A-Version": "1.0"})
    endings = (Ending.EXPIRED, Ending.CANCELLED, Ending.INTERRUPTED)
    assert [find_answer(call(ending=ending)).status for ending in endings] == [410, 409, 503]
    assert find_answer(call()) is None
