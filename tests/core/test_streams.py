"""core.streams: what events say, under all versions of A2A, and the ids they get."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import streams
from gateway.core.streams import NOTHING, find_number, is_stream, read
from gateway.core.usage import Usage

CALL = "00000000-0000-4000-8000-00000000000c"


def rpc(result: object, **fields: object) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": "1", "result": result, **fields})


@pytest.mark.parametrize(
    ("data", "last", "task_id"),
    [
        (rpc({"kind": "message", "messageId": "m", "taskId": "t"}), True, "t"),
        (rpc({"kind": "task", "id": "t", "status": {"state": "submitted"}}), False, "t"),
        (rpc({"kind": "task", "id": "t", "status": {"state": "completed"}}), True, "t"),
        (rpc({"kind": "status-update", "taskId": "t", "status": {"state": "working"}, "final": False}), False, "t"),
        (rpc({"kind": "status-update", "taskId": "t", "status": {"state": "working"}, "final": True}), True, "t"),
        (rpc({"kind": "status-update", "taskId": "t", "status": {"state": "input-required"}}), True, "t"),
        (rpc({"kind": "artifact-update", "taskId": "t", "artifact": {}}), False, "t"),
        (rpc({"task": {"id": "t", "status": {"state": "TASK_STATE_WORKING"}}}), False, "t"),
        (rpc({"task": {"id": "t", "status": {"state": "TASK_STATE_CANCELED"}}}), True, "t"),
        (rpc({"statusUpdate": {"taskId": "t", "status": {"state": "TASK_STATE_AUTH_REQUIRED"}}}), True, "t"),
        (rpc({"statusUpdate": {"taskId": "t", "status": {"state": "TASK_STATE_SUBMITTED"}}}), False, "t"),
        (rpc({"artifactUpdate": {"taskId": "t"}}), False, "t"),
        (rpc({"message": {"messageId": "m"}}), True, None),
        (orjson.dumps({"statusUpdate": {"taskId": "t", "status": {"state": "TASK_STATE_FAILED"}}}), True, "t"),
        (orjson.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}}), True, None),
        (orjson.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no"}, "result": None}), True, None),
        (rpc({"kind": "message", "messageId": "m"}, error=None), True, None),
        (rpc(None, error=None), False, None),
        (rpc({"kind": "task", "id": 7, "status": "odd"}), False, None),
        (rpc({"kind": "task", "id": "t" * 300, "status": {"state": 3}}), False, None),
    ],
)
def test_an_event_says_whose_task_it_is_and_whether_a_stream_may_end_with_it(data, last, task_id):
    said = read(data)
    assert (said.last, said.task_id) == (last, task_id)


@pytest.mark.parametrize(
    ("fields", "last", "for_now", "goes_on"),
    [
        ({"status": {"state": "input-required"}}, True, True, False),
        ({"status": {"state": "input-required"}, "final": True}, True, False, False),
        ({"status": {"state": "auth-required"}}, True, True, False),
        ({"status": {"state": "completed"}}, True, False, False),
        ({"status": {"state": "working"}}, False, False, True),
        ({"status": {"state": "working"}, "final": True}, True, False, False),
        ({}, False, False, False),
    ],
)
def test_a_task_that_waits_for_somebody_is_over_for_now(fields, last, for_now, goes_on):
    said = read(rpc({"kind": "status-update", "taskId": "t", **fields}))
    assert (said.last, said.for_now, said.goes_on) == (last, for_now, goes_on)


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["result", "kind", "status", "state", "final", "error", "task", "usage"]), inner),
).map(orjson.dumps))  # fmt: skip
def test_whatever_an_event_says_it_can_be_read(data):
    assert isinstance(read(data), streams.Said)


def test_what_is_no_json_or_too_long_says_nothing():
    assert read(b"hello") == NOTHING
    assert read(b"[1]") == NOTHING
    assert read(b'"' + b"x" * streams.READ_BYTES + b'"') == NOTHING


def test_usage_is_found_in_all_versions():
    used = {"usage": {"input_tokens": 3, "output_tokens": 4}}
    for data in (
        rpc({"kind": "status-update", "taskId": "t", "metadata": used}),
        rpc({"statusUpdate": {"taskId": "t", "metadata": used}}),
        orjson.dumps({"task": {"id": "t", "metadata": used}}),
        rpc({}, **used),
    ):
        assert read(data).usage == Usage(input_tokens=3, output_tokens=4)


def test_what_has_no_content_begins_no_stream():
    kind = {"Content-Type": "text/event-stream"}
    assert [status for status in (200, 201, 204, 205, 206, 302, 404) if streams.begins(status, kind)] == [200, 201, 206]
    assert not streams.begins(200, {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("kind", "stream"),
    [("text/event-stream", True), ("Text/Event-Stream; charset=utf-8", True), ("application/json", False), ("", False)],
)
def test_a_stream_is_known_by_its_content_type(kind, stream):
    assert is_stream({"Content-Type": kind}) is stream


@pytest.mark.parametrize(
    ("id_", "number"),
    [
        (None, 0), ("", 0), (f"{CALL}-1", 1), (f"{CALL}-12", 12), ("1", None), (f"{CALL}-", None), (f"{CALL}-x", None),
        (f"{CALL}--1", None), (f"{CALL}-1" + "0" * 20, None), (f"{CALL}-\u0661", None), ("another-1", None),
    ],
)  # fmt: skip
def test_an_id_has_a_number(id_, number):
    assert find_number(CALL, id_) == number


@given(st.integers(1, 10**9))
def test_ids_are_read_as_they_are_written(number):
    assert find_number(CALL, streams.event_id(CALL, number)) == number


def test_an_event_is_readdressed_line_by_line():
    raw = b'event: x\r\ndata: {"jsonrpc":"2.0","id":"1","result":{"a":1}}\r\n\r\n'
    assert streams.address(raw, b"7") == b'event: x\r\ndata: {"jsonrpc":"2.0","id":7,"result":{"a":1}}\r\n\r\n'
    assert streams.address(b"data: {}\n\n", b"7") == b"data: {}\n\n"
