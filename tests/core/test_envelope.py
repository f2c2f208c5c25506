import itertools
import json
import time
import timeit
from collections.abc import Callable
from uuid import uuid4

import pytest

from gateway.core.envelope import BadEnvelope, Envelope, error_body, normalise

IDS = [
    *[
        '"1"',
        '""',
        '"a b"',
        '"\\u0031"',
        '"\\/"',
        '"/"',
        '"é"',
        '"\\u00e9"',
        '"\\ud800"',
        '"\\n"',
        '"\\"id\\""',
        "null",
    ],
    *["true", "false", "0", "-0", "-5", "1.0", "1E+2", "1e999", "9007199254740993", "18446744073709551615", "1" * 400],
    *["18446744073709551617", "-9223372036854775809", "[1, 2.00]", '{ "id" : [ ] }', f'"{"x" * 300}"'],
]


def mint() -> str:
    return str(uuid4())


def look(raw: bytes | str, version: str | None = None) -> Envelope | BadEnvelope:
    return normalise(raw if isinstance(raw, bytes) else raw.encode(), a2a_version=version, mint=mint)


def accept(raw: bytes | str, version: str | None = None) -> Envelope:
    call = look(raw, version)
    assert isinstance(call, Envelope), call
    return call


def refuse(raw: bytes | str, version: str | None = None) -> BadEnvelope:
    bad = look(raw, version)
    assert isinstance(bad, BadEnvelope), bad
    return bad


@pytest.mark.parametrize("written", IDS)
@pytest.mark.parametrize(
    "place", ['{"id":%s,"jsonrpc":"2.0","method":"m"}', '{"jsonrpc":"2.0","method":"m", "id" : %s }']
)
@pytest.mark.parametrize("text", ["", ',"x":"\\u0061"', ',"x":"\\ud800"', ',"x":{"id":"nested"}'])
def test_an_id_keeps_its_characters(written: str, place: str, text: str):
    raw = (place % written)[:-1] + text + "}"
    assert accept(raw).id_json == written.encode()
    params = ',"params":{"message":{}}}'
    assert error_body(refuse(raw[:-1] + params)).startswith(b'{"jsonrpc":"2.0","id":%b,"error"' % written.encode())


@pytest.mark.parametrize("name", ["jsonrpc", "id", "method", "params"])
@pytest.mark.parametrize("spelling", ["plain", "escaped", "escaped upper"])
def test_a_deciding_member_must_not_occur_twice_however_it_is_spelled(name: str, spelling: str):
    code = f"{ord(name[2]):04x}" if len(name) > 2 else f"{ord(name[0]):04x}"
    at = 2 if len(name) > 2 else 0
    spelled = (
        name
        if spelling == "plain"
        else f"{name[:at]}\\u{code if spelling == 'escaped' else code.upper()}{name[at + 1 :]}"
    )
    raw = f'{{"jsonrpc":"2.0","id":1,"method":"m","params":{{}},"x":0,"{spelled}":5}}'
    bad = refuse(raw)
    assert (bad.code, bad.field, bad.id_json) == (-32600, name, b"null")
    assert accept(raw.replace(f'"{spelled}":5', f'"x{spelled}":5'))
    assert accept(raw.replace(f'"{spelled}":5', f'"y":{{"{spelled}":5}}'))


def test_a_name_in_a_text_is_no_member():
    raw = b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":"\\"method\\":\\"id\\"","y":["method","id","params"]}}'
    assert accept(raw).body is raw


@pytest.mark.parametrize(
    ("method", "version", "streaming", "v1"),
    [
        ("message/send", None, False, False),
        ("message/stream", None, True, False),
        ("message/stream", "0.3", True, False),
        ("tasks/resubscribe", None, True, False),
        ("message/stream", "1.0", True, True),
        ("SendMessage", None, False, True),
        ("SendStreamingMessage", None, True, True),
        ("SubscribeToTask", "1.0", True, True),
        ("GetTask", "0.3", False, True),
        ("Ünknown", None, False, False),
        ("Custom/method", None, False, False),
        ("custom", "1", False, True),
        ("custom", "0.1", False, False),
    ],
)
def test_method_and_header_tell_version_and_streaming(method: str, version: str | None, streaming: bool, v1: bool):
    call = accept(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}), version)
    assert (call.method, call.streaming, call.v1) == (method, streaming, v1)


@pytest.mark.parametrize("version", [None, "1.0"])
def test_a_v1_call_is_never_touched(version: str | None):
    raw = b'{"method":"SendMessage","params":{"message":{"content":"a"}}}'
    call = accept(raw, version)
    assert call.body is raw
    assert (call.id_json, call.message_id, call.client_message_id) == (None, None, False)


@pytest.mark.parametrize(
    ("written", "message_id"),
    [
        ('"m"', "m"),
        ('"\\u006d"', "m"),
        ('"m\\u0000"', "m\0"),
        ('""', None),
        ("5", None),
        ("null", None),
        ('"\\ud800"', None),
    ],
)
def test_a_message_id_is_known_if_it_can_be_one(written: str, message_id: str | None):
    raw = f'{{"jsonrpc":"2.0","method":"m","params":{{"message":{{"parts":[],"messageId":{written}}}}}}}'
    call = accept(raw)
    assert (call.body.decode(), call.message_id, call.client_message_id) == (raw, message_id, message_id is not None)


def test_a_minted_message_id_is_not_the_callers():
    call = accept('{"jsonrpc":"2.0","method":"m","params":{"message":{"parts":[]}}}')
    assert call.message_id == json.loads(call.body)["params"]["message"]["messageId"]
    assert not call.client_message_id


@pytest.mark.parametrize(
    ("written", "expires_in_s"),
    [
        *[("30", 30), ("0.5", 0.5), ("18446744073709551617", 2.0**64), ("0", None), ("-1", None), ("true", None)],
        *[('"30"', None), ("null", None), ("1e999", None), ("1" * 400, None)],
    ],
)
def test_an_expiry_is_a_positive_number_of_seconds(written: str, expires_in_s: float | None):
    call = accept(f'{{"method":"m","params":{{"expires_in_seconds":{written}}}}}')
    assert call.expires_in_s == expires_in_s


def test_a_method_that_nothing_could_encode_passes_unknown():
    raw = b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}'
    call = accept(raw)
    assert (call.body is raw, call.method) == (True, None)


def test_a_byte_order_mark_passes_where_nothing_is_repaired_and_goes_where_something_is():
    mark = b"\xef\xbb\xbf"
    raw = mark + b'{"jsonrpc":"2.0","id":"\\u0031","method":"m"}'
    assert accept(raw).body is raw
    assert accept(raw).id_json == b'"\\u0031"'
    assert accept(mark + b'{"id":1,"method":"m"}').body == b'{"jsonrpc":"2.0","id":1,"method":"m"}'


def test_an_error_is_a_json_rpc_response_with_the_code_of_the_gateway_beside_it():
    bad = refuse('{"jsonrpc":"2.0","id":18446744073709551617,"method":"m","params":{"message":{"content":7}}}')
    assert error_body(bad) == (
        b'{"jsonrpc":"2.0","id":18446744073709551617,"error":{"code":-32602,'
        b'"message":"params.message.content is missing or empty",'
        b'"data":{"field":"params.message.content"}},"code":"invalid_params"}'
    )
    assert json.loads(error_body(refuse("[]")))["code"] == "invalid_request"
    assert json.loads(error_body(refuse("")))["code"] == "invalid_json"


MESSAGE = '{"jsonrpc":"2.0","id":1,"method":"m","params":{"message":{"parts":[%s]}}}'


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: "[" * n,
        lambda n: '{"a":' * (n // 5),
        lambda n: '"' * n,
        lambda n: '"' + '\\"' * (n // 2),
        lambda n: "\\" * n,
        lambda n: "1" * n,
        lambda n: " " * n,
        lambda n: "[" + "1," * (n // 2),
        lambda n: "[" + "[]," * (n // 3),
        lambda n: '["' + "\\ud800" * (n // 6) + '"]',
        lambda n: '["' + "\\ud8" * (n // 4),
        lambda n: "{" + '"method":1,' * (n // 11) + '"a":1}',
        lambda n: '{"method":1,"\\u0061":2' + ',"a":1' * (n // 6) + "}",
        lambda n: '{"method":1' + " " * n + "}",
        lambda n: MESSAGE % ",".join(['{"text":""}'] * (n // 12)),
        lambda n: MESSAGE % ",".join(['{"type":"","text":""}'] * (n // 22)),
        lambda n: MESSAGE % ('{"type":""' + ',"type":""' * (n // 10) + "}"),
        lambda n: MESSAGE.replace('"parts":[%s]', '"content":""' + ',"content":""' * (n // 13)),
        lambda n: MESSAGE.replace("%s", '"' + "x" * n + '"'),
    ],
    ids=itertools.count(),
)
def test_time_grows_with_the_length_and_not_with_its_square(shape: Callable[[int], str]):
    def took_s(length: int) -> float:
        raw = shape(length).encode()
        return timeit.timeit(lambda: look(raw), timer=time.process_time, number=1)  # with the garbage collector off

    short = min(took_s(1 << 16) for _ in range(3))
    long = min(took_s(1 << 20) for _ in range(3))
    assert long < max(short, 0.0005) * 16 * 8, "16 times the length: a square would be 256 times the time"
