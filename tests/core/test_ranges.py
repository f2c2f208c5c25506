from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.ranges import LOOPBACK, METADATA, PRIVATE, find_special

REGISTERED = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29 192.0.0.8/32
    192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24
    192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4
    255.255.255.255/32 224.0.0.0/4
    ::1/128 ::/128 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128 2001:1::2/128 2001:1::3/128
    2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28 2001:db8::/32 2620:4f:8000::/48
    3fff::/20 5f00::/16 fc00::/7 fe80::/10 ff00::/8 fec0::/10 ::/96 ::ffff:0:0:0/96
""".split()  # noqa: SIM905
"""The IANA registries of special-purpose addresses, with multicast, site-local and IPv4-compatible ones, all but the
three forms that lead to an IPv4 address: mapped, NAT64 and 6to4."""

NETWORKS = [ip_network(one) for one in REGISTERED]
LAST = {2**32 - 1, 2**128 - 1}
EDGES = [one[0] - 1 for one in NETWORKS if int(one[0])] + [one[-1] + 1 for one in NETWORKS if int(one[-1]) not in LAST]
"""The neighbours of each range."""
NAT64, UNICAST = IPv6Network("64:ff9b::/96"), IPv6Network("2000::/3")
PUBLIC_PREFIX = 0x2600 << 112


@pytest.mark.parametrize("network", REGISTERED)
def test_a_registered_range_is_special_from_its_first_address_to_its_last(network: str):
    found = ip_network(network)
    for at in (0, found.num_addresses // 2, found.num_addresses - 1):
        assert find_special(found[at]), found[at]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.1.2.3", PRIVATE),
        ("fd12::1", PRIVATE),
        ("127.0.0.1", LOOPBACK),
        ("::1", LOOPBACK),
        ("100.100.100.200", METADATA),
        ("168.63.129.16", METADATA),
        ("fd00:ec2::254", METADATA),
        ("fd00:ec2::23", METADATA),
        ("fd20:ce::254", METADATA),
        ("fd00:42::42", METADATA),
        ("169.254.169.254", "the address is link-local"),
        ("100.64.0.1", "the address is behind a carrier's address translation"),
        ("255.255.255.255", "the address is broadcast"),
        ("2001:0:7f00:1::1", "the address is reserved for special use"),
        ("fe80::1%eth0", "the address has a zone"),
        ("2600::1%eth0", "the address has a zone"),
        ("127.1", "this is not an IP address"),
        ("", "this is not an IP address"),
        ("8.8.8.8", None),
        ("2600::1", None),
    ],
)
def test_what_is_special_is_said(address: str, reason: str | None):
    assert find_special(address) == reason


@settings(deadline=None)
@given(st.ip_addresses())
def test_what_python_calls_special_is_never_public_to_us(address: IPv4Address | IPv6Address):
    carries = isinstance(address, IPv6Address) and (address.ipv4_mapped or address.sixtofour or address in NAT64)
    flags = (
        not address.is_global or address.is_private or address.is_loopback or address.is_link_local
        or address.is_multicast or address.is_reserved or address.is_unspecified
    )  # fmt: skip
    if not carries and flags:
        assert find_special(address)


@settings(deadline=None)
@given(st.ip_addresses() | st.sampled_from(EDGES))
def test_what_is_special_to_us_is_registered_or_nobodys(address: IPv4Address | IPv6Address):
    if find_special(address) is None:
        return
    carried = isinstance(address, IPv6Address) and (address.ipv4_mapped or address.sixtofour or address in NAT64)
    nobodys = isinstance(address, IPv6Address) and address not in UNICAST
    registered = any(address in network for network in NETWORKS if network.version == address.version)
    assert carried or nobodys or registered or str(address) == "168.63.129.16"


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_address_in_disguise_is_judged_like_itself(address: IPv4Address):
    bits = int(address)
    for disguise in (0xFFFF << 32 | bits, 0x64FF9B << 96 | bits, 0x2002 << 112 | bits << 80 | 1):
        assert find_special(IPv6Address(disguise)) == find_special(address)
    for marked in (0x5EFE, 0x0200_5EFE):
        assert find_special(IPv6Address(PUBLIC_PREFIX | marked << 32 | bits)) == find_special(address)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_what_only_carries_an_address_in_a_reserved_range_is_refused_whatever_it_carries(address: IPv4Address):
    bits = int(address)
    compatible, translated, teredo = bits, 0xFFFF << 48 | bits, 0x20010000 << 96 | bits << 64
    local_nat64 = 0x64FF9B0001 << 80 | bits
    isatap_on_link = 0xFE80 << 112 | 0x5EFE << 32 | bits
    for disguise in (compatible, translated, teredo, teredo | (bits ^ 0xFFFF_FFFF), local_nat64, isatap_on_link):
        assert find_special(IPv6Address(disguise)), IPv6Address(disguise)
