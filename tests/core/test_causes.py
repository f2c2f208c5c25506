"""core.causes: each cause has its row, and the rows agree with what is known of each outcome and with one another."""

import re
from collections import defaultdict

import pytest
from hypothesis import given

from gateway.core.answers import classify
from gateway.core.causes import (
    CALLED_OFF,
    RETRIABLE,
    RULES,
    UNDELIVERED,
    UNREAD,
    Anew,
    Cause,
    Retriable,
    Taken,
    cause_of,
)
from gateway.core.endings import Ending
from gateway.core.outcomes import Answered, Cancelled, Clock, Cut, Expired, NotConnected, Outcome, Reset, Streamed
from gateway.core.retry import is_sent_again
from tests.harness.outcomes import OUTCOMES

FOR_FEEDS = (Answered, Streamed, NotConnected, Reset, Cut, Expired)


def answered(status: int, **headers: str) -> Answered:
    return Answered(status=status, headers=headers, body=b"")


def test_every_cause_has_its_row_and_every_ending_a_cause() -> None:
    assert set(RULES) == set(Cause)
    assert {rule.ending for rule in RULES.values()} == set(Ending)


def test_causes_of_one_ending_say_the_same_to_who_knows_the_ending_alone() -> None:
    said = defaultdict(set)
    for rule in RULES.values():
        said[rule.ending].add((rule.taken, rule.retriable, rule.queued))
    assert {ending: len(rows) for ending, rows in said.items() if len(rows) > 1} == {}


def test_the_sets_of_endings_are_read_off_the_table() -> None:
    assert {Ending.AGENT_BUSY, Ending.AGENT_UNREACHABLE, Ending.REJECTED} == UNDELIVERED
    assert {Ending.EXPIRED, Ending.CANCELLED} == CALLED_OFF
    assert {Ending.TRUNCATED, Ending.RESPONSE_TOO_LARGE, Ending.OVERLOADED} == UNREAD
    assert {Ending.AGENT_BUSY, Ending.AGENT_UNREACHABLE, Ending.AGENT_RESTARTING} == RETRIABLE


@pytest.mark.parametrize("cause", [Cause.EMPTY, Cause.FINAL, Cause.BUSY])
def test_a_cause_that_names_statuses_is_that_of_these_and_no_others(cause: Cause) -> None:
    named = {int(status) for status in re.findall(r"\d{3}", cause.value)}
    assert {
        status for status in range(100, 700) if cause_of(answered(status, **{"Retry-After": "1"})) is cause
    } == named


def test_an_agent_that_is_away_is_busy_only_where_it_says_when_it_is_back() -> None:
    assert cause_of(answered(503)) is Cause.FAILED
    assert cause_of(answered(503, **{"Retry-After": ""})) is Cause.BUSY
    assert cause_of(answered(500, **{"Retry-After": "1"})) is Cause.FAILED
    assert cause_of(answered(429)) is Cause.BUSY


@given(OUTCOMES)
def test_what_an_ending_is_does_not_hang_on_the_words_of_an_answer(outcome: Outcome) -> None:
    assert classify(outcome).cause is cause_of(outcome)
    if isinstance(outcome, Answered):
        bare = dict.fromkeys(outcome.headers, "")
        assert cause_of(Answered(status=outcome.status, headers=bare, body=b"")) is cause_of(outcome)


@given(OUTCOMES)
def test_a_feed_has_a_rule_for_all_that_can_happen_to_it_and_for_nothing_else(outcome: Outcome) -> None:
    clocked = not isinstance(outcome, Expired) or outcome.clock in (Clock.FIRST_BYTE, Clock.IDLE)
    happens = isinstance(outcome, FOR_FEEDS) and clocked
    assert (RULES[cause_of(outcome)].feed is not Anew.NEVER) == happens


@given(OUTCOMES)
def test_the_table_says_of_the_message_what_is_known_of_it(outcome: Outcome) -> None:
    ended = classify(outcome)
    match RULES[ended.cause].taken:
        case Taken.NO | Taken.DIED:
            assert ended.delivered is False
        case Taken.UNSENT:
            assert ended.delivered is (None if outcome == Cancelled(under_way=True) else False)
        case Taken.YES:
            assert ended.delivered is True
        case Taken.UNREAD:
            assert ended.delivered is not None
        case Taken.UNKNOWN:
            assert ended.delivered is None


@given(OUTCOMES)
def test_who_is_told_to_send_again_has_not_been_heard_and_who_is_not_told_decides(outcome: Outcome) -> None:
    ended = classify(outcome)
    match RULES[ended.cause].retriable:
        case Retriable.YES:
            assert ended.delivered is False
        case Retriable.CALLER:
            assert ended.delivered is None
        case Retriable.NO:
            assert ended.delivered is not None or ended.ending is Ending.CANCELLED


@given(OUTCOMES)
def test_at_once_goes_again_what_had_no_connection_and_nothing_else(outcome: Outcome) -> None:
    assert is_sent_again(outcome) == (outcome == NotConnected())
