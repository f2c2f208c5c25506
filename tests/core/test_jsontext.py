import json
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import jsontext
from gateway.core.jsontext import MAX_DEPTH, MAX_DIGITS, Unparsable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
SPACE = st.text(" \t\n\r", max_size=3)
NAMES = st.sampled_from(["id", "method", '"', "\\", "é", "\x00"]) | st.text(max_size=5)
TOKENS = st.sampled_from(
    [
        *["{", "}", "[", "]", ",", ":", " ", '"', "\\", "\\u", "d800", "0", "1", "-", ".", "e", "true", "null", "NaN"],
        *["Infinity", '"a"', '"id":', "9" * 400, "\x00", "\x1f", "\x7f", "\ufeff", "\x0b", "é", "\u2028"],
    ]
)


@st.composite
def pairs(draw: st.DrawFn, values: st.SearchStrategy[Any] = VALUES) -> tuple[str, str]:
    """Draw a name and a value, as they are written."""
    name = json.dumps(draw(NAMES), ensure_ascii=draw(st.booleans()))
    return name, json.dumps(draw(values), ensure_ascii=draw(st.booleans()))


def strict(text: str) -> Any:
    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    return json.loads(text, parse_int=float, parse_constant=refuse)


def in_floats(value: Any) -> Any:
    match value:
        case list():
            return [in_floats(one) for one in value]
        case dict():
            return {name: in_floats(one) for name, one in value.items()}
        case int() if not isinstance(value, bool):
            return float(value)
        case _:
            return value


@settings(deadline=None)
@given(st.lists(pairs(), max_size=6), SPACE)
def test_members_stand_where_they_are_found_in_their_order_and_repeated(written: list[tuple[str, str]], gap: str):
    inside = ",".join(f"{gap}{name}{gap}:{gap}{value}{gap}" for name, value in written)
    text = f"{gap}{{{inside or gap}}}{gap}"
    found = list(jsontext.members(text, jsontext.skip_space(text, 0)))
    assert [(text[name.start : name.end], text[item.start : item.end]) for name, item in found] == written
    assert [name.value for name, _ in found] == [json.loads(name) for name, _ in written]
    assert [item.value for _, item in found] == [strict(value) for _, value in written]


@settings(deadline=None)
@given(st.lists(VALUES.map(json.dumps), max_size=6), SPACE)
def test_elements_stand_where_they_are_found(written: list[str], gap: str):
    text = f"{gap}[{','.join(f'{gap}{value}{gap}' for value in written) or gap}]"
    found = list(jsontext.elements(text, len(gap)))
    assert [text[item.start : item.end] for item in found] == written
    assert [item.value for item in found] == [strict(value) for value in written]


@settings(deadline=None)
@given(st.lists(TOKENS, max_size=9).map("".join) | VALUES.map(json.dumps), st.integers(0, 60), TOKENS)
def test_what_is_parsed_is_what_an_exact_parser_takes(text: str, at: int, token: str):
    text = text[:at] + token + text[at:]
    try:
        expected = strict(text.removeprefix("\ufeff"))
    except ValueError:
        with pytest.raises(Unparsable):
            jsontext.parse(text.encode())
    else:
        assert in_floats(jsontext.parse(text.encode())) == expected


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_parsed_or_refused(raw: bytes):
    try:
        jsontext.parse(raw)
    except Unparsable:
        with pytest.raises(ValueError):
            strict(raw.decode())


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udc00\\ud800"', '{"\\ud800":1}', "1e400", "-1e400", "9" * 400])
def test_valid_json_that_the_fast_parser_refuses_is_parsed(text: str):
    assert jsontext.parse(text.encode()) == json.loads(text, parse_int=float)


def test_a_byte_order_mark_of_utf_8_is_tolerated_and_not_part_of_the_text():
    raw = b'\xef\xbb\xbf {"a":1}'
    assert jsontext.parse(raw) == {"a": 1}
    assert jsontext.decode(raw) == ' {"a":1}'


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-7"])
def test_a_text_in_another_encoding_or_with_two_marks_is_refused(codec: str):
    with pytest.raises(Unparsable):
        jsontext.parse('\ufeff{"a":"é"}'.encode(codec))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"]":', "}]")])
def test_depth_ends_at_the_limit_on_both_paths(opening: str, closing: str):
    levels = MAX_DEPTH // len(closing)
    for odd in ('"[[[["', '"\\ud800"'):
        assert jsontext.parse((opening * levels + odd + closing * levels).encode())
        with pytest.raises(Unparsable):
            jsontext.parse((opening * (levels + 1) + odd + closing * (levels + 1)).encode())


@pytest.mark.parametrize("inside", ["[" * 2000, '\\"[{' * 2000, "\\\\\\\\" * 999 + '\\"' + "[" * 2000, "\\\\"])
def test_brackets_inside_strings_are_no_depth(inside: str):
    text = f'["{inside}",{"[]," * MAX_DEPTH}"{inside}","{"[" * 2000}"]'
    assert jsontext.parse(text.encode()) == json.loads(text)


@pytest.mark.parametrize("before", [0, 1, 17, MAX_DIGITS - 1, MAX_DIGITS, MAX_DIGITS + 1])
@pytest.mark.parametrize("lead", ["", "-", "0.", "1e-"])
def test_digits_end_at_the_limit_wherever_the_number_stands(before: int, lead: str):
    text = " " * before + "[" + lead + "1" * MAX_DIGITS + "]"
    assert jsontext.parse(text.encode()) == json.loads(text, parse_int=float)
    with pytest.raises(Unparsable):
        jsontext.parse(text.replace("]", "1]").encode())


def test_digits_end_at_the_limit_in_a_bare_number_too():
    assert jsontext.parse(b"1" * MAX_DIGITS) == float("inf")
    with pytest.raises(Unparsable):
        jsontext.parse(b"1" * (MAX_DIGITS + 1))


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "'a'", '"\x0a"', "[1,]", "{}{}", ""]
)
def test_what_parsers_take_though_it_is_not_json_is_refused(text: str):
    for around in ("%s", '["\\ud800",%s]'):
        with pytest.raises(Unparsable):
            jsontext.parse((around % text).encode())


def test_digits_inside_strings_are_no_number():
    text = json.dumps(["1" * 3 * MAX_DIGITS, '"' + "1" * 3 * MAX_DIGITS])
    assert jsontext.parse(text.encode()) == json.loads(text)


@pytest.mark.parametrize("crowd", [b"[],", b"{},", b'"a":{},', b'"a" : 1,'])
def test_a_text_of_more_things_than_anybody_means_is_not_read(crowd: bytes) -> None:
    begin, end = (b"{", b'"z":1}') if b":" in crowd else (b"[", b"1]")
    jsontext.parse(begin + crowd * (jsontext.MAX_CROWD - 10) + end)
    with pytest.raises(jsontext.Unparsable):
        jsontext.parse(begin + crowd * jsontext.MAX_CROWD + end)
    jsontext.parse(b'["' + crowd.replace(b'"', b"") * jsontext.MAX_CROWD + b'"]')


@pytest.mark.parametrize("before", [b"", b" ", b"   ", b'"\\\\", ', b'"\\"", '])
def test_what_stands_in_strings_is_no_crowd_however_long_they_are(before: bytes) -> None:
    text = b"[" + before + b'"a", ' * 30_000 + b'"' + b"[:" * 100_000 + b'\\"", "' + b"{:" * 100_000 + b'"]'
    assert not jsontext.is_crowded(text)
    assert jsontext.is_crowded(text + b"[]" * (jsontext.MAX_CROWD + 1))


@pytest.mark.parametrize(
    ("body", "found"), [(b'{"a": 1}', {"a": 1}), (b"[]", {}), (b"{", {}), (b"", {}), (b"\xff", {})]
)
def test_the_members_of_an_object_are_found_and_none_of_anything_else(body, found):
    assert jsontext.find_object(body) == found
