import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.core.address import Reach
from gateway.net.connector import MAX_ADDRESSES, Probes, connector, refused

METADATA = "169.254.169.254"
TCP_OPTIONS = {
    "TCP_NODELAY": 1, "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000
}  # fmt: skip


class Names(AbstractResolver):
    """A name server that lies as it is told: each answer is used once, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0) for address in answer
        ]

    async def close(self) -> None:
        self.closed = True


class Agent:
    """A server on loopback that remembers who called."""

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[tuple[str, int]] = []
        self.ending = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername")[:2])
        return web.Response(text=request.host)

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Send the head, and the end when it is time."""
        response = web.StreamResponse()
        await response.prepare(request)
        await self.ending.wait()
        await response.write_eof()
        return response


@asynccontextmanager
async def listening(host: str) -> AsyncIterator[Agent]:
    agent = Agent()
    app = web.Application()
    app.router.add_post("/", agent.answer)
    app.router.add_post("/open", agent.open)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0)
        await site.start()
        agent.port = runner.addresses[0][1]
        yield agent
    finally:
        await runner.cleanup()


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with listening("127.0.0.1") as agent:
        yield agent


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 where connects are refused, kept by a socket that does not listen."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def session(
    *, reach: Reach = Reach.SAME_NETWORK, names: Names | None = None, exempt: Callable[[str], bool] | None = None,
    dns_cache_s: int = 10, probes: Probes | None = None,
) -> aiohttp.ClientSession:  # fmt: skip
    return aiohttp.ClientSession(
        connector=connector(reach=reach, exempt=exempt, resolver=names, dns_cache_s=dns_cache_s, probes=probes),
        timeout=aiohttp.ClientTimeout(total=10),
    )


async def failure(client: aiohttp.ClientSession, url: str) -> Exception:
    with pytest.raises(aiohttp.ClientError) as caught:
        await client.post(url)
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_literal_in_reach_is_connected_to_in_both_families(host: str):
    try:
        async with listening(host) as agent, session() as client:
            literal = f"[{host}]" if ":" in host else host
            async with client.post(f"http://{literal}:{agent.port}/") as answer:
                assert answer.status == 200
            assert agent.peers[0][0] == host
    except OSError as error:
        if ":" not in host:
            raise
        pytest.skip(f"no IPv6 here: {error}")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", METADATA, "0.0.0.0", "[::]"])
async def test_a_literal_out_of_reach_is_never_connected_to(agent: Agent, host: str):
    async with session(reach=Reach.HOSTED) as client:
        reason = refused(await failure(client, f"http://{host}:{agent.port}/"))
    assert reason
    assert agent.peers == []


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "[::ffff:7f00:1]"])
async def test_no_spelling_of_loopback_gets_through(agent: Agent, host: str):
    async with session(reach=Reach.HOSTED) as client:
        await failure(client, f"http://{host}:{agent.port}/")
    assert agent.peers == []


async def test_a_name_that_the_system_resolves_is_checked_by_its_addresses(agent: Agent):
    async with session(reach=Reach.HOSTED) as client:
        assert refused(await failure(client, f"http://localhost:{agent.port}/")) == "the address is a loopback address"
    async with session() as client, client.post(f"http://localhost:{agent.port}/") as answer:
        assert answer.status == 200


async def test_a_name_that_turns_to_a_refused_address_is_refused_at_the_next_connection(agent: Agent):
    names = Names(["127.0.0.1"], [METADATA])
    async with session(names=names, dns_cache_s=0) as client:
        url = f"http://rebinding.example:{agent.port}/"
        async with client.post(url, headers={"Connection": "close"}) as answer:
            assert answer.status == 200
        assert refused(await failure(client, url)) == "the address is link-local"
    assert names.asked == 2


async def test_a_name_is_not_asked_again_between_check_and_connect(agent: Agent):
    names = Names(["127.0.0.1"], [METADATA])
    async with session(names=names) as client, client.post(f"http://once.example:{agent.port}/") as answer:
        assert answer.status == 200
    assert names.asked == 1


@pytest.mark.parametrize(
    "answer", [[METADATA, "127.0.0.1"], ["127.0.0.1", METADATA], ["fe80::1", "0.0.0.0", "127.0.0.1"]]
)
async def test_a_mixed_answer_leads_to_its_safe_addresses(agent: Agent, answer: list[str]):
    async with session(names=Names(answer)) as client, client.post(f"http://mixed.example:{agent.port}/") as response:
        assert response.status == 200


@pytest.mark.parametrize("answer", [[METADATA], [METADATA, "100.100.100.200", "fe80::1", "fe80::1%eth0", "no address"]])
async def test_an_answer_without_a_safe_address_is_told_as_refused(answer: list[str]):
    async with session(names=Names(answer)) as client:
        assert refused(await failure(client, "http://unsafe.example/")) == "the address is link-local"


async def test_all_who_wait_for_one_answer_are_told_the_same():
    names = Names([METADATA])
    async with session(names=names) as client:
        errors = await asyncio.gather(*(failure(client, "http://unsafe.example/") for _ in range(5)))
    assert {refused(error) for error in errors} == {"the address is link-local"}


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], [METADATA, "127.0.0.1"]])
async def test_a_connect_that_was_tried_and_failed_is_not_told_as_refused(closed_port: int, answer: list[str]):
    async with session(names=Names(answer)) as client:
        error = await failure(client, f"http://down.example:{closed_port}/")
    assert isinstance(error, aiohttp.ClientConnectorError)
    assert refused(error) is None


async def test_a_name_without_an_address_is_not_told_as_refused():
    async with session(names=Names([])) as client:
        error = await failure(client, "http://empty.example/")
    assert isinstance(error, aiohttp.ClientConnectorDNSError)
    assert refused(error) is None


async def test_an_agent_on_the_second_family_is_reached_when_the_first_is_closed(agent: Agent):
    names = Names(["::1", "127.0.0.1"])
    async with session(names=names) as client, client.post(f"http://both.example:{agent.port}/") as answer:
        assert answer.status == 200
    assert agent.peers[0][0] == "127.0.0.1"


async def test_only_so_many_addresses_of_a_name_are_tried(agent: Agent):
    closed = [f"127.0.0.{n}" for n in range(2, MAX_ADDRESSES + 1)]
    names = Names([*closed, "127.0.0.1"])
    async with session(names=names) as client, client.post(f"http://last.example:{agent.port}/") as answer:
        assert answer.status == 200
    async with session(names=Names([*closed, "127.0.0.100", "127.0.0.1"])) as client:
        assert refused(await failure(client, f"http://endless.example:{agent.port}/")) is None


async def test_a_provisioned_address_may_be_private_but_is_not_exempt_from_the_rest(closed_port: int):
    asked: list[str] = []

    def exempt(address: str) -> bool:
        asked.append(address)
        return True

    async with session(reach=Reach.HOSTED, exempt=exempt) as client:
        for host in ("127.0.0.1", METADATA):
            assert refused(await failure(client, f"http://{host}:{closed_port}/"))
    assert asked == ["127.0.0.1", METADATA]


async def test_a_private_address_is_reached_only_while_it_is_ours():
    ours = {"10.255.255.1"}
    where = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.255.255.1", 80))
    async with connector(reach=Reach.HOSTED, exempt=ours.__contains__) as made:
        assert made._socket_factory is not None
        made._socket_factory(where).close()
        ours.clear()
        with pytest.raises(OSError) as caught:
            made._socket_factory(where)
    assert refused(caught.value) == "the address is in a private network"


async def test_the_check_of_the_final_address_holds_when_the_answer_passed_earlier():
    """The answer of the name passes, and then the address is ours no longer: several failures are still one refusal."""
    told = iter([True, True])
    names = Names(["10.255.255.1", "fd00::1"])
    async with session(reach=Reach.HOSTED, names=names, exempt=lambda _: next(told, False)) as client:
        assert refused(await failure(client, "http://late.example/")) == "the address is in a private network"


@pytest.mark.parametrize(
    ("probes", "wanted"),
    [
        (None, TCP_OPTIONS),
        (
            Probes(idle_s=7, every_s=2, count=4),
            TCP_OPTIONS | {"TCP_KEEPIDLE": 7, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 15_000},
        ),
    ],
)
async def test_the_system_watches_over_a_connection_and_sends_at_once(
    agent: Agent, probes: Probes | None, wanted: Mapping[str, int]
):
    async with session(probes=probes) as client, client.post(f"http://127.0.0.1:{agent.port}/open") as answer:
        assert answer.connection is not None
        assert answer.connection.transport is not None
        opened = answer.connection.transport.get_extra_info("socket")
        names = [name for name in TCP_OPTIONS if hasattr(socket, name)]
        read = {name: opened.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        agent.ending.set()
        await answer.read()
    assert read == {name: wanted[name] for name in names}
    assert "TCP_NODELAY" in read


async def test_more_connections_stay_open_than_the_client_allows_by_itself(agent: Agent):
    async with session() as client, asyncio.timeout(10):
        url = f"http://127.0.0.1:{agent.port}/open"
        answers = [await client.post(url) for _ in range(101)]
        agent.ending.set()
        assert {answer.status for answer in answers} == {200}
        for answer in answers:
            answer.release()


async def test_a_connection_is_used_again(agent: Agent):
    async with session() as client:
        for _ in range(3):
            async with client.post(f"http://127.0.0.1:{agent.port}/") as answer:
                await answer.read()
    assert len(set(agent.peers)) == 1


class HangingUp:
    """A server in a thread that answers the first request of each connection, keeps it, and closes it when told."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.requests = 0
        self.hang_up = threading.Event()
        self.hung_up = threading.Event()
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                if not connection.recv(65536):
                    return
                self.requests += 1
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                self.hang_up.wait(10)
            self.hung_up.set()


@contextmanager
def hanging_up() -> Iterator[HangingUp]:
    server = HangingUp()
    server.thread.start()
    try:
        yield server
    finally:
        server.hang_up.set()
        socket.create_connection(("127.0.0.1", server.port)).close()
        server.thread.join()
        server.listener.close()


async def test_a_connection_is_not_used_again_when_its_close_has_arrived_but_was_not_read_yet():
    with hanging_up() as server:
        async with session() as client:
            url = f"http://127.0.0.1:{server.port}/"
            async with client.post(url) as answer:
                await answer.read()
            server.hang_up.set()
            assert server.hung_up.wait(10)  # holds the event loop up, on purpose
            async with client.post(url) as answer:
                assert await answer.read() == b"ok"
        assert server.requests == 2


async def test_a_resolver_that_is_handed_in_stays_open():
    names = Names(["127.0.0.1"])
    async with connector(reach=Reach.SAME_NETWORK, resolver=names):
        pass
    assert not names.closed


@pytest.mark.parametrize("reach", [Reach.SAME_NETWORK, replace(Reach.SAME_NETWORK, ports=(range(8000, 8001),))])
async def test_the_final_port_is_checked_with_the_final_address(reach: Reach):
    async with session(reach=reach, names=Names(["127.0.0.1"])) as client:
        for host in ("127.0.0.1", "[::1]", "agent.example"):
            assert refused(await failure(client, f"http://{host}:6379/")) == "the port is not one for agents"
