"""Connections to agents: each goes to an address and port that were checked, whatever the name said before."""

import asyncio
import errno
import functools
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

from gateway.core.address import Reach, check_ip, check_port

KEEPALIVE_S: Final = 2.0
"""Seconds for which an idle connection may be used again; agents' servers close theirs after 5, and a request that
meets the close on its way has an unknown outcome."""
MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried; a hostile answer could hold hundreds."""
MAX_INTERIM: Final = 20
"""Interim answers (RFC 9110, 15.2) before an answer; the library would read them for ever, and nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """How the kernel finds out that nobody is at the other end any more, though no connection was closed.

    It asks after `idle_s` seconds of silence, then every `every_s`, and gives up when so many in a row were not
    answered; and when what was sent has not been acknowledged for as long as all that takes.
    """

    idle_s: int = 30
    every_s: int = 10
    count: int = 3

    @property
    def options(self) -> tuple[tuple[int, int], ...]:
        """The options of a TCP socket, as far as this system has them."""
        wanted = (
            ("TCP_NODELAY", 1),
            ("TCP_KEEPIDLE", self.idle_s),
            ("TCP_KEEPALIVE", self.idle_s),  # the same on macOS
            ("TCP_KEEPINTVL", self.every_s),
            ("TCP_KEEPCNT", self.count),
            ("TCP_USER_TIMEOUT", (self.idle_s + self.every_s * self.count) * 1000),  # Linux, ms
        )
        return tuple((getattr(socket, name), value) for name, value in wanted if hasattr(socket, name))


class AddressRefused(OSError):
    """The policy does not allow a connection to this address; `reason` may be told to anybody.

    All have one text: of several failed connects whose texts are equal aiohappyeyeballs raises the first as it is.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("the address is refused")
        self.reason = reason


def refused(error: BaseException) -> str | None:
    """Return the reason if a request failed because every address was refused, None if a connect was tried at all."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return cause.reason if isinstance(cause, AddressRefused) else None


def connector(
    *,
    reach: Reach,
    exempt: Callable[[str], bool] | None = None,
    resolver: AbstractResolver | None = None,
    resolve_s: float = 10.0,
    dns_cache_s: int = 10,
    tls: ssl.SSLContext | bool = True,
    probes: Probes | None = None,
) -> aiohttp.TCPConnector:
    """Return a connector for one session, to be called in a running loop.

    `exempt` tells whether our own provisioner assigned an IP address, which then may be private. There is no limit of
    connections: the sender has one, so that a full pool never looks like an agent that is away. A `resolver` is closed
    by whoever hands it in; without one the name servers are asked, without a thread. An answer may take `resolve_s`.
    Failures to connect are aiohttp's; see `refused`.
    """
    options = (probes or Probes()).options

    def check(address: str) -> str | None:
        reason = check_ip(address, reach)
        if reason is not None and exempt is not None and exempt(address):
            return check_ip(address, Reach.PROVISIONED)
        return reason

    def open_socket(where: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, target = where
        reason = check(str(target[0])) or check_port(int(target[1]), reach)
        if reason is not None:
            raise AddressRefused(reason)
        return _open_socket(family, kind, protocol, options)

    return _Connector(
        resolver=_CheckedResolver(resolver or aiohttp.AsyncResolver(), check, within_s=resolve_s),
        socket_factory=open_socket,
        ttl_dns_cache=dns_cache_s,
        keepalive_timeout=KEEPALIVE_S,
        limit=0,
        ssl=tls,
    )


def _open_socket(family: int, kind: int, protocol: int, options: tuple[tuple[int, int], ...]) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in options:
            opened.setsockopt(socket.IPPROTO_TCP, option, value)
    except BaseException:
        opened.close()
        raise
    return opened


class _CheckedResolver(AbstractResolver):
    """Leaves the refused addresses out of an answer, so that a mixed one still leads somewhere.

    What makes it safe is the check in the socket factory, which sees IP literals too; this one makes it exact: all
    addresses refused is told as that, and not as a connect that failed.
    """

    def __init__(self, resolver: AbstractResolver, check: Callable[[str], str | None], *, within_s: float) -> None:
        self._resolver = resolver
        self._check = check
        self._within_s = within_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._within_s):
                answer = await self._resolver.resolve(host, port, family)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, "the name servers did not answer in time") from None
        if not answer:
            raise OSError("the name has no address")
        reasons = [self._check(found["host"]) for found in answer]
        safe = [found for found, reason in zip(answer, reasons, strict=True) if reason is None]
        if not safe:
            raise AddressRefused(reasons[0] or "")
        return safe[:MAX_ADDRESSES]

    async def close(self) -> None:
        await self._resolver.close()


class _Protocol(ResponseHandler):
    """Tells who reads a body that it is broken: the library closes the connection and lets the reader wait.

    Leaves out interim answers, which nobody waits for, and gives an agent up that has nothing else to say.
    """

    _interim = 0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take the head of an answer."""
        status = data[0].code
        if HTTPStatus.CONTINUE <= status < HTTPStatus.OK and status != HTTPStatus.SWITCHING_PROTOCOLS:
            self._interim += 1
            return
        self._interim = 0
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Read on, unless interim answers have no end."""
        super().data_received(data)
        if self._interim > MAX_INTERIM and self.transport is not None:
            self.transport.abort()
            self.set_exception(aiohttp.ClientPayloadError("interim answers have no end"))

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Fail what is being read, too."""
        if self._payload is not None and not self._payload.is_eof() and self._payload.exception() is None:
            self._payload.set_exception(aiohttp.ClientPayloadError("the body is malformed"), exc)
        super().set_exception(exc, exc if exc_cause is None else exc_cause)


class _Connector(aiohttp.TCPConnector):
    """Looks at an idle connection before it is used again.

    A close may have arrived that the loop has not read yet, or bytes that nobody asked for: the next call, perhaps of
    somebody else, would take them for its answer.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Protocol, loop=self._loop)  # type: ignore[assignment] # invariance

    async def _get(self, key: Any, traces: Any) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close and not _has_news(connection.transport):
                return connection
            connection.close()
        return None


def _has_news(transport: asyncio.Transport | None) -> bool:
    """Return whether an idle connection has anything to read: a close, an error, or bytes that nobody asked for."""
    opened = transport.get_extra_info("socket") if transport is not None else None
    if opened is None or opened.fileno() < 0:
        return True
    poll = select.poll()  # unlike select, for any file descriptor
    poll.register(opened.fileno(), select.POLLIN)
    return bool(poll.poll(0))
