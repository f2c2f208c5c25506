"""web.protocol: bytes that are no request."""

import asyncio
import contextlib
from urllib.parse import urlsplit

import orjson
import pytest

from gateway.services.tasks import Tasks
from tests.harness import raw
from tests.harness.agent import silent_for
from tests.harness.world import World

SECRET = b"secret-token-of-somebody"
MALFORMED = {
    "a bare line feed": b"POST /workspaces HTTP/1.1\nAuthorization: Bearer %b\n\n" % SECRET,
    "a control character": b"GET /workspaces HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\x01\r\n\r\n" % SECRET,
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n %b\r\n\r\n" % SECRET,
    "a space before the colon": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : %b\r\n\r\n" % SECRET,
    "a header too long": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: %b%b\r\n\r\n" % (SECRET, b"x" * 20_000),
    "no HTTP at all": SECRET + b"\r\n\r\n",
}


async def exchange(url: str, sent: bytes) -> tuple[bytes, bytes]:
    """Send bytes as they are; return the head and the body of what comes back before the connection ends."""
    head, _, body = (await raw.exchange(url, sent)).partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_is_no_request_is_refused_like_any_other_and_repeated_nowhere(world: World, kind: str) -> None:
    gateway = await world.start()
    head, body = await exchange(gateway.url, MALFORMED[kind])
    assert b" 400 " in head.split(b"\r\n")[0]
    assert b"X-Request-ID" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert orjson.loads(body)["code"] == "invalid_request"
    assert SECRET not in head + body
    assert SECRET.decode() not in gateway.log()
    assert "Traceback" not in gateway.log()


async def test_an_odd_expectation_is_not_repeated_and_the_usual_one_is_met(world: World) -> None:
    gateway = await world.start()
    request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: %b\r\n\r\n"
    head, body = await exchange(gateway.url, request % b"<script>")
    assert b" 417 " in head.split(b"\r\n")[0]
    assert b"<script>" not in head + body
    head, _ = await exchange(gateway.url, request % b"100-continue")
    assert head.startswith(b"HTTP/1.1 100 Continue")


@pytest.mark.parametrize("begun", [b"", b"GET /healthz", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "])
async def test_a_client_whose_first_request_does_not_come_is_let_go_of(world: World, begun: bytes) -> None:
    gateway = await world.start(GATEWAY_HEADER_TIMEOUT_SECONDS="0.5")
    parts = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)

    async def trickle() -> None:
        writer.write(begun)
        for _ in range(100 if begun else 0):
            writer.write(b"x")
            await asyncio.sleep(0.05)

    async with Tasks() as tasks:
        tasks.spawn(trickle(), "trickle")
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):  # it goes on to trickle while it is let go of
                assert await reader.read() == b""
    writer.close()


async def test_a_client_whose_requests_come_is_kept_though_an_answer_takes_long(world: World) -> None:
    gateway = await world.start(GATEWAY_HEADER_TIMEOUT_SECONDS="0.8")
    agent = await world.agent(silent_for(1.5))
    target = await world.workspace(agent.url)
    assert (await world.call(target))[0] == 200
    parts = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in await reader.readline()
        assert await reader.readuntil(b"}")
        await asyncio.sleep(1.0)  # idle for longer than a first request may be
    writer.close()
    async with world.reading(target, gateway=gateway) as stream:
        await asyncio.sleep(1.0)
        assert not stream.ended


async def test_behind_tls_browsers_are_told_to_stay_there(world: World) -> None:
    await world.start(GATEWAY_PUBLIC_URL="https://gateway.example")
    for path in ("/healthz", "/nowhere", "/workspaces"):
        _, _, headers = await world.request("GET", path, headers={"Authorization": None})
        assert headers["Strict-Transport-Security"] == "max-age=31536000"
    plain = await world.start()
    _, _, headers = await world.request("GET", "/healthz", gateway=plain)
    assert "Strict-Transport-Security" not in headers
