"""One connection to a feed: what is asked, what is heard, and in which of all ways it ends."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from gateway.core.address import Reach
from gateway.core.feeds import How
from gateway.core.outcomes import Answered, Clock, Cut, Expired, NotConnected, Reset, Streamed
from gateway.core.sse import ServerEvent
from gateway.net import connector, event_feed
from gateway.net.event_feed import EventFeed
from gateway.ports import FeedSource
from gateway.services.tasks import Tasks
from tests.harness import feeds
from tests.harness.feeds import HEAD, LAST, UNTIL_CLOSED, Behaviour, Visit, block, chunk, refusal, says, stays
from tests.harness.world import eventually

SLOW_S: Final = 0.2
PATIENT_S: Final = 1.0
"""How long it may be silent that is not to be found so."""
CUT: Final = Cut(status=200)
UNANSWERED: Final = Expired(clock=Clock.FIRST_BYTE)
SILENT: Final = Expired(clock=Clock.IDLE)


def closed(retry_s: float | None = None) -> Streamed:
    return Streamed(status=200, headers={}, retry_after_s=retry_s)


def refused(status: int, retry_s: float | None = None) -> Answered:
    asked = {} if retry_s is None else {"Retry-After": f"{retry_s:.0f}"}
    return Answered(status=status, headers=asked, body=b"", retry_after_s=retry_s)


@dataclass
class Listener:
    """What it was told; `pause` holds it up."""

    opens: int = 0
    came: list[ServerEvent] = field(default_factory=list)
    last_id: str = ""
    dropped: int = 0
    pause: asyncio.Event | None = None

    def opened(self) -> None:
        self.opens += 1

    async def heard(self, came: ServerEvent) -> None:
        self.came.append(came)
        if self.pause is not None:
            await self.pause.wait()

    def passed(self, last_id: str, dropped: int) -> None:
        self.last_id, self.dropped = last_id, dropped


@asynccontextmanager
async def opened(reach: Reach = Reach.SAME_NETWORK, **other: Any) -> AsyncIterator[EventFeed]:
    times = {"connect_s": 5.0, "first_byte_s": 5.0, "silence_s": 5.0, "limit_bytes": 1000, **other}
    async with event_feed.opened(connector.connector(reach=reach), reach=reach, **times) as feed:
        yield feed


def source(url: str, **other: Any) -> FeedSource:
    return FeedSource(**{"workspace_id": "w", "url": url, "last_id": "", **other})


async def read(behave: Behaviour, **times: Any) -> tuple[How, Listener]:
    listener = Listener()
    async with feeds.running(behave) as agent, opened(**times) as feed:
        how = await feed.read(source(agent.url), listener)
        await eventually(lambda: not agent.there)
        assert agent.most == 1
    return how, listener


async def stalls(visit: Visit) -> None:
    await visit.left()


async def resets(visit: Visit) -> None:
    await visit.say(HEAD + block("1"))
    visit.reset()


async def drips(visit: Visit) -> None:
    """A byte at a time, in the middle of everything."""
    await visit.say(HEAD)
    for byte in b'id: 1\r\ndata: "\xc3\xa9"\r\n\r\n:\n\n':
        await visit.say(chunk(bytes([byte])))
        await asyncio.sleep(0)
    await visit.say(LAST)


async def beats(visit: Visit) -> None:
    """Comments alone, for longer than it may be silent."""
    await visit.say(HEAD)
    for _ in range(12):
        await visit.say(chunk(b":\n"))
        await asyncio.sleep(PATIENT_S / 8)
    await visit.say(LAST)


WAYS: Final[Mapping[str, tuple[Behaviour, How]]] = {
    "its last chunk": (says(HEAD + LAST), closed()),
    "closed without a length": (says(UNTIL_CLOSED), closed()),
    "closed with a wish": (says(HEAD + chunk(b"retry: 2500\n\n") + LAST), closed(2.5)),
    "closed after a drip": (drips, closed()),
    "closed after comments": (beats, closed()),
    "cut in the middle": (says(HEAD + block("1")), CUT),
    "reset": (resets, CUT),
    "cut at once": (says(b""), Reset()),
    "cut short": (says(UNTIL_CLOSED[:-2] + b"Content-Length: 9\r\n\r\ndata"), CUT),
    "broken chunks": (says(HEAD + b"no chunk\r\n"), Reset()),
    "no HTTP": (says(b"garbage\r\n\r\n"), Reset()),
    "no answer": (stalls, UNANSWERED),
    "silent": (stays(), SILENT),
    "silent after an event": (stays(block("1")), SILENT),
    "401": (says(refusal(401)), refused(401)),
    "404": (says(refusal(404)), refused(404)),
    "500": (says(refusal(500)), refused(500)),
    "503 with a wish": (says(refusal(503, b"Retry-After: 7")), refused(503, 7.0)),
    "204": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), refused(204)),
    "302": (says(refusal(302, b"Location: http://127.0.0.1:1/")), refused(302)),
    "307": (says(refusal(307, b"Location: /elsewhere")), refused(307)),
    "a page": (says(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\n<"), refused(200)),
    "no type": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n<"), refused(200)),
    "coded": (
        says(UNTIL_CLOSED[:-2] + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"data: 1\n\n")),
        refused(200),
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_each_end_is_told_as_what_it_is(way: str):
    behave, how = WAYS[way]
    first_byte_s = SLOW_S if how == UNANSWERED else 5.0
    silence_s = SLOW_S if how == SILENT else PATIENT_S if behave is beats else 5.0
    got, listener = await read(behave, first_byte_s=first_byte_s, silence_s=silence_s)
    assert got == how
    assert listener.opens == (isinstance(how, Streamed | Cut) or how == SILENT)


async def test_nobody_there_is_no_connection():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with opened() as feed:
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
            assert await feed.read(source(url), Listener()) == NotConnected()


@pytest.mark.parametrize(
    ("reach", "url"),
    [
        (Reach.HOSTED, "http://127.0.0.1:9999/events"),
        (Reach.HOSTED, "http://10.0.0.1/events"),
        (Reach.SAME_NETWORK, "http://169.254.169.254/events"),
        (Reach.SAME_NETWORK, "http://127.0.0.1:6379/"),
        (Reach.SAME_NETWORK, "ftp://agent.example/"),
        (Reach.SAME_NETWORK, "not a url"),
    ],
)
async def test_where_the_policy_forbids_nothing_is_sent(reach: Reach, url: str):
    async with opened(reach) as feed:
        assert await feed.read(source(url), Listener()) == NotConnected(unsafe=True)


async def test_a_name_that_leads_to_a_forbidden_address_is_unsafe_when_it_is_connected_to():
    async with feeds.running() as agent, opened(Reach.HOSTED) as feed:
        feed._reach = Reach.SAME_NETWORK  # as if the text had passed: what counts is where the socket goes
        assert await feed.read(source(agent.url), Listener()) == NotConnected(unsafe=True)
        assert agent.visits == []


async def test_it_says_who_it_is_and_where_to_go_on():
    async with feeds.running(says(HEAD + LAST)) as agent, opened() as feed:
        await feed.read(source(f"{agent.url}?a=%2F", last_id="é-7", secret="s3cr3t"), Listener())
        await feed.read(source(agent.url, last_id="odd\x01id"), Listener())
    first, second = agent.visits
    assert first.line == "GET /events?a=%2F HTTP/1.1"
    wanted = {
        "accept": "text/event-stream", "accept-encoding": "identity", "authorization": "Bearer s3cr3t",
        "last-event-id": "é-7", "x-workspace-id": "w", "cache-control": "no-store",
    }  # fmt: skip
    assert {name: first.headers.get(name) for name in wanted} == wanted
    assert not {"authorization", "last-event-id", "cookie"} & second.headers.keys()


async def test_events_come_in_order_with_their_ids_and_large_ones_are_left_out():
    blocks = [
        block("1", "a"),
        chunk(b"event: x\ndata: 2\n\n"),
        chunk(b"id: b\ndata: " + b"x" * 5000 + b"\n\n"),
        block("3"),
    ]
    _, listener = await read(says(HEAD + b"".join(blocks) + LAST))
    assert [(one.type, one.data, one.id) for one in listener.came] == [
        ("message", b"1", "a"), ("x", b"2", None), ("message", b"3", None),
    ]  # fmt: skip
    assert (listener.last_id, listener.dropped) == ("b", 1)


async def test_a_listener_that_takes_its_time_is_no_silence():
    listener = Listener(pause=asyncio.Event())

    async def two(visit: Visit) -> None:
        await visit.say(HEAD + block("1") + block("2"))
        await asyncio.sleep(3 * SLOW_S)  # longer than it may be silent; then the other end lets it go on
        assert listener.pause is not None
        listener.pause.set()
        await visit.say(LAST)

    async with feeds.running(two) as agent, opened(silence_s=SLOW_S) as feed:
        assert await feed.read(source(agent.url), listener) == closed()
    assert len(listener.came) == 2


@pytest.mark.parametrize("behave", [stalls, stays(), stays(block("1"))], ids=["head", "silence", "event"])
async def test_it_can_be_interrupted_wherever_it_is(behave: Behaviour):
    async with feeds.running(behave) as agent, opened() as feed, Tasks() as tasks:

        async def go() -> None:
            await feed.read(source(agent.url), Listener())

        task = tasks.spawn(go(), "read")
        await eventually(lambda: agent.visits)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        assert task.cancelled()
        await eventually(lambda: not agent.there, within_s=1)
