"""Who plays in a test of refusals, and the good requests that the bad ones differ from."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import orjson

from tests.harness.agent import ScriptedAgent
from tests.harness.process import GatewayProcess
from tests.harness.world import ADMIN_TOKEN, Workspace, World

LIMIT_BYTES: Final = 64 * 1024
"""The largest body that the gateway of a cast takes."""
ANSWER_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The workspace that is asked for, its agent, and a workspace that may not even talk to it."""

    world: World
    gateway: GatewayProcess
    agent: ScriptedAgent
    target: Workspace
    stranger: Workspace


Body = Callable[[Cast], Mapping[str, Any]]


def _call(_: Cast) -> Mapping[str, Any]:
    message = {"role": "user", "messageId": "m-1", "parts": [{"kind": "text", "text": "hi"}]}
    return {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}


OPERATIONS: Final = {"GET": "tasks/1", "POST": "message:send", "DELETE": "tasks/1/pushNotificationConfigs/1"}
"""A path of HTTP+JSON for each verb."""
GOOD: Final[Mapping[str, Body | None]] = {
    "GET /healthz": None,
    "GET /health": None,
    "GET /readyz": None,
    "GET /admin/liveness": None,
    "GET /metrics": None,
    "GET /openapi.json": None,
    "POST /registry/register": lambda cast: {"id": cast.target.id, "url": cast.agent.url, "agent_card": {}},
    "POST /registry/heartbeat": lambda cast: {"workspace_id": cast.target.id},
    "POST /registry/update-card": lambda cast: {"workspace_id": cast.target.id, "agent_card": {}},
    "GET /registry/discover/{workspace_id}": None,
    "GET /registry/{workspace_id}/peers": None,
    "POST /registry/check-access": lambda cast: {"caller_id": cast.target.id, "target_id": cast.target.id},
    "POST /workspaces": lambda _: {"name": "one more"},
    "GET /workspaces": None,
    "GET /workspaces/{workspace_id}": None,
    "PATCH /workspaces/{workspace_id}": lambda _: {"collapsed": True},
    "DELETE /workspaces/{workspace_id}": None,
    "POST /workspaces/{workspace_id}/tokens": None,
    "GET /workspaces/{workspace_id}/tokens": None,
    "DELETE /workspaces/{workspace_id}/tokens/{token_id}": None,
    "POST /org/tokens": lambda _: {"name": "one more"},
    "GET /org/tokens": None,
    "DELETE /org/tokens/{token_id}": None,
    "GET /admin/workspaces/{workspace_id}/test-token": None,
    "POST /admin/workspaces/{workspace_id}/test-token": None,
    "GET /login": None,
    "POST /session": lambda _: {"token": ADMIN_TOKEN},
    "GET /session": None,
    "DELETE /session": None,
    "GET /workspaces/{workspace_id}/budget": None,
    "PATCH /workspaces/{workspace_id}/budget": lambda _: {"budget_limit": None},
    "GET /workspaces/{workspace_id}/metrics": None,
    "GET /workspaces/{workspace_id}/activity": None,
    "POST /workspaces/{workspace_id}/activity": lambda _: {"activity_type": "agent_log"},
    "POST /workspaces/{workspace_id}/notify": lambda _: {"message": "hi"},
    "GET /workspaces/{workspace_id}/inbox": None,
    "POST /workspaces/{workspace_id}/inbox/{call_id}/ack": None,
    "POST /workspaces/{workspace_id}/inbox/{call_id}/reply": lambda _: {"body": {"jsonrpc": "2.0", "result": {}}},
    "POST /workspaces/{workspace_id}/inbox/{call_id}/events": lambda _: {"event": {}},
    "POST /workspaces/{workspace_id}/delegate": lambda cast: {"target_id": cast.stranger.id, "task": "do it"},
    "GET /workspaces/{workspace_id}/delegations": None,
    "POST /workspaces/{workspace_id}/delegations/record": lambda cast: {
        "target_id": cast.stranger.id,
        "task": "do it",
        "delegation_id": str(uuid4()),
    },
    "POST /workspaces/{workspace_id}/delegations/{delegation_id}/update": lambda _: {"status": "completed"},
    "GET /workspaces/{workspace_id}/events/stream": None,
    "GET /events/stream": None,
    "GET /ws": None,
    "POST /workspaces/{workspace_id}/a2a": _call,
    "POST /workspaces/{workspace_id}/a2a/": _call,
    "GET /workspaces/{workspace_id}/a2a/calls/{call_id}": None,
    "GET /workspaces/{workspace_id}/a2a/calls/{call_id}/stream": None,
    "POST /workspaces/{workspace_id}/a2a/calls/{call_id}/cancel": None,
    "GET /workspaces/{workspace_id}/a2a/queue/{call_id}": None,
    "GET /workspaces/{workspace_id}/a2a/queue": None,
    "DELETE /workspaces/{workspace_id}/a2a/queue": None,
    "GET /workspaces/{workspace_id}/a2a/{operation}": None,
    "POST /workspaces/{workspace_id}/a2a/{operation}": lambda _: {"message": {"messageId": "m-1"}},
    "DELETE /workspaces/{workspace_id}/a2a/{operation}": None,
    "POST /admin/a2a-queue/drop-stale": None,
}
"""A good body for each route, None where it takes none. A new route needs its row."""


@asynccontextmanager
async def assembled(world: World) -> AsyncIterator[Cast]:
    """Bring them all together; in the end no call may have reached the agent, and nothing may have broken."""
    gateway = await world.start(A2A_MAX_REQUEST_BYTES=str(LIMIT_BYTES), GATEWAY_BODY_TIMEOUT_SECONDS="0.3")
    agent = await world.agent()
    target = await world.workspace(agent.url)
    stranger = await world.workspace(parent_id=(await world.workspace()).id)
    yield Cast(world=world, gateway=gateway, agent=agent, target=target, stranger=stranger)
    assert agent.bodies == []
    assert [line for line in gateway.log().splitlines() if '"level": "error"' in line] == []


async def trickle(url: str, path: str, *, method: str = "POST") -> tuple[int, Any]:
    """As the operator, announce a body of which one byte comes; return the refusal's status and JSON."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"{method} {path} HTTP/1.1",
        f"Host: {address.netloc}",
        f"Authorization: Bearer {ADMIN_TOKEN}",
        "Content-Length: 100",
    )
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n{")
            start = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readuntil(b"}")
    finally:
        writer.close()
    return int(start.split()[1]), orjson.loads(body)
