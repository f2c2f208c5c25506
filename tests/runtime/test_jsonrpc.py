"""runtime.jsonrpc: bytes to a request, results and errors to bytes."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.jsonrpc import Code, RpcError, answer, read_request, refuse


def test_a_request_is_read():
    request = read_request(b'{"jsonrpc":"2.0","id":"a","method":"m","params":{"x":1}}')
    assert (request.id, request.method, request.params) == ("a", "m", {"x": 1})


@pytest.mark.parametrize(
    ("body", "code", "id_"),
    [
        (b"", Code.PARSE_ERROR, None),
        (b"{", Code.PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","id":NaN,"method":"m"}', Code.PARSE_ERROR, None),
        (b"\xff", Code.PARSE_ERROR, None),
        (b"[" * 100_000, Code.PARSE_ERROR, None),
        (b"[]", Code.INVALID_REQUEST, None),
        (b'"text"', Code.INVALID_REQUEST, None),
        (b'{"id":1,"method":"m"}', Code.INVALID_REQUEST, 1),
        (b'{"jsonrpc":"1.0","id":1,"method":"m"}', Code.INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1}', Code.INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', Code.INVALID_REQUEST, 1),
        (b'{"jsonrpc":"2.0","id":true,"method":"m"}', Code.INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":{},"method":"m"}', Code.INVALID_REQUEST, None),
        (b'{"jsonrpc":"2.0","id":"q","method":"m","params":[1]}', Code.INVALID_PARAMS, "q"),
        (b'{"jsonrpc":"2.0","id":"q","method":"m","params":false}', Code.INVALID_PARAMS, "q"),
    ],
)
def test_a_bad_request_has_its_code_and_keeps_a_readable_id(body, code, id_):
    with pytest.raises(RpcError) as caught:
        read_request(body)
    assert (caught.value.code, caught.value.id) == (code, id_)


@pytest.mark.parametrize("literal", ["0", "-7", '"7"', "null", "12345678901234567890123456789", "1.50", "1e2"])
def test_an_id_goes_back_with_the_digits_it_came_with(literal):
    request = read_request(f'{{"jsonrpc":"2.0","method":"m","id":{literal}}}'.encode())
    assert f'"id":{literal},' in answer(request.id, {}).decode()


def test_an_id_of_thousands_of_digits_goes_back_whole():
    literal = "9" * 300 + "." + "9" * 5000
    request = read_request(f'{{"jsonrpc":"2.0","method":"m","id":{literal}}}'.encode())
    assert f'"id":{literal},' in answer(request.id, {}).decode()


def test_deep_nesting_beside_an_id_with_a_fraction_is_read_or_refused_as_json():
    body = b'{"jsonrpc":"2.0","method":"m","id":1.5,"params":{"a":' + b"[" * 1020 + b"]" * 1020 + b"}}"
    try:
        outcome = answer(read_request(body).id, {})
    except RpcError as error:
        outcome = error.code
    assert outcome in (Code.PARSE_ERROR, b'{"jsonrpc":"2.0","id":1.5,"result":{}}')


@settings(max_examples=50)
@given(st.one_of(st.none(), st.text(), st.integers()))
def test_any_id_survives_the_round_trip(id_):
    request = read_request(json.dumps({"jsonrpc": "2.0", "id": id_, "method": "m"}).encode())
    assert json.loads(answer(request.id, {}))["id"] == id_


def test_an_error_is_written_with_its_code_and_sentence():
    assert orjson.loads(refuse("a", RpcError(Code.TASK_NOT_FOUND, "Task not found"))) == {
        "jsonrpc": "2.0",
        "id": "a",
        "error": {"code": -32001, "message": "Task not found"},
    }
