"""core.answers: from what happened on the wire to the one ending and its answer."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.answers import classify
from gateway.core.endings import Ending
from gateway.core.jsontext import MAX_CROWD
from gateway.core.outcomes import (
    Answered,
    Broke,
    Cancelled,
    Clock,
    Cut,
    Expired,
    NotConnected,
    Outcome,
    Rejected,
    Reset,
    Stopped,
    TooLarge,
    Unheld,
)

JSON_HEADERS = {"Content-Type": "application/json"}


def answered(status: int, body: bytes = b"{}", **headers: str) -> Answered:
    return Answered(
        status=status, headers={**JSON_HEADERS, **{k.replace("_", "-"): v for k, v in headers.items()}}, body=body
    )


@pytest.mark.parametrize(
    ("outcome", "ending", "status", "delivered"),
    [
        (answered(200), Ending.COMPLETED, 200, True),
        (answered(204, b""), Ending.COMPLETED, 204, True),
        (answered(302), Ending.AGENT_ERROR, 302, True),
        (answered(404), Ending.AGENT_ERROR, 404, True),
        (answered(503), Ending.AGENT_ERROR, 503, True),
        (answered(503, Retry_After="3"), Ending.AGENT_BUSY, 503, False),
        (answered(429), Ending.AGENT_BUSY, 503, False),
        (NotConnected(), Ending.AGENT_UNREACHABLE, 502, False),
        (NotConnected(unsafe=True), Ending.AGENT_UNREACHABLE, 502, False),
        (Reset(), Ending.AGENT_RESET, 503, None),
        (Cut(status=200), Ending.TRUNCATED, 502, True),
        (Cut(status=500), Ending.TRUNCATED, 502, False),
        (TooLarge(), Ending.RESPONSE_TOO_LARGE, 502, True),
        (Unheld(status=200), Ending.OVERLOADED, 503, True),
        (Unheld(status=500), Ending.OVERLOADED, 503, False),
        (Expired(clock=Clock.IDLE), Ending.IDLE_TIMEOUT, 503, None),
        (Expired(clock=Clock.BUS_LOST), Ending.BUS_LOST, 503, None),
        (Expired(clock=Clock.DEADLINE), Ending.DEADLINE, 504, None),
        (Expired(clock=Clock.CEILING), Ending.CEILING, 504, None),
        (Stopped(), Ending.GATEWAY_SHUTDOWN, 503, None),
        (Cancelled(), Ending.CANCELLED, 409, False),
        (Rejected(reason="removed"), Ending.REJECTED, 403, False),
        (Cancelled(under_way=True), Ending.CANCELLED, 409, None),
        (Broke(), Ending.INTERNAL, 500, None),
    ],
)
def test_the_table_of_endings(outcome: Outcome, ending: Ending, status: int, delivered: bool | None) -> None:
    ended = classify(outcome)
    assert (ended.ending, ended.answer.status, ended.delivered) == (ending, status, delivered)


def test_an_answer_goes_back_as_it_came() -> None:
    outcome = Answered(status=200, headers={"Content-Type": "application/x"}, body=b"\x00raw")
    assert classify(outcome).answer.body is outcome.body
    assert classify(outcome).answer.headers == {"Content-Type": "application/x"}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"error": "no such tool"}', "no such tool"),
        (b'{"error": {"a": 1}}', "Bad Gateway"),
        (b"<html>trace</html>", "Bad Gateway"),
        (b"", "Bad Gateway"),
        pytest.param(b'{"error": "no", "a": [' + b"[]," * MAX_CROWD + b"1]}", "Bad Gateway", id="a crowd"),
    ],
)
def test_an_error_shows_the_agents_own_string_or_the_reason(body: bytes, sentence: str) -> None:
    answer = classify(Answered(status=502, headers={"Content-Type": "text/html", "Retry-After": "7"}, body=body)).answer
    assert orjson.loads(answer.body) == {"error": sentence, "code": "agent_error"}
    assert answer.headers == {"Content-Type": "application/json", "Retry-After": "7"}


def test_an_error_that_is_json_rpc_goes_back_as_it_came() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"x"}}'
    assert classify(answered(404, body)).answer.body == body


@pytest.mark.parametrize("outcome", [Reset(), Expired(clock=Clock.IDLE), Expired(clock=Clock.BUS_LOST)])
def test_where_nobody_knows_the_caller_is_told_so_and_when_to_ask(outcome: Outcome) -> None:
    answer = classify(outcome, native_session=True).answer
    said: dict[str, Any] = orjson.loads(answer.body)
    assert answer.headers["Retry-After"] == "30"
    assert said.items() >= {
        "busy": True, "retry_after": 30, "outcome": "unknown", "delivery_confirmed": None, "native_session": True,
    }.items()  # fmt: skip


@given(st.integers(200, 599), st.binary(max_size=200))
def test_no_answer_of_an_agent_breaks_it(status: int, body: bytes) -> None:
    ended = classify(Answered(status=status, headers={}, body=body))
    assert ended.ending in (Ending.COMPLETED, Ending.AGENT_ERROR, Ending.AGENT_BUSY)
