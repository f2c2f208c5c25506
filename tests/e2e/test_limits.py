"""What replicas count together: how often somebody may ask, how deep calls wait for one another, what they spend."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.test_streams import asked, open_stream
from tests.harness import valkey as valkeys
from tests.harness.agent import Behaviour, result, silent_for
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

SLOW: Final = "/3600"
"""Buckets that do not fill while a test lasts."""


async def two(world: World, **env: str) -> tuple[GatewayProcess, GatewayProcess]:
    one, other = await asyncio.gather(world.start(**env), world.start(**env))
    return one, other


async def metrics(world: World, gateway: GatewayProcess) -> Mapping[str, float]:
    _, text, _ = await world.request("GET", "/metrics", gateway=gateway)
    families = text_string_to_metric_families(text.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


# -- how often


async def test_a_credential_has_so_many_calls_on_all_replicas_together(world: World) -> None:
    gateways = await two(world, GATEWAY_RATE_CALLS=f"5{SLOW}")
    agent = await world.agent()
    target, other = await world.workspace(agent.url), await world.workspace(agent.url)
    for number in range(5):
        status, _, headers = await world.call(target, gateway=gateways[number % 2], headers=target.bearer)
        assert status == 200
        assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("5", str(4 - number))
        assert 0 < int(headers["X-RateLimit-Reset"]) <= 3600
    for gateway in gateways * 2:
        status, body, headers = await world.call(target, gateway=gateway, headers=target.bearer)
        assert (status, body["code"], headers["X-RateLimit-Remaining"]) == (429, "rate_limited", "0")
        assert 0 < int(headers["Retry-After"]) == body["retry_after"] <= 720
        assert headers["X-A2A-Call-ID"]
    assert len(agent.bodies) == 5
    assert (await world.call(other, headers=other.bearer))[0] == 200, "everybody has their own"
    assert await world.beat(target) == 200, "calls do not use up heartbeats"
    assert (await world.request("GET", f"/workspaces/{target.id}", headers=target.bearer))[0] == 200
    counted = [await metrics(world, gateway) for gateway in gateways]
    assert sum(one["gateway_requests_limited_total"] for one in counted) == 4
    assert sum(one["gateway_calls_admitted_total"] for one in counted) == 6


async def test_a_streaming_caller_pays_for_a_refusal_as_well_that_it_is_told_in_its_stream(world: World) -> None:
    await world.start(GATEWAY_RATE_CALLS=f"3{SLOW}")
    target = await world.workspace()
    said = []
    for _ in range(5):
        async with open_stream(world, target, body=asked(), headers=target.bearer) as response:
            said.append((response.status, b'"no_url"' in await response.read()))
    assert said == [(200, True)] * 3 + [(429, False)] * 2


async def test_a_path_that_is_none_and_a_verb_that_is_none_are_paid_for_too(world: World) -> None:
    await world.start(GATEWAY_RATE_CALLS=f"4{SLOW}")
    target = await world.workspace()
    path = f"/workspaces/{target.id}/a2a"
    asked_for = [f"{path}/message:send", f"{path}/nothing"] * 3
    said = [(await world.request("GET", one, headers=target.bearer))[0] for one in asked_for]
    assert said == [405, 404, 405, 404, 429, 429]


async def test_a_workspace_has_one_bucket_however_many_tokens_it_makes_itself(world: World) -> None:
    await world.start(GATEWAY_RATE_CALLS=f"3{SLOW}")
    one = await world.workspace((await world.agent()).url)
    tokens = [one.token]
    for _ in range(3):
        _, made, _ = await world.request("POST", f"/workspaces/{one.id}/tokens", headers=one.bearer)
        tokens.append(made["auth_token"])
    called = [(await world.call(one, headers={"Authorization": f"Bearer {token}"}))[0] for token in tokens]
    assert called == [200, 200, 200, 429]


async def test_one_workspace_cannot_take_all_places_for_calls(world: World) -> None:
    await world.start(GATEWAY_MAX_CALLS="6", GATEWAY_MAX_CALLS_EACH="4")
    greedy = await world.workspace((await world.agent(silent_for(60))).url)
    other = await world.workspace((await world.agent()).url)
    async with asyncio.TaskGroup() as callers:
        held = [callers.create_task(world.call(greedy, headers=greedy.bearer)) for _ in range(6)]
        await eventually(lambda: sum(call.done() for call in held) == 2)
        refused = [call.result() for call in held if call.done()]
        assert {(status, body["code"]) for status, body, _ in refused} == {(503, "overloaded")}
        assert (await world.call(other, headers=other.bearer))[0] == 200
        for call in held:
            call.cancel()


async def test_what_may_not_be_called_costs_a_call_too(world: World) -> None:
    await world.start(GATEWAY_RATE_CALLS=f"2{SLOW}")
    one = await world.workspace()
    foreign = Workspace("00000000-0000-4000-8000-000000000404", "")
    asked = [(await world.call(foreign, headers=one.bearer))[0] for _ in range(3)]
    assert asked == [403, 403, 429]


async def test_a_call_that_is_refused_while_it_is_read_costs_a_call_too_and_costs_it_once(world: World) -> None:
    await world.start(GATEWAY_RATE_CALLS=f"7{SLOW}", A2A_MAX_REQUEST_BYTES="1000")
    one = await world.workspace((await world.agent()).url)
    path, unknown = f"/workspaces/{one.id}/a2a", "/workspaces/no-such-id/a2a"
    zipped = {"Content-Encoding": "gzip"}
    tries: list[tuple[int, str, bytes, dict[str, str]]] = [
        (413, path, b" " * 1001, {}),
        (400, path, b"no gzip", zipped),
        (415, path, b"{}", {"Content-Encoding": "br"}),
        (404, unknown, b"{}", {}),
        (400, path, b"{}", {}),
        (400, path, b"{}", {"X-Timeout": "soon"}),
        (403, "/workspaces/00000000-0000-4000-8000-000000000404/a2a", b"{}", {}),
    ]
    for left, (expected, where, body, headers) in zip(range(6, -1, -1), tries, strict=True):
        status, _, said = await world.request("POST", where, data=body, headers=one.bearer | headers)
        assert (status, said.get("X-RateLimit-Remaining")) == (expected, str(left)), where
    for _, where, body, headers in tries:
        assert (await world.request("POST", where, data=body, headers=one.bearer | headers))[0] == 429
    status, _, said = await world.request("POST", path, data=b"{}", headers={"Authorization": "Bearer nobodys"})
    assert (status, said.get("X-RateLimit-Remaining")) == (401, None), "who shows no credential pays as a failure"


async def test_tokens_and_registrations_are_dearer_than_other_requests_but_not_for_the_operator(world: World) -> None:
    gateways = await two(world, GATEWAY_RATE_STRICT=f"3{SLOW}")
    agent = await world.agent()
    one = await world.workspace(agent.url)
    asked = [
        await world.request("POST", f"/workspaces/{one.id}/tokens", gateway=gateway, headers=one.bearer)
        for gateway in gateways * 2
    ]
    assert [status for status, _, _ in asked] == [201, 201, 201, 429]
    assert asked[-1][1]["code"] == "rate_limited"
    registration = {"id": one.id, "url": agent.url, "agent_card": {}}
    status, body, _ = await world.request("POST", "/registry/register", json=registration, headers=one.bearer)
    assert (status, body["code"]) == (429, "rate_limited"), "registering is counted with them"
    for gateway in gateways * 3:
        assert (await world.request("POST", f"/workspaces/{one.id}/tokens", gateway=gateway))[0] == 201


async def test_guessing_credentials_from_one_address_ends_soon_and_does_not_shut_out_those_who_have_one(
    world: World,
) -> None:
    env = {"GATEWAY_RATE_FAILURES": f"4{SLOW}", "GATEWAY_TRUSTED_PROXIES": "127.0.0.0/8"}
    gateways = await two(world, **env)
    one = await world.workspace((await world.agent()).url)
    for gateway in gateways:
        assert (await world.call(one, gateway=gateway, headers=one.bearer))[0] == 200

    async def guess(number: int, gateway: GatewayProcess, address: str) -> int:
        headers = {"Authorization": f"Bearer {number:043d}", "X-Forwarded-For": address}
        return (await world.request("GET", "/workspaces", gateway=gateway, headers=headers))[0]

    guessed = [await guess(number, gateways[number % 2], "203.0.113.7") for number in range(8)]
    assert guessed == [401] * 4 + [429] * 4
    assert await guess(8, gateways[0], "203.0.113.8") == 401, "another address behind the same proxy"
    assert await guess(9, gateways[0], "203.0.113.9, 203.0.113.7") == 429, "a client's own word is not believed"
    known = one.bearer | {"X-Forwarded-For": "203.0.113.7"}
    assert (await world.call(one, headers=known))[0] == 200


async def test_an_address_is_not_what_a_client_says_it_is(world: World) -> None:
    await world.start(GATEWAY_RATE_FAILURES=f"2{SLOW}")
    said = [{"Authorization": None, "X-Forwarded-For": f"203.0.113.{number}"} for number in range(4)]
    asked = [await world.request("GET", "/workspaces", headers=headers) for headers in said]
    assert [status for status, _, _ in asked] == [401, 401, 429, 429]


async def test_while_redis_is_away_nobody_is_held_up_or_turned_away_and_that_is_counted(world: World) -> None:
    async with valkeys.running() as broker:
        gateway = await world.start(
            GATEWAY_REDIS_URL=broker.url, GATEWAY_RATE_CALLS=f"3{SLOW}", GATEWAY_ADMISSION_SECONDS="0.2"
        )
        one = await world.workspace((await world.agent()).url)
        for _ in range(2):
            assert (await world.call(one, headers=one.bearer))[0] == 200
        broker.stall()
        calls = await asyncio.gather(*(world.call(one, headers=one.bearer) for _ in range(20)))
        assert [status for status, _, _ in calls] == [200] * 20
        assert "X-RateLimit-Limit" not in calls[-1][2]
        assert (await metrics(world, gateway))["gateway_requests_unchecked_total"] >= 20
        broker.go_on()
        await until(lambda: world.call(one, headers=one.bearer), lambda said: said[0] == 429)


# -- how deep


def passing_on(world: World, whom: list[Workspace], me: int, limit: str | None = None, **said: str) -> Behaviour:
    """Serves each call by calling the next one through another replica, with the headers that it was given."""

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {**whom[me].bearer, **{name: request.headers[theirs] for name, theirs in said.items()}}
        if limit is not None:
            headers["X-Timeout"] = limit
        target = whom[(me + 1) % len(whom)]
        status, answer, _ = await world.call(target, gateway=world.gateways[me], headers=headers)
        text = answer["result"]["parts"][0]["text"] if status == 200 else f"{status} {answer['code']}"
        return web.json_response(result(body, text=f"{text} <"))

    return behave


@pytest.mark.parametrize("said", [{"X-A2A-Call-ID": "X-A2A-Call-ID"}, {"traceparent": "traceparent"}])
async def test_agents_that_call_each_other_in_a_circle_come_to_an_end(world: World, said: dict[str, str]) -> None:
    await two(world, A2A_MAX_DEPTH="5")
    pair: list[Workspace] = []
    for me in range(2):
        agent = await world.agent(passing_on(world, pair, me, **said))
        pair.append(await world.workspace(agent.url))
    status, body, _ = await world.call(pair[0])
    assert status == 200
    assert body["result"]["parts"][0]["text"] == "508 too_deep" + " <" * 5


@pytest.mark.parametrize("said", [{"X-A2A-Call-ID": "X-A2A-Call-ID"}, {"traceparent": "traceparent"}])
async def test_a_call_made_while_serving_another_ends_no_later_than_it(world: World, said: dict[str, str]) -> None:
    await two(world)
    pair: list[Workspace] = []
    parent = await world.agent(passing_on(world, pair, 0, limit="600", **said))
    pair.append(await world.workspace(parent.url))
    child = await world.agent(silent_for(60))
    pair.append(await world.workspace(child.url))
    status, body, _ = await world.call(pair[0], headers={"X-Timeout": "1.5"})
    assert (status, body["code"]) == (504, "deadline")
    await eventually(lambda: child.closed_early == 1, within_s=3)
    received = "select target_id::text, error_detail from activity where activity_type = 'a2a_receive'"
    rows = await until(lambda: world.sql(received), lambda rows: len(rows) == 2)
    assert dict(rows) == {pair[0].id: "deadline", pair[1].id: "deadline"}


# -- how much


def using(tokens: int, before: asyncio.Event | None = None) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if before is not None:
            await before.wait()
        answer = result(body)
        answer["result"]["usage"] = {"input_tokens": tokens, "output_tokens": 0}
        return web.json_response(answer)

    return behave


async def budget(world: World, of: Workspace, **wanted: int | None) -> Mapping[str, Any]:
    path = f"/workspaces/{of.id}/budget"
    status, body, _ = await (world.request("PATCH", path, json=wanted) if wanted else world.request("GET", path))
    assert status == 200, body
    shown: Mapping[str, Any] = body
    return shown


async def spent(world: World, of: Workspace, cents: int) -> Mapping[str, Any]:
    return await until(lambda: budget(world, of), lambda shown: shown["monthly_spend"] == cents)


PRICED: Final = {"GATEWAY_PRICES": "large=1000/0,*=0/0", "GATEWAY_CALL_RESERVE_CENTS": "10"}
TEN_CENTS: Final = 10_000
"""Tokens that cost so much."""


async def test_a_hundred_calls_at_once_cannot_spend_more_than_there_is(world: World) -> None:
    gateways = await two(world, **PRICED)
    all_there = asyncio.Event()
    agent = await world.agent(using(TEN_CENTS, before=all_there))
    target = await world.workspace(agent.url, model="large", budget_limit=55)
    outcomes: Counter[int] = Counter()

    async def call(gateway: GatewayProcess) -> None:
        outcomes[(await world.call(target, gateway=gateway))[0]] += 1

    async with asyncio.TaskGroup() as callers:
        for number in range(100):
            callers.create_task(call(gateways[number % 2]))
        await eventually(lambda: outcomes.total() == 95)
        all_there.set()
    assert outcomes == {200: 5, 402: 95}
    assert await spent(world, target, 50) == {"budget_limit": 55, "monthly_spend": 50, "budget_remaining": 5}
    status, _, _ = await world.call(target, gateway=gateways[1])
    assert status == 200, "who is alone may always begin"
    assert (await spent(world, target, 60))["budget_remaining"] == 0
    for gateway in gateways:
        status, body, _ = await world.call(target, gateway=gateway)
        assert (status, body["code"]) == (402, "budget_exceeded")
    assert await budget(world, target, budget_limit=1000) == {
        "budget_limit": 1000,
        "monthly_spend": 60,
        "budget_remaining": 940,
    }
    for gateway in gateways:
        await until(lambda gateway=gateway: world.call(target, gateway=gateway), lambda said: said[0] == 200)


async def test_a_new_month_begins_with_nothing_spent(world: World) -> None:
    await world.start(**PRICED)
    agent = await world.agent(using(TEN_CENTS))
    target = await world.workspace(agent.url, model="large", budget_limit=10)
    assert (await world.call(target))[0] == 200
    assert await world.beat(target, monthly_spend=12) == 200
    await spent(world, target, 12)
    assert (await world.call(target))[0] == 402
    await world.sql("update usage set day = (date_trunc('month', now() at time zone 'utc') - interval '1 day')::date")
    await world.sql("update liveness set monthly_spend_of = (now() at time zone 'utc' - interval '40 days')::date")
    assert await spent(world, target, 0) == {"budget_limit": 10, "monthly_spend": 0, "budget_remaining": 10}


async def test_a_model_without_a_price_costs_nothing_but_what_its_workspace_reports(world: World) -> None:
    await world.start(**PRICED)
    agent = await world.agent(using(TEN_CENTS))
    target = await world.workspace(agent.url, model="small", budget_limit=10)
    for _ in range(3):
        assert (await world.call(target))[0] == 200
    assert (await budget(world, target))["monthly_spend"] == 0
    assert await world.beat(target, monthly_spend=10) == 200
    await until(lambda: world.call(target), lambda said: said[0] == 402)


async def test_an_agent_that_lies_about_its_usage_spends_its_budget_and_breaks_nothing(world: World) -> None:
    await world.start(**PRICED)
    target = await world.workspace((await world.agent(using(10**12))).url, model="large", budget_limit=10)
    honest = await world.workspace((await world.agent()).url)
    assert (await world.call(target))[0] == 200
    assert (await world.call(target))[0] == 402
    await spent(world, target, 1_000_000)
    assert (await world.call(honest))[0] == 200


async def test_only_the_operator_sets_a_budget_and_it_says_what_is_wrong_with_one(world: World) -> None:
    await world.start()
    one = await world.workspace()
    path = f"/workspaces/{one.id}/budget"
    assert await budget(world, one) == {"budget_limit": None, "monthly_spend": 0, "budget_remaining": None}
    assert (await world.request("GET", path, headers=one.bearer))[0] == 200
    assert (await world.request("PATCH", path, json={"budget_limit": 5}, headers=one.bearer))[0] == 403
    status, body, _ = await world.request("PATCH", path, json={})
    assert (status, body["field"]) == (400, "budget_limit"), "nothing said is not the same as no limit"
    assert (await budget(world, one, budget_limit=0))["budget_remaining"] == 0
    assert (await budget(world, one, budget_limit=None))["budget_limit"] is None
    gone = Workspace("00000000-0000-4000-8000-000000000404", "")
    assert (await world.request("PATCH", f"/workspaces/{gone.id}/budget", json={"budget_limit": 1}))[0] == 404
