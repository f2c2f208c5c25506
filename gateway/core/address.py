"""Which addresses the gateway may reach: one policy for every url it is given and every connection it opens."""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final

from gateway.core.ranges import LOOPBACK, METADATA, PRIVATE, find_special

MAX_URL_CHARS: Final = 2048
MAX_HOST_CHARS: Final = 253

WEB_PORTS: Final = frozenset({80, 443})
"""The only ones below 1024 where an agent is looked for, unless a setting says otherwise ..."""
SERVICE_PORTS: Final = frozenset(
    {1433, 1521, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 5432, 5672, 5984, 5985, 5986, 6379, 6380, 6443, 8500,
     9042, 9092, 9200, 9300, 10250, 10255, 11211, 26379, 27017, 27018, 27019, 28017}
)  # fmt: skip
"""... and the ports above, where it is not: databases, brokers, engines and cluster controls answer there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How far the gateway reaches: what it does not refuse beside public addresses, and the ports it goes to.

    `ports` None: any but those where other services live.
    """

    ranges: frozenset[str] = frozenset()
    ports: tuple[range, ...] | None = None

    HOSTED: ClassVar["Reach"]
    PROVISIONED: ClassVar["Reach"]
    """For the addresses that our own provisioner has assigned."""
    SAME_NETWORK: ClassVar["Reach"]


Reach.HOSTED = Reach()
Reach.PROVISIONED = Reach(ranges=frozenset({PRIVATE}))
Reach.SAME_NETWORK = Reach(ranges=frozenset({PRIVATE, LOOPBACK}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Safe:
    """A url that may be connected to if the addresses behind its `host` may. The host has no brackets."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsafe:
    """A url that must not be connected to; the reason may be told to anybody."""

    reason: str


_ODD: Final = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff\\]")
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?:[/?#].*)?", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", re.DOTALL)
_PORT: Final = re.compile(r"[0-9]{1,5}")
_PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER_AT_END: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_METADATA_NAMES: Final = frozenset({"metadata.google.internal", "metadata.goog"})
_PRIVATE_DOMAINS: Final = (".internal", ".local", ".localdomain", ".home.arpa")
"""Where no name is public (RFC 6762 and 8375, ICANN's .internal); the addresses behind others tell by themselves."""


def check_ip(address: str | IPv4Address | IPv6Address, reach: Reach) -> str | None:
    """Return the reason why this address must not be connected to, or None.

    A text has to be an address as `ipaddress` reads it; anything else, an IPv6 zone too, is refused.
    """
    reason = find_special(address)
    return None if reason in reach.ranges else reason


def check_port(port: int, reach: Reach) -> str | None:
    """Return the reason why this port must not be connected to, or None."""
    if reach.ports is None:
        allowed = port in WEB_PORTS or (port >= 1024 and port not in SERVICE_PORTS)
    else:
        allowed = any(port in ports for ports in reach.ports)
    return None if allowed else "the port is not one for agents"


@lru_cache(8192)
def check_url(url: str, reach: Reach) -> Safe | Unsafe:
    """Return where the url leads, or why it must not be connected to.

    A name passes here and its addresses are checked by `check_ip` when it is connected to.
    """
    if len(url) > MAX_URL_CHARS:
        return Unsafe(reason="the url is too long")
    if _ODD.search(url):
        return Unsafe(reason="the url has white space or characters that no url has")
    parsed = _URL.fullmatch(url)
    scheme = parsed["scheme"].lower() if parsed else ""
    if parsed is None or scheme not in _PORTS:
        return Unsafe(reason="the url must begin with http:// or https://")
    if "@" in parsed["authority"]:
        return Unsafe(reason="the url must not have a user name or password")
    authority = _AUTHORITY.fullmatch(parsed["authority"])
    if authority is None or not parsed["authority"].isascii():  # before `lower`, which makes a k of the Kelvin sign
        return Unsafe(reason="the host or port is malformed")
    port = _PORTS[scheme] if authority["port"] is None else _find_port(authority["port"])
    if port is None:
        return Unsafe(reason="the port must be a number from 1 to 65535")
    if (reason := check_port(port, reach)) is not None:
        return Unsafe(reason=reason)
    host = (authority["name"] if authority["v6"] is None else authority["v6"]).lower()
    reason = _check_name(host, reach) if authority["v6"] is None else _check_v6_literal(host, reach)
    return Safe(scheme=scheme, host=host, port=port) if reason is None else Unsafe(reason=reason)


def _find_port(text: str) -> int | None:
    return int(text) if _PORT.fullmatch(text) and 0 < int(text) <= 65535 else None


def _check_v6_literal(host: str, reach: Reach) -> str | None:
    try:
        return check_ip(IPv6Address(host), reach)
    except ValueError:
        return "the host is malformed"


def _check_name(host: str, reach: Reach) -> str | None:
    """Check what stands before the port without brackets: a name or an IPv4 address.

    Whatever ends in a number is an address to resolvers (127.1, 0x7f000001, 017700000001), so it has to look like one.
    """
    if not host:
        return "the url has no host"
    if len(host) > MAX_HOST_CHARS or not _NAME.fullmatch(host):
        return "the host is malformed"
    if _NUMBER_AT_END.fullmatch(host):
        try:
            return check_ip(IPv4Address(host), reach)
        except ValueError:
            return "an IPv4 address must be written as four decimal numbers"
    bare = host.removesuffix(".")
    if bare in _METADATA_NAMES:
        return METADATA
    if bare in _LOOPBACK_NAMES or bare.endswith(".localhost"):
        return None if LOOPBACK in reach.ranges else LOOPBACK
    if bare.endswith(_PRIVATE_DOMAINS):
        return None if PRIVATE in reach.ranges else "the host's name is one of a private network"
    return None
