"""Blocks, read back as a browser reads them."""

import re
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import frame, sse
from events.event import CATALOGUE, Event, event
from events.frame import ORIGIN, Frame, MalformedFrame
from events.readers import PART_BYTES

ID = "00000000-0000-4000-8000-00000000000a"


@dataclass
class EventSource:
    """The parser of the WHATWG HTML standard, 9.2.6: a stream's text in, dispatched events out."""

    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, data, and the last event id at that moment."""
    last_id: str = ""
    retry_ms: int | None = None
    comments: int = 0

    def read(self, stream: bytes) -> "EventSource":
        type_, data, id_ = "", "", self.last_id
        *lines, rest = re.split(r"\r\n|\n|\r", stream.decode("utf-8"))
        assert rest == "", "every block ends its last line"
        for line in lines:
            name, colon, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "":
                self.last_id = id_
                if data:
                    self.events.append((type_ or "message", data.removesuffix("\n"), self.last_id))
                type_, data = "", ""
            elif colon and name == "":
                self.comments += 1
            elif name == "event":
                type_ = value
            elif name == "data":
                data += value + "\n"
            elif name == "id" and "\0" not in value:
                id_ = value
            elif name == "retry" and value.isascii() and value.isdigit():
                self.retry_ms = int(value)
            else:
                raise AssertionError(f"a line that no reader understands: {line!r}")
        assert (type_, data) == ("", ""), "every block is dispatched"
        return self


texts = st.text(st.characters()) | st.sampled_from(["\n\nid: 9-9\n\n", "\r\ndata: x\r\n\r\n", "\u2028\u2029\x00\x85"])
numbers = st.integers(0, 2**64 - 1)
places = st.tuples(numbers, numbers)
frames = st.builds(
    lambda type_, place, prev, workspace_id, data, at_ms: Frame(
        place=place,
        prev=prev,
        event=Event(type=type_, workspace_id=str(workspace_id), payload=event(type_, "x", data).payload, at_ms=at_ms),
    ),
    st.sampled_from(sorted(CATALOGUE)),
    st.none() | places,
    places,
    st.uuids(),
    st.dictionaries(texts, texts | st.lists(texts, max_size=2), max_size=4),
    st.integers(0, 10**13),
)


@given(st.lists(frames, max_size=5))
def test_a_browser_sees_each_event_whole_and_nothing_else(some):
    source = EventSource().read(sse.retry(2000) + sse.OPENING + b"".join(sse.block(one) for one in some))
    assert (source.retry_ms, source.comments, len(source.events)) == (2000, 1, len(some))
    last_id = ""
    for one, (type_, data, id_) in zip(some, source.events, strict=True):
        last_id = one.id or last_id
        assert (type_, id_) == ("message", last_id)
        assert orjson.loads(data) == {
            "type": one.event.type,
            "timestamp": one.event.at_ms,
            "data": orjson.loads(one.event.payload),
            "workspace_id": one.event.workspace_id,
        }


hostile = st.sampled_from([b"\n", b"\r", b"\r\n\r\n", b"\nid: 9-9\n", b'"', b"\\", b'","x":"', b"\0", b" ", b""])


@given(st.integers(0, 6), hostile, hostile)
def test_no_word_of_a_frame_can_start_a_line_or_leave_its_string(place, left, right):
    """Whoever can publish could write such bytes; they are malformed before they are anything else."""
    words = [b"1", b"7-1", b"7-0", ID.encode(), b"TASK_UPDATED", b"s", b"1795200000123", b'{"current_task":"x"}']
    place += 1
    words[place] = left + words[place] + right
    try:
        heard = frame.parse(b" ".join(words))
    except MalformedFrame:
        return
    [(type_, data, id_)] = EventSource().read(sse.block(heard)).events
    assert (type_, id_) == ("message", "7-1")
    if place < 7:
        assert list(orjson.loads(data)) == ["type", "timestamp", "data", "workspace_id"]


def test_an_event_that_is_not_kept_does_not_move_the_cursor():
    one = Frame(place=None, prev=(7, 1), event=event("WORKSPACE_HEARTBEAT", ID, {}))
    assert b"id:" not in sse.block(one)
    assert EventSource(last_id="5-0").read(sse.block(one)).last_id == "5-0"


@pytest.mark.parametrize(("cursor", "last_id"), [(None, "5-0"), ("7-1", "7-1")])
def test_a_keep_alive_moves_the_cursor_and_is_no_event(cursor, last_id):
    source = EventSource(last_id="5-0").read(sse.keep_alive(cursor))
    assert (source.events, source.comments, source.last_id) == ([], 1, last_id)


@given(texts, texts, texts, places)
def test_a_gap_is_an_event_of_its_own_whatever_the_reader_claimed(reason, resync, since, place):
    until = frame.show(place)
    block = sse.gap(_sane(reason), since, until, _sane(resync))
    [(type_, data, id_)] = EventSource(last_id="5-0").read(block).events
    assert (type_, id_) == ("gap", "5-0" if place == ORIGIN else until), "nobody comes back to before everything"
    shown = {"reason": _sane(reason), "from": _sane(since), "to": until, "resync": _sane(resync)}
    assert orjson.loads(data) == shown


def test_the_state_of_the_bus_is_an_event_that_moves_no_cursor():
    source = EventSource(last_id="5-0").read(sse.bus("degraded"))
    assert source.events == [("bus", '{"state":"degraded"}', "5-0")]


def _sane(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@given(st.integers(0, 300_000))
def test_the_parts_of_a_large_block_are_the_block(size):
    payload = orjson.dumps({"text": "ü" * size})
    told = Frame(place=(1, 0), prev=(0, 0), event=Event(type="A2A_RESPONSE", workspace_id=ID, payload=payload))
    parts = sse.parts(told)
    assert max(map(len, parts)) <= PART_BYTES
    assert b"".join(parts) == sse.block(told)
