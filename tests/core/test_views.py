"""Whatever a body holds, what is shown of it can be written into an event and a row."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import views
from gateway.core.jsontext import MAX_DEPTH


def shown(body: bytes) -> object:
    return views.view(body, views.parse(body))


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_a_body_is_shown_as_it_is():
    assert shown(b'{"a": [1, "b", null]}') == {"a": [1, "b", None]}


def test_nothing_is_shown_of_nothing():
    assert shown(b"") is None


def test_what_is_no_json_is_shown_as_text():
    assert shown(b"<p>busy\xff</p>") == {"text": "<p>busy\ufffd</p>"}


def test_a_long_body_is_shown_by_its_beginning():
    body = json.dumps({"a": "b" * views.VIEW_BYTES}).encode()
    assert shown(body) == {"text": body[:2048].decode(), "truncated": True}


def test_a_very_long_body_is_not_even_parsed():
    assert views.parse(b" " * views.VIEW_BYTES + b"1") is None


def test_a_lone_surrogate_becomes_a_question_mark():
    assert shown(b'{"a": "x\\ud800"}') == {"a": "x?"}


def test_a_number_beyond_a_double_leaves_the_text():
    assert shown(b'{"a": ' + b"9" * 400 + b"}") == {"text": '{"a": ' + "9" * 400 + "}"}


def test_brackets_inside_strings_do_not_count_as_depth():
    assert shown(b'["' + b"[" * (views.VIEW_DEPTH + 1) + b'"]') == ["[" * (views.VIEW_DEPTH + 1)]


@pytest.mark.parametrize("levels", [1, views.VIEW_DEPTH, views.VIEW_DEPTH + 1, 254, 255, MAX_DEPTH, 1024, 1025])
def test_a_body_of_any_depth_can_be_written(levels: int):
    view = shown(nested(levels))
    assert isinstance(view, list) == (levels <= views.VIEW_DEPTH)
    assert orjson.dumps([{"request_body": view, "response_body": view}])


def test_a_deep_body_with_a_lone_surrogate_can_be_written():
    assert orjson.dumps(shown(b"[" * MAX_DEPTH + b'"\\ud800"' + b"]" * MAX_DEPTH))


@given(
    st.binary() | st.recursive(st.floats() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_whatever_comes_can_be_written(body: bytes):
    orjson.dumps({"response_body": shown(body)})


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1}',
        b'{"big": 1%b}' % (b"0" * 5000),
        b'{\r\n  "pretty": [\n1,\n2]\n}',
        b'{"lone": "\\ud800"}',
        b'[1.0, 1e400, -0, "\\n", "\\u0000"]',
        b"[" * 900 + b"]" * 900,
    ],
)
def test_the_whole_of_a_body_is_its_own_text_in_one_line(body):
    line = views.whole(body)
    assert b"\n" not in line
    assert b"\r" not in line
    assert line == body.replace(b"\r", b" ").replace(b"\n", b" ")
    assert json.loads(line, parse_int=str) == json.loads(body, parse_int=str)


@pytest.mark.parametrize(
    "body", [b"plain\ntext", b"NaN", b'{"a": Infinity}', b"\xff\xfe", '{"a":1}'.encode("utf-16"), b'{"a":1} x', b""]
)
def test_the_whole_of_a_body_that_is_no_json_is_a_string_of_it(body):
    assert orjson.loads(views.whole(body)) == body.decode("utf-8", "replace")
