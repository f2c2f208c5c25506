"""web.stream: connections that leave aiohttp when their stream begins, on both loops, and how each of them ends."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.web.stream import HEARD_BYTES
from tests.harness import hall
from tests.harness.world import eventually

GET: Final = b"GET /events/stream HTTP/1.1\r\nHost: gateway\r\n\r\n"
OPENED: Final = b": ok\n\n"
WITHIN_S: Final = 10.0
LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Run a test's own coroutine on each of the loops that the gateway knows."""

    def run(scene: Callable[[], Any]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(scene())

    return run


class Raw:
    """A client that writes bytes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self._reader.readuntil(mark)

    async def rest(self) -> bytes:
        """All that comes before the end; raises ConnectionError if it is cut."""
        async with asyncio.timeout(WITHIN_S):
            return await self._reader.read()

    def reset(self) -> None:
        """Go without a word."""
        opened = self.writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def asking(house: hall.Hall, said: bytes, **options: Any) -> AsyncIterator[Raw]:
    parts = urlsplit(house.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, **options)
    try:
        writer.write(said)
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def test_a_stream_is_told_to_be_the_last_on_its_connection_and_ends_with_its_last_chunk(run):
    async def scene() -> None:
        async with hall.running() as house, asking(house, GET) as client:
            head = await client.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in head
            assert b"\r\nTransfer-Encoding: chunked\r\n" in head
            await client.until(OPENED)
            house.tell("something")
            await client.until(b"something")
            await house.streams.close()
            assert (await client.rest()).endswith(b"\r\n0\r\n\r\n")
            await eventually(lambda: len(house.streams) == 0)

    run(scene)


def test_a_client_of_the_old_version_gets_plain_blocks_and_the_end_of_the_connection(run):
    async def scene() -> None:
        async with hall.running() as house, asking(house, GET.replace(b"HTTP/1.1", b"HTTP/1.0")) as client:
            assert b"chunked" not in await client.until(b"\r\n\r\n")
            assert (await client.until(OPENED)).startswith(b"retry: ")
            house.tell("something")
            assert (await client.until(b"\n\n")).startswith(b"id: 1-0\ndata: {")
            await house.streams.close()
            assert await client.rest() == b""

    run(scene)


def test_nothing_of_a_request_is_left_while_its_stream_lasts_and_no_task_waits_for_it(run):
    async def scene() -> None:
        async with hall.running() as house:
            before = len(asyncio.all_tasks())
            async with asking(house, GET) as client:
                await client.until(OPENED)
                await eventually(lambda: house.requests.connections == [])
                assert len(asyncio.all_tasks()) == before
                assert len(house.streams) == house.hub.readers == 1

    run(scene)


def test_what_was_asked_before_a_stream_is_answered_and_what_is_asked_after_it_is_not(run):
    async def scene() -> None:
        other = b"GET /nothing HTTP/1.1\r\nHost: gateway\r\n\r\n"
        async with hall.running() as house, asking(house, other + GET + other * 20) as client:
            await client.until(b"HTTP/1.1 404 Not Found\r\n")
            await client.until(b"HTTP/1.1 200 OK\r\n")
            await client.until(OPENED)
            client.writer.write(other)
            house.tell("something")
            await client.until(b"something")
            await house.streams.close()
            assert b"HTTP/1.1 404" not in await client.rest()

    run(scene)


def test_a_client_may_talk_but_not_for_ever(run):
    async def scene() -> None:
        async with hall.running() as house, asking(house, GET) as client:
            await client.until(OPENED)
            client.writer.write(b"x" * (HEARD_BYTES // 2))
            house.tell("still here")
            await client.until(b"still here")
            client.writer.write(b"x" * HEARD_BYTES)
            await eventually(lambda: len(house.streams) == house.hub.readers == 0)

    run(scene)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_goes_is_found_at_once(run, how: str):
    async def scene() -> None:
        async with hall.running() as house, asking(house, GET) as client:
            await client.until(OPENED)
            assert house.hub.readers == 1
            client.reset() if how == "reset" else client.writer.close()
            await eventually(lambda: len(house.streams) == house.hub.readers == 0)

    run(scene)


@pytest.mark.parametrize("since", [b"", b"Last-Event-ID: 5-0\r\n"])
def test_clients_that_go_while_their_stream_begins_leave_nothing_behind(run, since: bytes):
    async def scene() -> None:
        async with hall.running() as house:
            for turns in range(30):
                async with asking(house, GET[:-2] + since + b"\r\n") as client:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    client.reset()
            await eventually(lambda: len(house.streams) == house.hub.readers == len(house.requests.connections) == 0)

    run(scene)


def test_a_stream_over_tls_goes_on_and_ends_like_any_other(run, tmp_path: Path):
    async def scene() -> None:
        served, trusting = certified(tmp_path)
        async with (
            hall.running(tls=served) as house,
            asking(house, GET, ssl=trusting, server_hostname="localhost") as client,
        ):
            await client.until(OPENED)
            for number in range(20):
                house.tell("x" * 50_000)
                await client.until(b'"number":%d,' % (number + 1))
            await eventually(lambda: house.requests.connections == [])
            await house.streams.close()
            assert (await client.rest()).endswith(b"\r\n0\r\n\r\n")

    run(scene)


def certified(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side of TLS, and that of a client who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(pem)
    return served, ssl.create_default_context(cafile=str(pem))
