from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import inbox
from gateway.core.calls import FINAL, MOVES, Call, Kind, State
from gateway.core.delegation import (
    REPEATED,
    SUMMARY_CHARS,
    Follows,
    Report,
    Status,
    answer,
    decide_report,
    error,
    message,
    preview,
    status,
    summary,
)
from gateway.core.endings import Ending
from gateway.core.envelope import Envelope, normalise

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ME, YOU = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


def call(**fields: Any) -> Call:
    return Call(
        **{
            "id": ME, "kind": Kind.DELEGATION, "state": State.DISPATCHED, "workspace_id": YOU, "caller_id": ME,
            "method": "message/send", "attempts": 0, "created_at": NOW, "expires_at": NOW, **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_word_and_the_end_is_told_as_it_is(state):
    word = status(state, None)
    assert isinstance(word, Status)
    assert (word in set(FINAL)) == (state in FINAL)
    assert status(state, "queued") is (Status.QUEUED if state is State.DISPATCHED else word)
    assert (state in REPEATED) == (word not in ("failed", "cancelled", "expired"))


@given(st.sampled_from(State), st.booleans(), st.sampled_from([None, "queued"]), st.sampled_from(Report))
def test_a_report_ends_only_what_nobody_sends(state, carried, told, report):
    ending = None if state not in FINAL else Ending.COMPLETED
    one = call(state=state, carried=carried, told=told, ending=ending, ended_at=None if ending is None else NOW)
    match decide_report(one, report):
        case Follows.NOTHING:
            assert status(state, told) == report
        case Follows.END:
            assert not carried
            assert report is not Report.QUEUED
            assert state not in FINAL
        case Follows.NOTE:
            assert not carried
            assert report is Report.QUEUED
        case Follows.LATE:
            assert state in FINAL
        case Follows.UNDER_WAY:
            assert carried
            assert state not in FINAL


def test_what_lies_in_an_inbox_or_was_sent_by_its_source_can_end_either_way():
    for state in (State.PARKED, State.DISPATCHED):
        assert {State.COMPLETED, State.FAILED, State.EXPIRED} <= {to for to in State if state in MOVES[to]}


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_the_message_is_one_that_any_agent_takes(task):
    found = normalise(message(ME, task), a2a_version=None, mint=lambda: "x")
    assert isinstance(found, Envelope)
    assert found.body == message(ME, task), "nothing had to be mended"
    assert (found.method, found.message_id, found.client_message_id) == ("message/send", ME, True)
    assert inbox.find_fault(found) is None
    said = orjson.loads(found.body)["params"]["message"]
    assert (said["parts"], said["metadata"]) == ([{"kind": "text", "text": task}], {"delegation_id": ME})


@given(st.text())
def test_a_summary_is_one_short_line(task):
    said = summary(task)
    assert len(said) <= SUMMARY_CHARS
    assert len(said.splitlines()) <= 1


PARTS = [{"kind": "text", "text": "a"}, {"kind": "data", "data": {}}, {"text": "b"}, 7]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"result": {"kind": "message", "parts": PARTS}}, "a\nb"),
        ({"result": {"kind": "task", "artifacts": [{"parts": PARTS}, {}], "status": {"state": "completed"}}}, "a\nb"),
        ({"result": {"kind": "task", "artifacts": [], "status": {"message": {"parts": PARTS}}}}, "a\nb"),
        ({"result": {"message": {"parts": PARTS}}}, "a\nb"),
        ({"result": {"task": {"artifacts": [{"parts": PARTS}]}}}, "a\nb"),
        ({"error": {"code": -32603, "message": "no"}}, "no"),
        ({"result": {"parts": "odd"}}, ""),
        ({"result": "odd"}, ""),
        ({"error": "odd"}, ""),
        (["odd"], ""),
        (None, ""),
    ],
)
def test_an_answer_is_shown_by_its_texts(said, shown):
    assert preview(said, 100) == shown


def test_what_is_long_is_cut():
    assert preview({"result": {"parts": [{"text": "x" * 300}]}}, 300) == "x" * 300
    assert preview({"result": {"parts": [{"text": "x" * 301}]}}, 300) == "x" * 299 + "\u2026"
    assert preview(orjson.loads(answer(ME, "hello")), 300) == "hello"
    assert inbox.is_response(orjson.loads(answer(ME, "hello")))


@pytest.mark.parametrize(
    ("state", "ending", "last_error", "told"),
    [
        (State.PENDING, None, None, None),
        (State.QUEUED, None, "agent_busy", None),  # it waits
        (State.FAILED, Ending.REJECTED, None, "rejected"),
        (State.FAILED, Ending.REJECTED, "no_url", "no_url"),
        (State.CANCELLED, Ending.CANCELLED, "agent_busy", "cancelled"),  # that its agent was busy is not why
        (State.EXPIRED, Ending.EXPIRED, "agent_busy", "expired"),
        (State.INTERRUPTED, Ending.GATEWAY_SHUTDOWN, "agent_busy", "gateway_shutdown"),
        (State.COMPLETED, Ending.COMPLETED, "agent_busy", None),
    ],
)
def test_an_error_is_what_was_said_or_else_how_it_ended(state, ending, last_error, told):
    assert error(state, ending, last_error) == told
