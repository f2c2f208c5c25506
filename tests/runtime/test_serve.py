"""runtime.serve: JSON-RPC over HTTP, as a client sees it."""

import asyncio
import json
from io import BytesIO

import pytest

from runtime import serve
from runtime.agent import Agent
from runtime.run import bind
from runtime.serve import BODY_LIMIT_BYTES, CARD_PATHS, METHODS, NOT_OFFERED, STREAMS, Endpoint, serving

CARD = {"name": "card"}
SEND = {"message": {"role": "user", "messageId": "m", "contextId": "c", "parts": [{"kind": "text", "text": "hi"}]}}


async def reply(turn):
    if turn.text.startswith("say"):
        turn.begin_task(turn.text)
        for piece in turn.text.split()[1:]:
            await turn.say(piece)
            await asyncio.sleep(0)
    if turn.text.endswith("fall"):
        raise ZeroDivisionError
    if turn.text in ("wait", "say some wait"):
        await asyncio.Event().wait()
    if turn.text.startswith("task"):
        turn.begin_task(turn.text)
    if turn.text == "task wait":
        await asyncio.Event().wait()
    return turn.text


def say(text, **configuration):
    message = {**SEND["message"], "parts": [{"kind": "text", "text": text}]}
    return {"message": message, "configuration": configuration}


@pytest.fixture
async def client(take_turns, aiohttp_client):
    return await aiohttp_client(Endpoint(turns=take_turns(reply, max_active=1), card=CARD).app())


@pytest.fixture
def call(client):
    async def make(method, params, *, id_=1, status=200):
        response = await client.post("/", json={"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        assert response.status == status
        assert response.content_type == "application/json"
        body = await response.json()
        assert (body["jsonrpc"], body["id"]) == ("2.0", id_)
        return body

    return make


@pytest.mark.parametrize("path", CARD_PATHS)
async def test_the_card_is_served(client, path):
    assert await (await client.get(path)).json() == CARD


async def test_a_message_is_answered_with_a_message(call):
    result = (await call("message/send", SEND, id_="x"))["result"]
    assert (result["kind"], result["contextId"], result["parts"][0]["text"]) == ("message", "c", "hi")


async def test_a_task_can_be_got_with_as_much_history_as_asked_for(call):
    task = (await call("message/send", say("task")))["result"]
    assert (await call("tasks/get", {"id": task["id"]}))["result"] == task
    assert (await call("tasks/get", {"id": task["id"], "historyLength": 0}))["result"]["history"] == []


async def test_a_working_task_can_be_cancelled(call):
    task = (await call("message/send", say("task wait", blocking=False)))["result"]
    assert task["status"]["state"] == "working"
    assert (await call("tasks/cancel", {"id": task["id"]}))["result"]["status"]["state"] == "canceled"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("message/send", {}, -32602),
        ("message/send", {"message": {}}, -32602),
        ("tasks/get", {}, -32602),
        ("tasks/get", {"id": 5}, -32602),
        ("tasks/get", {"id": "nope"}, -32001),
        ("tasks/cancel", {"id": "nope"}, -32001),
        ("tasks/cancel", {"id": None}, -32602),
        ("SendMessage", SEND, -32601),
        ("tasks/pushNotificationConfig/set", {}, -32003),
        ("agent/getAuthenticatedExtendedCard", {}, -32007),
    ],
)
async def test_an_error_is_an_answer_with_its_code(call, method, params, code):
    assert (await call(method, params))["error"]["code"] == code


@pytest.mark.parametrize("length", [-1, "1", 1.5, True])
async def test_a_history_length_that_is_no_count_is_refused(call, length):
    task = (await call("message/send", say("task")))["result"]
    error = (await call("tasks/get", {"id": task["id"], "historyLength": length}))["error"]
    assert (error["code"], "historyLength" in error["message"]) == (-32602, True)


@pytest.mark.parametrize(("body", "code"), [(b"{", -32700), (b"[]", -32600), (b'{"jsonrpc":"2.0","id":1}', -32600)])
async def test_what_is_no_request_is_answered_as_json_rpc_says(client, body, code):
    response = await client.post("/", data=body)
    assert (response.status, (await response.json())["error"]["code"]) == (200, code)


@pytest.mark.parametrize("depth", [10, 240, 260, 900])
async def test_a_deeply_nested_message_comes_back_whole_or_is_refused(call, depth):
    metadata = {"a": None}
    for _ in range(depth):
        metadata = {"a": metadata}
    message = {**say("task")["message"], "metadata": metadata}
    body = await call("message/send", {"message": message})
    if "error" in body:
        assert (depth > 200, body["error"]["code"]) == (True, -32602)
    else:
        assert (await call("tasks/get", {"id": body["result"]["id"]}))["result"]["history"][0]["metadata"] == metadata


async def test_a_busy_agent_says_503_with_retry_after(client, call):
    task = (await call("message/send", say("task wait", blocking=False)))["result"]
    response = await client.post("/", json={"jsonrpc": "2.0", "id": 2, "method": "message/send", "params": SEND})
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert (await response.json())["id"] == 2
    await call("tasks/cancel", {"id": task["id"]})
    await call("message/send", SEND)


async def test_a_body_of_the_limit_is_read_and_one_byte_more_is_refused(client):
    frame = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": say("")}).encode()
    body = frame + b" " * (BODY_LIMIT_BYTES - len(frame))
    assert (await client.post("/", data=BytesIO(body))).status == 200
    refused = await client.post("/", data=BytesIO(body + b" "))
    assert (refused.status, (await refused.json())["error"]["code"]) == (413, -32600)


async def test_a_body_that_does_not_come_is_given_up(client, monkeypatch):
    monkeypatch.setattr(serve, "BODY_DEADLINE_S", 0.05)
    held = asyncio.Event()

    async def drip():
        yield b"{"
        await held.wait()

    response = await client.post("/", data=drip())
    assert response.status == 408
    held.set()


async def test_serving_listens_on_the_bound_socket_and_frees_it_at_the_end(take_turns):
    app = Endpoint(turns=take_turns(reply), card=Agent(name="n", description="d", answer=reply).card("http://a/")).app()
    sock = bind("127.0.0.1", 0)
    host, port = sock.getsockname()
    async with serving(app, sock):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /.well-known/agent-card.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


def test_no_method_stands_in_two_tables():
    names = [*METHODS, *STREAMS, *NOT_OFFERED]
    assert len(set(names)) == len(names)


def read_events(body):
    """The responses of a stream."""
    frames = body.decode().split("\n\n")
    assert frames.pop() == "", "the last event is whole"
    return [json.loads(frame.rpartition("data: ")[2]) for frame in frames]


@pytest.fixture
def stream(client):
    """Call a method that streams and read it to its end."""

    async def make(method, params, *, id_=1):
        response = await client.post("/", json={"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        assert (response.status, response.content_type) == (200, "text/event-stream")
        events = read_events(await response.read())
        assert {(event["jsonrpc"], event["id"]) for event in events} == {("2.0", id_)}
        return [event.get("result", event.get("error")) for event in events]

    return make


async def test_a_message_is_streamed_as_one_message(stream):
    [said] = await stream("message/stream", SEND, id_="x")
    assert (said["kind"], said["contextId"], said["parts"][0]["text"]) == ("message", "c", "hi")


async def test_a_task_is_streamed_from_its_beginning_to_its_end(stream, call):
    begun, *updates, ended = await stream("message/stream", say("say a b", blocking=False))
    assert (begun["kind"], begun["status"]["state"]) == ("task", "working")
    texts = [(update["artifact"]["parts"][0]["text"], update["append"]) for update in updates]
    assert texts == [("a", False), ("b", True), ("say a b", False)]
    assert (ended["kind"], ended["status"]["state"], ended["final"]) == ("status-update", "completed", True)
    task = (await call("tasks/get", {"id": begun["id"]}))["result"]
    assert task["artifacts"] == [updates[-1]["artifact"]]
    assert task["status"] == ended["status"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("message/stream", {}, -32602),
        ("message/stream", say("fall"), -32603),
        ("message/stream", {"message": {**SEND["message"], "taskId": "nope"}}, -32001),
        ("tasks/resubscribe", {}, -32602),
        ("tasks/resubscribe", {"id": "nope"}, -32001),
    ],
)
async def test_an_error_of_a_stream_is_its_one_event(stream, method, params, code):
    [error] = await stream(method, params)
    assert error["code"] == code


async def test_a_task_that_fails_says_so_at_the_end_of_its_stream(stream):
    *_, update, ended = await stream("message/stream", say("say half fall"))
    assert update["artifact"]["parts"][0]["text"] in ("half", "fall")
    assert (ended["status"]["state"], ended["final"]) == ("failed", True)


async def test_nothing_can_be_followed_of_a_task_that_has_ended(stream, call):
    task = (await call("message/send", say("task")))["result"]
    [error] = await stream("tasks/resubscribe", {"id": task["id"]})
    assert error["code"] == -32004


@pytest.fixture
async def began(client, call):
    """A task that has said `some`, and waits."""
    task = (await call("message/send", say("say some wait", blocking=False)))["result"]
    async with asyncio.timeout(5):
        while not (shown := (await call("tasks/get", {"id": task["id"]}))["result"]["artifacts"]):
            pass
    assert shown[0]["parts"][0]["text"].startswith("some")
    return task["id"]


async def follow(client, task_id):
    request = {"jsonrpc": "2.0", "id": 1, "method": "tasks/resubscribe", "params": {"id": task_id}}
    response = await client.post("/", json=request)
    assert response.status == 200
    return response


async def test_a_running_task_is_followed_from_where_it_is(client, call, began):
    response = await follow(client, began)
    first = await response.content.readuntil(b"\n\n")
    [shown] = read_events(first)
    assert shown["result"]["artifacts"][0]["parts"][0]["text"] == "somewait"
    await call("tasks/cancel", {"id": began})
    [ended] = read_events(await response.read())
    assert (ended["result"]["status"]["state"], ended["result"]["final"]) == ("canceled", True)


async def test_a_caller_that_hangs_up_does_not_end_the_turn(client, call):
    request = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": say("say some wait")}
    response = await client.post("/", json=request)
    [begun] = read_events(await response.content.readuntil(b"\n\n"))
    response.close()
    other = await follow(client, begun["result"]["id"])
    await other.content.readuntil(b"\n\n")
    await call("tasks/cancel", {"id": begun["result"]["id"]})
    assert b"canceled" in await other.read()


async def test_a_quiet_stream_says_that_it_is_there_without_an_empty_event(client, began, monkeypatch):
    monkeypatch.setattr(serve, "QUIET_S", 0.02)
    response = await follow(client, began)
    await response.content.readuntil(b"\n\n")
    assert await response.content.readexactly(6) == b":\n:\n:\n"
    response.close()


async def test_a_busy_agent_says_so_before_its_stream_begins(client, began):
    response = await client.post("/", json={"jsonrpc": "2.0", "id": 2, "method": "message/stream", "params": SEND})
    assert (response.status, response.headers["Retry-After"], response.content_type) == (503, "5", "application/json")


async def test_one_reader_too_many_is_refused_as_busy_until_another_leaves(client, began, monkeypatch):
    monkeypatch.setattr(serve, "QUIET_S", 0.02)
    monkeypatch.setattr(serve, "MOST_STREAMS", 1)
    request = {"jsonrpc": "2.0", "id": 1, "method": "tasks/resubscribe", "params": {"id": began}}
    one = await follow(client, began)
    assert (await client.post("/", json=request)).status == 503
    one.close()
    async with asyncio.timeout(5):
        while (other := await client.post("/", json=request)).status == 503:  # noqa: ASYNC110 - the server sees it later
            await asyncio.sleep(0.01)
    other.close()
