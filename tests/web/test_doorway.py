"""web.doorway: who comes too many is told so, and takes no place from those who are inside."""

import asyncio
from contextlib import AsyncExitStack

from gateway.web import doorway
from gateway.web.doorway import Doorway
from tests.harness.client import connected, head
from tests.harness.process import GatewayProcess
from tests.harness.world import ADMIN_TOKEN, World, eventually

PLACES = 8
HEALTH = head("GET", "/healthz")


async def reading(world: World, gateway: GatewayProcess, name: str) -> float:
    """One of the process's own readings."""
    _, text, _ = await world.request("GET", "/metrics", gateway=gateway, headers={"Connection": "close"})
    [line] = [line for line in text.decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


async def test_one_too_many_is_told_to_come_back_and_those_inside_go_on(world: World):
    gateway = await world.start(GATEWAY_MAX_CONNECTIONS=str(PLACES))
    async with AsyncExitStack() as stack:
        inside = [await stack.enter_async_context(connected(gateway.url)) for _ in range(PLACES)]
        for one in inside:
            await one.send(HEALTH)
            await one.until(b"}")
        for _ in range(3):
            async with connected(gateway.url) as extra:
                await extra.send(head("POST", "/workspaces", "Content-Length: 100000") + b" " * 100_000)
                answer = await extra.rest(within_s=doorway.LINGER_S + 3)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 2\r\n" in answer
            assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
            assert answer.endswith(b'{"error":"too many connections","code":"overloaded"}')
        for one in inside:
            await one.send(HEALTH)
            assert b"200 OK" in await one.until(b"}")
    await eventually_counts(world, gateway, turned_away=3)


async def eventually_counts(world: World, gateway: GatewayProcess, *, turned_away: int) -> None:
    """Wait until there is a place again, and compare."""
    async with asyncio.timeout(10):
        while True:
            async with connected(gateway.url) as one:
                await one.send(head("GET", "/metrics", "Connection: close"))
                said = await one.rest()
            if said.startswith(b"HTTP/1.1 200"):
                break
    counted = {line.split()[0]: line.split()[1] for line in said.splitlines() if line.startswith(b"gateway_conn")}
    assert float(counted[b"gateway_connections"]) == 1
    assert float(counted[b"gateway_connections_turned_away_total"]) >= turned_away


async def test_event_streams_and_sockets_take_places_too_and_give_them_back(world: World):
    gateway = await world.start(GATEWAY_MAX_CONNECTIONS="3")
    stream = head("GET", "/events/stream")
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with connected(gateway.url) as one, connected(gateway.url) as other:
        for reader in (one, other):
            await reader.send(stream)
            await reader.until(b": ok")
        socket = world.session.ws_connect(f"{gateway.url}/ws", headers=headers)
        async with socket, connected(gateway.url) as extra:
            await extra.send(stream)
            assert b"503" in await extra.until(b"\r\n")
    await eventually_counts(world, gateway, turned_away=1)


async def test_a_crowd_over_the_limit_costs_no_more_than_its_bound_and_who_says_nothing_is_let_go(world: World):
    gateway = await world.start(GATEWAY_MAX_CONNECTIONS="1")
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(connected(gateway.url)) for _ in range(doorway.TOLD_AT_ONCE * 2)]
        ended = await asyncio.gather(*(one.ended(doorway.LINGER_S + 5) for one in crowd[1:]))
        assert all(ended)
        await crowd[0].send(HEALTH)
        assert b"200 OK" in await crowd[0].until(b"}")


def test_places_inside_count_those_that_others_look_after():
    streams = 0
    one = Doorway(limit=2, elsewhere=lambda: streams)
    one.enter()
    assert not one.is_full
    streams = 1
    assert one.is_full
    one.leave()
    assert (one.open, one.is_full) == (1, False)
    assert not Doorway().is_full


async def test_a_gateway_says_at_its_start_how_many_may_come(world: World):
    gateway = await world.start(GATEWAY_MAX_CONNECTIONS="77")
    await eventually(lambda: '"max_connections": 77' in gateway.log())
