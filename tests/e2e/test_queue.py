"""The queue of a busy agent, through the front door: every call that was promised to wait comes to one end."""

import asyncio
import json
import signal
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import pytest
from aiohttp import web

from tests.harness.agent import result
from tests.harness.busy import QUICK, SLOW, BusyAgent, busy, ended, queued, status
from tests.harness.locks import locked
from tests.harness.world import ADMIN_TOKEN, Workspace, World, eventually, until

ASKED_S: Final = 3
"""Seconds for which a busy agent asks."""


async def test_a_call_to_a_busy_agent_waits_and_is_answered_later_on_any_replica(world: World):
    await world.start(**QUICK)
    other = await world.start(**QUICK)
    target, agent = await busy(world)
    caller = await world.workspace()
    async with world.reading(target) as reader:
        code, said, headers = await world.call(target, "hello", headers=caller.bearer)
        assert code == 202
        id_, until_when = said.pop("queue_id"), said.pop("expires_at")
        assert (said.pop("queued"), said.pop("queue_depth"), list(said)) == (True, 1, ["message"])
        assert headers["Location"] == f"/workspaces/{target.id}/a2a/queue/{id_}"
        assert headers["X-A2A-Call-ID"] == id_
        options = {"gateway": other, "headers": caller.bearer}
        _, said, _ = await until(lambda: status(world, target, id_, **options), lambda got: got[1]["position"] == 1)
        assert (said["status"], said["last_error"], said["ending"]) == ("queued", "agent_busy", None)
        assert said["expires_at"] == until_when
        assert "response_body" not in said
        agent.shut = False
        done = await ended(world, target, id_)
        await eventually(lambda: reader.of("CALL_ENDED"))
    assert (done["status"], done["ending"], done["position"], done["attempts"]) == ("completed", "completed", None, 1)
    assert done["response_body"]["result"]["parts"][0]["text"] == "hello"
    assert agent.taken == ["hello"]
    ends = reader.of("CALL_ENDED")
    assert [(one["call_id"], one["ending"], one["status"]) for one in ends] == [(id_, "completed", 200)]
    rows = await world.sql("select activity_type, status, workspace_id from activity where call_id = %s", id_)
    assert sorted(rows) == sorted([("a2a_receive", "ok", target.id), ("a2a_send", "ok", caller.id)])
    assert await world.sql("select sum(calls) from usage") == [(1,)]


async def test_a_caller_that_stays_gets_its_agents_answer_wherever_the_call_is_sent(world: World):
    await world.start(**SLOW)
    other = await world.start(**SLOW)
    target, agent = await busy(world)
    async with asyncio.TaskGroup() as group:
        staying = group.create_task(world.call(target, "stay", headers={"Prefer": "wait=30"}))
        await until(lambda: world.sql("select id from calls where state = 'queued'"), len)
        assert not staying.done()
        agent.shut = False
        async with world.beating(target, 0.1, gateway=other):
            code, said, headers = await staying
    assert (code, said["id"], said["result"]["parts"][0]["text"]) == (200, "1", "stay")
    assert headers["Content-Type"].startswith("application/json")
    agent.shut = True
    assert (await world.call(target, headers={"Prefer": "wait=1"}))[0] == 202, "it did not come in time"


async def test_a_call_goes_out_with_all_that_it_came_with(world: World):
    await world.start(**QUICK)
    target, agent = await busy(world)
    caller = await world.workspace()
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = {**caller.bearer, "traceparent": trace, "tracestate": "k=v", "A2A-Version": "0.3", "X-Request-ID": "r-1"}
    id_ = await queued(world, target, headers=headers)
    agent.shut = False
    await ended(world, target, id_)
    server = agent.server
    assert server.bodies[0] == server.bodies[-1]
    first, last = (
        {name.lower(): value for name, value in one.items()} for one in (server.headers[0], server.headers[-1])
    )
    assert first == last
    assert (last["x-a2a-call-id"], last["x-workspace-id"], last["x-request-id"]) == (id_, caller.id, "r-1")
    assert (last["traceparent"][3:35], last["tracestate"], last["a2a-version"]) == ("a" * 32, "k=v", "0.3")


async def test_an_agent_that_keeps_sessions_itself_has_no_queue(world: World):
    await world.start(**QUICK)
    target, _ = await busy(world)
    metadata = {"capabilities": {"session": True}}
    assert await world.beat(target, runtime_metadata=metadata) == 200
    code, said, headers = await world.call(target)
    assert (code, said["code"], said["native_session"], headers["Retry-After"]) == (503, "agent_busy", True, "30")
    assert await world.sql("select id from calls") == []


async def test_a_full_queue_takes_no_more(world: World):
    await world.start(**SLOW, GATEWAY_QUEUE_CALLS="2")
    target, _ = await busy(world)
    calls = [await world.call(target) for _ in range(3)]
    assert [code for code, _, _ in calls] == [202, 202, 503]
    assert [said.get("queue_depth") for _, said, _ in calls] == [1, 2, None]
    assert (calls[2][1]["code"], calls[2][2]["Retry-After"]) == ("agent_busy", "30")


async def test_a_call_that_cannot_be_written_is_not_promised_to_wait(world: World):
    await world.start(**SLOW, GATEWAY_STATEMENT_TIMEOUT_SECONDS="0.5")
    target, _ = await busy(world)
    assert (await world.call(target))[0] == 202
    with locked(world, "calls"):
        code, said, _ = await world.call(target)
    assert (code, said["code"]) == (503, "agent_busy")
    assert len(await world.sql("select id from calls")) == 1


async def test_a_call_that_is_called_off_is_never_sent_and_ends_once(world: World):
    await world.start(**SLOW)
    other = await world.start(**SLOW)
    target, agent = await busy(world)
    caller, stranger = await world.workspace(), await world.workspace(parent_id=target.id)
    async with world.reading(target) as reader, asyncio.TaskGroup() as group:
        staying = group.create_task(world.call(target, headers={**caller.bearer, "Prefer": "wait=30"}))
        [(id_,)] = await until(lambda: world.sql("select id from calls where state = 'queued'"), len)
        path = f"/workspaces/{target.id}/a2a/calls/{id_}/cancel"
        assert (await world.request("POST", path, gateway=other, headers=stranger.bearer))[0] == 404
        for gateway in (other, world.gateways[0]):
            code, said, _ = await world.request("POST", path, gateway=gateway, headers=caller.bearer)
            assert (code, said) == (200, {"status": "cancelled", "state": "cancelled"})
        code, said, _ = await staying
        assert (code, said["code"]) == (409, "cancelled")
        await eventually(lambda: reader.of("CALL_ENDED"))
    agent.shut = False
    done = await queued_and_done(world, target, agent)
    assert [one["ending"] for one in reader.of("CALL_ENDED") if one["call_id"] == id_] == ["cancelled"]
    assert (await ended(world, target, id_))["ending"] == "cancelled"
    assert len(agent.taken) == 1
    code, said, _ = await world.request("POST", f"/workspaces/{target.id}/a2a/calls/{done}/cancel")
    assert (code, said["code"], said["state"]) == (409, "call_ended", "completed")


async def queued_and_done(world: World, target: Workspace, agent: BusyAgent) -> str:
    """One more call to an agent that is busy first and then not; return its id."""
    agent.shut = True
    id_ = await queued(world, target)
    agent.shut = False
    async with world.beating(target, 0.1):
        assert (await ended(world, target, id_))["status"] == "completed"
    return id_


async def test_a_call_whose_time_is_over_is_never_sent_and_ends_once(world: World):
    await world.start(**SLOW)
    await world.start(**SLOW)
    target, agent = await busy(world)
    message = {"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "late"}]}
    params = {"message": message, "expires_in_seconds": 0.5}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": params}
    async with world.reading(target) as reader:
        code, said, _ = await world.request(
            "POST", f"/workspaces/{target.id}/a2a", json=body, headers={"Prefer": "wait=20"}
        )
        assert code in (410, 202), "202 if it was looked a moment before the end"
        await eventually(lambda: reader.of("CALL_ENDED"))
        [end] = reader.of("CALL_ENDED")
    assert (end["ending"], end["status"]) == ("expired", 410)
    code, said, _ = await status(world, target, end["call_id"])
    assert (code, said["code"], said["state"]) == (410, "expired", "expired")
    agent.shut = False
    await queued_and_done(world, target, agent)
    assert agent.taken == ["hi"]


async def test_calls_that_have_waited_too_long_are_dropped_by_setting(world: World):
    await world.start(**SLOW, GATEWAY_QUEUE_STALE_SECONDS="0.3")
    target, agent = await busy(world)
    ids = [await queued(world, target) for _ in range(3)]
    assert [(await ended(world, target, id_))["status"] for id_ in ids] == ["expired"] * 3
    assert agent.taken == []


async def test_a_call_with_a_deadline_waits_no_longer_than_that(world: World):
    await world.start(**SLOW)
    target, _ = await busy(world)
    id_ = await queued(world, target, headers={"X-Timeout": "1"})
    assert (await ended(world, target, id_))["status"] == "expired"


async def test_the_operators_urgent_calls_go_first_and_its_idle_ones_last(world: World):
    await world.start(**SLOW)
    target, agent = await busy(world)
    caller = await world.workspace()
    await queued(world, target, "idle", headers={"X-A2A-Priority": "10"})
    for number in range(2):
        await queued(world, target, f"normal {number}", headers=caller.bearer)
    last = await queued(world, target, "urgent", headers={"X-A2A-Priority": "100"})
    code, said, _ = await world.call(target, headers={**caller.bearer, "X-A2A-Priority": "100"})
    assert (code, said["code"]) == (403, "not_allowed")
    agent.shut = False
    async with world.beating(target, 0.1):
        assert (await ended(world, target, last))["priority"] == 100
        await eventually(lambda: len(agent.taken) == 4)
    assert agent.taken == ["urgent", "normal 0", "normal 1", "idle"]


@pytest.mark.parametrize("reason", ["budget_exceeded", "removed", "cannot_communicate"])
async def test_what_may_not_be_sent_any_more_when_its_turn_comes_is_rejected(world: World, reason: str):
    await world.start(**SLOW)
    await world.start(**SLOW)
    target, agent = await busy(world)
    caller = await world.workspace()
    id_ = await queued(world, target, headers=caller.bearer)
    match reason:
        case "budget_exceeded":
            await world.request("PATCH", f"/workspaces/{target.id}/budget", json={"budget_limit": 0})
        case "removed":
            assert (await world.request("DELETE", f"/workspaces/{target.id}"))[0] == 200
        case "cannot_communicate":
            aside = await world.workspace()
            moved = await world.request("PATCH", f"/workspaces/{caller.id}", json={"parent_id": aside.id})
            assert moved[0] == 200
    agent.shut = False
    await world.sql("update calls set not_before = now()")
    query = "select state, ending, last_error, answer_status from calls where id = %s"
    rows = await until(lambda: world.sql(query, id_), lambda rows: rows[0][0] != "queued" and rows[0][1])
    assert rows == [("failed", "rejected", reason, 403)]
    assert agent.taken == []
    assert await world.sql("select status from activity where call_id = %s group by status", id_) == [("error",)]


async def test_an_agent_that_cannot_be_reached_is_tried_five_times(world: World):
    await world.start(**QUICK)
    target, _ = await busy(world)
    id_ = await queued(world, target)
    await world.sql("update workspaces set url = 'http://127.0.0.1:1025/' where id = %s", target.id)
    done = await ended(world, target, id_)
    assert (done["status"], done["ending"], done["attempts"]) == ("failed", "agent_unreachable", 5)
    assert done["last_error"] == "agent_unreachable"


async def test_an_agents_error_is_the_end_and_what_its_caller_gets(world: World):
    await world.start(**QUICK)
    replies = iter([429, 500])

    async def behave(_: web.Request) -> web.Response:
        return web.json_response({"error": "no"}, status=next(replies))

    target = await world.workspace((await world.agent(behave)).url)
    code, said, _ = await world.call(target, headers={"Prefer": "wait=20"})
    assert (code, said) == (500, {"error": "no", "code": "agent_error"})
    [(id_,)] = await world.sql("select id from calls")
    assert (await ended(world, target, id_))["ending"] == "agent_error"


async def test_who_has_no_part_in_a_call_does_not_learn_that_it_waits(world: World):
    await world.start(**SLOW)
    target, _ = await busy(world)
    caller, stranger = await world.workspace(), await world.workspace()
    id_ = await queued(world, target, headers=caller.bearer)
    answers = [(await status(world, target, id_, headers=one.bearer))[0] for one in (caller, target, stranger)]
    assert answers == [200, 200, 404]
    assert (await status(world, stranger, id_))[0] == 404
    assert (await status(world, target, id_, headers={"Authorization": None}))[0] == 401


async def test_a_call_in_an_inbox_is_called_off_too_and_its_agent_cannot_answer_it(world: World):
    await world.start(**SLOW)
    target = await world.workspace(delivery_mode="poll")
    async with asyncio.TaskGroup() as group:
        staying = group.create_task(world.call(target, headers={"Prefer": "wait=30"}))
        [(id_,)] = await until(lambda: world.sql("select id from calls where state = 'parked'"), len)
        code, said, _ = await world.request("POST", f"/workspaces/{target.id}/a2a/calls/{id_}/cancel")
        assert (code, said["state"]) == (200, "cancelled")
        code, said, _ = await staying
    assert (code, said["code"]) == (409, "cancelled")
    code, said, _ = await world.request("POST", f"/workspaces/{target.id}/inbox/{id_}/ack", headers=target.bearer)
    assert (code, said["code"], said["state"]) == (409, "call_ended", "cancelled")
    assert (await status(world, target, id_))[0] == 404, "it was never in a queue"


async def test_the_members_say_how_much_an_agent_gets_of_its_queue_at_once(world: World):
    await world.start(**QUICK)
    target, agent = await busy(world, BusyAgent(places=9, work_s=60.0))
    for _ in range(3):
        await queued(world, target)
    _, made, _ = await world.request("POST", "/org/tokens", json={})
    member = {"Authorization": f"Bearer {made['auth_token']}"}
    path = f"/workspaces/{target.id}"
    code, said, _ = await world.request("PATCH", path, json={"max_concurrent_tasks": 0}, headers=member)
    assert (code, said["field"]) == (400, "max_concurrent_tasks")
    code, said, _ = await world.request("PATCH", path, json={"max_concurrent_tasks": 3}, headers=member)
    assert (code, said) == (200, {"status": "updated"})
    assert (await world.request("GET", path))[1]["max_concurrent_tasks"] == 3
    agent.shut = False
    async with world.beating(target, 0.1):
        await eventually(lambda: len(agent.taken) == 3)


async def test_a_call_that_is_out_is_counted_when_its_process_drains(world: World):
    gateway = await world.start(**QUICK, GATEWAY_DRAIN_SECONDS="0.2", GATEWAY_LOG_FORMAT="json")
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    await queued(world, target)
    agent.shut = False
    await eventually(lambda: agent.taken)
    gateway.send(signal.SIGTERM)
    assert await gateway.wait() == 0
    said = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
    assert [one["calls"] for one in said if one["event"] == "draining"] == [1]


@pytest.mark.parametrize("answer", [b"data: {}\n\n", b"\xff\x00", b'{"n": 1.50,\n"s": "\\ud800"}', b"x" * 200_000])
async def test_whatever_an_agent_answers_is_kept_and_shown(world: World, answer: bytes):
    await world.start(**QUICK)
    statuses = iter([503, 201])

    async def behave(_: web.Request) -> web.Response:
        headers = {"Content-Type": "application/x-anything", "Retry-After": "1"}
        return web.Response(status=next(statuses), body=answer, headers=headers)

    target = await world.workspace((await world.agent(behave)).url)
    async with world.session.post(
        f"{world.url}/workspaces/{target.id}/a2a",
        json={"jsonrpc": "2.0", "id": 1, "method": "anything/else"},
        headers={"Prefer": "wait=20", "Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert (response.status, await response.read()) == (201, answer)
        assert response.content_type == "application/x-anything"
        id_ = response.headers["X-A2A-Call-ID"]
    code, said, _ = await status(world, target, id_)
    assert (code, said["status"], "response_body" in said) == (200, "completed", True)
    assert (await world.request("GET", f"/workspaces/{target.id}/a2a/calls/{id_}"))[0] == 200


async def test_a_methods_name_is_cut_before_it_is_kept_with_a_call_that_waits(world: World):
    await world.start(**SLOW)
    target, _ = await busy(world)
    call = {"jsonrpc": "2.0", "id": 1, "method": "m" * 900_000, "params": {}}
    code, said, _ = await world.request("POST", f"/workspaces/{target.id}/a2a", json=call)
    assert code == 202
    code, shown, _ = await status(world, target, said["queue_id"])
    assert (code, shown["method"]) == (200, "m" * 200)
    [row] = (await world.request("GET", f"/workspaces/{target.id}/activity"))[1]
    assert (row["method"], row["summary"]) == ("m" * 200, f"{'m' * 200}: queued")
    assert await world.sql("select octet_length(body) > 900000 from calls") == [(True,)], "it is sent as it came"


@pytest.mark.parametrize("asks", ["seconds", "date"])
async def test_a_busy_agent_is_left_alone_for_as_long_as_it_asks(world: World, asks: str):
    await world.start(**QUICK)
    came: list[float] = []

    async def behave(request: web.Request) -> web.StreamResponse:
        came.append(time.monotonic())
        body = await request.read()
        if len(came) > 1:
            return web.json_response(result(body))
        at = datetime.now(UTC) + timedelta(seconds=ASKED_S)
        asked = str(ASKED_S) if asks == "seconds" else format_datetime(at, usegmt=True)
        return web.json_response({"error": "busy"}, status=503, headers={"Retry-After": asked})

    target = await world.workspace((await world.agent(behave)).url)
    id_ = await queued(world, target)
    assert (await ended(world, target, id_))["status"] == "completed"
    assert came[1] - came[0] >= ASKED_S - 1, "a date has whole seconds"
