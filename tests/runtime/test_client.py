"""runtime.client: two requests, and a closed set of answers."""

import asyncio

import aiohttp
import pytest

from runtime.client import (
    Away,
    Beaten,
    GatewayClient,
    Later,
    Refused,
    Registered,
    Removed,
    connected,
    read_problem,
)

CARD = {"name": "n"}


@pytest.fixture
async def client(gateway):
    async with connected(gateway.url + "/") as connection:
        yield connection


async def register(client, token=None):
    return await client.register(workspace_id="w", url="http://a/", card=CARD, token=token)


async def test_registering_sends_url_and_card_and_reads_the_secrets(client, gateway):
    assert await register(client, "t0") == Registered(token="minted", inbound_secret="s3")
    assert gateway.registrations == [
        {"id": "w", "url": "http://a/", "agent_card": CARD, "delivery_mode": "push", "authorization": "Bearer t0"}
    ]


async def test_without_a_token_there_is_no_authorization(client, gateway):
    await register(client)
    assert gateway.registrations[0]["authorization"] is None


async def test_secrets_that_were_not_sent_are_none(client, gateway):
    gateway.on_register = (200, {"status": "registered", "auth_token": 5}, {})
    assert await register(client) == Registered(token=None, inbound_secret=None)


async def test_a_heartbeat_goes_out_as_it_is(client, gateway):
    assert await client.heartbeat({"workspace_id": "w", "active_tasks": 2}, token="t") == Beaten()
    assert gateway.heartbeats == [{"workspace_id": "w", "active_tasks": 2, "authorization": "Bearer t"}]


async def test_a_gateway_that_is_not_there_is_away(client, gateway):
    await gateway.go()
    assert isinstance(await register(client), Away)
    assert isinstance(await client.heartbeat({}, token=None), Away)


async def test_a_gateway_that_does_not_answer_is_away():
    closed = asyncio.Event()

    async def swallow(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.05)) as session:
        client = GatewayClient(gateway_url=f"http://{host}:{port}", session=session)
        assert await register(client) == Away(sentence="no answer in time")
        async with asyncio.timeout(5):
            await closed.wait()


async def test_redirects_are_not_followed_with_our_token(gateway):
    async with connected(gateway.url + "/moved") as client:
        assert await register(client, "t") == Refused(status=307, sentence="Temporary Redirect")
    assert gateway.registrations == []


async def test_a_page_of_a_proxy_is_no_registration(client, gateway):
    gateway.on_register = (200, "<html>welcome</html>", {})
    assert isinstance(await register(client), Later)


async def test_an_endless_answer_is_not_read_to_its_end(client, gateway):
    gateway.on_register = (200, '{"status":"' + "x" * 200_000 + '"}', {})
    assert isinstance(await register(client), Later)


@pytest.mark.parametrize(
    ("status", "headers", "body", "problem"),
    [
        (400, {}, {"error": "url is not safe"}, Refused(status=400, sentence="url is not safe")),
        (401, {}, {"error": "who?"}, Refused(status=401, sentence="who?")),
        (403, {}, None, Refused(status=403, sentence="Forbidden")),
        (404, {}, {"error": {"message": "no"}}, Refused(status=404, sentence="no")),
        (499, {}, None, Refused(status=499, sentence="status 499")),
        (400, {}, {"error": "a\r\nb\x1b[31m"}, Refused(status=400, sentence="a  b [31m")),
        (400, {}, {"error": "x" * 999}, Refused(status=400, sentence="x" * 300)),
        (410, {}, {"error": "removed"}, Removed(sentence="removed")),
        (503, {"Retry-After": "7"}, {"error": "later"}, Later(sentence="later", retry_after_s=7)),
        (503, {"Retry-After": "86400"}, {"error": "later"}, Later(sentence="later", retry_after_s=60)),
        (429, {"Retry-After": "Wed, 21 Oct 2026"}, {"error": "slow"}, Later(sentence="slow", retry_after_s=0)),
        (500, {"Retry-After": "-3"}, None, Later(sentence="Internal Server Error", retry_after_s=0)),
        (408, {}, {"error": ""}, Later(sentence="Request Timeout", retry_after_s=0)),
    ],
)  # fmt: skip
def test_every_status_is_one_problem(status, headers, body, problem):
    assert read_problem(status, headers, body) == problem


def test_secrets_do_not_print():
    assert "hush" not in repr(Registered(token="hush", inbound_secret="hush"))
