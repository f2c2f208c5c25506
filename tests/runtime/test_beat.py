"""runtime.beat: registered, it beats; lost, it registers again; refused, it stops."""

import asyncio
import logging

import pytest

from runtime.beat import Heart, Presence
from runtime.client import connected
from runtime.identity import Identity, find_identity
from runtime.spawn import Tasks
from runtime.turns import Vitals

ID = "3f2b9c1e-0a4d-4b55-8a2f-1f1f1f1f1f1f"


class Patient:
    """A heart under test with everything around it."""

    def __init__(self, state_dir):
        self.state_dir = state_dir
        self.vitals = Vitals(active_tasks=0, current_task="")
        self.changed = asyncio.Event()
        self.ready = 0
        self.wedged = False
        self.beating = None

    def became_ready(self):
        self.ready += 1


@pytest.fixture
async def start_heart(gateway, tmp_path):
    async with connected(gateway.url) as client, Tasks() as tasks:

        def start(*, heartbeat_s=0.05, token=None):
            patient = Patient(tmp_path)
            heart = Heart(
                identity=Identity(workspace_id=ID, token=token),
                state_dir=tmp_path,
                presence=Presence(url="http://a/", card={"name": "n"}),
                vitals=lambda: patient.vitals,
                wedged=lambda: patient.wedged,
                heartbeat_s=heartbeat_s,
                changed=patient.changed,
                on_ready=patient.became_ready,
            )
            patient.beating = tasks.spawn(heart.run(client), name="heart")
            return patient

        yield start


async def stopped(patient):
    async with asyncio.timeout(5):
        return await patient.beating


async def test_it_registers_keeps_what_it_got_and_beats_with_the_minted_token(
    start_heart, gateway, wait_until, tmp_path
):
    patient = start_heart()
    await wait_until(lambda: len(gateway.heartbeats) >= 3)
    assert (len(gateway.registrations), patient.ready) == (1, 1)
    assert {beat["authorization"] for beat in gateway.heartbeats} == {"Bearer minted"}
    assert gateway.heartbeats[0]["workspace_id"] == ID
    assert find_identity(tmp_path, ID) == Identity(workspace_id=ID, token="minted", inbound_secret="s3")


async def test_a_token_that_was_given_stays_when_none_is_minted(start_heart, gateway, wait_until, tmp_path):
    gateway.on_register = (200, {"status": "registered"}, {})
    start_heart(token="given")
    await wait_until(lambda: gateway.heartbeats)
    assert gateway.heartbeats[0]["authorization"] == "Bearer given"
    assert find_identity(tmp_path, ID) == Identity(workspace_id=ID, token="given")


async def test_a_change_is_told_long_before_the_next_beat(start_heart, gateway, wait_until):
    patient = start_heart(heartbeat_s=600)
    await wait_until(lambda: gateway.heartbeats)
    patient.vitals = Vitals(active_tasks=1, current_task="slow 3")
    patient.changed.set()
    await wait_until(lambda: len(gateway.heartbeats) == 2)
    assert (gateway.heartbeats[1]["active_tasks"], gateway.heartbeats[1]["current_task"]) == (1, "slow 3")
    with pytest.raises(TimeoutError):
        await wait_until(lambda: len(gateway.heartbeats) > 2, deadline_s=0.3)


async def test_many_changes_make_few_beats(start_heart, gateway, wait_until):
    patient = start_heart(heartbeat_s=600)
    await wait_until(lambda: gateway.heartbeats)
    for number in range(100):
        patient.vitals = Vitals(active_tasks=number, current_task=str(number))
        patient.changed.set()
        await asyncio.sleep(0.001)
    await wait_until(lambda: gateway.heartbeats[-1]["current_task"] == "99")
    assert len(gateway.heartbeats) < 20


async def test_a_gateway_that_comes_late_is_waited_for(start_heart, gateway, wait_until):
    await gateway.go()
    patient = start_heart()
    await wait_until(lambda: patient.beating.get_stack())
    await asyncio.sleep(0)
    assert patient.ready == 0
    await gateway.come()
    await wait_until(lambda: gateway.heartbeats)
    assert patient.ready == 1


async def test_after_the_gateway_was_away_it_registers_again_and_says_trouble_once(
    start_heart, gateway, wait_until, caplog
):
    caplog.set_level(logging.INFO)
    patient = start_heart()
    await wait_until(lambda: gateway.heartbeats)
    await gateway.go()
    await wait_until(lambda: "gateway_trouble kind=away" in caplog.text)
    await gateway.come()
    await wait_until(lambda: "gateway_is_back" in caplog.text)
    assert (len(gateway.registrations), patient.ready) == (2, 1)
    assert gateway.registrations[1]["authorization"] == "Bearer minted"
    assert caplog.text.count("gateway_trouble") <= 3


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refused_heartbeat_leads_to_a_new_registration(start_heart, gateway, wait_until, status):
    start_heart()
    await wait_until(lambda: gateway.heartbeats)
    gateway.on_heartbeat = (status, {"error": "who are you"}, {})
    await wait_until(lambda: len(gateway.registrations) >= 2)
    gateway.on_heartbeat = (200, {"status": "ok"}, {})
    seen = len(gateway.heartbeats)
    await wait_until(lambda: len(gateway.heartbeats) >= seen + 3)


async def test_a_gateway_that_registers_and_refuses_every_beat_is_not_hammered(start_heart, gateway, wait_until):
    gateway.on_heartbeat = (401, {"error": "who are you"}, {})
    patient = start_heart(heartbeat_s=600)
    await wait_until(lambda: gateway.heartbeats)
    with pytest.raises(TimeoutError):
        await wait_until(lambda: len(gateway.registrations) > 2, deadline_s=0.4)
    assert not patient.beating.done()


async def test_a_503_is_tried_again_without_registering(start_heart, gateway, wait_until):
    start_heart()
    await wait_until(lambda: gateway.heartbeats)
    gateway.on_heartbeat = (503, {"error": "the database is away"}, {"Retry-After": "0"})
    seen = len(gateway.heartbeats)
    await wait_until(lambda: len(gateway.heartbeats) >= seen + 3)
    assert len(gateway.registrations) == 1


async def test_each_trouble_starts_with_the_shortest_pause(start_heart, gateway, wait_until, monkeypatch):
    taken = []

    def short_pauses(**bounds):
        series = len(taken)
        taken.append(0)
        while True:
            taken[series] += 1
            yield 0.001

    monkeypatch.setattr("runtime.beat.pauses", short_pauses)
    start_heart()
    for outage in range(2):
        seen = len(gateway.heartbeats)
        await wait_until(lambda seen=seen: len(gateway.heartbeats) >= seen + 2)
        gateway.on_heartbeat = (503, {"error": f"outage {outage}"}, {})
        await wait_until(lambda outage=outage: len(taken) == outage + 1 and taken[outage] >= 3)
        gateway.on_heartbeat = (200, {"status": "ok"}, {})


async def test_retry_after_is_obeyed(start_heart, gateway, wait_until):
    gateway.on_register = (503, {"error": "not yet"}, {"Retry-After": "30"})
    start_heart()
    await wait_until(lambda: gateway.registrations)
    with pytest.raises(TimeoutError):
        await wait_until(lambda: len(gateway.registrations) > 1, deadline_s=0.3)


async def test_a_registration_that_is_answered_503_is_tried_until_it_works(start_heart, gateway, wait_until):
    good = gateway.on_register
    gateway.on_register = (503, {"error": "not yet"}, {})
    patient = start_heart()
    await wait_until(lambda: len(gateway.registrations) >= 3)
    gateway.on_register = good
    await wait_until(lambda: patient.ready)


async def test_a_token_the_gateway_forgot_is_given_up_for_a_new_one(start_heart, gateway, wait_until, tmp_path):
    gateway.known_tokens = {None, "Bearer minted"}
    start_heart(token="of an older gateway")
    await wait_until(lambda: gateway.heartbeats)
    assert [seen["authorization"] for seen in gateway.registrations] == ["Bearer of an older gateway", None]
    assert find_identity(tmp_path, ID).token == "minted"


async def test_a_token_that_is_refused_for_good_ends_it_with_the_gateways_words(start_heart, gateway):
    gateway.known_tokens = {"Bearer other"}
    assert await stopped(start_heart(token="mine")) == (
        "the gateway refused to register this agent (401): unknown token"
    )


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_refused_registration_ends_it_with_the_gateways_words(start_heart, gateway, status):
    gateway.on_register = (status, {"error": "url is not safe"}, {})
    patient = start_heart()
    assert await stopped(patient) == f"the gateway refused to register this agent ({status}): url is not safe"
    assert patient.ready == 0


async def test_removed_ends_it_while_registering(start_heart, gateway):
    gateway.on_register = (410, {"error": "workspace removed"}, {})
    assert "removed workspace" in await stopped(start_heart())


async def test_removed_ends_it_while_beating(start_heart, gateway, wait_until):
    patient = start_heart()
    await wait_until(lambda: gateway.heartbeats)
    gateway.on_heartbeat = (410, {"error": "workspace removed"}, {})
    assert await stopped(patient) == f"the gateway removed workspace {ID}: workspace removed"


async def test_a_beat_says_when_the_loop_is_stuck_and_says_nothing_of_it_otherwise(start_heart, gateway, wait_until):
    patient = start_heart()
    await wait_until(lambda: gateway.heartbeats)
    assert "runtime_state" not in gateway.heartbeats[-1]
    patient.wedged = True
    await wait_until(lambda: gateway.heartbeats[-1].get("runtime_state") == "wedged")
    patient.wedged = False
    await wait_until(lambda: "runtime_state" not in gateway.heartbeats[-1])
