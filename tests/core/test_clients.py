"""core.clients: whom a request came from."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clients import bucket, client_address

PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:ffff::/48")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::9]:4711"], "2001:db8::9"),
        ("2001:db8:ffff::1", ["2001:db8::9"], "2001:db8::9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("10.0.0.1", ["rubbish"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, rubbish"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        (None, ["203.0.113.9"], "unknown"),
        ("", [], "unknown"),
    ],
)
def test_the_client_is_the_rightmost_that_no_trusted_proxy_is(peer, forwarded_for, client):
    assert client_address(peer, forwarded_for, PROXIES) == client


@given(st.lists(st.text(max_size=40), max_size=5))
def test_whoever_is_no_trusted_proxy_cannot_be_somebody_else(headers):
    assert client_address("192.0.2.1", headers, PROXIES) == "192.0.2.1"
    assert client_address("192.0.2.1", headers, []) == "192.0.2.1"


@given(st.lists(st.text(max_size=40), max_size=5))
def test_whatever_a_trusted_proxy_says_is_an_address(headers):
    ipaddress.ip_address(client_address("10.0.0.1", headers, PROXIES))


def test_one_network_of_ipv6_shares_a_bucket_and_each_address_of_ipv4_has_its_own():
    assert bucket("2001:db8::1") == bucket("2001:db8::ffff:1") == "2001:db8::/64"
    assert bucket("2001:db8:0:1::1") != bucket("2001:db8::1")
    assert bucket("192.0.2.1") == "192.0.2.1"
    assert bucket("unknown") == "unknown"
