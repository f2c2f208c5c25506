"""web.protocol: bytes that are no request."""

import asyncio
from urllib.parse import urlsplit

import orjson
import pytest

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
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
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
