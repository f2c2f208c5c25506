"""Agents that poll: their calls are safe before they are acknowledged, and answered wherever their callers wait."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.harness import valkey as valkeys
from tests.harness.locks import locked
from tests.harness.process import GatewayProcess
from tests.harness.world import ADMIN_TOKEN, Workspace, World

SOON_S = 8.0
"""Much less than those who wait here would, and enough for a busy machine."""


def answer(text: str) -> dict[str, Any]:
    message = {"kind": "message", "role": "agent", "messageId": "r-1", "parts": [{"kind": "text", "text": text}]}
    return {"jsonrpc": "2.0", "id": "the agent's own", "result": message}


async def polling(world: World, **fields: Any) -> Workspace:
    return await world.workspace(delivery_mode="poll", **fields)


async def take(
    world: World, of: Workspace, *, wait: float = 0, gateway: GatewayProcess | None = None, limit: int = 10
) -> list[dict[str, Any]]:
    status, body, _ = await world.request(
        "GET", f"/workspaces/{of.id}/inbox?wait={wait}&limit={limit}", headers=of.bearer, gateway=gateway
    )
    assert status == 200, body
    return body["messages"]


async def settle(
    world: World, of: Workspace, id_: str, verb: str, body: Any = None, gateway: GatewayProcess | None = None
) -> tuple[int, Any]:
    status, said, _ = await world.request(
        "POST", f"/workspaces/{of.id}/inbox/{id_}/{verb}", headers=of.bearer, json=body, gateway=gateway
    )
    return status, said


async def look(
    world: World, of: Workspace, id_: str, headers: Mapping[str, str | None] | None = None
) -> tuple[int, Any]:
    status, body, _ = await world.request("GET", f"/workspaces/{of.id}/a2a/calls/{id_}", headers=dict(headers or {}))
    return status, body


async def test_a_call_is_parked_fetched_and_answered(world: World):
    await world.start()
    target = await polling(world)
    status, parked, headers = await world.call(target, "hello")
    assert status == 200
    assert parked == {"status": "queued", "delivery_mode": "poll", "method": "message/send", "id": parked["id"]}
    assert headers["X-A2A-Call-ID"] == parked["id"]
    assert (await look(world, target, parked["id"]))[1]["state"] == "parked"
    [message] = await take(world, target)
    assert (message["id"], message["attempts"], message["source_id"]) == (parked["id"], 1, None)
    assert message["request"]["params"]["message"]["parts"] == [{"kind": "text", "text": "hello"}]
    assert await take(world, target) == []  # somebody has it
    assert await settle(world, target, parked["id"], "reply", {"body": answer("hi")}) == (
        200,
        {"status": "replied", "state": "completed"},
    )
    status, call = await look(world, target, parked["id"], target.bearer)
    assert (status, call["state"], call["ending"], call["attempts"]) == (200, "completed", "completed", 1)
    assert call["response_body"] == answer("hi")


async def until(world: World, of: Workspace, id_: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask how a call stands until it stands so."""
    async with asyncio.timeout(SOON_S):
        while True:
            status, call = await look(world, of, id_)
            if status == 200 and reached(call):
                return call


async def parked(world: World, target: Workspace) -> str:
    """Wait until a call lies in the inbox, and return its id."""
    async with asyncio.timeout(SOON_S):
        while True:
            if rows := await world.sql("select id::text from calls where workspace_id = %s", target.id):
                return str(rows[0][0])


def waits(seconds: float) -> dict[str, str]:
    return {"Prefer": f"wait={seconds:g}"}


async def test_an_agent_that_waits_on_one_replica_gets_what_comes_to_another(world: World):
    one, two = await world.start(), await world.start()
    target = await polling(world)
    async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
        taken = group.create_task(take(world, target, wait=30, gateway=two))
        await eventually_waiting(world, "gateway_agents_waiting", two)
        _, answered, _ = await world.call(target, "hello", gateway=one)
    [message] = taken.result()
    assert message["id"] == answered["id"]


async def eventually_waiting(world: World, metric: str, gateway: GatewayProcess, count: int = 1) -> None:
    """Wait until so many wait in this process."""
    async with asyncio.timeout(SOON_S):
        while True:
            _, text, _ = await world.request("GET", "/metrics", gateway=gateway)
            if f"{metric} {count}" in text.decode():
                return


async def test_a_caller_that_stays_gets_the_answer_wherever_the_agent_gives_it(world: World):
    one, two = await world.start(), await world.start()
    target, caller = await polling(world), await world.workspace()
    async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
        call = group.create_task(world.call(target, gateway=one, headers={**caller.bearer, **waits(30)}))
        [message] = await take(world, target, wait=30, gateway=two)
        assert message["source_id"] == caller.id
        assert (await settle(world, target, message["id"], "reply", {"body": answer("hi")}, two))[0] == 200
    status, body, headers = call.result()
    assert (status, body) == (200, {**answer("hi"), "id": "1"})
    assert headers["X-A2A-Call-ID"] == message["id"]


async def test_an_error_of_the_agent_is_an_answer_too(world: World):
    await world.start()
    target = await polling(world)
    said = {"error": {"code": -32000, "message": "no"}}
    async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
        call = group.create_task(world.call(target, headers=waits(30)))
        [message] = await take(world, target, wait=30)
        await settle(world, target, message["id"], "events", {"event": said, "final": True})
    assert call.result()[:2] == (200, {"jsonrpc": "2.0", "id": "1", **said})


async def test_who_has_little_time_does_not_stay_longer_than_that(world: World):
    await world.start(GATEWAY_PREFER_WAIT_SECONDS="1")
    target = await polling(world)
    async with asyncio.timeout(SOON_S):
        for headers in ({**waits(60), "X-Timeout": "0.5"}, waits(60)):
            status, said, _ = await world.call(target, headers=headers)
            assert (status, said["status"]) == (200, "queued")
    status, said, _ = await world.call(target, headers={**waits(60), "X-Timeout": "soon"})
    assert (status, said["field"]) == (400, "X-Timeout")


async def test_a_caller_that_goes_away_loses_nothing(world: World):
    await world.start()
    target, caller = await polling(world), await world.workspace()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await world.call(target, headers={**caller.bearer, **waits(60)})
    await eventually_waiting(world, "gateway_callers_waiting", world.gateways[0], 0)
    [message] = await take(world, target, wait=5)
    assert (await settle(world, target, message["id"], "reply", {"body": answer("hi")}))[0] == 200
    status, call = await look(world, target, message["id"], caller.bearer)
    assert (status, call["response_body"]) == (200, answer("hi"))


async def test_a_message_that_is_not_settled_comes_again(world: World):
    await world.start(GATEWAY_INBOX_LEASE_SECONDS="0.3")
    target = await polling(world)
    _, said, _ = await world.call(target)
    assert [one["attempts"] for one in await take(world, target)] == [1]
    assert [one["attempts"] for one in await take(world, target, wait=5)] == [2]
    assert (await settle(world, target, said["id"], "ack"))[1] == {"status": "acknowledged", "state": "completed"}
    assert await take(world, target, wait=0.5) == []
    assert (await look(world, target, said["id"]))[1]["ending"] == "delivered_to_inbox"


async def test_an_event_keeps_a_message_with_its_agent(world: World):
    await world.start(GATEWAY_INBOX_LEASE_SECONDS="1")
    target = await polling(world)
    _, said, _ = await world.call(target)
    await take(world, target)
    until_s = time.monotonic() + 2
    while time.monotonic() < until_s:
        assert (await settle(world, target, said["id"], "events", {"event": {"working": True}}))[0] == 200
        assert await take(world, target, wait=0.2) == []


async def test_messages_come_in_order_and_each_to_one_of_many(world: World):
    one, two = await world.start(), await world.start()
    target = await polling(world)
    ids = [(await world.call(target, str(number)))[1]["id"] for number in range(20)]
    assert [message["id"] for message in await take(world, target, limit=5)] == ids[:5]
    takes = [take(world, target, limit=4, gateway=gateway) for gateway in (one, two, one, two)]
    taken = [message["id"] for some in await asyncio.gather(*takes) for message in some]
    assert sorted(taken + [message["id"] for message in await take(world, target)]) == sorted(ids[5:])


async def test_only_those_with_a_part_in_a_call_may_see_it(world: World):
    await world.start()
    target, caller, stranger = await polling(world), await world.workspace(), await world.workspace()
    _, said, _ = await world.call(target, headers=caller.bearer)
    operator = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    for headers, status in ((target.bearer, 200), (caller.bearer, 200), (operator, 200), (stranger.bearer, 404)):
        assert (await look(world, target, said["id"], headers))[0] == status
    assert (await look(world, caller, said["id"]))[0] == 404  # it is a call to another workspace
    assert (await look(world, target, "no uuid"))[0] == 404
    assert (await look(world, target, said["id"], {"Authorization": None}))[0] == 401  # type: ignore[dict-item]


async def test_what_nobody_fetches_in_time_expires(world: World):
    await world.start(GATEWAY_EXPIRY_EVERY_SECONDS="0.1")
    target = await polling(world)
    message = {"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "hi"}]}
    params = {"message": message, "expires_in_seconds": 0.5}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params}
    async with asyncio.timeout(SOON_S):
        status, said, headers = await world.request(
            "POST", f"/workspaces/{target.id}/a2a", json=body, headers=waits(30)
        )
    assert (status, said["code"]) == (410, "expired")
    assert await take(world, target) == []
    id_ = headers["X-A2A-Call-ID"]
    status, said = await look(world, target, id_)
    assert (status, said["code"], said["state"]) == (410, "expired", "expired")
    assert (await settle(world, target, id_, "reply", {"body": answer("late")}))[0] == 409


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"method": "tasks/get", "params": {"id": "t"}}, -32004),
        ({"method": "made/up", "params": {}}, -32601),
        ({"method": 5, "params": {}}, -32600),
        ({"method": "message/send", "params": {}}, -32602),
        ({"method": "message/send", "params": {"message": {"role": "user", "parts": [5]}}}, -32602),
    ],
)
async def test_what_no_agent_could_answer_is_refused_at_once(world: World, body: dict[str, Any], code: int):
    await world.start()
    target = await polling(world)
    path = f"/workspaces/{target.id}/a2a"
    status, said, _ = await world.request("POST", path, json={"jsonrpc": "2.0", "id": 10**30, **body})
    assert (status, said["error"]["code"], said["id"]) == (400, code, 10**30)
    assert await world.sql("select * from calls") == []


async def test_a_full_inbox_is_told_to_callers(world: World):
    await world.start(GATEWAY_INBOX_MESSAGES="2")
    target = await polling(world)
    for _ in range(2):
        assert (await world.call(target))[0] == 200
    status, said, headers = await world.call(target)
    assert (status, said["code"], headers["Retry-After"]) == (503, "inbox_full", "30")


async def test_an_agent_says_when_it_registers_how_it_gets_its_messages(world: World):
    one, two = await world.start(), await world.start()
    target = await world.workspace((await world.agent()).url)
    assert (await world.call(target, gateway=two))[1]["result"]
    register = {"id": target.id, "agent_card": {"name": "a"}, "delivery_mode": "poll"}
    status, said, _ = await world.request(
        "POST", "/registry/register", json=register, headers=target.bearer, gateway=one
    )
    assert (status, said["delivery_mode"]) == (200, "poll")
    async with asyncio.timeout(SOON_S):  # the other replica hears of it
        while (await world.call(target, gateway=two))[1].get("status") != "queued":
            pass


async def test_who_waits_is_sent_off_in_time_when_a_replica_goes_away(world: World):
    going, staying = await world.start(), await world.start()
    target, idle = await polling(world), await polling(world)
    async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
        call = group.create_task(world.call(target, headers=waits(60), gateway=going))
        agent = group.create_task(take(world, idle, wait=60, gateway=going))
        id_ = await parked(world, target)
        await eventually_waiting(world, "gateway_agents_waiting", going)
        await eventually_waiting(world, "gateway_callers_waiting", going)
        going.send(signal.SIGTERM)
    assert (call.result()[0], call.result()[1]["id"], agent.result()) == (200, id_, [])
    [message] = await take(world, target, gateway=staying)
    assert message["id"] == id_
    assert await going.wait() == 0


async def test_what_is_acknowledged_outlives_the_replica_that_took_it(world: World):
    killed, staying = [await world.start(GATEWAY_INBOX_LEASE_SECONDS="1") for _ in range(2)]
    target = await polling(world)
    ids = [(await world.call(target, str(number), gateway=killed))[1]["id"] for number in range(3)]
    assert len(await take(world, target, limit=1, gateway=killed)) == 1
    killed.send(signal.SIGKILL)
    world.gateways.remove(killed)
    seen: dict[str, int] = {}
    async with asyncio.timeout(SOON_S):
        while len(seen) < 3:
            for message in await take(world, target, wait=5, gateway=staying):
                seen[message["id"]] = message["attempts"]
                await settle(world, target, message["id"], "reply", {"body": answer("hi")}, staying)
    assert seen == {ids[0]: 2, ids[1]: 1, ids[2]: 1}


async def test_while_the_bus_is_away_answers_are_found_at_the_end_of_the_wait(world: World):
    async with valkeys.running() as valkey:
        world.env["GATEWAY_REDIS_URL"] = valkey.url
        await world.start()
        target = await polling(world)
        valkey.stall()
        async with asyncio.timeout(3 * SOON_S), asyncio.TaskGroup() as group:
            call = group.create_task(world.call(target, headers=waits(3)))
            id_ = await parked(world, target)
            [message] = await take(world, target)
            assert message["id"] == id_
            assert (await settle(world, target, id_, "reply", {"body": answer("hi")}))[0] == 200
        assert call.result()[1]["result"] == answer("hi")["result"]
        valkey.go_on()


async def test_a_push_agent_is_called_and_has_no_use_for_its_inbox(world: World):
    await world.start()
    target = await world.workspace((await world.agent()).url)
    assert (await world.call(target, headers=waits(5)))[1]["result"]
    assert await take(world, target) == []
    assert await world.sql("select * from calls") == []


async def test_a_call_that_cannot_be_written_in_time_is_not_acknowledged(world: World):
    await world.start(GATEWAY_STATEMENT_TIMEOUT_SECONDS="0.5")
    target = await polling(world)
    assert (await world.call(target))[0] == 200
    with locked(world, "calls"):
        status, said, headers = await world.call(target)
        assert (status, said["code"]) == (503, "platform_unavailable")
        assert "Retry-After" in headers
        path = f"/workspaces/{target.id}/inbox?wait=0"
        assert (await world.request("GET", path, headers=target.bearer))[0] == 503
    assert len(await world.sql("select id from calls")) == len(await world.sql("select id from activity")) == 1
    assert len(await take(world, target)) == 1


async def test_a_mode_that_cannot_be_read_in_time_is_not_taken_for_push(world: World):
    await world.start()
    agent = await world.agent()
    target = await world.workspace(agent.url, delivery_mode="poll")
    fresh = await world.start(GATEWAY_STATEMENT_TIMEOUT_SECONDS="0.5")  # it has not heard of the workspace
    with locked(world, "workspaces"):
        status, said, _ = await world.call(target, gateway=fresh)
        assert (status, said["code"]) == (503, "platform_unavailable")
    assert (await world.call(target, gateway=fresh))[1]["status"] == "queued"
    assert agent.bodies == []


async def test_parked_calls_are_counted_like_any_other(world: World):
    gateways = [await world.start(GATEWAY_RATE_CALLS="3/3600") for _ in range(2)]
    target = await polling(world)
    asked = [await world.call(target, gateway=gateways[number % 2], headers=target.bearer) for number in range(5)]
    assert [status for status, _, _ in asked] == [200, 200, 200, 429, 429]
    assert len(await world.sql("select id from calls")) == 3


async def test_what_an_answer_has_cost_is_known_to_all_replicas_at_once(world: World):
    prices = {"GATEWAY_PRICES": "*=1000000/1000000"}  # a cent for each token
    one, two = await world.start(**prices), await world.start(**prices)
    target = await polling(world, budget_limit=5)
    ids = [(await world.call(target, gateway=gateway))[1]["id"] for gateway in (one, two)]
    said = {"result": {"kind": "message", "usage": {"input_tokens": 2, "output_tokens": 1}}}
    assert (await settle(world, target, ids[0], "reply", {"body": said}, one))[0] == 200
    assert (await world.call(target, gateway=two))[0] == 200
    assert (await settle(world, target, ids[1], "reply", {"body": said}, one))[0] == 200
    async with asyncio.timeout(SOON_S):
        while (await world.call(target, gateway=two))[0] != 402:
            pass
    status, said, _ = await world.request("GET", f"/workspaces/{target.id}/budget", gateway=two)
    assert (status, said["monthly_spend"]) == (200, 6)


async def test_agents_that_poll_and_call_one_another_do_not_do_so_without_end(world: World):
    await world.start(A2A_MAX_DEPTH="3")
    one, two = await polling(world), await polling(world)
    await world.call(one, headers=two.bearer)
    turns = [(one, two), (two, one), (one, two)]
    answers = []
    for me, other in turns:
        [message] = await take(world, me)
        status, said, _ = await world.call(other, headers={**me.bearer, "X-A2A-Call-ID": message["id"]})
        answers.append((status, said.get("code")))
    assert answers == [(200, None), (200, None), (508, "too_deep")]
