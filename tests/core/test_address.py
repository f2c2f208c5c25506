from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway.core.address import Reach, Safe, Unsafe, check_ip, check_url

PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 52.95.110.1 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255
    128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255
    192.0.1.0 192.0.3.0 192.31.196.1 192.52.193.1 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 192.175.48.1
    198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
    2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2400:cb00::1 2606:4700::1111
    2620:4f:8000::1 2a00:1450::1 3ffe:ffff::1 3fff:1000::1
    ::ffff:8.8.8.8 ::ffff:808:808 64:ff9b::8.8.8.8 2002:808:808::1
""".split()  # noqa: SIM905
PRIVATE = """
    10.0.0.0 10.0.0.1 10.255.255.255 172.16.0.0 172.17.0.2 172.31.255.255 192.168.0.0 192.168.1.1 192.168.255.255
    fd00::1 fd12:3456:789a::1 fdff:ffff::1 fd00:ec2::253 fd00:ec2::255
    ::ffff:10.0.0.1 ::ffff:a00:1 64:ff9b::10.0.0.1 64:ff9b::c0a8:101 2002:a00:1::1 2002:c0a8:101::1 2002:ac10:1::
""".split()  # noqa: SIM905
LOOPBACK = """
    127.0.0.0 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.255 ::1 0:0:0:0:0:0:0:1
    ::ffff:127.0.0.1 ::ffff:7f00:1 64:ff9b::127.0.0.1 2002:7f00:1::1
""".split()  # noqa: SIM905
NEVER = """
    0.0.0.0 0.0.0.1 0.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255 168.63.129.16
    169.254.0.0 169.254.1.1 169.254.169.254 169.254.170.2 169.254.255.255
    192.0.0.0 192.0.0.8 192.0.0.170 192.0.0.192 192.0.0.255 192.0.2.0 192.0.2.1 192.0.2.255 192.88.99.0 192.88.99.1
    198.18.0.0 198.18.0.1 198.19.255.255 198.51.100.0 198.51.100.7 198.51.100.255 203.0.113.0 203.0.113.9 203.0.113.255
    224.0.0.0 224.0.0.1 232.1.2.3 239.255.255.255 240.0.0.0 241.1.1.1 255.255.255.254 255.255.255.255
    :: ::2 ::127.0.0.1 ::8.8.8.8 ::10.0.0.1 ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8
    ::ffff:0.0.0.0 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::ffff:100.100.100.200 ::ffff:224.0.0.1
    ::ffff:255.255.255.255
    64:ff9b::169.254.169.254 64:ff9b::0.0.0.0 64:ff9b::100.64.0.1 64:ff9b::c000:201
    64:ff9b:1::1 64:ff9b:1::8.8.8.8 64:ff9b:1:7f00:0:100:: 64:ff9b:1:ffff:ffff:ffff:ffff:ffff 64:ff9c::8.8.8.8
    2002:a9fe:a9fe::1 2002::1 2002:e000:1::1 2002:6464:64c8::
    100::1 100:0:0:1::1 200::1 400::1 1000::1 1fff:ffff::1
    2001::1 2001:0:7f00:1::1 2001:0:a00:1:0:0:f5ff:fffe 2001:0:4136:e378:8000:63bf:3fff:fdd2
    2001:1::1 2001:2::1 2001:3::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff:ffff::1 2001:db8::1 2001:db8:ffff:ffff::1
    3fff::1 3fff:fff:ffff::1
    4000::1 5f00::1 8000::1 c000::1 fc00::1 fcff:ffff::1 fe00::1 fe80::1 fe80::a9fe:a9fe febf:ffff::1 fec0::1 feff::1
    ff00::1 ff02::1 ff05::2 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fd00:ec2::254 fd20:ce::254 fd00:42::42
    fe80::1%eth0 fe80::1%1 ::1%lo 2606:4700::1111%eth0 fd00::1%25eth0
""".split()  # noqa: SIM905

NAT64 = IPv6Network("64:ff9b::/96")


def test_the_table_is_long():
    assert len({*PUBLIC, *PRIVATE, *LOOPBACK, *NEVER}) == sum(map(len, (PUBLIC, PRIVATE, LOOPBACK, NEVER))) >= 120


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        (PUBLIC, {Reach.HOSTED, Reach.PROVISIONED, Reach.SAME_NETWORK}),
        (PRIVATE, {Reach.PROVISIONED, Reach.SAME_NETWORK}),
        (LOOPBACK, {Reach.SAME_NETWORK}),
        (NEVER, set()),
    ],
    ids=["public", "private", "loopback", "never"],
)
@pytest.mark.parametrize("reach", Reach)
def test_each_range_is_reached_as_far_as_the_table_says(addresses: list[str], allowed: set[Reach], reach: Reach):
    for address in addresses:
        expected = reach in allowed
        assert (check_ip(address, reach) is None) == expected, address
        assert (check_ip(ip_address(address), reach) is None) == expected, address
        host = f"[{address}]" if ":" in address else address
        assert isinstance(check_url(f"http://{host}:8000/a2a", reach), Safe) == expected, address


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "010.0.0.1", "1.1.1.1 ", "[::1]"]
)
def test_what_is_no_address_is_refused(text: str):
    assert check_ip(text, Reach.SAME_NETWORK)


@settings(deadline=None)
@given(st.ip_addresses())
def test_what_python_calls_special_is_never_public_to_us(address: IPv4Address | IPv6Address):
    carries = isinstance(address, IPv6Address) and (address.ipv4_mapped or address.sixtofour or address in NAT64)
    if not carries and (not address.is_global or address.is_multicast or address.is_reserved):
        assert check_ip(address, Reach.HOSTED)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_address_in_disguise_is_judged_like_itself(address: IPv4Address):
    bits = int(address)
    for disguise in (0xFFFF << 32 | bits, 0x64FF9B << 96 | bits, 0x2002 << 112 | bits << 80 | 1):
        for reach in Reach:
            assert check_ip(IPv6Address(disguise), reach) == check_ip(address, reach)


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("http://agent.example.com", "http", "agent.example.com", 80),
        ("HTTPS://Agent.Example.COM/a?b=c#d", "https", "agent.example.com", 443),
        ("https://agent.example.com:8443?x=http://127.0.0.1@evil", "https", "agent.example.com", 8443),
        ("http://1.1.1.1:65535#x", "http", "1.1.1.1", 65535),
        ("http://[2606:4700::1111]:1/", "http", "2606:4700::1111", 1),
        ("http://ws_agent-1:8000/a2a", "http", "ws_agent-1", 8000),
        ("http://agent.example.com./é", "http", "agent.example.com.", 80),
        ("http://xn--bcher-kva.example/", "http", "xn--bcher-kva.example", 80),
        ("http://1.1.1.1.example/", "http", "1.1.1.1.example", 80),
        ("http://0x7f.example/", "http", "0x7f.example", 80),
        ("http://notlocalhost/", "http", "notlocalhost", 80),
        ("http://localhost.example/", "http", "localhost.example", 80),
        ("http://metadata.google.internal/", "http", "metadata.google.internal", 80),
    ],
)
def test_a_safe_url_is_taken_apart_as_the_http_client_does(url: str, scheme: str, host: str, port: int):
    assert check_url(url, Reach.HOSTED) == Safe(scheme=scheme, host=host, port=port)
    client = URL(url)
    assert (client.scheme, client.raw_host, client.port) == (scheme, host, port)


UNSAFE = {
    "http://": [
        *[
            "",
            "agent.example.com",
            "//a.example",
            "ftp://a.example",
            "file:///etc/passwd",
            "http:/a.example",
            "http:a.b",
        ],
        *["javascript:x", "unix:///s", "httpx://a.b", "://a.b"],
    ],
    "user": ["http://u@a.example", "http://u:p@a.example/", "http://@a.example", "http://:@a", "http://a.b:80@c.d"],
    "no host": ["http://", "http:///a", "http://?a", "http://#a", "http://:80/"],
    "port": [
        *["http://a:0", "http://a:65536", "http://a:", "http://a:x", "http://a:+80", "http://a:8_0", "http://a:-1"],
        *["http://a:80:80", "http://a:\u0661", "http://a:000080", "http://[::1]:", "http://::1/"],
    ],
    "malformed": [
        *["http://[::1", "http://[]/", "http://[v1.a]/", "http://[::1]x/", "http://[1.1.1.1]/", "http://[localhost]/"],
        *["http://a..b/", "http://.a/", "http://-a.b/", "http://a-.b/", "http://a%2eb/", "http://a,b/", "http://a*b/"],
        *["http://\uff11\uff12\uff17.0.0.1/", "http://bücher.example/", "http://a..", f"http://{'a' * 64}/"],
        f"http://{'a.' * 127}a/",
    ],
    "four decimal": [
        *[
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0/",
            "http://017700000001/",
            "http://0x/",
        ],
        *["http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://127.0.1/", "http://1.1.1.1./", "http://1.1.1.256/"],
        *["http://8.8.8.08/", "http://a.1/", "http://1.1.1.1.1/", "http://0X7F.1/", "http://a.0xa."],
    ],
    "loopback": [
        *[
            "http://localhost/",
            "http://LOCALHOST:80",
            "http://a.localhost",
            "http://localhost.",
            "http://ip6-localhost/",
        ],
        *["http://localhost.localdomain/", "http://127.0.0.1/", "http://[::1]/"],
    ],
    "zone": ["http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[2606::1%251]/"],
    "white space": [
        *[
            "http://a b/",
            " http://a/",
            "http://a/\n",
            "http://a\t.b/",
            "http://a/\x00",
            "http://a\\@b/",
            "http://a/\x7f",
        ],
        *["http://a/\x85", "http://a/\ud800", "ht\ntp://a"],
    ],
    "too long": [f"http://a/{'x' * 2048}"],
}


@pytest.mark.parametrize("about", UNSAFE)
def test_an_unsafe_url_is_refused_with_a_reason(about: str):
    for url in UNSAFE[about]:
        found = check_url(url, Reach.HOSTED)
        assert isinstance(found, Unsafe), url
        assert about in found.reason, url


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "ip6-loopback", "localhost."])
def test_names_of_this_machine_follow_the_rule_of_its_address(host: str):
    assert isinstance(check_url(f"http://{host}/", Reach.SAME_NETWORK), Safe)
    assert isinstance(check_url(f"http://{host}/", Reach.PROVISIONED), Unsafe)


def test_ports_are_kept_to_if_they_are_given():
    ports = frozenset({443, 8000})
    assert isinstance(check_url("https://a.example", Reach.HOSTED, ports=ports), Safe)
    assert isinstance(check_url("http://a.example:8000", Reach.HOSTED, ports=ports), Safe)
    assert check_url("http://a.example", Reach.HOSTED, ports=ports) == Unsafe(reason="the port is not allowed")


@settings(deadline=None)
@given(st.text() | st.from_regex(r"https?://[^/]{0,40}(/.*)?"))
def test_no_text_makes_it_raise_and_what_is_safe_the_http_client_reads_alike(url: str):
    found = check_url(url, Reach.SAME_NETWORK)
    if isinstance(found, Safe):
        client = URL(url)
        assert (client.scheme, client.port) == (found.scheme, found.port)
        host = client.raw_host or ""
        assert host == found.host or ip_address(host) == ip_address(found.host)
