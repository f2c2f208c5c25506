"""The parser of server-sent events: as the standard has it, however the bytes are cut, and never holding much."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sse import MAX_ID_CHARS, EventParser, ServerEvent

LIMIT: Final = 1000
WORDS: Final = st.sampled_from(
    [
        b"data", b"data:", b"data: x", b"data:  y", b"event: a", b"event:", b"id", b"id: 7", b"id: \0", b"retry: 10",
        b"retry: x", b":", b": comment", b"other: 1", b"dat", b" data: 1", "data: é€😀".encode(), b"data: \xff\xc3",
        b"\xef\xbb\xbf", b"\xef\xbb\xbfdata: b", b"",
    ]
)  # fmt: skip
ENDS: Final = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", b""])
PIECES: Final = st.tuples(WORDS, ENDS).map(b"".join)


def whole(data: bytes) -> tuple[list[ServerEvent], str, int | None]:
    """The standard's own words, with all bytes at hand: events, the last id, and the time to reconnect."""
    lines = re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))[:-1]  # the last one has no end
    events, last, buffered, retry = [], "", "", None
    block: list[bytes] = []
    type_, own = "", None
    for line in lines:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if line == b"":
            last = buffered
            if block:
                events.append(ServerEvent(type=type_ or "message", data=b"\n".join(block), id=own))
            block, type_, own = [], "", None
        elif name == b"data":
            block.append(value)
        elif name == b"event":
            type_ = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            own = buffered = value.decode(errors="replace")
        elif name == b"retry" and re.fullmatch(rb"[0-9]+", value):
            retry = int(value)
    return events, last, retry


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[left:right] for left, right in pairwise(edges)]


@given(st.lists(PIECES, max_size=60), st.lists(st.integers(0, 10_000), max_size=20))
def test_it_reads_what_the_standard_says_however_the_bytes_are_cut(pieces: list[bytes], at: list[int]):
    data = b"".join(pieces)
    parser = EventParser(limit_bytes=LIMIT * 100)
    came = [event for piece in cut(data, at) for event in parser.feed(piece)]
    assert (came, parser.last_id, parser.retry_ms) == whole(data)


@given(st.lists(PIECES, max_size=60))
def test_it_reads_the_same_byte_by_byte(pieces: list[bytes]):
    data = b"".join(pieces)
    at_once, slowly = EventParser(limit_bytes=LIMIT), EventParser(limit_bytes=LIMIT)
    came = [event for byte in data for event in slowly.feed(bytes([byte]))]
    assert came == at_once.feed(data)
    assert (slowly.comments, slowly.last_id) == (at_once.comments, at_once.last_id)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=300)), max_size=40), st.lists(st.integers(0, 10_000), max_size=9))
def test_it_never_holds_more_than_its_limit_nor_gives_a_larger_event(pieces: list[bytes], at: list[int]):
    limit = 50
    parser = EventParser(limit_bytes=limit)
    for piece in cut(b"".join(pieces), at):
        assert all(len(event.data) <= limit for event in parser.feed(piece))
        assert parser.held_bytes <= 2 * limit + 1


@given(st.lists(st.one_of(PIECES, st.binary(max_size=300)), max_size=40), st.lists(st.integers(0, 10_000), max_size=9))
def test_how_the_bytes_are_cut_does_not_matter_to_what_is_too_large(pieces: list[bytes], at: list[int]):
    data = b"".join(pieces)
    at_once, in_pieces = EventParser(limit_bytes=50), EventParser(limit_bytes=50)
    came = [event for piece in cut(data, at) for event in in_pieces.feed(piece)]
    assert came == at_once.feed(data)
    assert (in_pieces.dropped, in_pieces.last_id) == (at_once.dropped, at_once.last_id)


def read(data: bytes) -> list[tuple[str, bytes, str | None]]:
    return [(one.type, one.data, one.id) for one in EventParser(limit_bytes=LIMIT).feed(data)]


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", b"YHOO\n+2\n10", None)]),
        (b": test\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n",
         [("message", b"first", "1"), ("message", b"second", ""), ("message", b" third", None)]),
        (b"data\n\ndata\ndata\n\ndata:", [("message", b"", None), ("message", b"\n", None)]),
        (b"data:test\n\ndata: test\n\n", [("message", b"test", None)] * 2),
        (b"event: add\ndata: 73\r\n\r\nevent: remove\rdata: 2\r\r", [("add", b"73", None), ("remove", b"2", None)]),
        (b"event: alone\n\ndata: x\n\n", [("message", b"x", None)]),
        (b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n", [("message", b"x", None)]),
        (b"data: never ended", []),
    ],
)  # fmt: skip
def test_the_standards_examples(data: bytes, events: list[tuple[str, bytes, str | None]]):
    assert read(data) == events


def test_an_event_that_is_too_large_is_dropped_and_those_around_it_are_not():
    parser = EventParser(limit_bytes=100)
    large = b"id: 2\ndata: " + b"x" * 500 + b"\ndata: more\n\n"
    came = [
        one
        for piece in cut(b"id: 1\ndata: a\n\n" + large + b"data: b\n\n", [30, 200, 301])
        for one in parser.feed(piece)
    ]
    assert [one.data for one in came] == [b"a", b"b"]
    assert (parser.dropped, parser.last_id) == (1, "2")


def test_many_small_lines_come_to_a_large_event_too():
    parser = EventParser(limit_bytes=100)
    assert parser.feed(b"data: x\n" * 50 + b"\n") == []
    assert parser.dropped == 1


def test_a_comment_without_end_drops_no_event():
    parser = EventParser(limit_bytes=100)
    parser.feed(b"data: a\n:")
    for _ in range(1000):
        parser.feed(b"x" * 100)
        assert parser.held_bytes <= 201
    assert [one.data for one in parser.feed(b"\n\n")] == [b"a"]
    assert (parser.comments, parser.dropped) == (1, 0)


def test_an_id_that_is_too_long_is_no_place_to_go_on_from():
    parser = EventParser(limit_bytes=10_000, last_id="before")
    [one] = parser.feed(b"id: " + b"x" * (MAX_ID_CHARS + 1) + b"\ndata: a\n\n")
    assert (one.id, parser.last_id) == (None, "before")
