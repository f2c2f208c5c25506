"""Streams of agents that stall, drip, break off, lie or never end: each has its ending in time, and leaves nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from tests.e2e.test_streams import OPERATOR, asked, events
from tests.harness import faces
from tests.harness.faces import CHUNKED, HEAD, LAST_CHUNK, UNTIL_CLOSED, Behave, Faced, Peer, chunk, event
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDLE_S = 1.5
DEADLINE_S = 2.5
LATE_S = 0.25
"""How late a clock may be, as the gateway says ..."""
SEEN_S = 1.0
"""... and as a client sees it that shares the machine with others."""
SHOWN = 10
"""Of more events no agent is told that they have come."""
EVENT_BYTES = 6 * 1024 * 1024
GROWN_BYTES = 96 * 1024 * 1024
"""What a process may have grown by after one of them: the allocator does not give all back."""


# -- what they do


async def stall_before_headers(peer: Peer) -> None:
    await peer.stay()


async def stall_after_headers(peer: Peer) -> None:
    await peer.say(CHUNKED)
    await peer.stay()


async def stall_after_events(peer: Peer) -> None:
    await peer.say(CHUNKED, *(chunk(event(n)) for n in (1, 2, 3)))
    await peer.stay()


async def stall_within_an_event(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1) + event(2)[:30]))
    await peer.stay()


async def stall_when_all_is_said(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1) + event(2, final=True)))
    await peer.stay()


async def drip(peer: Peer) -> None:
    """No pause is too long, though all of them together are."""
    await peer.say(CHUNKED)
    text = event(1) + event(2, final=True)
    for start in range(0, len(text), len(text) // 8):
        await peer.say(chunk(text[start : start + len(text) // 8]))
        await asyncio.sleep(IDLE_S / 5)
    await peer.say(LAST_CHUNK)


async def only_comments(peer: Peer) -> None:
    await peer.say(CHUNKED)
    while True:
        await peer.say(chunk(b": still here\n\n"))
        await asyncio.sleep(IDLE_S / 5)


async def end_of_chunks(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)), chunk(event(2)), LAST_CHUNK)


async def end_within_chunks(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)), chunk(event(2)))


async def end_by_close(peer: Peer) -> None:
    await peer.say(UNTIL_CLOSED, event(1), event(2))


async def end_at_length(peer: Peer) -> None:
    text = event(1) + event(2)
    await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(text), text)


async def end_before_length(peer: Peer) -> None:
    text = event(1) + event(2)
    await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % (len(text) + 1), text)


async def all_by_close(peer: Peer) -> None:
    await peer.say(UNTIL_CLOSED, event(1), event(2, final=True))


async def all_but_the_last_chunk(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)), chunk(event(2, final=True)))


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def reset_after_events(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1) + event(2)))
    await peer.shown(2)
    peer.reset()


async def end_after_a_question(peer: Peer) -> None:
    """It asks for something, gets it by other ways, goes on with its task, and breaks off."""
    await peer.say(CHUNKED, chunk(event(1).replace(b'"working"', b'"input-required"')), chunk(event(2)))


async def question(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)), chunk(event(2).replace(b'"working"', b'"input-required"')), LAST_CHUNK)


async def garbage_for_chunks(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)))
    await peer.shown(1)
    await peer.say(b"no such length\r\n" + event(2))
    await peer.stay()


async def garbage_for_events(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(bytes(range(256)) * 40), chunk(b"\n\nfield: 1\n\n::\n\n\xff\xfe\n\r\n\r\r\n"))
    await peer.say(LAST_CHUNK)


async def plain_json(peer: Peer) -> None:
    text = b'{"jsonrpc":"2.0","id":"1","result":{"kind":"message","parts":[]}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    await peer.say(head % len(text) + text)


async def long_line(peer: Peer) -> None:
    text = event(1, pad=5 * 1024 * 1024) + event(2, final=True)
    await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(text), text)


async def too_long_a_line(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)), chunk(event(2, pad=EVENT_BYTES)))
    await peer.stay()


async def line_without_end(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)))
    while True:
        await peer.say(chunk(b":" * 65536))


async def tiny_events(peer: Peer) -> None:
    await peer.say(CHUNKED)
    for start in range(0, 10_000, 500):
        await peer.say(*(chunk(event(n, final=n == 10_000)) for n in range(start + 1, start + 501)))
    await peer.say(LAST_CHUNK)


# -- how they end


@dataclass(frozen=True, kw_only=True)
class Face:
    """What an agent does, and what its caller is to get for it: so many events, and this ending after so long.

    within_s: what the agent itself takes meanwhile. stops_after: it is a process that stops itself after so many
    events, and not `behave`.
    """

    behave: Behave | None = None
    stops_after: int | None = None
    ending: str
    events: int = 0
    after_s: float = 0.0
    within_s: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()


DEADLINE = (("X-Timeout", str(DEADLINE_S)),)
FACES = {
    "stall before headers": Face(behave=stall_before_headers, ending="idle_timeout", after_s=IDLE_S),
    "stall after headers": Face(behave=stall_after_headers, ending="idle_timeout", after_s=IDLE_S),
    "stall after events": Face(behave=stall_after_events, ending="idle_timeout", events=3, after_s=IDLE_S),
    "stall within an event": Face(behave=stall_within_an_event, ending="idle_timeout", events=1, after_s=IDLE_S),
    "stall when all is said": Face(behave=stall_when_all_is_said, ending="completed", events=2, within_s=IDLE_S),
    "drip": Face(behave=drip, ending="completed", events=2, after_s=IDLE_S, within_s=1.5),
    "only comments": Face(behave=only_comments, ending="deadline", after_s=DEADLINE_S, headers=DEADLINE),
    "end of chunks": Face(behave=end_of_chunks, ending="truncated", events=2),
    "end within chunks": Face(behave=end_within_chunks, ending="truncated", events=2),
    "end by close": Face(behave=end_by_close, ending="truncated", events=2),
    "end at length": Face(behave=end_at_length, ending="truncated", events=2),
    "end before length": Face(behave=end_before_length, ending="truncated", events=2),
    "all by close": Face(behave=all_by_close, ending="completed", events=2),
    "all but the last chunk": Face(behave=all_but_the_last_chunk, ending="completed", events=2),
    "end after a question": Face(behave=end_after_a_question, ending="truncated", events=2),
    "question": Face(behave=question, ending="completed", events=2),
    "reset at once": Face(behave=reset_at_once, ending="agent_reset"),
    "reset after events": Face(behave=reset_after_events, ending="truncated", events=2),
    "SIGSTOP before headers": Face(stops_after=0, ending="idle_timeout", after_s=IDLE_S),
    "SIGSTOP after events": Face(stops_after=3, ending="idle_timeout", events=3, after_s=IDLE_S),
    "garbage for chunks": Face(behave=garbage_for_chunks, ending="truncated", events=1),
    "garbage for events": Face(behave=garbage_for_events, ending="truncated"),
    "plain JSON": Face(behave=plain_json, ending="completed"),
    "a line of 5 MB": Face(behave=long_line, ending="completed", events=2, within_s=2.0),
    "too long a line": Face(behave=too_long_a_line, ending="response_too_large", events=1, within_s=2.0),
    "a line without end": Face(behave=line_without_end, ending="response_too_large", events=1, within_s=2.0),
    "10,000 tiny events": Face(behave=tiny_events, ending="completed", events=10_000, within_s=8.0),
}


class Stage:
    """A gateway whose clocks are short, and what it holds when nothing goes on."""

    def __init__(self, world: World, gateway: GatewayProcess) -> None:
        self.world = world
        self.gateway = gateway
        self._process = psutil.Process(gateway.pid)
        self.files = self.bytes = 0

    async def settle(self) -> None:
        """Take what it holds now for what it is to come back to."""
        await self.at_rest()
        self.files, self.bytes = self._process.num_fds(), self._process.memory_info().rss

    async def at_rest(self) -> None:
        """Wait until it has no call, no stream, and no connection to an agent."""

        async def held() -> dict[str, float]:
            _, text, _ = await self.world.request("GET", "/metrics", gateway=self.gateway)
            lines = [line.split() for line in text.decode().splitlines() if not line.startswith("#")]
            return {name: float(value) for name, value in lines if "{" not in name}

        names = ("calls_in_flight", "agent_streams", "agent_stream_readers", "agent_stream_bytes", "body_bytes")
        got = await until(held, lambda got: not any(got[f"gateway_{name}"] for name in names))
        assert got["gateway_tasks_died_total"] == 0

    async def back(self) -> None:
        """Wait until it holds what it held before."""
        await self.at_rest()
        await eventually(lambda: self._process.num_fds() <= self.files)
        assert self._process.memory_info().rss <= self.bytes + GROWN_BYTES


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(shared_world: World) -> AsyncIterator[Stage]:
    gateway = await shared_world.start(
        A2A_IDLE_TIMEOUT_SECONDS=str(IDLE_S), A2A_MAX_EVENT_BYTES=str(EVENT_BYTES), GATEWAY_ADMISSION_SECONDS="2"
    )
    one = Stage(shared_world, gateway)
    for behave in (tiny_events, long_line, tiny_events):  # what is allocated once, and the pools
        async with faces.running(behave) as agent:
            await ask(one, await shared_world.workspace(agent.url))
    await one.settle()
    yield one


@dataclass(frozen=True, kw_only=True)
class Got:
    """What a caller got, and after how long."""

    status: int
    call_id: str
    kind: str
    body: bytes
    took_s: float


async def ask(stage: Stage, target: Workspace, agent: Faced | None = None, **headers: str) -> Got:
    """Ask for a stream over a connection of its own, and read it to its end; the agent is told of each event."""
    url = f"{stage.gateway.url}/workspaces/{target.id}/a2a"
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        session.post(url, json=asked(), headers={**OPERATOR, **headers}) as response,
    ):
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if agent is not None and agent.shown < SHOWN:
                agent.shown = body.count(b"\n\n")
        took_s = time.monotonic() - began
        return Got(
            status=response.status,
            call_id=response.headers["X-A2A-Call-ID"],
            kind=response.content_type,
            body=bytes(body),
            took_s=took_s,
        )


async def ended(world: World, target: Workspace, call_id: str) -> Any:
    """The call as the ledger has it, once it has ended."""
    path = f"/workspaces/{target.id}/a2a/calls/{call_id}"
    _, row, _ = await until(lambda: world.request("GET", path), lambda got: got[0] == 200 and got[1].get("ending"))
    return row


def check_told(got: Got, ending: str, count: int) -> None:
    """All events have come, and then how it ended, under its JSON-RPC id."""
    assert (got.status, got.kind) == (200, "text/event-stream")
    seen = events(got.body)
    if ending != "completed":
        _, said = seen.pop()
        assert said["id"] == "1"
        told = said["error"]["data"]
        last = f"{got.call_id}-{count}" if count else None
        assert (told["code"], told["retriable"], told["call_id"], told["last_event_id"]) == (
            ending, False, got.call_id, last,
        )  # fmt: skip
    assert [id_ for id_, _ in seen] == [f"{got.call_id}-{n}" for n in range(1, count + 1)]
    assert [said["result"]["metadata"]["n"] for _, said in seen] == list(range(1, count + 1))


@pytest.mark.parametrize("name", FACES)
async def test_every_face_has_its_ending_in_time_and_leaves_nothing_behind(stage: Stage, name: str):
    face = FACES[name]
    async with AsyncExitStack() as stack:
        agent = None
        if face.behave is None:
            url = await stack.enter_async_context(faces.stopping(face.stops_after or 0))
        else:
            agent = await stack.enter_async_context(faces.running(face.behave))
            url = agent.url
        target = await stage.world.workspace(url)
        got = await ask(stage, target, agent, **dict(face.headers))
        row = await ended(stage.world, target, got.call_id)
        assert row["ending"] == face.ending
        if name == "plain JSON":
            assert (got.status, got.kind, got.body[:16]) == (200, "application/json", b'{"jsonrpc":"2.0"')
        else:
            check_told(got, face.ending, face.events)
        assert face.after_s <= got.took_s <= face.after_s + face.within_s + SEEN_S
        assert row["duration_ms"] <= 1000 * (face.after_s + face.within_s + LATE_S)
        if agent is not None:
            await eventually(lambda: agent.open == 0)
        await stage.back()
