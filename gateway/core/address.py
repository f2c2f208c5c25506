"""Which addresses the gateway may reach: one policy for every url it is given and every connection it opens."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

MAX_URL_CHARS: Final = 2048
MAX_HOST_CHARS: Final = 253

_PRIVATE: Final = "the address is in a private network"
_LOOPBACK: Final = "the address is a loopback address"
_METADATA: Final = "the address serves the metadata of a cloud"
_RESERVED: Final = "the address is reserved for special use"


class Reach(Enum):
    """How far the gateway reaches; the value is what it does not refuse beside public addresses."""

    HOSTED = frozenset[str]()
    PROVISIONED = frozenset({_PRIVATE})
    """For the addresses that our own provisioner has assigned."""
    SAME_NETWORK = frozenset({_PRIVATE, _LOOPBACK})


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


# The first network that holds the address decides. IANA special-purpose registries; metadata addresses of AWS, Google,
# Azure, Alibaba and Scaleway (169.254.169.254 is link-local, Oracle's 192.0.0.192 reserved).
_V4: Final = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("127.0.0.0/8", _LOOPBACK),
        ("10.0.0.0/8", _PRIVATE),
        ("172.16.0.0/12", _PRIVATE),
        ("192.168.0.0/16", _PRIVATE),
        ("100.100.100.200/32", _METADATA),
        ("168.63.129.16/32", _METADATA),
        ("169.254.0.0/16", "the address is link-local"),
        ("0.0.0.0/8", "the address is unspecified"),
        ("100.64.0.0/10", "the address is behind a carrier's address translation"),
        ("192.0.0.0/24", _RESERVED),
        ("192.0.2.0/24", "the address is for documentation"),
        ("198.51.100.0/24", "the address is for documentation"),
        ("203.0.113.0/24", "the address is for documentation"),
        ("192.88.99.0/24", _RESERVED),
        ("198.18.0.0/15", "the address is for benchmarking"),
        ("224.0.0.0/4", "the address is multicast"),
        ("240.0.0.0/4", _RESERVED),
    )
)
_V6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("::1/128", _LOOPBACK),
        ("::/128", "the address is unspecified"),
        ("fd00:ec2::254/128", _METADATA),
        ("fd20:ce::254/128", _METADATA),
        ("fd00:42::42/128", _METADATA),
        ("fd00::/8", _PRIVATE),
        ("fe80::/10", "the address is link-local"),
        ("ff00::/8", "the address is multicast"),
        ("2001::/23", _RESERVED),
        ("2001:db8::/32", "the address is for documentation"),
        ("3fff::/20", "the address is for documentation"),
    )
)
_V6_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")

_ODD: Final = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff\\]")
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?:[/?#].*)?", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", re.DOTALL)
_PORT: Final = re.compile(r"[0-9]{1,5}")
_PORTS: Final = {"http": 80, "https": 443}
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER_AT_END: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})


def check_ip(address: str | IPv4Address | IPv6Address, reach: Reach) -> str | None:
    """Return the reason why this address must not be connected to, or None.

    A text has to be an address as `ipaddress` reads it; anything else, an IPv6 zone too, is refused.
    """
    reason = _classify(address)
    return None if reason in reach.value else reason


@lru_cache(8192)
def check_url(url: str, reach: Reach, *, ports: frozenset[int] | None = None) -> Safe | Unsafe:
    """Return where the url leads, or why it must not be connected to.

    A name passes here and its addresses are checked by `check_ip` when it is connected to. `ports` None allows all.
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
    if authority is None:
        return Unsafe(reason="the host is malformed")
    port = _PORTS[scheme] if authority["port"] is None else _find_port(authority["port"])
    if port is None:
        return Unsafe(reason="the port must be a number from 1 to 65535")
    if ports is not None and port not in ports:
        return Unsafe(reason="the port is not allowed")
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
    is_loopback = bare in _LOOPBACK_NAMES or bare.endswith(".localhost")
    return _LOOPBACK if is_loopback and _LOOPBACK not in reach.value else None


@lru_cache(maxsize=8192)
def _classify(address: str | IPv4Address | IPv6Address) -> str | None:
    """Return what is special about the address, None if it is public unicast."""
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return "this is not an IP address"
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _V4 if address in network), None)
    if address.scope_id is not None:
        return "the address has a zone"
    if (carried := _find_carried(address)) is not None:
        return _classify(carried)
    reason = next((reason for network, reason in _V6 if address in network), None)
    return reason if reason is not None or address in _V6_UNICAST else _RESERVED


def _find_carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a mapped, NAT64 or 6to4 address leads to.

    IPv4-compatible and Teredo addresses and the local NAT64 prefix 64:ff9b:1::/48 are reserved, whatever they carry.
    """
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
