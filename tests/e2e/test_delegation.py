"""Delegation through the front door: a task that was promised is sent once, and its result told once."""

import asyncio
import signal
from collections import Counter
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import pytest
from aiohttp import web

from gateway.core.ids import of_line, of_sent_line
from tests.harness.agent import result, silent_for
from tests.harness.busy import QUICK, SLOW, busy
from tests.harness.locks import locked
from tests.harness.tasks import delegate, delegated, listed, report, results, stands
from tests.harness.world import Workspace, World, eventually, until

TRACE = "a" * 32
TRACED = {"traceparent": f"00-{TRACE}-{'b' * 16}-01", "tracestate": "k=v", "X-Request-ID": "r-1"}
UNKNOWN = "00000000-0000-4000-8000-000000000404"


def request_bytes(url: str, source_id: str, token: str, body: bytes, *, version: str, connection: str) -> bytes:
    lines = [
        f"POST /workspaces/{source_id}/delegate HTTP/{version}",
        f"Host: {urlsplit(url).netloc}",
        f"Connection: {connection}",
        f"Authorization: Bearer {token}",
        *(f"{name}: {value}" for name, value in TRACED.items()),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [("1.1", "keep-alive", True), ("1.1", "keep-alive", False), ("1.1", "close", False), ("1.0", "close", False)],
    ids=["keep-alive", "hangs up", "close", "HTTP/1.0"],
)
async def test_the_target_gets_the_task_though_its_source_is_gone_and_in_the_same_trace(
    world: World, version: str, connection: str, stays: bool
):
    await world.start(**QUICK)
    answered = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await answered.wait()  # no byte of an answer before the source has its own
        return web.json_response(result(body, text="done"))

    agent = await world.agent(behave)
    source, target = await world.workspace(), await world.workspace(agent.url)
    body = orjson.dumps({"target_id": target.id, "task": "do it"})
    async with world.reading(source) as reader:
        reading, writer = await asyncio.open_connection("127.0.0.1", urlsplit(world.url).port)
        writer.write(request_bytes(world.url, source.id, source.token, body, version=version, connection=connection))
        head = await reading.readuntil(b"\r\n\r\n")
        said = orjson.loads(await reading.readuntil(b"}"))
        assert head.split()[1] == b"202"
        if not stays:
            writer.transport.abort()
        answered.set()
        await eventually(lambda: reader.of("DELEGATION_COMPLETE"))
        writer.close()
    id_ = said["delegation_id"]
    assert said == {"delegation_id": id_, "status": "delegated", "target_id": target.id}
    [headers] = [{name.lower(): value for name, value in one.items()} for one in agent.headers]
    assert headers["traceparent"][3:35] == TRACE
    assert (headers["x-a2a-call-id"], headers["x-workspace-id"], headers["x-request-id"]) == (id_, source.id, "r-1")
    assert headers["tracestate"] == "k=v"
    [call] = [orjson.loads(one) for one in agent.bodies]
    message = call["params"]["message"]
    assert (call["method"], message["role"], message["messageId"]) == ("message/send", "user", id_)
    assert message["parts"] == [{"kind": "text", "text": "do it"}]
    assert message["metadata"] == {"delegation_id": id_}
    assert reader.of("DELEGATION_SENT") == [{"delegation_id": id_, "target_id": target.id, "task_preview": "do it"}]
    assert [one["status"] for one in reader.of("DELEGATION_STATUS")] == ["dispatched"]
    told = {"delegation_id": id_, "target_id": target.id, "response_preview": "done"}
    assert reader.of("DELEGATION_COMPLETE") == [told]


async def test_the_result_stands_in_the_sources_history_once_and_in_the_list(world: World):
    await world.start(**QUICK)
    other = await world.start(**QUICK)
    source, target = await world.workspace(), await world.workspace((await world.agent()).url)
    id_ = await delegated(world, source, target, "look\nafter  it " + "x" * 200)
    one = await stands(world, source, id_, gateway=other)
    created_at = one.pop("created_at")
    assert one == {
        "id": id_, "type": "delegation", "delegation_id": id_, "source_id": source.id, "target_id": target.id,
        "summary": ("look after it " + "x" * 200)[:99] + "\u2026", "status": "completed", "response_preview": "echo",
    }  # fmt: skip
    assert created_at
    [row] = await results(world, source, id_)
    assert (row["activity_type"], row["method"], row["status"]) == ("a2a_receive", "delegate_result", "ok")
    assert (row["source_id"], row["target_id"], row["summary"]) == (target.id, source.id, "echo")
    assert row["response_body"]["result"]["parts"] == [{"kind": "text", "text": "echo"}]
    rows = await world.sql("select workspace_id, activity_type, method from activity where call_id = %s", id_)
    assert sorted(rows) == sorted([
        (target.id, "a2a_receive", "message/send"), (source.id, "a2a_send", "delegate"),
        (source.id, "a2a_receive", "delegate_result"),
    ])  # fmt: skip
    assert await world.sql("select workspace_id, calls from usage where calls > 0") == [(target.id, 1)]
    code, call, _ = await world.request("GET", f"/workspaces/{target.id}/a2a/calls/{id_}", headers=source.bearer)
    assert (code, call["kind"], call["ending"], call["attempts"]) == (200, "delegation", "completed", 1)


async def test_one_that_polls_finds_it_in_its_inbox_and_answers_it(world: World):
    await world.start(**SLOW)
    other = await world.start(**SLOW)
    source, target = await world.workspace(), await world.workspace(delivery_mode="poll")
    async with world.reading(source) as reader:
        id_ = await delegated(world, source, target, "poll me")
        inbox = f"/workspaces/{target.id}/inbox"
        code, said, _ = await world.request("GET", f"{inbox}?wait=0", gateway=other, headers=target.bearer)
        [message] = said["messages"]
        assert (code, message["id"], message["source_id"]) == (200, id_, source.id)
        assert message["request"]["params"]["message"]["parts"][0]["text"] == "poll me"
        assert (await stands(world, source, id_, "queued"))["status"] == "queued"
        code, said, _ = await world.request("POST", f"{inbox}/{id_}/ack", headers=target.bearer)
        assert (code, said["state"]) == (200, "dispatched"), "it is not done by having been fetched"
        answer = {"body": {"result": {"kind": "message", "parts": [{"kind": "text", "text": "polled"}]}}}
        code, said, _ = await world.request("POST", f"{inbox}/{id_}/reply", json=answer, headers=target.bearer)
        assert (code, said["state"]) == (200, "completed")
        await eventually(lambda: reader.of("DELEGATION_COMPLETE"))
    [told] = reader.of("DELEGATION_COMPLETE")
    assert (told["response_preview"], told["via"]) == ("polled", "inbox")
    assert (await stands(world, source, id_))["response_preview"] == "polled"
    assert len(await results(world, source, id_)) == 1


async def test_one_that_polls_may_say_how_it_ended_and_what_nobody_ends_expires(world: World):
    await world.start(**SLOW, GATEWAY_INBOX_TTL_SECONDS="3")
    source, target = await world.workspace(), await world.workspace(delivery_mode="poll")
    stranger = await world.workspace()
    done, failed, lost, fetched = [await delegated(world, source, target, str(number)) for number in range(4)]
    assert (await report(world, source, done, stranger, "completed"))[0] == 404
    code, said = await report(world, source, done, target, "completed", response_preview="here it is")
    assert (code, said) == (200, {"delegation_id": done, "status": "completed"})
    assert (await report(world, source, done, target, "completed"))[0] == 200, "once more is fine"
    code, said = await report(world, source, done, target, "failed")
    assert (code, said["code"]) == (409, "call_ended")
    assert (await report(world, source, failed, target, "failed", error="no hands"))[0] == 200
    assert (await world.request("POST", f"/workspaces/{target.id}/inbox/{fetched}/ack", headers=target.bearer))[
        0
    ] == 200
    async with world.reading(source, since="0-0") as reader:
        assert (await stands(world, source, lost))["error"] == "expired"
        assert (await stands(world, source, fetched))["error"] == "expired"
        await eventually(lambda: len(reader.of("DELEGATION_FAILED")) == 3)
    assert (await stands(world, source, done))["response_preview"] == "here it is"
    assert (await stands(world, source, failed))["error"] == "no hands"
    assert {one["delegation_id"]: one["error"] for one in reader.of("DELEGATION_FAILED")} == {
        failed: "no hands", lost: "expired", fetched: "expired",
    }  # fmt: skip
    [told] = reader.of("DELEGATION_COMPLETE")
    assert (told["response_preview"], told["via"]) == ("here it is", "update")
    for id_ in (done, failed, lost, fetched):
        assert len(await results(world, source, id_)) == 1


async def test_a_busy_target_gets_it_when_it_has_time(world: World):
    await world.start(**SLOW)
    source = await world.workspace()
    target, agent = await busy(world)
    async with world.reading(source) as reader:
        id_ = await delegated(world, source, target, "when you can")
        assert (await stands(world, source, id_, "queued"))["status"] == "queued"
        assert reader.of("DELEGATION_COMPLETE") == []
        code, said = await report(world, source, id_, target, "completed")
        assert (code, said["code"]) == (409, "call_under_way"), "the gateway will send it"
        agent.shut = False
        async with world.beating(target, 0.1):
            await eventually(lambda: reader.of("DELEGATION_COMPLETE"))
    assert [one["status"] for one in reader.of("DELEGATION_STATUS")] == ["dispatched", "queued", "dispatched"]
    [told] = reader.of("DELEGATION_COMPLETE")
    assert (told["response_preview"], told["via"]) == ("when you can", "queue")
    assert (await stands(world, source, id_))["status"] == "completed"
    assert (agent.taken, len(await results(world, source, id_))) == (["when you can"], 1)


async def test_a_busy_target_holds_back_no_other_one_and_a_free_one_gets_all_at_once(world: World):
    await world.start(**SLOW)
    source = await world.workspace()
    release = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await release.wait()
        return web.json_response(result(body))

    agent = await world.agent(behave)
    target = await world.workspace(agent.url)
    ids = [await delegated(world, source, target, str(number)) for number in range(40)]
    await eventually(lambda: agent.open_connections == 40)
    release.set()
    for id_ in ids:
        assert (await stands(world, source, id_))["status"] == "completed"


async def test_one_key_is_one_task_whoever_asks_and_wherever(world: World):
    await world.start(**QUICK)
    other = await world.start(**QUICK)
    release = asyncio.Event()
    replies = iter([500])

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await release.wait()
        return web.json_response(result(body), status=next(replies, 200))

    agent = await world.agent(behave)
    source, target = await world.workspace(), await world.workspace(agent.url)
    gateways = [world.gateways[0], other] * 5
    answers = await asyncio.gather(
        *(delegate(world, source, target, gateway=gateway, idempotency_key="k") for gateway in gateways)
    )
    assert {code for code, _ in answers} == {202}
    [id_] = {said["delegation_id"] for _, said in answers}
    assert Counter(said.get("idempotent_hit") for _, said in answers) == {None: 1, True: 9}
    assert all(said["status"] in ("pending", "dispatched") for _, said in answers if said.get("idempotent_hit"))
    assert (await delegate(world, target, source, idempotency_key="k"))[1].get("idempotent_hit") is None, "its own key"
    release.set()
    assert (await stands(world, source, id_))["status"] == "failed"
    code, again = await delegate(world, source, target, idempotency_key="k")
    assert (code, again["status"]) == (202, "delegated"), "after a failed one it is a new attempt"
    assert (await stands(world, source, again["delegation_id"]))["status"] == "completed"
    code, said = await delegate(world, source, target, gateway=other, idempotency_key="k")
    assert (code, said) == (
        202,
        {
            "delegation_id": again["delegation_id"], "status": "completed", "target_id": target.id,
            "idempotent_hit": True,
        },
    )  # fmt: skip
    assert len(agent.bodies) == 2


@pytest.mark.timeout(180)
async def test_when_its_process_is_killed_each_ends_and_none_is_sent_twice(world: World):
    """Five are out, which is all that this process may have; others wait to be sent, and one for a busy agent."""
    first = await world.start(**SLOW, GATEWAY_MAX_CALLS="5")
    received: Counter[str] = Counter()
    release = asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received[orjson.loads(body)["id"]] += 1
        await release.wait()
        return web.json_response(result(body))

    slow = await world.workspace((await world.agent(behave)).url)
    source = await world.workspace()
    busy_target, agent = await busy(world)
    held = await delegated(world, source, busy_target, "held")
    await stands(world, source, held, "queued")
    out = [await delegated(world, source, slow, str(number)) for number in range(5)]
    await eventually(lambda: len(received) == 5)
    unsent = [await delegated(world, source, slow, f"later {number}") for number in range(3)]
    assert {(await stands(world, source, id_, "pending"))["status"] for id_ in unsent} == {"pending"}
    first.send(signal.SIGKILL)
    await first.wait()
    second = await world.start(**QUICK)
    agent.shut = False
    release.set()
    everything = (*out, *unsent, held)
    async with world.beating(busy_target, 0.1, gateway=second):
        ends = {id_: await stands(world, source, id_, gateway=second, within_s=60.0) for id_ in everything}
    assert {(ends[id_]["status"], ends[id_]["error"]) for id_ in out} == {("interrupted", "interrupted")}
    assert {ends[id_]["status"] for id_ in (*unsent, held)} == {"completed"}
    assert received == dict.fromkeys((*out, *unsent), 1)
    assert agent.taken == ["held"]
    rows = await world.sql(
        "select call_id from activity where method = 'delegate_result' and workspace_id = %s", source.id
    )
    assert sorted(rows) == sorted((id_,) for id_ in everything)


async def test_what_was_never_sent_is_sent_by_who_comes_next(world: World):
    """A process that claims and dies before it sends: its lease runs out, and the task is where it was."""
    await world.start(**SLOW)
    agent = await world.agent()
    source, target = await world.workspace(), await world.workspace(agent.url)
    id_ = str(uuid4())
    await world.sql(
        """insert into calls (id, kind, state, workspace_id, caller_id, method, body, lane, outgoing, not_before,
                              expires_at, summary, result_id, claim, lease_until)
           values (%s, 'delegation', 'pending', %s, %s, 'message/send', %s, 'x',
                   '{"headers": {"traceparent": "00-cccccccccccccccccccccccccccccccc-dddddddddddddddd-01"},
                     "limit_s": 60, "by_deadline": false}', now(), now() + interval '1 hour', 'left', %s,
                   gen_random_uuid(), now() + interval '1 second')""",
        id_, target.id, source.id, b'{"jsonrpc":"2.0","id":1,"method":"message/send"}', str(uuid4()),
    )  # fmt: skip
    assert (await stands(world, source, id_))["status"] == "completed"
    assert len(agent.bodies) == 1


async def test_a_process_that_is_stopped_ends_what_it_has_out_and_leaves_nothing_open(world: World):
    first = await world.start(**QUICK, GATEWAY_DRAIN_SECONDS="0.2")
    other = await world.start(**QUICK)
    source, target = await world.workspace(), await world.workspace((await world.agent(silent_for(60.0))).url)
    id_ = await delegated(world, source, target, gateway=first, idempotency_key="k")
    await stands(world, source, id_, "dispatched")
    assert await first.stop() == 0
    one = await stands(world, source, id_, gateway=other)
    assert (one["status"], one["error"]) == ("interrupted", "gateway_shutdown")
    code, said = await delegate(world, source, target, gateway=other, idempotency_key="k")
    assert (code, said["delegation_id"], said["status"]) == (202, id_, "interrupted"), "its agent may have done it"


async def test_one_that_is_called_off_while_its_agent_is_busy_says_so(world: World):
    await world.start(**SLOW)
    source, (target, _) = await world.workspace(), await busy(world)
    id_ = await delegated(world, source, target)
    await stands(world, source, id_, "queued")
    path = f"/workspaces/{target.id}/a2a/calls/{id_}/cancel"
    assert (await world.request("POST", path, headers=source.bearer))[0] == 200
    one = await stands(world, source, id_)
    assert (one["status"], one["error"]) == ("cancelled", "cancelled")


async def test_it_is_not_promised_if_it_cannot_be_written(world: World):
    await world.start(**QUICK, GATEWAY_STATEMENT_TIMEOUT_SECONDS="0.5")
    agent = await world.agent()
    source, target = await world.workspace(), await world.workspace(agent.url)
    assert await stands(world, source, await delegated(world, source, target))
    with locked(world, "calls"):
        code, said = await delegate(world, source, target)
    assert (code, said["code"]) == (503, "platform_unavailable")
    assert len(await world.sql("select id from calls")) == 1
    assert len(agent.bodies) == 1


async def test_what_may_not_be_delegated_is_refused_and_leaves_nothing(world: World):
    await world.start(**QUICK)
    source, target = await world.workspace(), await world.workspace((await world.agent()).url)
    aside = await world.workspace(parent_id=(await world.workspace()).id)
    code, said = await delegate(world, source, source)
    assert (code, said["code"], said["field"]) == (400, "invalid_request", "target_id")
    code, said = await delegate(world, source, target, target_id="demo")
    assert (code, said["field"]) == (400, "target_id")
    for other in (aside.id, UNKNOWN):
        code, said = await delegate(world, source, target, target_id=other)
        assert (code, said["code"]) == (403, "cannot_communicate")
    await world.request("PATCH", f"/workspaces/{target.id}/budget", json={"budget_limit": 0})
    code, said = await delegate(world, source, target)
    assert (code, said["code"]) == (402, "budget_exceeded")
    assert await world.sql("select id from calls") == []
    assert await listed(world, source) == []


async def test_a_chain_of_tasks_is_not_endless(world: World):
    await world.start(**QUICK, A2A_MAX_DEPTH="3")
    first, second = await world.workspace(), await world.workspace()
    agents = {one.id: one for one in (first, second)}
    answers: list[tuple[int, str | None]] = []

    async def pass_on(request: web.Request) -> web.StreamResponse:
        """Leave the task to the one that it came from, as one that serves this call."""
        body = await request.read()
        back = agents[request.headers["X-Workspace-ID"]]
        here = second if back is first else first
        headers = {"X-A2A-Call-ID": request.headers["X-A2A-Call-ID"], "traceparent": request.headers["traceparent"]}
        code, said = await delegate(world, here, back, headers=headers)
        answers.append((code, said.get("code")))
        return web.json_response(result(body))

    for one in agents.values():
        url = (await world.agent(pass_on)).url
        await world.request("PATCH", f"/workspaces/{one.id}", json={"url": url, "delivery_mode": "push"})
    await delegated(world, first, second)
    await eventually(lambda: answers and answers[-1][0] != 202)
    assert answers == [(202, None), (202, None), (508, "too_deep")]


async def test_an_agent_that_fails_is_the_end(world: World):
    await world.start(**QUICK)
    source = await world.workspace()
    angry = await world.workspace((await world.agent(lambda _: _answer(500))).url)
    away = await world.workspace("http://127.0.0.1:1025/")
    nowhere = await world.workspace(delivery_mode="push")
    wanted = {angry.id: "agent_error", away.id: "agent_unreachable", nowhere.id: "no_url"}
    async with world.reading(source) as reader:
        for target in (angry, away, nowhere):
            one = await stands(world, source, await delegated(world, source, target))
            assert (one["status"], one["error"]) == ("failed", wanted[target.id])
        await eventually(lambda: len(reader.of("DELEGATION_FAILED")) == 3)
    assert {one["target_id"]: one["error"] for one in reader.of("DELEGATION_FAILED")} == wanted
    attempts = await world.sql("select max(attempts) from calls")
    assert attempts == [(1,)]


async def _answer(status: int) -> web.Response:
    return web.json_response({"error": "no"}, status=status)


async def test_one_that_its_source_has_sent_itself_is_recorded_and_ends_by_what_is_said(world: World):
    await world.start(**QUICK, GATEWAY_QUEUE_TTL_SECONDS="4")
    source, target = await world.workspace(), await world.workspace()
    done, lost = str(uuid4()), str(uuid4())
    path = f"/workspaces/{source.id}/delegations/record"
    async with world.reading(source) as reader:
        for id_ in (done, done, lost):
            body = {"target_id": target.id, "task": "by myself", "delegation_id": id_}
            code, said, _ = await world.request("POST", path, json=body, headers=source.bearer)
            assert (code, said) == (202, {"delegation_id": id_, "status": "recorded", "target_id": target.id})
        body = {"target_id": target.id, "task": "another one", "delegation_id": done}
        code, said, _ = await world.request("POST", path, json=body, headers=source.bearer)
        assert (code, said["field"]) == (400, "delegation_id")
        assert (await stands(world, source, done, "dispatched"))["summary"] == "by myself"
        assert (await report(world, source, done, source, "queued"))[1]["status"] == "queued"
        assert (await stands(world, source, done, "queued"))["status"] == "queued"
        code, said = await report(world, source, done, source, "completed", response_preview="fine " * 100)
        assert (code, said["status"]) == (200, "completed")
        assert (await stands(world, source, lost))["error"] == "expired"
        await eventually(lambda: reader.of("DELEGATION_FAILED"))
    assert [one["delegation_id"] for one in reader.of("DELEGATION_SENT")] == [done, lost]
    assert [one["status"] for one in reader.of("DELEGATION_STATUS")] == ["queued"]
    [told] = reader.of("DELEGATION_COMPLETE")
    assert len(told["response_preview"]) == 200
    assert len((await stands(world, source, done))["response_preview"]) == 300
    assert (await report(world, source, UNKNOWN, source, "completed"))[0] == 404


async def test_the_list_shows_the_newest_fifty(world: World):
    await world.start(**QUICK)
    source, target = await world.workspace(), await world.workspace(delivery_mode="poll")
    for number in range(52):
        await delegated(world, source, target, f"task {number}")
    assert [one["summary"] for one in await listed(world, source)] == [f"task {n}" for n in range(51, 1, -1)]
    assert await listed(world, target) == []


async def test_an_agent_cannot_hide_the_call_that_it_works_on_behind_an_id(world: World):
    await world.start()
    answers: list[int] = []
    workspaces: list[Workspace] = []

    async def behave(request: web.Request) -> web.StreamResponse:
        me, other = workspaces
        id_ = request.headers["X-A2A-Call-ID"]
        for taken in (id_, of_line(id_), of_sent_line(of_line(id_))):
            noted = {"target_id": other.id, "task": "nothing", "delegation_id": taken}
            path = f"/workspaces/{me.id}/delegations/record"
            code, _, _ = await world.request("POST", path, json=noted, headers=me.bearer)
            answers.append(code)
        return web.json_response(result(await request.read()))

    workspaces += [await world.workspace((await world.agent(behave)).url), await world.workspace()]
    code, _, headers = await world.call(workspaces[0])
    assert (code, answers) == (200, [400, 400, 400])
    rows = "select kind, state, workspace_id::text from calls where id = %s"
    [row] = await until(lambda: world.sql(rows, headers["X-A2A-Call-ID"]), len)
    assert row == ("push", "completed", workspaces[0].id)
    assert await world.sql("select status from activity") == [("ok",)]
