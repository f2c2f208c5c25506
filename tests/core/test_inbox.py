"""core.inbox: what may wait for an agent that polls, and how its answers come back."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.envelope import BadEnvelope, Envelope, normalise
from gateway.core.inbox import MESSAGE_METHODS, OTHER_METHODS, find_fault, is_response, member, under

MESSAGE = {"role": "user", "messageId": "m-1", "parts": [{"kind": "text", "text": "hi"}]}


def fault(call: Any) -> BadEnvelope | None:
    message = normalise(call if isinstance(call, bytes) else orjson.dumps(call), a2a_version="1.0", mint=lambda: "x")
    assert isinstance(message, Envelope)
    return find_fault(message)


def call(**fields: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": {"message": MESSAGE}, **fields}


@pytest.mark.parametrize("method", sorted(MESSAGE_METHODS))
def test_a_message_may_wait(method: str) -> None:
    assert fault(call(method=method)) is None


@pytest.mark.parametrize("said", [1, 0.5, None])
def test_it_may_say_for_how_long(said: float | None) -> None:
    assert fault(call(params={"message": MESSAGE, "expires_in_seconds": said})) is None


def test_a_byte_order_mark_and_a_huge_id_do_no_harm() -> None:
    assert fault(b"\xef\xbb\xbf" + orjson.dumps(call())) is None
    assert fault(orjson.dumps(call()).replace(b":7,", b":123456789012345678901234567890,")) is None


@pytest.mark.parametrize("method", sorted(OTHER_METHODS))
def test_what_only_a_listening_agent_could_answer_is_not_supported(method: str) -> None:
    found = fault(call(method=method))
    assert found is not None
    assert (found.code, found.id_json) == (-32004, b"7")


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"method": "messages/send"}, -32601, "method"),
        ({"method": 5}, -32600, "method"),
        ({"method": ""}, -32600, "method"),
        ({"params": None}, -32602, "params"),
        ({"params": [1]}, -32602, "params"),
        ({"params": {}}, -32602, "params.message"),
        ({"params": {"message": "hi"}}, -32602, "params.message"),
        ({"params": {"message": {**MESSAGE, "role": 1}}}, -32602, "params.message.role"),
        ({"params": {"message": {**MESSAGE, "messageId": ""}}}, -32602, "params.message.messageId"),
        ({"params": {"message": {**MESSAGE, "parts": []}}}, -32602, "params.message.parts"),
        ({"params": {"message": {**MESSAGE, "parts": "hi"}}}, -32602, "params.message.parts"),
        ({"params": {"message": {**MESSAGE, "parts": ["hi"]}}}, -32602, "params.message.parts"),
        *(
            ({"params": {"message": MESSAGE, "expires_in_seconds": odd}}, -32602, "params.expires_in_seconds")
            for odd in (0, -1, "60", True, [], {})
        ),
    ],
)
def test_what_no_agent_could_answer_is_refused_with_the_code_of_the_specification(
    fields: dict[str, Any], code: int, field: str
) -> None:
    found = fault(call(**fields))
    assert found is not None
    assert (found.code, found.field, found.id_json) == (code, field, b"7")


def test_what_not_every_parser_reads_would_spoil_all_that_lies_beside_it() -> None:
    found = fault(orjson.dumps(call()).replace(b'"hi"', b'"\\ud800"'))
    assert found is not None
    assert found.code == -32700


@pytest.mark.parametrize(
    ("said", "good"),
    [
        ({"result": None}, True),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": 1}}, True),
        ({}, False),
        ({"result": 1, "error": {}}, False),
        ({"error": "no"}, False),
    ],
)
def test_an_answer_has_a_result_or_an_error(said: dict[str, Any], good: bool) -> None:
    assert is_response(said) is good


def test_a_member_keeps_its_characters_and_the_last_of_two_counts() -> None:
    raw = b'{"a": 1, "body": {"n": 1.0e2} , "b":[{"body":3}], "body" : {"result": 123456789012345678901234567890} }'
    assert member(raw, "body") == b'{"result": 123456789012345678901234567890}'
    with pytest.raises(KeyError):
        member(raw, "c")


def test_an_answer_comes_under_the_id_of_its_request_and_is_else_untouched() -> None:
    answer = b' { "id" : {"x":1} , "result" : {"n" : 1.50, "id": "kept"}, "jsonrpc":"1.0", "x":"\\u00e9" } '
    expected = b'{"jsonrpc":"2.0","id":"seven","result" : {"n" : 1.50, "id": "kept"},"x":"\\u00e9"}'
    assert under(answer, b'"seven"') == expected
    assert orjson.loads(under(answer, None))["id"] is None


@given(
    st.dictionaries(st.text(), st.integers(0, 2**60) | st.text() | st.lists(st.booleans()), max_size=5),
    st.integers(0, 2**60) | st.text(),
)
def test_whatever_an_agent_answers_its_caller_gets_it_under_its_own_id(members: dict[str, Any], id_: Any) -> None:
    answer = {**members, "result": members}
    got = orjson.loads(under(orjson.dumps(answer), orjson.dumps(id_)))
    assert got == {**answer, "jsonrpc": "2.0", "id": id_}
