"""A message that is sent many times is one call, whichever replica it comes to, and whatever happens meanwhile."""

import asyncio
import signal
from collections.abc import Mapping
from typing import Any, Final

import pytest
from aiohttp import web

from tests.e2e.test_limits import metrics, two
from tests.harness import valkey as valkeys
from tests.harness.agent import Behaviour, result
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

CLIENTS: Final = 50
LEASE_S: Final = 15.0
"""A replica that has been dead for so long counts as dead."""
SOON_S: Final = 15.0


async def send(
    world: World,
    to: Workspace,
    *,
    id_: Any = 1,
    message_id: str | None = "m-1",
    text: str = "hi",
    gateway: GatewayProcess | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    """Send this message."""
    message = {"role": "user", "parts": [{"kind": "text", "text": text}]}
    if message_id is not None:
        message["messageId"] = message_id
    body = {"jsonrpc": "2.0", "id": id_, "method": "message/send", "params": {"message": message}}
    async with asyncio.timeout(LEASE_S + SOON_S):
        return await world.request(
            "POST", f"/workspaces/{to.id}/a2a", json=body, gateway=gateway, headers=dict(headers or {})
        )


def once(opened: asyncio.Event) -> Behaviour:
    """Answers when it is let to."""

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await opened.wait()
        return web.json_response(result(body, text="done"))

    return behave


async def resetting(request: web.Request) -> web.StreamResponse:
    """Hangs up after it has taken the message."""
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def joined(world: World, count: int) -> None:
    """Wait until so many calls have joined others."""

    async def ask() -> float:
        return sum([(await metrics(world, one))["gateway_calls_joined_total"] for one in world.gateways])

    await until(ask, lambda found: found == count)


async def test_fifty_clients_that_send_one_message_through_two_replicas_make_one_call(world: World) -> None:
    gateways = await two(world)
    opened = asyncio.Event()
    agent = await world.agent(once(opened))
    target, caller = await world.workspace(agent.url), await world.workspace()
    async with asyncio.TaskGroup() as group:
        sent = [
            group.create_task(
                send(world, target, id_=f"id-{number}", gateway=gateways[number % 2], headers=caller.bearer)
            )
            for number in range(CLIENTS)
        ]
        await joined(world, CLIENTS - 1)
        opened.set()
    answers = [one.result() for one in sent]
    assert [status for status, _, _ in answers] == [200] * CLIENTS
    assert [body["id"] for _, body, _ in answers] == [f"id-{number}" for number in range(CLIENTS)]
    assert {body["result"]["parts"][0]["text"] for _, body, _ in answers} == {"done"}
    assert len(agent.bodies) == 1
    [call_id] = {headers["X-A2A-Call-ID"] for _, _, headers in answers}
    received = "select call_id::text from activity where activity_type = 'a2a_receive'"
    assert await until(lambda: world.sql(received), len) == [(call_id,)]


async def test_who_asks_again_gets_the_answer_and_who_says_something_else_with_the_same_id_is_refused(
    world: World,
) -> None:
    gateways = await two(world)
    agent = await world.agent()
    target, caller, another = await world.workspace(agent.url), await world.workspace(), await world.workspace()
    _, first, headers = await send(world, target, headers=caller.bearer)
    for number, gateway in enumerate(gateways):
        status, body, again = await send(world, target, id_=number, gateway=gateway, headers=caller.bearer)
        assert (status, body) == (200, {**first, "id": number})
        assert again["X-A2A-Call-ID"] == headers["X-A2A-Call-ID"]
        assert again["Content-Type"] == headers["Content-Type"]
        status, body, _ = await send(world, target, text="other words", gateway=gateway, headers=caller.bearer)
        assert (status, body["code"], body["field"]) == (409, "message_id_reused", "params.message.messageId")
        assert body["call_id"] == headers["X-A2A-Call-ID"]
    assert len(agent.bodies) == 1
    assert (await send(world, target, headers=another.bearer))[0] == 200, "it is another's message"
    assert (await send(world, target))[0] == 200, "and a person's"
    assert len(agent.bodies) == 3
    for _ in range(2):
        assert (await send(world, target, message_id=None, headers=caller.bearer))[0] == 200
    assert len(agent.bodies) == 5, "a message without an id of its own is always a new one"


async def test_an_answer_is_kept_for_its_time_and_the_message_is_a_new_call_after_it(world: World) -> None:
    await world.start(GATEWAY_ANSWER_SECONDS="0.3")
    agent = await world.agent()
    target = await world.workspace(agent.url)
    call_ids = set()

    async def ask() -> int:
        status, _, headers = await send(world, target)
        assert status == 200
        call_ids.add(headers["X-A2A-Call-ID"])
        return len(agent.bodies)

    assert await ask() == 1
    await until(ask, lambda calls: calls == 2)
    assert len(call_ids) == 2


async def test_of_an_answer_that_is_too_large_only_the_call_is_known(world: World) -> None:
    gateways = await two(world, GATEWAY_ANSWER_BYTES="20")
    agent = await world.agent()
    target = await world.workspace(agent.url)
    _, _, headers = await send(world, target)
    for gateway in gateways:
        status, body, _ = await send(world, target, gateway=gateway)
        assert (status, body["code"], body["call_id"]) == (409, "already_completed", headers["X-A2A-Call-ID"])
    assert len(agent.bodies) == 1
    assert sum([(await metrics(world, one))["gateway_answers_unkept_total"] for one in gateways]) == 1


async def test_what_an_agent_may_have_done_is_not_done_again(world: World) -> None:
    gateways = await two(world)
    agent = await world.agent(resetting)
    target = await world.workspace(agent.url)
    for gateway in gateways * 2:
        status, body, _ = await send(world, target, gateway=gateway)
        assert (status, body["code"], body["outcome"]) == (503, "agent_reset", "unknown")
    assert len(agent.bodies) == 1
    assert (await send(world, target, message_id="m-2"))[0] == 503
    assert len(agent.bodies) == 2


async def test_what_reached_no_agent_is_sent_again(world: World) -> None:
    gateways = await two(world)
    agent = await world.agent()
    target = await world.workspace(f"http://127.0.0.1:{valkeys.free_port()}/")
    for gateway in gateways:
        status, body, _ = await send(world, target, gateway=gateway)
        assert (status, body["code"]) == (502, "agent_unreachable")
    assert (await world.request("PATCH", f"/workspaces/{target.id}", json={"url": agent.url}))[0] == 200
    await until(lambda: send(world, target, gateway=gateways[1]), lambda said: said[0] == 200)
    assert (await send(world, target, gateway=gateways[0]))[0] == 200
    assert len(agent.bodies) == 1


async def test_one_caller_cannot_take_all_places_of_those_that_wait_for_earlier_calls(world: World) -> None:
    """It need not even stay: who has joined waits to the end."""
    await world.start(GATEWAY_MAX_CALLS="4", GATEWAY_MAX_CALLS_EACH="2")
    opened = asyncio.Event()
    agent = await world.agent(once(opened))
    target, greedy, other = await world.workspace(agent.url), await world.workspace(), await world.workspace()
    async with asyncio.TaskGroup() as group:
        many = [group.create_task(send(world, target, headers=greedy.bearer)) for _ in range(8)]
        await eventually(lambda: sum(one.done() for one in many) == 6)
        assert {one.result()[1]["code"] for one in many if one.done()} == {"overloaded"}
        mine = [group.create_task(send(world, target, headers=other.bearer)) for _ in range(2)]
        await joined(world, 2)
        opened.set()
    assert [one.result()[0] for one in mine] == [200, 200]


async def test_a_first_caller_that_goes_away_takes_nothing_from_those_that_have_joined(world: World) -> None:
    gateways = await two(world)
    opened = asyncio.Event()
    agent = await world.agent(once(opened))
    target = await world.workspace(agent.url)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await send(world, target, gateway=gateways[0])
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(send(world, target, gateway=gateway)) for gateway in gateways]
        await joined(world, 2)
        opened.set()
    assert [one.result()[0] for one in others] == [200, 200]
    assert len(agent.bodies) == 1


async def test_those_that_have_joined_a_call_whose_replica_is_killed_hear_that_it_was_interrupted(world: World) -> None:
    dying, staying = await two(world)
    opened = asyncio.Event()
    agent = await world.agent(once(opened))
    target = await world.workspace(agent.url)

    async def call() -> None:
        with pytest.raises(Exception, match=r"disconnected|reset"):
            await send(world, target, gateway=dying)

    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        await eventually(lambda: agent.bodies)
        waiting = [group.create_task(send(world, target, gateway=staying)) for _ in range(3)]
        await joined(world, 3)
        dying.send(signal.SIGKILL)
        world.gateways.remove(dying)
    opened.set()
    for one in [*(task.result() for task in waiting), await send(world, target)]:
        status, body, headers = one
        assert (status, body["code"], body["outcome"]) == (503, "interrupted", "unknown")
        assert body["call_id"] == headers["X-A2A-Call-ID"]
    assert len(agent.bodies) == 1, "nobody knows how far it came, so nobody sends it again"
    assert (await send(world, target, message_id="m-2"))[0] == 200


async def test_those_that_have_joined_a_call_whose_replica_is_stopped_hear_that_it_was_interrupted(
    world: World,
) -> None:
    going, staying = await two(world, GATEWAY_DRAIN_SECONDS="0.5")
    agent = await world.agent(once(asyncio.Event()))
    target = await world.workspace(agent.url)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(send(world, target, gateway=going))
        await eventually(lambda: agent.bodies)
        other = group.create_task(send(world, target, gateway=staying))
        await joined(world, 1)
        assert await going.stop() == 0
    status, body, _ = first.result()
    assert (status, body["code"], body["outcome"]) == (503, "gateway_shutdown", "unknown")
    for status, body, headers in (other.result(), await send(world, target, gateway=staying)):
        assert (status, body["code"], body["outcome"]) == (503, "interrupted", "unknown")
        assert "Retry-After" not in headers, "this gateway is not shutting down, and does not send it again"
    assert len(agent.bodies) == 1


async def test_a_message_in_an_inbox_is_there_once_and_its_answer_is_everybodys(world: World) -> None:
    one, two_ = await two(world)
    target, caller = await world.workspace(delivery_mode="poll"), await world.workspace()
    inbox = f"/workspaces/{target.id}/inbox"
    waits = {**caller.bearer, "Prefer": "wait=30"}
    _, parked, _ = await send(world, target, gateway=one, headers=caller.bearer)
    _, again, headers = await send(world, target, gateway=two_, headers=caller.bearer)
    assert (again, headers["X-A2A-Call-ID"]) == (parked, parked["id"])
    async with asyncio.TaskGroup() as group:
        staying = [
            group.create_task(send(world, target, id_=number, gateway=gateway, headers=waits))
            for number, gateway in enumerate((one, two_))
        ]
        await joined(world, 3)
        _, taken, _ = await world.request("GET", inbox, headers=target.bearer)
        assert [message["id"] for message in taken["messages"]] == [parked["id"]]
        await world.request("POST", f"{inbox}/{parked['id']}/ack", headers=target.bearer)
        answer = {"jsonrpc": "2.0", "id": "theirs", "result": {"kind": "task", "id": "t"}}
        status, _, _ = await world.request(
            "POST", f"{inbox}/{parked['id']}/reply", headers=target.bearer, json={"body": answer}
        )
        assert status == 200, "those that have joined stay for the answer, though the first caller does not"
    assert [task.result()[:2] for task in staying] == [(200, {**answer, "id": number}) for number in range(2)]
    for gateway in (one, two_):
        assert (await send(world, target, id_="x", gateway=gateway, headers=caller.bearer))[1] == {**answer, "id": "x"}
        status, body, _ = await send(world, target, text="other words", gateway=gateway, headers=caller.bearer)
        assert (status, body["code"], body["call_id"]) == (409, "message_id_reused", parked["id"])
    assert await world.sql("select count(*) from calls") == [(1,)]


async def test_while_redis_is_away_only_the_calls_of_a_replica_are_joined(world: World) -> None:
    async with valkeys.running() as broker:
        gateway = await world.start(GATEWAY_REDIS_URL=broker.url, GATEWAY_ADMISSION_SECONDS="0.2")
        opened = asyncio.Event()
        agent = await world.agent(once(opened))
        target = await world.workspace(agent.url)
        broker.stall()
        unchecked = (await metrics(world, gateway))["gateway_requests_unchecked_total"]
        async with asyncio.TaskGroup() as group:
            sent = [group.create_task(send(world, target, id_=number)) for number in range(10)]
            await joined(world, 9)
            opened.set()
        assert [task.result()[1]["id"] for task in sent] == list(range(10))
        assert len(agent.bodies) == 1
        assert (await send(world, target))[0] == 200
        assert len(agent.bodies) == 2, "what has ended is not known any more"
        assert (await metrics(world, gateway))["gateway_requests_unchecked_total"] >= unchecked + 10
        broker.go_on()
        await until(lambda: send(world, target, message_id="m-2"), lambda _: len(agent.bodies) == 3)
        await until(lambda: send(world, target, message_id="m-3"), lambda _: True)
