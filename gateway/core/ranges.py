"""What is special about an IP address, in whatever form it is carried: nothing is special about public unicast."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

PRIVATE: Final = "the address is in a private network"
LOOPBACK: Final = "the address is a loopback address"
METADATA: Final = "the address serves the metadata of a cloud"
_LINK_LOCAL: Final = "the address is link-local"
_UNSPECIFIED: Final = "the address is unspecified"
_MULTICAST: Final = "the address is multicast"
_DOCUMENTATION: Final = "the address is for documentation"
_RESERVED: Final = "the address is reserved for special use"

# The first network that holds the address decides. The IANA registries of special-purpose addresses, those that are
# reachable in theory included (AS112, AMT: no agent lives there), and the metadata addresses of AWS, Google, Azure,
# Alibaba and Scaleway (169.254.169.254 is link-local, Oracle's 192.0.0.192 reserved).
_V4: Final = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("127.0.0.0/8", LOOPBACK),
        ("10.0.0.0/8", PRIVATE),
        ("172.16.0.0/12", PRIVATE),
        ("192.168.0.0/16", PRIVATE),
        ("100.100.100.200/32", METADATA),
        ("168.63.129.16/32", METADATA),
        ("169.254.0.0/16", _LINK_LOCAL),
        ("0.0.0.0/8", _UNSPECIFIED),
        ("100.64.0.0/10", "the address is behind a carrier's address translation"),
        ("192.0.0.0/24", _RESERVED),
        ("192.0.2.0/24", _DOCUMENTATION),
        ("198.51.100.0/24", _DOCUMENTATION),
        ("203.0.113.0/24", _DOCUMENTATION),
        ("192.31.196.0/24", _RESERVED),
        ("192.52.193.0/24", _RESERVED),
        ("192.88.99.0/24", _RESERVED),
        ("192.175.48.0/24", _RESERVED),
        ("198.18.0.0/15", "the address is for benchmarking"),
        ("224.0.0.0/4", _MULTICAST),
        ("255.255.255.255/32", "the address is broadcast"),
        ("240.0.0.0/4", _RESERVED),
    )
)
_V6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("::1/128", LOOPBACK),
        ("::/128", _UNSPECIFIED),
        ("fd00:ec2::/32", METADATA),  # credentials of pods live beside the metadata
        ("fd20:ce::254/128", METADATA),
        ("fd00:42::42/128", METADATA),
        ("fd00::/8", PRIVATE),
        ("fe80::/10", _LINK_LOCAL),
        ("ff00::/8", _MULTICAST),
        ("2001::/23", _RESERVED),
        ("2001:db8::/32", _DOCUMENTATION),
        ("2620:4f:8000::/48", _RESERVED),
        ("3fff::/20", _DOCUMENTATION),
    )
)
_V6_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The upper half of an interface's id (RFC 5214, 6.1) whose lower half is an IPv4 address."""


@lru_cache(maxsize=8192)
def find_special(address: str | IPv4Address | IPv6Address) -> str | None:
    """Return what is special about the address, in words for anybody; None if it is public unicast.

    A text has to be an address as `ipaddress` reads it; anything else, an IPv6 zone too, is special as well.
    """
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
        return find_special(carried)
    reason = next((reason for network, reason in _V6 if address in network), None)
    if reason is None and address not in _V6_UNICAST:
        return _RESERVED
    if reason is None and (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return find_special(IPv4Address(int(address) & 0xFFFF_FFFF))
    return reason


def _find_carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a mapped, NAT64 or 6to4 address leads to.

    IPv4-compatible and Teredo addresses and the local NAT64 prefix 64:ff9b:1::/48 are reserved, whatever they carry.
    """
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
