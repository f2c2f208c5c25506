"""Frames, read back by the parser of a WebSocket client."""

import asyncio
import contextlib
from datetime import datetime

import orjson
import pytest
from aiohttp import WSMessage, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_websocket import WebSocketReader
from aiohttp.streams import EofStream
from hypothesis import given
from hypothesis import strategies as st

from events import ws
from events.event import CATALOGUE, Event, event
from events.frame import ORIGIN, Frame, show
from events.readers import PART_BYTES

ID = "00000000-0000-4000-8000-00000000000a"
texts = st.text(st.characters(exclude_categories=["Cs"]))
places = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
EDGES = (0, 1, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537, 70_000)


def read(stream: bytes) -> list[WSMessage]:
    """What a client gets from these bytes: whole messages, and nothing left over."""

    async def feed() -> list[WSMessage]:
        loop = asyncio.get_running_loop()
        queue = WebSocketDataQueue(BaseProtocol(loop), 2**24, loop=loop)
        reader = WebSocketReader(queue, max_msg_size=2**22, compress=False, decode_text=True)
        ended, rest = reader.feed_data(stream)
        assert (ended, bytes(rest)) == (False, b"")
        queue.feed_eof()
        heard = []
        with contextlib.suppress(EofStream):
            while True:
                heard.append(await queue.read())
        return heard

    return asyncio.run(feed())


def only(stream: bytes) -> dict[str, object]:
    [message] = read(stream)
    assert message.type is WSMsgType.TEXT
    said = orjson.loads(message.data)
    assert isinstance(said, dict)
    return said


@pytest.mark.parametrize("length", EDGES)
def test_a_message_of_every_kind_of_length_is_one_text_message(length):
    payload = b"x" * length
    [message] = read(ws.text(payload))
    assert (message.type, message.data.encode()) == (WSMsgType.TEXT, payload)


@given(st.lists(st.integers(0, 70_000) | st.sampled_from(EDGES), max_size=4))
def test_messages_that_are_written_together_are_read_one_by_one(lengths):
    sent = [b"x" * length for length in lengths]
    assert [message.data.encode() for message in read(b"".join(map(ws.text, sent)))] == sent


@given(
    st.sampled_from(sorted(CATALOGUE)),
    st.none() | places,
    st.dictionaries(texts, texts | st.integers(-(2**53), 2**53), max_size=4),
)
def test_an_event_is_one_message_that_says_all_about_it(type_, place, data):
    one = Frame(place=place, prev=(0, 0), event=event(type_, ID, data))
    said = only(ws.message(one))
    at = datetime.fromisoformat(str(said.pop("timestamp")))
    assert round(at.timestamp() * 1000) == one.event.at_ms
    assert said == {
        "event": type_,
        "workspace_id": ID,
        "payload": data,
        "id": None if place is None else show(place),
    }


def test_a_time_is_written_in_utc_with_milliseconds():
    said = only(ws.message(Frame(place=None, prev=(0, 0), event=event("TASK_UPDATED", ID, {}))))
    whole, _, fraction = str(said["timestamp"]).partition(".")
    assert datetime.fromisoformat(whole).tzinfo is None
    assert (len(fraction), fraction[-1]) == (4, "Z")


@given(texts, st.text(st.characters()), places, texts)
def test_a_gap_says_between_which_ids_and_where_to_read_again(reason, since, until, resync):
    shown = since.encode("utf-8", "replace").decode()
    payload = {"reason": reason, "from": shown, "to": show(until), "resync": resync}
    id_ = None if until == ORIGIN else show(until)
    assert only(ws.gap(reason, since, show(until), resync)) == {"event": "gap", "payload": payload, "id": id_}


def test_the_state_of_the_bus_has_no_id():
    assert only(ws.bus("degraded")) == {"event": "bus", "payload": {"state": "degraded"}}


@given(st.integers(0, 300_000), texts)
def test_the_parts_of_a_large_message_are_the_same_message_with_pings_between_them(size, text):
    payload = orjson.dumps({"text": text + "ü" * size})
    told = Frame(place=(1, 0), prev=(0, 0), event=Event(type="A2A_RESPONSE", workspace_id=ID, payload=payload))
    parts = ws.parts(told)
    assert max(map(len, parts)) <= PART_BYTES + 10
    *pings, message = read(b"\x89\x00".join(parts))
    assert [one.type for one in pings] == [WSMsgType.PING] * (len(parts) - 1)
    assert orjson.loads(message.data) == only(ws.message(told))
