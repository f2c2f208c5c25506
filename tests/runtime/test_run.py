"""runtime.run: a process that listens, registers, answers, and stops when asked."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from runtime.identity import Identity, keep_identity
from runtime.run import address_of, bind, load_identity
from runtime.settings import SettingError, Settings
from runtime.spawn import Tasks

ID = "3f2b9c1e-0a4d-4b55-8a2f-1f1f1f1f1f1f"
DEMO = ("-m", "runtime.demo")
STUCK = ("-m", "tests.harness.stuck")
EXAMPLE = Path(__file__).parents[2] / "examples" / "echo_agent.py"


def settings(tmp_path, **environment):
    return Settings.from_env({"A2A_STATE_DIR": str(tmp_path), **environment})


def call_of(text):
    message = {"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": text}]}
    return {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}


async def say(url, text):
    async with aiohttp.ClientSession() as session, session.post(url, json=call_of(text)) as response:
        return (await response.json())["result"]


async def streamed(url, text):
    """The pieces of an answer."""
    call = {**call_of(text), "method": "message/stream"}
    async with aiohttp.ClientSession() as session, session.post(url, json=call) as response:
        events = [json.loads(line[6:])["result"] async for line in response.content if line.startswith(b"data: ")]
    return [event["artifact"]["parts"][0]["text"] for event in events if event["kind"] == "artifact-update"]


async def status_of(url):
    async with aiohttp.ClientSession() as session, session.post(url, json=call_of("hi")) as response:
        return response.status


def test_the_environment_wins_over_what_is_kept_and_both_over_a_new_id(tmp_path):
    fresh = load_identity(settings(tmp_path))
    assert (len(fresh.workspace_id), fresh.token) == (36, None)
    keep_identity(tmp_path, Identity(workspace_id=ID, token="kept", inbound_secret="s"))
    assert load_identity(settings(tmp_path)) == Identity(workspace_id=ID, token="kept", inbound_secret="s")
    assert load_identity(settings(tmp_path, WORKSPACE_TOKEN="given")).token == "given"
    other = ID.replace("3f", "4f")
    assert load_identity(settings(tmp_path, WORKSPACE_ID=other)) == Identity(workspace_id=other)


def test_a_bound_socket_knows_its_address():
    with bind("127.0.0.1", 0) as sock:
        assert address_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(SettingError, match="AGENT_PORT"):
            bind("127.0.0.1", sock.getsockname()[1])


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_bracketed():
    try:
        sock = bind("::1", 0)
    except SettingError:
        pytest.skip("no IPv6 loopback here")
    with sock:
        assert address_of(sock).startswith("http://[::1]:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_exit_code_0(start_process, wait_until, number):
    async with start_process(*DEMO) as demo:
        await wait_until(lambda: demo.url)
        demo.process.send_signal(number)
        assert await demo.ends() == 0
    assert "Traceback" not in demo.err


async def test_a_signal_ends_a_process_that_still_looks_for_its_gateway(start_process, gateway, wait_until):
    await gateway.go()
    async with start_process(*DEMO) as demo:
        await wait_until(lambda: "gateway_trouble" in demo.err)
        demo.process.terminate()
        assert await demo.ends() == 0
    assert demo.out == ""


async def test_work_in_flight_is_answered_before_the_process_ends(start_process, gateway, wait_until, tasks):
    async with start_process(*DEMO, A2A_DRAIN_SECONDS="0.05") as demo:
        await wait_until(lambda: demo.url)
        calling = tasks.spawn(say(demo.url, "slow 60"), name="call")
        await wait_until(lambda: gateway.heartbeats[-1:] and gateway.heartbeats[-1]["current_task"] == "slow 60")
        demo.process.terminate()
        assert await demo.ends() == 0
    assert (await calling)["status"]["state"] == "canceled"


async def test_a_second_signal_does_not_wait(start_process, gateway, wait_until, tasks):
    async with start_process(*DEMO, A2A_DRAIN_SECONDS="3600") as demo:
        await wait_until(lambda: demo.url)
        calling = tasks.spawn(say(demo.url, "slow 60"), name="call")
        await wait_until(lambda: gateway.heartbeats[-1:] and gateway.heartbeats[-1]["current_task"] == "slow 60")
        demo.process.terminate()
        async with asyncio.timeout(5):
            while await status_of(demo.url) != 503:
                pass
        demo.process.terminate()
        assert await demo.ends() == -signal.SIGTERM
    with pytest.raises(aiohttp.ClientError):
        await calling


async def test_the_identity_is_private_and_survives_a_restart(start_process, gateway, wait_until, tmp_path):
    for _ in range(2):
        async with start_process(*DEMO) as demo:
            await wait_until(lambda demo=demo: demo.url)
            demo.process.terminate()
            assert await demo.ends() == 0
    first, second = gateway.registrations
    assert first["id"] == second["id"]
    assert (first["authorization"], second["authorization"]) == (None, "Bearer minted")
    (kept,) = (tmp_path / "state").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_the_process_outlives_its_gateway(start_process, gateway, wait_until):
    async with start_process(*DEMO) as demo:
        await wait_until(lambda: demo.url)
        await gateway.go()
        await wait_until(lambda: "gateway_trouble" in demo.err)
        assert (await say(demo.url, "still there?"))["parts"][0]["text"] == "echo: still there?"
        await gateway.come()
        await wait_until(lambda: len(gateway.registrations) == 2)
        assert demo.out.count("ready ") == 1


@pytest.mark.parametrize("status", [400, 403, 410])
async def test_a_refusal_is_printed_and_the_exit_code_is_1(start_process, gateway, status):
    gateway.on_register = (status, {"error": "we do not know you"}, {})
    async with start_process(*DEMO) as demo:
        assert await demo.ends() == 1
    assert "we do not know you" in demo.err
    assert "Traceback" not in demo.err
    assert demo.out == ""


async def test_a_bad_setting_is_printed_and_the_exit_code_is_2(start_process):
    async with start_process(*DEMO, AGENT_PORT="high") as demo:
        assert await demo.ends() == 2
    assert demo.err.startswith("AGENT_PORT is 'high'")


async def test_a_spoiled_state_file_is_printed_and_the_exit_code_is_1(start_process, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / f"{ID}.json").write_text("{")
    async with start_process(*DEMO, WORKSPACE_ID=ID) as demo:
        assert await demo.ends() == 1
    assert demo.err.startswith(str(tmp_path))


async def test_the_example_is_an_agent_in_under_thirty_lines(start_process, wait_until):
    assert len(EXAMPLE.read_text().splitlines()) < 30
    async with start_process(str(EXAMPLE)) as agent:
        await wait_until(lambda: agent.url)
        assert (await say(agent.url, "hi"))["parts"][0]["text"] == "you said: hi"
        assert (await say(agent.url, "count to 0"))["artifacts"][0]["parts"][0]["text"] == "counted to 0"
        assert await streamed(agent.url, "count to 2") == ["1 ", "2 ", "counted to 2"]
        agent.process.terminate()
        assert await agent.ends() == 0


async def test_an_agent_that_was_told_to_ends_with_its_standard_input(start_process, wait_until):
    read, write = os.pipe()
    async with start_process(*DEMO, stdin=read, A2A_STOP_WITH_STDIN="1") as agent:
        os.close(read)
        await wait_until(lambda: agent.url)
        os.close(write)
        assert await agent.ends() == 0


async def test_an_agent_that_polls_listens_nowhere_and_answers_what_it_fetches(start_process, gateway, wait_until):
    request = {**call_of("hi"), "id": 5}
    gateway.inbox.append({"id": "call-1", "request": request})
    async with start_process(*DEMO, A2A_DELIVERY_MODE="poll", WORKSPACE_ID=ID) as demo:
        await wait_until(lambda: gateway.settled)
        assert demo.url == f"{gateway.url}/workspaces/{ID}/a2a"
        demo.process.terminate()
        assert await demo.ends() == 0
    [registration] = gateway.registrations
    assert (registration["delivery_mode"], "url" in registration) == ("poll", False)
    assert registration["agent_card"]["url"] == demo.url
    [(call, verb, said)] = gateway.settled
    assert (call, verb, said["body"]["result"]["parts"][0]["text"]) == ("call-1", "reply", "echo: hi")
    assert gateway.takes[0][2] == "Bearer minted"
    assert "Traceback" not in demo.err


async def test_an_agent_that_polls_answers_what_it_works_on_before_it_stops(start_process, gateway, wait_until):
    gateway.inbox.append({"id": "call-1", "request": call_of("slow 0.5")})
    async with start_process(*DEMO, A2A_DELIVERY_MODE="poll", A2A_DRAIN_SECONDS="8") as demo:
        await wait_until(lambda: gateway.heartbeats[-1:] and gateway.heartbeats[-1]["current_task"] == "slow 0.5")
        demo.process.terminate()
        assert await demo.ends() == 0
    assert [(call, verb) for call, verb, _ in gateway.settled] == [("call-1", "reply")]


async def test_while_the_handler_blocks_its_loop_beats_go_on_and_say_so_and_then_no_more(
    start_process, gateway, wait_until
):
    async with start_process(*STUCK, A2A_WEDGED_SECONDS="0.3") as agent:
        await wait_until(lambda: agent.url and gateway.heartbeats)
        async with Tasks() as tasks:
            asked = tasks.spawn(say(agent.url, "1.5"), name="ask")
            await wait_until(lambda: gateway.heartbeats[-1].get("runtime_state") == "wedged")
            before = len(gateway.heartbeats)
            await wait_until(lambda: len(gateway.heartbeats) >= before + 5)
            stuck = gateway.heartbeats[before:]
            assert {beat.get("runtime_state") for beat in stuck} == {"wedged"}
            assert {beat["active_tasks"] for beat in stuck} == {1}
            assert not asked.done()
            assert (await asked)["parts"][0]["text"] == "awake"
        await wait_until(lambda: "runtime_state" not in gateway.heartbeats[-1])
        agent.process.terminate()
        assert await agent.ends() == 0


async def test_that_it_is_free_again_is_told_long_before_the_next_beat(start_process, gateway, wait_until):
    async with start_process(*STUCK, A2A_WEDGED_SECONDS="0.2", A2A_HEARTBEAT_SECONDS="1000") as agent:
        await wait_until(lambda: agent.url and gateway.heartbeats)
        before = len(gateway.heartbeats)
        assert (await say(agent.url, "0.8"))["parts"][0]["text"] == "awake"
        await wait_until(lambda: len(gateway.heartbeats) > before)
        assert "runtime_state" not in gateway.heartbeats[-1]
