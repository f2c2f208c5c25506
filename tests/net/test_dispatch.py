import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.core.address import Reach
from gateway.core.journey import Sign
from gateway.core.outcomes import Answered, Clock, Cut, Expired, NotConnected, Outcome, Reset, TooLarge
from gateway.net import connector, dispatch
from gateway.net.clocks import Clocks
from gateway.ports import Meter, Outbound
from gateway.services.room import Room
from gateway.services.tasks import Tasks
from tests.harness import raw
from tests.harness.agent import running, silent_for
from tests.harness.liveness import ScriptedLiveness
from tests.harness.world import eventually

LIMIT_BYTES = 1000
OUTBOUND = Outbound(
    hold=Room(2**30).hold(),
    call_id="c", workspace_id="w", url="", body=b'{"n": 1e400}', headers={"Content-Type": "application/json"},
    idle_s=30.0, limit_s=None, by_deadline=False,
)  # fmt: skip


class Names(AbstractResolver):
    """A name server that fails as often as it is told, and then says 127.0.0.1."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError("no such name")
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        pass


class Sender:
    """A dispatcher with clocks of its own."""

    def __init__(self, dispatcher: dispatch.Dispatcher, clocks: Clocks, tasks: Tasks) -> None:
        self._dispatcher = dispatcher
        self.clocks = clocks
        self.tasks = tasks

    async def send(self, url: str, **fields: object) -> Outcome:
        return await self._dispatcher.send(replace(OUTBOUND, url=url, **fields))


@asynccontextmanager
async def sending(
    reach: Reach = Reach.SAME_NETWORK, names: AbstractResolver | None = None, connect_s: float = 5.0
) -> AsyncIterator[Sender]:
    async with Tasks() as tasks:
        clocks = Clocks(silence=ScriptedLiveness(), spawn=tasks.spawn, bus_lost_s=60)
        opened = connector.connector(reach=reach, resolver=names)
        async with dispatch.opened(opened, clocks, connect_s=connect_s, limit_bytes=LIMIT_BYTES) as dispatcher:
            yield Sender(dispatcher, clocks, tasks)
        await eventually(lambda: len(tasks) == 0)
        assert repr(clocks) == "<Clocks cells=0 suspects=0>"
        assert tasks.deaths == 0


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with sending() as sender:
        yield sender


async def answer(_: web.Request) -> web.Response:
    headers = {"Content-Type": "text/x", "Retry-After": "7", "Set-Cookie": "a=b", "X-Own": "1"}
    return web.Response(status=418, body=b"\x00\xff", headers=headers)


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 100)
        await asyncio.sleep(0.001)


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(8):
        await response.write(b".")
        await asyncio.sleep(0.1)
    return response


async def test_the_answer_is_status_bytes_and_the_headers_that_are_passed_on(sender: Sender):
    async with running(answer) as told:
        outcome = await sender.send(told.url)
        headers = {"Content-Type": "text/x", "Retry-After": "7"}
        assert outcome == Answered(status=418, headers=headers, body=b"\x00\xff", retry_after_s=7.0)


async def test_the_agent_gets_the_bytes_and_headers_of_the_call_and_nothing_that_a_client_adds(sender: Sender):
    async with running(answer) as told:
        for _ in range(2):  # the second would carry the cookie that the first was given
            await sender.send(told.url, headers={"Content-Type": "application/json", "X-A2A-Call-ID": "c"})
        assert told.bodies == [OUTBOUND.body] * 2
        assert told.headers[1] == {
            "Host": told.url.removeprefix("http://").rstrip("/"),
            "Content-Type": "application/json",
            "X-A2A-Call-ID": "c",
            "User-Agent": "a2a-gateway",
            "Accept-Encoding": "identity",
            "Content-Length": str(len(OUTBOUND.body)),
        }


async def test_a_redirect_is_an_answer(sender: Sender):
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with running(elsewhere) as told:
        outcome = await sender.send(told.url)
        assert isinstance(outcome, Answered)
        assert (outcome.status, len(told.bodies)) == (307, 1)


async def test_an_answer_that_is_too_large_is_abandoned(sender: Sender):
    async with running(endless) as told:
        assert await sender.send(told.url) == TooLarge()
        await eventually(lambda: told.closed_early == 1)


async def test_a_first_failure_to_connect_is_forgiven():
    names = Names(failures=1)
    async with running(answer) as told, sending(names=names) as sender:
        outcome = await sender.send(told.url.replace("127.0.0.1", "agent.example"))
        assert isinstance(outcome, Answered)
    assert (names.asked, len(told.bodies)) == (2, 1)


async def test_a_second_failure_to_connect_is_the_end():
    names = Names(failures=9)
    async with sending(names=names) as sender:
        assert await sender.send("http://agent.example/") == NotConnected()
    assert names.asked == 2


async def test_an_agent_that_does_not_take_connections_is_not_waited_for():
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filling in (first, second):  # its queue is full from here on
            filling.setblocking(False)
            filling.connect_ex(deaf.getsockname())
        async with sending(connect_s=0.1) as sender:
            async with asyncio.timeout(10):
                outcome = await sender.send(f"http://127.0.0.1:{deaf.getsockname()[1]}/")
            assert outcome == NotConnected()


async def test_an_address_out_of_reach_is_told_as_that():
    async with running(answer) as told, sending(Reach.HOSTED) as sender:
        assert await sender.send(told.url) == NotConnected(unsafe=True)
        assert told.bodies == []


@pytest.mark.parametrize(
    ("written", "outcome"),
    [
        (b"", Reset()),
        (b"HTTP/1.1 200 OK\r\nContent-", Reset()),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Cut(status=200)),
        (b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", Cut(status=500)),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_lost_connection_is_told_by_what_had_come(
    sender: Sender, written: bytes, outcome: Outcome, reset: bool
):
    async with raw.running(written, reset=reset) as url:
        assert await sender.send(url) == outcome


async def test_a_call_that_was_lost_is_not_sent_again(sender: Sender):
    async def gone(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with running(gone) as told:
        assert await sender.send(told.url) == Reset()
        assert len(told.bodies) == 1


async def test_a_silent_agent_is_hung_up_on(sender: Sender):
    async with running(silent_for(60)) as told:
        assert await sender.send(told.url, idle_s=0.2) == Expired(clock=Clock.IDLE)
        await eventually(lambda: told.closed_early == 1)


async def test_an_answer_that_comes_in_drops_is_alive(sender: Sender):
    async with running(dripping) as told:
        outcome = await sender.send(told.url, idle_s=0.4)
        assert isinstance(outcome, Answered)
        assert outcome.body == b"." * 8


@pytest.mark.parametrize(("by_deadline", "clock"), [(True, Clock.DEADLINE), (False, Clock.CEILING)])
async def test_the_total_time_ends_a_call_in_the_middle_of_its_answer(sender: Sender, by_deadline: bool, clock: Clock):
    async with running(dripping) as told:
        assert await sender.send(told.url, limit_s=0.3, by_deadline=by_deadline) == Expired(clock=clock)
        await eventually(lambda: told.closed_early == 1)


async def test_a_cancelled_call_is_hung_up_and_stays_cancelled(sender: Sender):
    async with running(silent_for(60)) as told:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(sender.send(told.url))
            await eventually(lambda: told.open_connections == 1)
            call.cancel()
        assert call.cancelled()
        await eventually(lambda: told.closed_early == 1)


async def test_five_hundred_calls_that_stall_leave_no_task_behind(sender: Sender):
    async with running(silent_for(60)) as told:
        before = asyncio.all_tasks()
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(sender.send(told.url, idle_s=5.0)) for _ in range(250)]
            stopped = [group.create_task(sender.send(told.url)) for _ in range(250)]
            await eventually(lambda: len(told.bodies) == 500)
            for call in stopped:
                call.cancel()
        assert {call.result() for call in calls} == {Expired(clock=Clock.IDLE)}
        assert all(call.cancelled() for call in stopped)
        await eventually(lambda: told.closed_early == 500)
        await eventually(lambda: asyncio.all_tasks() <= before)


async def test_how_far_a_call_is_can_be_seen_while_it_lasts_and_after_it(sender: Sender):
    meter = Meter()
    async with running(dripping) as told:
        sender.tasks.spawn(_forget(sender.send(told.url, meter=meter)), "send")
        await eventually(lambda: 0 < meter.received_bytes < 8)
        assert (meter.attempts, meter.first_byte_s is not None) == (1, True)
        assert meter.clockwork is not None
        await eventually(lambda: meter.clockwork.last_reset()[0] is Sign.ANSWER)
        await eventually(lambda: meter.received_bytes == 8)


async def test_each_attempt_to_connect_is_counted(sender: Sender):
    meter = Meter()
    with socket.socket() as bound:  # nobody listens
        bound.bind(("127.0.0.1", 0))
        assert await sender.send(f"http://127.0.0.1:{bound.getsockname()[1]}/", meter=meter) == NotConnected()
    assert (meter.attempts, meter.received_bytes, meter.first_byte_s) == (2, 0, None)


async def _forget(sending: Awaitable[Outcome]) -> None:
    await sending
