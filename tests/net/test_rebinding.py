"""Names that lead where they should not: a real name server lies, and no agent is called in the wrong place."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from gateway.core.address import Reach
from gateway.core.outcomes import Answered, NotConnected
from gateway.net import connector, dispatch
from gateway.net.clocks import Clocks
from gateway.net.connector import refused
from gateway.ports import Outbound
from gateway.services.room import Room
from gateway.services.tasks import Tasks
from tests.harness import agent, dns
from tests.harness.agent import ScriptedAgent
from tests.harness.dns import NameServer
from tests.harness.liveness import ScriptedLiveness

METADATA = "169.254.169.254"
LINK_LOCAL = "the address is link-local"
ANSWER_S = 10.0
"""The longest that any of these may take."""


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with dns.running() as server:
        yield server


@pytest.fixture
async def called() -> AsyncIterator[ScriptedAgent]:
    async with agent.running() as one:
        yield one


OUTBOUND = Outbound(
    hold=Room(2**30).hold(),
    call_id="c", workspace_id="w", url="", body=b"{}", headers={"Connection": "close"}, idle_s=30.0, limit_s=None,
    by_deadline=False,
)  # fmt: skip


@asynccontextmanager
async def sending(names: NameServer, *, connect_s: float = 5.0) -> AsyncIterator[dispatch.Dispatcher]:
    """A dispatcher as the gateway has it, which asks this name server each time."""
    resolver = names.resolver()
    opened = connector.connector(reach=Reach.SAME_NETWORK, resolver=resolver, dns_cache_s=0)
    async with asyncio.timeout(ANSWER_S), Tasks() as tasks:
        clocks = Clocks(silence=ScriptedLiveness(), spawn=tasks.spawn, bus_lost_s=60)
        async with dispatch.opened(opened, clocks, connect_s=connect_s, limit_bytes=1000) as dispatcher:
            yield dispatcher
    await resolver.close()


@asynccontextmanager
async def asking(
    names: NameServer, *, reach: Reach = Reach.SAME_NETWORK, dns_cache_s: int = 0, resolve_s: float = 5.0
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with the gateway's connector, which asks this name server each time unless it is told otherwise."""
    resolver = names.resolver()
    made = connector.connector(reach=reach, resolver=resolver, dns_cache_s=dns_cache_s, resolve_s=resolve_s)
    async with asyncio.timeout(ANSWER_S), aiohttp.ClientSession(connector=made) as session:
        yield session
    await resolver.close()


async def post(session: aiohttp.ClientSession, host: str, called: ScriptedAgent) -> int | str | None:
    """Call the agent under this name; return the status, the reason of a refusal, or None if no connect succeeded."""
    url = called.url.replace("127.0.0.1", host)
    try:
        async with session.post(url, data=b"{}", headers={"Connection": "close"}) as answer:
            return answer.status
    except aiohttp.ClientConnectorError as error:
        return refused(error)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where the family of each socket that is opened for a connection will stand."""
    opened: list[int] = []
    real = connector._open_socket

    def opening(family: int, *others: Any) -> socket.socket:
        opened.append(family)
        return real(family, *others)

    monkeypatch.setattr(connector, "_open_socket", opening)
    return opened


async def test_a_name_that_is_bound_to_another_address_is_checked_at_each_connection(
    names: NameServer, called: ScriptedAgent
):
    names.says("rebinding.test", ["127.0.0.1"], [METADATA], ["127.0.0.1"], ["0.0.0.0", "fd00:ec2::254"])
    async with asking(names) as session:
        assert await post(session, "rebinding.test", called) == 200
        assert await post(session, "rebinding.test", called) == LINK_LOCAL
        assert await post(session, "rebinding.test", called) == 200
        assert await post(session, "rebinding.test", called) in (
            "the address is unspecified", "the address serves the metadata of a cloud"
        )  # fmt: skip
    assert len(called.bodies) == 2


async def test_the_address_that_was_checked_is_the_one_that_is_used_whatever_the_next_answer_would_be(
    names: NameServer, called: ScriptedAgent
):
    """Whoever asked twice, once to check and once to connect, would get the second answer."""
    names.says("flipping.test", ["127.0.0.1"], [METADATA])
    async with asking(names) as session:
        assert await post(session, "flipping.test", called) == 200
    assert sorted(names.asked) == [("flipping.test", "A"), ("flipping.test", "AAAA")]


async def test_an_answer_that_is_good_for_no_time_is_kept_for_as_long_as_ours_says(
    names: NameServer, called: ScriptedAgent
):
    names.says("hasty.test", ["127.0.0.1"], [METADATA])
    async with asking(names, dns_cache_s=10) as session:
        assert [await post(session, "hasty.test", called) for _ in range(3)] == [200, 200, 200]
    assert names.asked.count(("hasty.test", "A")) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1", "fe80::1"],
        ["127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254"],
        ["127.0.0.1", "fd00:ec2::254", METADATA, "100.100.100.200", "0.0.0.0"],
        [*[f"169.254.{n // 250}.{n % 250}" for n in range(999)], "127.0.0.1"],
    ],
    ids=["families", "disguises", "many", "a-thousand"],
)
async def test_of_a_mixed_answer_only_the_safe_addresses_are_connected_to(
    names: NameServer, called: ScriptedAgent, answer: list[str], monkeypatch: pytest.MonkeyPatch
):
    opened = watched(monkeypatch)
    names.says("mixed.test", answer)
    async with asking(names) as session:
        assert await post(session, "mixed.test", called) == 200
    assert opened == [socket.AF_INET]


async def test_a_thousand_addresses_where_nobody_listens_are_not_all_tried(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
):
    opened = watched(monkeypatch)
    names.says("crowd.test", [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000)])
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        nobody = ScriptedAgent(url=f"http://127.0.0.1:{kept.getsockname()[1]}/")
        async with asking(names) as session:
            assert await post(session, "crowd.test", nobody) is None
    most = connector.MAX_ADDRESSES
    assert (
        most <= len(opened) <= most * (most + 1) // 2
    )  # the library begins again without the first, while there are any


@pytest.mark.parametrize(
    ("to", "told"),
    [
        (["127.0.0.1"], 200),
        ([METADATA], LINK_LOCAL),
        (["::ffff:169.254.169.254"], LINK_LOCAL),
        ([METADATA, "fe80::1", "127.0.0.1"], 200),
    ],
    ids=["safe", "unsafe", "disguised", "mixed"],
)
async def test_aliases_are_judged_by_the_address_at_their_end(
    names: NameServer, called: ScriptedAgent, to: list[str], told: int | str
):
    names.leads("alias.test", "another.test", "third.test", "end.test", to=to)
    async with asking(names) as session:
        assert await post(session, "alias.test", called) == told
    assert len(called.bodies) == (told == 200)


async def test_aliases_that_lead_in_a_circle_lead_nowhere(names: NameServer, called: ScriptedAgent):
    names.leads("here.test", "there.test", "here.test", to=[])
    async with asking(names) as session:
        assert await post(session, "here.test", called) is None
    assert called.bodies == []


@pytest.mark.parametrize("answers", [[], None], ids=["nothing", "silence"])
async def test_a_name_without_an_answer_is_away_and_not_refused(
    names: NameServer, called: ScriptedAgent, answers: list[str] | None
):
    names.says("mute.test", answers)
    async with asking(names, resolve_s=0.2) as session:
        assert await post(session, "mute.test", called) is None
    assert called.bodies == []


@pytest.mark.parametrize("to", ["127.0.0.1", "10.0.0.1", "172.17.0.1", "fd00::1", "::1", METADATA])
async def test_when_hosted_no_name_leads_into_a_network_of_the_inside(
    names: NameServer, called: ScriptedAgent, to: str
):
    names.says("inside.test", [to])
    async with asking(names, reach=Reach.HOSTED) as session:
        assert isinstance(await post(session, "inside.test", called), str)
    assert called.bodies == []


async def test_a_name_is_no_way_around_the_ports(names: NameServer):
    names.says("agent.test", ["127.0.0.1"])
    async with asking(names, reach=replace(Reach.SAME_NETWORK, ports=(range(1, 2),))) as session:
        nobody = ScriptedAgent(url="http://127.0.0.1:8000/")
        assert await post(session, "agent.test", nobody) == "the port is not one for agents"


async def test_all_addresses_of_a_name_together_have_the_time_for_one_connection(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
):
    opened = watched(monkeypatch)
    names.says("deaf.test", ["127.0.0.1"] * 8)
    with socket.socket() as deaf, socket.socket() as filling:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filling.setblocking(False)
        for _ in range(3):  # fills the queue of the one who never accepts
            filling.connect_ex(("127.0.0.1", deaf.getsockname()[1]))
        async with sending(names, connect_s=0.1) as dispatcher:
            outcome = await dispatcher.send(replace(OUTBOUND, url=f"http://deaf.test:{deaf.getsockname()[1]}/"))
    assert outcome == NotConnected()
    assert len(opened) == 2  # the call and its one repetition; the next address would have its turn after 0.25 s


async def test_a_call_to_a_rebinding_name_ends_as_unsafe_and_a_redirect_is_not_followed(
    names: NameServer, called: ScriptedAgent
):
    """What the gateway itself does: it tries twice, and neither time where the name leads now."""
    names.says("agent.test", ["127.0.0.1"], [METADATA])
    names.says("elsewhere.test", ["127.0.0.1"])
    elsewhere = called.url.replace("127.0.0.1", "elsewhere.test")
    async with agent.running(agent.redirecting(elsewhere)) as led, sending(names) as dispatcher:
        outbound = replace(OUTBOUND, url=led.url.replace("127.0.0.1", "agent.test"))
        first = await dispatcher.send(outbound)
        second = await dispatcher.send(outbound)
    assert isinstance(first, Answered)
    assert (first.status, "Location" in first.headers) == (307, False)
    assert second == NotConnected(unsafe=True)
    assert (len(led.bodies), called.bodies) == (1, [])
    assert ("elsewhere.test", "A") not in names.asked
