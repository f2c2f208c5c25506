import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from events import frame
from events.event import CATALOGUE, Event, changed, event, gap, probe
from events.frame import Frame, MalformedFrame

ID = "00000000-0000-4000-8000-00000000000a"
RAW = b"1 7-1 7-0 " + ID.encode() + b' TASK_UPDATED s 1795200000123 {"current_task":"x y"}'

numbers = st.integers(0, 2**64 - 1)
places = st.tuples(numbers, numbers)
payloads = st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63))
events = st.builds(
    lambda type_, id_, data, sign, at_ms: Event(
        type=type_, workspace_id=str(id_), payload=event(type_, str(id_), data).payload, sign=sign, at_ms=at_ms
    ),
    st.sampled_from(sorted(CATALOGUE)),
    st.uuids(),
    payloads,
    st.booleans(),
    st.integers(0, 10**13),
) | st.builds(changed)
# Almost frames: real ones with a piece replaced by something else.
mutants = st.builds(
    lambda at, length, put: RAW[:at] + put + RAW[at + length :],
    st.integers(0, len(RAW)),
    st.integers(0, 12),
    st.binary(max_size=6) | st.sampled_from([b" ", b"\n", b"-", b"18446744073709551616", b'"']),
)


@given(events, places | st.none(), places)
def test_every_event_arrives_as_it_was_sent(one, place, prev):
    id_ = "-" if place is None else frame.show(place)
    raw = b"1 %b %b %b" % (id_.encode(), frame.show(prev).encode(), frame.body(one))
    heard = frame.parse(raw)
    assert heard == Frame(place=place, prev=prev, event=one)
    assert heard.id == (None if place is None else id_)


@given(events, places, places)
def test_a_journal_entry_is_the_same_frame(one, place, prev):
    heard = frame.entry(frame.show(place).encode(), frame.show(prev).encode(), frame.body(one))
    assert heard == Frame(place=place, prev=prev, event=one)


@pytest.mark.parametrize("one", [probe("me", 7), gap("overflow"), changed()])
def test_what_is_not_for_readers_travels_like_any_other(one):
    assert frame.parse(b"1 7-1 7-0 " + frame.body(one)).event == one


@given(st.binary() | mutants)
@example(b"")
@example(b"1 " * 8)
@example(RAW.replace(b"1795200000123", b"9" * 5000))
@example(RAW.replace(b"TASK_UPDATED", b"T\xff"))
@example(RAW.replace(b"7-1", b"007-01"))
def test_any_bytes_are_a_frame_or_malformed_and_nothing_else(raw):
    try:
        one = frame.parse(raw)
    except MalformedFrame:
        return
    written = b"1 %b %b %b" % ((one.id or "-").encode(), frame.show(one.prev).encode(), frame.body(one.event))
    assert written == _canonical(raw)


def _canonical(raw: bytes) -> bytes:
    """The frame with its numbers written as they usually are: leading zeros are read and not kept."""
    words = raw.split(b" ", 7)
    for place in (1, 2, 6):
        words[place] = _plain(words[place])
    return b" ".join(words)


def _plain(word: bytes) -> bytes:
    return word if word == b"-" else b"-".join(b"%d" % int(number) for number in word.split(b"-"))


@pytest.mark.parametrize(
    "raw",
    [
        RAW.replace(b"1 ", b"2 ", 1),
        RAW.replace(b"7-1", b"7"),
        RAW.replace(b"7-0", b"-"),
        RAW.replace(b" s ", b" x "),
        RAW.replace(b"TASK_UPDATED", b'TASK"UPDATED'),
        RAW.replace(b"TASK_UPDATED", b"TASK\nUPDATED"),
        RAW.replace(b"x y", b"x\ny"),
        RAW.replace(b"x y", b"x\ry"),
        RAW[: RAW.index(b"{")],
        RAW.replace(b"1795200000123", b"-1"),
    ],
)
def test_what_could_break_a_readers_stream_is_malformed(raw):
    assert frame.parse(RAW)
    with pytest.raises(MalformedFrame):
        frame.parse(raw)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("0-0", (0, 0)),
        ("1795200000000-3", (1795200000000, 3)),
        ("18446744073709551615-1", (2**64 - 1, 1)),
        ("", None),
        ("7", None),
        ("7-", None),
        ("-7", None),
        ("-7-1", None),
        ("7-1-1", None),
        ("7-1 ", None),
        ("7-+1", None),
        ("7-1_0", None),
        ("٧-1", None),
        ("²-1", None),
        ("9" * 21 + "-1", None),
        ("1-" + "9" * 5000, None),
    ],
)
def test_a_position_is_two_numbers_and_nothing_else(text, place):
    assert frame.find_position(text) == place


@given(st.text() | places.map(frame.show))
def test_a_position_is_found_in_any_text_or_none_is(text):
    place = frame.find_position(text)
    if place is not None:
        assert place == tuple(int(number) for number in text.split("-"))


@given(places)
def test_a_place_is_shown_as_it_is_found(place):
    assert frame.find_position(frame.show(place)) == place


def test_how_it_looks_to_readers_is_no_part_of_what_a_frame_is():
    one, other = frame.parse(RAW), frame.parse(RAW)
    one.blocks["sse"] = b"data"
    assert one == other
    assert "blocks" not in repr(one)
