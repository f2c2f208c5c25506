"""The metrics: all of them shown, documented, and moving."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway.metrics import BUS_STATES, Readings
from gateway.services.tasks import Tasks
from tests.harness import valkey as valkeys
from tests.harness.agent import silent_for
from tests.harness.source import ROOT
from tests.harness.world import ADMIN_TOKEN, Workspace, World

DOCS: Final = (ROOT / "docs" / "events.md").read_text()
QUIET: Final = Readings(
    bus_state="up",
    bus_waiting_events=0,
    bus_dropped_events=0,
    bus_publish_failures=0,
    bus_gaps=0,
    bus_repairs=0,
    bus_probe_latency_seconds=0.5,
    journal_entries=0,
    ring_frames=0,
    ring_bytes=0,
    bodies_fetched=9,
    bodies_missed=1,
    bodies_bytes=77,
    readers=0,
    readers_lagging=0,
    readers_fallen_behind=0,
    connections=1,
    connections_turned_away=0,
    body_bytes=0,
    bodies_refused=0,
    calls_in_flight=0,
    calls_held=0,
    calls_out=0,
    delegations_out=0,
    callers_waiting=0,
    agents_waiting=0,
    delivery_mode_unsure=0,
    calls_interrupted=0,
    calls_admitted=0,
    calls_joined=0,
    answers_unkept=0,
    requests_limited=0,
    requests_unchecked=0,
    feeds={"live": 3, "stopped": 0},
    feed_events=0,
    feed_events_repeated=0,
    feed_events_dropped=0,
    feed_connects=0,
    activity_waiting_rows=0,
    activity_dropped_rows=0,
    activity_bodiless_rows=0,
    loops_hung=0,
    loops_gave_up=0,
    agent_streams=0,
    agent_stream_readers=0,
    agent_stream_bytes=0,
    agent_streams_unjournalled=0,
    tasks_died=0,
)


def samples(text: str) -> dict[str, float]:
    """Every sample by its name, with its label if it has one."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name + "".join(f" {value}" for value in sample.labels.values())] = sample.value
    return found


def shown(readings: Readings) -> dict[str, float]:
    return samples(metrics.exposition(readings).decode())


NAMES: Final = [name for name, _ in metrics.describe()]


def test_the_documents_show_every_metric_as_it_is():
    shown = re.search(r"<!-- metrics -->\n(.*?)\n?<!-- /metrics -->", DOCS, re.DOTALL)
    assert shown is not None
    table = [
        "| metric | what it tells |",
        "|---|---|",
        *(f"| `{name}` | {about} |" for name, about in metrics.describe()),
    ]
    assert shown[1] == "\n".join(table)


def test_every_metric_is_shown_under_its_name_with_what_it_is_about():
    text = metrics.exposition(QUIET).decode()
    assert {sample.split(" ")[0] for sample in samples(text)} == set(NAMES)
    assert len(re.findall(r"^# HELP \w+ \S+", text, re.MULTILINE)) == len(NAMES)


@pytest.mark.parametrize("state", BUS_STATES)
def test_the_bus_is_in_one_state(state: str):
    found = shown(replace(QUIET, bus_state=state))
    assert {one: found[f"gateway_bus_state {one}"] for one in BUS_STATES} == {
        one: float(one == state) for one in BUS_STATES
    }


def test_what_is_not_known_is_not_shown():
    unknown = shown(replace(QUIET, bus_probe_latency_seconds=None, journal_entries=None))
    assert shown(QUIET).keys() - unknown.keys() == {"gateway_bus_probe_latency_seconds", "gateway_journal_entries"}


async def read(world: World) -> dict[str, float]:
    async with world.session.get(f"{world.url}/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return samples(await response.text())


async def until(world: World, name: str, value: float) -> dict[str, float]:
    """Read until this one has come to this value, or past it where it counts."""
    async with asyncio.timeout(10):
        while True:
            readings = await read(world)
            found = readings[name]
            if found == value or (name.endswith("_total") and found > value):
                return readings
            await asyncio.sleep(0.02)


@asynccontextmanager
async def calling(world: World, target: Workspace) -> AsyncIterator[None]:
    """Let a call wait for its answer while the block lasts."""
    async with Tasks() as tasks:
        tasks.spawn(_call(world, target), "call")
        yield


async def _call(world: World, target: Workspace) -> None:
    await world.call(target)


async def test_the_readings_move_with_what_happens(world: World):
    async with valkeys.running() as valkey:
        world.env["GATEWAY_REDIS_URL"] = valkey.url
        await world.start(GATEWAY_PROBE_SECONDS="0.2")
        target = await world.workspace((await world.agent(silent_for(30))).url)
        before = await until(world, "gateway_ring_frames", 1)  # it has been made
        assert before["gateway_bus_state up"] == 1
        assert 0 < before["gateway_bus_probe_latency_seconds"] < 10
        assert before["gateway_readers"] == before["gateway_calls_in_flight"] == 0

        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        stream = world.session.get(f"{world.url}/events/stream", headers=headers)
        socket = world.session.ws_connect(f"{world.url}/ws", headers=headers)
        async with stream, socket, calling(world, target):
            during = await until(world, "gateway_calls_in_flight", 1)
            assert during["gateway_readers"] == 2
            assert await world.beat(target, current_task="something new") == 200
            after = before
            async with asyncio.timeout(10):  # what was said of the workspace when it was made may come as late
                while (
                    not before["gateway_ring_frames"] < after["gateway_ring_frames"] == after["gateway_journal_entries"]
                ):
                    after = await read(world)
            assert after["gateway_ring_bytes"] > before["gateway_ring_bytes"]

        valkey.stall()
        away = await until(world, "gateway_bus_state up", 0)
        assert "gateway_journal_entries" not in away
        assert await world.beat(target, current_task="not heard yet") == 200
        away = await until(world, "gateway_bus_publish_failures_total", 1)
        assert away["gateway_bus_waiting_events"] >= 1
        valkey.go_on()
        back = await until(world, "gateway_bus_waiting_events", 0)
        assert back["gateway_bus_publish_failures_total"] >= 1
        back = await until(world, "gateway_bus_state up", 1)
        assert back["gateway_bus_gaps_total"] == back["gateway_bus_dropped_events_total"] == 0
        assert back["gateway_tasks_died_total"] == 0
