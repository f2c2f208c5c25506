"""Who may use which route: every route, everybody who may ask, and the answer that the contract gives (wire.md 10)."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import orjson
import pytest
import pytest_asyncio

from gateway.web.parse import SESSION_COOKIE
from gateway.web.routes import ROUTES, Route
from tests.harness.agent import ScriptedAgent
from tests.harness.process import GatewayProcess
from tests.harness.world import ADMIN_TOKEN, Workspace, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHO: Final = (
    "nobody", "wrong", "itself", "stranger", "child", "sibling", "revoked", "organisation", "member", "over", "admin",
    "operator",
)  # fmt: skip
"""No credential, a token of nobody's, the workspace in the path, one in another tree, its child, its sibling, a revoked
token of its own, a token and a session of the organisation, a session that is over, the operator's token and
session."""


def row(answers: str) -> Mapping[str, int]:
    return dict(zip(WHO, map(int, answers.split()), strict=True))


#                 nobody wrong itself stranger child sibling revoked organ. member over admin operator
EVERYBODY: Final = row("200 200 200    200      200   200     200     200    200    200  200   200")
RUNTIME: Final = row("  401 401 200    403      403   403     401     403    403    401  200   200")
CALLER: Final = row("   401 401 200    403      200   200     401     200    200    401  200   200")
NEIGHBOUR: Final = CALLER
OWNER: Final = row("    401 401 200    403      403   403     401     200    200    401  200   200")
VIEWER: Final = row("   401 401 200    200      200   200     401     200    200    401  200   200")
PARTY: Final = row("    401 401 200    404      404   200     401     200    200    401  200   200")
MEMBER: Final = row("   401 401 403    403      403   403     401     200    200    401  200   200")
OPERATOR: Final = row(" 401 401 403    403      403   403     401     403    403    401  200   200")
TESTER: Final = row("   401 401 401    401      401   401     401     401    401    401  200   401")
SESSION: Final = row("  401 401 403    403      403   403     401     400    200    401  400   200")
TABLE: Final[Mapping[str, Mapping[str, int]]] = {
    "GET /healthz": EVERYBODY,
    "GET /health": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /admin/liveness": OPERATOR,
    "GET /metrics": EVERYBODY,  # the test asks from this machine
    "GET /openapi.json": EVERYBODY,
    "GET /login": EVERYBODY,
    "POST /session": EVERYBODY,
    "GET /session": MEMBER,
    "DELETE /session": SESSION,
    "POST /registry/register": RUNTIME,
    "POST /registry/heartbeat": RUNTIME,
    "POST /registry/update-card": RUNTIME,
    "GET /registry/discover/{workspace_id}": NEIGHBOUR,
    "GET /registry/{workspace_id}/peers": NEIGHBOUR,
    "POST /registry/check-access": NEIGHBOUR,
    "POST /workspaces": MEMBER,
    "GET /workspaces": MEMBER,
    "GET /workspaces/{workspace_id}": NEIGHBOUR,
    "PATCH /workspaces/{workspace_id}": MEMBER,
    "DELETE /workspaces/{workspace_id}": OPERATOR,
    "POST /workspaces/{workspace_id}/tokens": OWNER,
    "GET /workspaces/{workspace_id}/tokens": OWNER,
    "DELETE /workspaces/{workspace_id}/tokens/{token_id}": OWNER,
    "GET /workspaces/{workspace_id}/budget": OWNER,
    "PATCH /workspaces/{workspace_id}/budget": OPERATOR,
    "GET /workspaces/{workspace_id}/metrics": OWNER,
    "GET /workspaces/{workspace_id}/activity": OWNER,
    "POST /workspaces/{workspace_id}/activity": OWNER,
    "POST /workspaces/{workspace_id}/notify": OWNER,
    "GET /workspaces/{workspace_id}/inbox": OWNER,
    "POST /workspaces/{workspace_id}/inbox/{call_id}/ack": OWNER,
    "POST /workspaces/{workspace_id}/inbox/{call_id}/reply": OWNER,
    "POST /workspaces/{workspace_id}/inbox/{call_id}/events": OWNER,
    "POST /workspaces/{workspace_id}/delegate": OWNER,
    "GET /workspaces/{workspace_id}/delegations": OWNER,
    "POST /workspaces/{workspace_id}/delegations/record": OWNER,
    "POST /workspaces/{workspace_id}/delegations/{delegation_id}/update": PARTY,  # the sibling is to do the task
    "GET /workspaces/{workspace_id}/events/stream": OWNER,
    "GET /admin/workspaces/{workspace_id}/test-token": TESTER,
    "POST /admin/workspaces/{workspace_id}/test-token": TESTER,
    "POST /org/tokens": OPERATOR,
    "GET /org/tokens": OPERATOR,
    "DELETE /org/tokens/{token_id}": OPERATOR,
    "GET /events/stream": VIEWER,
    "GET /ws": VIEWER,
    "POST /workspaces/{workspace_id}/a2a": CALLER,
    "POST /workspaces/{workspace_id}/a2a/": CALLER,
    "GET /workspaces/{workspace_id}/a2a/calls/{call_id}": PARTY,  # the sibling has made the call
    "GET /workspaces/{workspace_id}/a2a/calls/{call_id}/stream": PARTY,
    "POST /workspaces/{workspace_id}/a2a/calls/{call_id}/cancel": PARTY,
    "GET /workspaces/{workspace_id}/a2a/queue/{call_id}": PARTY,
    "GET /workspaces/{workspace_id}/a2a/queue": OWNER,
    "DELETE /workspaces/{workspace_id}/a2a/queue": OWNER,
    "GET /workspaces/{workspace_id}/a2a/{operation}": CALLER,
    "POST /workspaces/{workspace_id}/a2a/{operation}": CALLER,
    "DELETE /workspaces/{workspace_id}/a2a/{operation}": CALLER,
    "POST /admin/a2a-queue/drop-stale": OPERATOR,
}
"""200 stands for whatever the route answers to whom it lets in. A new route needs its row."""


@dataclass(frozen=True, kw_only=True)
class Court:
    """A workspace, everybody who may ask for it, and the headers by which they do."""

    world: World
    gateway: GatewayProcess
    agent: ScriptedAgent
    credentials: Mapping[str, Mapping[str, str | None]]

    async def token(self, workspace_id: str) -> tuple[str, str]:
        status, body, _ = await self.world.request("POST", f"/workspaces/{workspace_id}/tokens")
        assert status == 201
        return body["id"], body["auth_token"]

    async def org_token(self) -> tuple[str, str]:
        status, body, _ = await self.world.request("POST", "/org/tokens", json={"name": "matrix"})
        assert status == 201
        return body["id"], body["auth_token"]

    async def parked(self, target: Workspace, caller: Mapping[str, str | None]) -> str:
        """The id of a call to the target that waits in its inbox."""
        await self.world.request("PATCH", f"/workspaces/{target.id}", json={"delivery_mode": "poll"})
        status, body, _ = await self.world.call(target, headers=caller)  # type: ignore[arg-type]
        assert (status, body["status"]) == (200, "queued")
        return str(body["id"])

    async def recorded(self, source: Workspace, parent: Workspace) -> str:
        """The id of a task that a workspace has left to its sibling."""
        query = "select id from workspaces where parent_id = %s and id <> %s"
        [(sibling_id,)] = await self.world.sql(query, parent.id, source.id)
        body = {"target_id": sibling_id, "task": "do it", "delegation_id": str(uuid4())}
        path = f"/workspaces/{source.id}/delegations/record"
        status, _, _ = await self.world.request("POST", path, json=body)
        assert status == 202
        return body["delegation_id"]


def bearing(token: str) -> Mapping[str, str | None]:
    return {"Authorization": f"Bearer {token}"}


async def session(world: World, token: str) -> Mapping[str, str | None]:
    """Open a session, and return what a page of the gateway's own sends with it."""
    status, _, headers = await world.request("POST", "/session", json={"token": token}, headers={"Authorization": None})
    assert status == 201
    cookie = headers["Set-Cookie"].split(";")[0]
    return {"Authorization": None, "Cookie": cookie, "Origin": world.url}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def court(shared_world: World) -> AsyncIterator[Court]:
    world = shared_world
    gateway = await world.start(GATEWAY_ENABLE_TEST_TOKENS="1")
    yield Court(world=world, gateway=gateway, agent=await world.agent(), credentials={})


async def everybody(court: Court, target: Workspace, parent: Workspace) -> Mapping[str, Mapping[str, str | None]]:
    world = court.world
    other_tree = await world.workspace(parent_id=(await world.workspace()).id)
    child = await world.workspace(parent_id=target.id)
    sibling = await world.workspace(parent_id=parent.id)
    revoked_id, revoked = await court.token(target.id)
    status, _, _ = await world.request("DELETE", f"/workspaces/{target.id}/tokens/{revoked_id}")
    assert status == 200
    org_id, ours = await court.org_token()
    over = await session(world, ours)
    await world.sql("update sessions set ended_at = now() where token_id = %s", org_id)
    return {
        "nobody": {"Authorization": None},
        "wrong": bearing("x" * 43),
        "itself": target.bearer,
        "stranger": other_tree.bearer,
        "child": child.bearer,
        "sibling": sibling.bearer,
        "revoked": bearing(revoked),
        "organisation": bearing(ours),
        "member": await session(world, ours),
        "over": over,
        "admin": bearing(ADMIN_TOKEN),
        "operator": await session(world, ADMIN_TOKEN),
    }


def body_of(route: Route, target: Workspace, parent: Workspace, agent: ScriptedAgent) -> bytes | None:
    message = {"role": "user", "messageId": "m-1", "parts": [{"kind": "text", "text": "hi"}]}
    bodies: Mapping[str, object] = {
        "POST /registry/register": {"id": target.id, "url": agent.url, "agent_card": {}},
        "POST /registry/heartbeat": {"workspace_id": target.id},
        "POST /registry/update-card": {"workspace_id": target.id, "agent_card": {}},
        "POST /registry/check-access": {"caller_id": target.id, "target_id": target.id},
        "POST /workspaces": {"name": "one more"},
        "PATCH /workspaces/{workspace_id}": {"collapsed": True},
        "POST /workspaces/{workspace_id}/activity": {"activity_type": "agent_log"},
        "POST /workspaces/{workspace_id}/notify": {"message": "hi"},
        "POST /workspaces/{workspace_id}/inbox/{call_id}/reply": {"body": {"result": {}}},
        "POST /workspaces/{workspace_id}/inbox/{call_id}/events": {"event": {}},
        "PATCH /workspaces/{workspace_id}/budget": {"budget_limit": None},
        "POST /workspaces/{workspace_id}/delegate": {"target_id": parent.id, "task": "do it"},
        "POST /workspaces/{workspace_id}/delegations/record": {
            "target_id": parent.id, "task": "do it", "delegation_id": str(uuid4()),
        },
        "POST /workspaces/{workspace_id}/delegations/{delegation_id}/update": {"status": "completed"},
        "POST /org/tokens": {},
        "POST /session": {"token": ADMIN_TOKEN},
    }  # fmt: skip
    call = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    if route.rpc:
        return orjson.dumps(call)
    if route.plain:
        return orjson.dumps({"message": message}) if route.takes_body else None
    said = bodies.get(f"{route.method} {route.path}")
    return None if said is None else orjson.dumps(said)


OPERATIONS: Final = {"GET": "tasks/1", "POST": "message:send", "DELETE": "tasks/1/pushNotificationConfigs/1"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_route_lets_in_whom_the_contract_names_and_nobody_else(court: Court, route: Route):
    expected = TABLE[f"{route.method} {route.path}"]
    world = court.world
    parent = await world.workspace()
    target = await world.workspace(court.agent.url, parent_id=parent.id)
    credentials = await everybody(court, target, parent)
    refused = 0
    for who in sorted(WHO, key=lambda one: expected[one] == 200):  # whoever is let in may change what others ask for
        if (
            expected[who] == 200
            and route.method == "DELETE"
            and route.path in ("/session", "/workspaces/{workspace_id}")
        ):
            target = await world.workspace(court.agent.url)
            if route.path == "/session":
                credentials = {**credentials, who: await session(world, ADMIN_TOKEN)}
        token_id = (await court.org_token())[0] if "/org/" in route.path else None
        if token_id is None and "{token_id}" in route.path:
            token_id = (await court.token(target.id))[0]
        call_id = await court.parked(target, credentials["sibling"]) if "{call_id}" in route.path else None
        if "/queue/" in route.path:  # it waits for another reason, which is all the same to whoever asks
            await world.sql("update calls set kind = 'queued', state = 'queued' where id = %s", call_id)
        delegation_id = await court.recorded(target, parent) if "{delegation_id}" in route.path else None
        path = route.path.format(
            workspace_id=target.id,
            token_id=token_id,
            call_id=call_id,
            delegation_id=delegation_id,
            operation=OPERATIONS.get(route.method),
        )
        headers = credentials[who]
        if route.path == "/ws":
            headers = {**headers, "Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                       "Sec-WebSocket-Key": "x" * 22 + "=="}  # fmt: skip
        status = await ask(world, route, path, headers, body_of(route, target, parent, court.agent))
        wanted = route.status if expected[who] == 200 else expected[who]
        if route.relays and wanted == route.status:
            wanted = 409  # it may be asked for, and there is none: the call waits in an inbox
        assert status == wanted, who
        refused += wanted >= 400
        if token_id is not None and "/org/" in route.path:
            await world.sql("update tokens set revoked_at = now() where id = %s", token_id)
    assert refused or expected is EVERYBODY
    await world.sql("update tokens set revoked_at = now() where workspace_id is null")  # so many may be live, not more


async def ask(world: World, route: Route, path: str, headers: Mapping[str, str | None], data: bytes | None) -> int:
    """Return the status alone: a stream is left as soon as it has begun."""
    sent = {name: value for name, value in headers.items() if value is not None}
    if data is not None:
        sent["Content-Type"] = "application/json"
    where = world.url + path
    if route.path.endswith("/inbox"):
        where += "?wait=0"
    elif "stale_secs" in route.query:  # without it nothing is dropped
        where += "?stale_secs=1000"
    async with world.session.request(route.method, where, headers=sent, data=data) as response:
        return response.status


async def test_every_route_has_its_row_and_every_row_its_route():
    assert set(TABLE) == {f"{route.method} {route.path}" for route in ROUTES}


async def test_a_session_in_dev_is_no_one_elses_cookie(court: Court):
    status, _, _ = await court.world.request(
        "GET", "/workspaces", headers={"Authorization": None, "Cookie": f"{SESSION_COOKIE}=forged"}
    )
    assert status == 401
