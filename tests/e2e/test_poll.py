"""Agents that poll: their calls are safe before they are acknowledged, and answered wherever their callers wait."""

from collections.abc import Mapping
from typing import Any

from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World


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
