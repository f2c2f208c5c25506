import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.relay import Comment, Event, Framer, TooLong

ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map(str.encode)
LINES = st.one_of(
    st.just(b""), st.just(b""),
    TEXT.map(lambda text: b"data:" + text), TEXT.map(lambda text: b"data: " + text),
    TEXT.map(lambda text: b"id: " + text), TEXT.map(lambda text: b"event: " + text), TEXT.map(lambda text: b":" + text),
    TEXT, st.sampled_from([b"data", b"id", b"retry: 10", b"datax: 1", b" data: 2"]),
)  # fmt: skip
STREAMS = st.lists(st.tuples(LINES, ENDS)).map(lambda lines: b"".join(text + end for text, end in lines))


@st.composite
def split(draw: st.DrawFn, streams: st.SearchStrategy[bytes] = STREAMS) -> tuple[bytes, list[bytes]]:
    """A stream, and the same in pieces that know nothing of its lines or characters."""
    whole = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return whole, [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]


def dispatched(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Type and data of each event, as the standard has it for whoever reads all at once; without those of no data."""
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    found, kind, data = [], b"", []
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                found.append((kind, b"\n".join(data)))
            kind, data = b"", []
        elif name == b"event":
            kind = value
        elif name == b"data":
            data.append(value)
    return found


def fed(chunks: list[bytes], limit_bytes: int = 10**6) -> tuple[Framer, list[Event | Comment]]:
    framer = Framer(limit_bytes)
    return framer, [part for chunk in chunks for part in framer.feed(chunk)]


def relayed(parts: list[Event | Comment]) -> bytes:
    """What readers get of them."""
    return b"".join(b"id: 1-%d\n" % n + part.raw if isinstance(part, Event) else part.raw
                    for n, part in enumerate(parts))  # fmt: skip


def unified(raw: bytes) -> bytes:
    """With one kind of line ends: a CRLF that is cut in two has lost its LF, which nobody misses."""
    return re.sub(rb"\r\n|\n|\r", b"\n", raw)


@given(split())
def test_however_a_stream_is_cut_its_events_are_those_that_the_standard_sees(drawn):
    whole, chunks = drawn
    _, parts = fed(chunks)
    events = [part for part in parts if isinstance(part, Event)]
    assert [event.data for event in events] == [data for _, data in dispatched(whole)]
    assert dispatched(relayed(parts)) == dispatched(whole)


@given(split())
def test_what_is_passed_on_does_not_depend_on_the_cuts(drawn):
    whole, chunks = drawn
    assert [type(part) for part in fed(chunks)[1]] == [type(part) for part in fed([whole])[1]]
    assert [unified(part.raw) for part in fed(chunks)[1]] == [unified(part.raw) for part in fed([whole])[1]]


@given(split())
def test_no_client_sees_an_empty_event_or_the_ids_of_the_agent(drawn):
    _, parts = fed(drawn[1])
    for part in parts:
        lines = re.split(rb"\r\n|\n|\r", part.raw)
        if isinstance(part, Comment):
            assert (lines[0][:1], lines[1:]) == (b":", [b""])
        else:
            assert any(re.match(rb"data(:|$)", line) for line in lines)
            assert not any(re.match(rb"id(:|$)", line) for line in lines)
            assert lines[-2:] == [b"", b""]
            assert b"" not in lines[:-2]


@given(split(), st.integers(0, 300))
def test_an_event_that_is_too_long_is_found_wherever_it_is_cut(drawn, limit):
    whole, chunks = drawn
    framer = Framer(limit)
    try:
        for chunk in chunks:
            for _ in framer.feed(chunk):
                pass
    except TooLong:
        assert len(whole) > limit or len(re.findall(rb"[\r\n]", whole)) * 64 > limit
        with pytest.raises(TooLong):
            fed([whole], limit)


@given(split(TEXT.map(lambda text: b"data: " + text.replace(b":", b""))))
def test_the_last_event_may_lack_its_end(drawn):
    whole, chunks = drawn
    for end in (b"", b"\n", b"\r", b"\r\n"):
        framer, parts = fed([*chunks, end] if end else chunks)
        assert parts == []
        event = framer.finish()
        assert event is not None
        assert event.data == whole.removeprefix(b"data: ")
        assert dispatched(event.raw) == [(b"", event.data)]
        assert framer.finish() is None


def test_what_was_beside_an_id_that_is_left_out_does_not_become_one_line_end():
    assert fed([b"data: 1\rid: theirs\n\n"])[1] == [Event(b"data: 1\r\r", b"1")]


def test_lines_keep_their_ends_and_their_spaces():
    stream = b"event: x\r\ndata:  {\r\n: inside\r\ndata: }\r\nid: theirs\r\n\r\n: outside\r\n\r\ndata: 2\n\n"
    framer, parts = fed([stream])
    assert parts == [
        Event(b"event: x\r\ndata:  {\r\n: inside\r\ndata: }\r\n\r\n", b" {\n}"),
        Comment(b": outside\r\n"),
        Event(b"data: 2\n\n", b"2"),
    ]
    assert framer.last_id == b"theirs"
    assert framer.idle


def test_a_long_line_takes_time_that_grows_with_its_length_alone():
    framer = Framer(10**8)
    count = 20_000
    for _ in range(count):
        assert list(framer.feed(b"x" * 100)) == []
    assert not framer.idle
    assert list(framer.feed(b"\n\n")) == []
    assert list(framer.feed(b"x" * 4_000_000)) == [], "in one piece it takes no longer"
    assert list(framer.feed(b"\n\n")) == []


def test_a_mark_of_byte_order_is_left_out_once():
    for chunks in ([b"\xef\xbb\xbfdata: 1\n\n"], [b"\xef", b"\xbb", b"\xbf", b"data: 1\n\n"]):
        assert fed(chunks)[1] == [Event(b"data: 1\n\n", b"1")]
    assert fed([b"\xef\xbb", b"data: 1\n\n"])[1] == []


def test_a_line_end_that_is_cut_in_two_is_whole_again_where_the_lines_of_a_stream_end_so():
    stream = b"data: 1\r\n\r\n: hi\r\ndata: 2\r\n\r\n"
    for at in range(1, len(stream)):
        _, parts = fed([stream[:at], stream[at:]])
        assert b"".join(part.raw for part in parts) == stream
    _, parts = fed([b"data: 1\r", b"\r", b"data: 2\r\r"])
    assert b"".join(part.raw for part in parts) == b"data: 1\r\rdata: 2\r\r"


def test_a_comment_that_is_too_long_is_found_in_one_piece_and_in_two():
    for chunks in ([b": " + b"x" * 100 + b"\n"], [b": " + b"x" * 100, b"\n"]):
        with pytest.raises(TooLong):
            fed(chunks, 100)
