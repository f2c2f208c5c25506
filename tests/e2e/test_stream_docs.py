"""docs/streams.md, and what the README has of streams: what they show does what they say."""

import asyncio
import os
import re
import shutil
from typing import Any, Final

import orjson
import pytest
from aiohttp import web

from gateway.core.answers import classify
from gateway.core.endings import Ending
from gateway.core.farewells import farewell
from tests.arch.test_tables import OUTCOMES
from tests.e2e.test_resubscribe import error
from tests.e2e.test_streams import events, open_stream, streaming, update
from tests.harness import folders, process
from tests.harness.source import ROOT
from tests.harness.world import World

DOCUMENT: Final = (ROOT / "docs" / "streams.md").read_text()


def examples(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


SET_UP, CALL, GO_ON, RESUBSCRIBE, PLAIN, *_ = examples("docs/streams.md")
README: Final = next(one for one in examples("README.md") if "message/stream" in one)
HERE: Final = "http://127.0.0.1:8080"
"""Where `make run` serves."""
SHOWN_CALL, SHOWN_TASK, TASK = "5d0c...", "t-1", "task-1"
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


async def run(command: str, **env: str) -> bytes:
    """What a shell prints."""
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env={**os.environ, **env}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        said, complaints = await shell.communicate()
    assert shell.returncode == 0, complaints.decode()
    return said


def numbers(seen: list[tuple[str | None, Any]]) -> list[int]:
    return [one["result"]["metadata"]["n"] for _, one in seen]


async def test_the_examples_lose_a_stream_and_have_the_rest_of_it(world: World) -> None:
    one, other = await asyncio.gather(world.start(), world.start())

    async def script(response: web.StreamResponse, _: bytes) -> None:
        for n in range(1, 6):
            await response.write(update(n, final=n == 5))

    agent = await world.agent(streaming(script))
    target = await world.workspace(agent.url)
    env = {"GATEWAY": one.url, "OTHER": other.url, "AGENT": target.id, "CALLER": target.token}
    call, go_on, resubscribe, plain = (
        one.replace("curl", 'curl -H "Authorization: Bearer $CALLER"') for one in (CALL, GO_ON, RESUBSCRIBE, PLAIN)
    )
    head, _, body = (await run(call, **env)).partition(b"\r\n\r\n")
    assert numbers(events(body)) == [1, 2, 3, 4, 5]
    found = re.search(rb"X-A2A-Call-ID: (\S+)", head)
    assert found is not None
    agent.behave = error(-32601)
    for example in (go_on, resubscribe):
        assert SHOWN_CALL in example
        said = await run(example.replace(SHOWN_CALL, found[1].decode()).replace(SHOWN_TASK, TASK), **env)
        assert numbers(events(said)) == [3, 4, 5]
    agent.behave = streaming(script)
    _, _, body = (await run(plain, **env)).partition(b"\r\n\r\n")
    assert numbers(events(body)) == [1, 2, 3, 4, 5]


def texts(seen: list[tuple[str | None, Any]]) -> list[str]:
    results = [data["result"] for _, data in seen]
    return [one["artifact"]["parts"][0]["text"] for one in results if one["kind"] == "artifact-update"]


async def test_they_work_with_what_make_run_starts() -> None:
    folder = str(folders.fresh("a2a-dev-"))  # one that the servers' unprivileged user may reach
    try:
        async with process.started("dev", "--port", "0", "--data-dir", folder, env={}) as gateway:
            set_up = SET_UP.replace(HERE, gateway.url)
            assert set_up != SET_UP
            assert "stream 30" in CALL
            short = CALL.replace("stream 30", "stream 3")
            shown, called = await asyncio.gather(run(README.replace(HERE, gateway.url)), run(set_up + short))
            assert texts(events(shown)) == [f"{number} of 5\n" for number in range(1, 6)]
            seen = events(called.partition(b"\r\n\r\n")[2])
            assert texts(seen) == [f"{number} of 3\n" for number in range(1, 4)]
            found = re.search(rb"X-A2A-Call-ID: (\S+)", called)
            assert found is not None
            for example in (GO_ON, RESUBSCRIBE):
                yours = example.replace(SHOWN_CALL, found[1].decode()).replace(SHOWN_TASK, seen[0][1]["result"]["id"])
                assert texts(events(await run(set_up + yours))) == ["2 of 3\n", "3 of 3\n"]
            assert await gateway.stop() == 0
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("ending", [one for one in sorted(OUTCOMES) if classify(OUTCOMES[one]).answer.status >= 300])
def test_all_that_the_last_event_of_a_stream_says_is_in_the_table(ending: Ending) -> None:
    _, table = DOCUMENT.split("  | of `data` | |\n")
    rows = table.split("\n\n")[0].splitlines()[1:]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {"code", "last_event_id"} < documented
    ended = classify(OUTCOMES[ending], native_session=True)
    for last in (0, 1):
        said = orjson.loads(farewell(ended.answer, ending.value, call_id="c", last=last, resumable=False))["data"]
        assert set(said) <= documented


async def test_behind_the_last_event_of_a_stream_there_is_nothing_and_who_names_none_of_its_events_has_it_all(
    world: World,
) -> None:
    await world.start()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        for n in (1, 2, 3):
            await response.write(update(n, final=n == 3))

    agent = await world.agent(streaming(script))
    target = await world.workspace(agent.url)
    async with open_stream(world, target) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        assert numbers(events(await response.read())) == [1, 2, 3]
    path = f"/workspaces/{target.id}/a2a/calls/{call_id}/stream"
    for seen, status in ((f"{call_id}-3", 204), (f"{call_id}-99", 204), (f"{target.id}-1", 400), ("odd", 400)):
        got, said, _ = await world.request("GET", path, headers={"Last-Event-ID": seen})
        assert got == status, said
    agent.behave = error(-32601)
    for seen, rest in ((f"{call_id}-3", []), (f"{target.id}-2", [1, 2, 3]), ("odd", [1, 2, 3])):
        again = {"jsonrpc": "2.0", "id": 2, "method": "tasks/resubscribe", "params": {"id": TASK}}
        async with open_stream(world, target, body=again, headers={"Last-Event-ID": seen}) as response:
            assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
            assert numbers(events(await response.read())) == rest
