from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway.core.address import SERVICE_PORTS, Reach, Safe, Unsafe, check_ip, check_port, check_url

PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 52.95.110.1 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255
    128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255
    192.0.1.0 192.0.3.0 192.31.195.255 192.31.197.0 192.52.192.255 192.52.194.0 192.88.98.255 192.88.100.0
    192.167.255.255 192.169.0.0 192.175.47.255 192.175.49.0
    198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
    2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2400:cb00::1 2606:4700::1111
    2620:4f:7fff::1 2620:4f:8001::1 2606:4700::5efe:8.8.8.8 2a00:1450::1 3ffe:ffff::1 3fff:1000::1
    ::ffff:8.8.8.8 ::ffff:808:808 64:ff9b::8.8.8.8 2002:808:808::1
""".split()  # noqa: SIM905
PRIVATE = """
    10.0.0.0 10.0.0.1 10.255.255.255 172.16.0.0 172.17.0.2 172.31.255.255 192.168.0.0 192.168.1.1 192.168.255.255
    fd00::1 fd12:3456:789a::1 fdff:ffff::1 fd00:ec1::1 fd00:ec3::1 2606:4700::5efe:10.0.0.1
    ::ffff:10.0.0.1 ::ffff:a00:1 64:ff9b::10.0.0.1 64:ff9b::c0a8:101 2002:a00:1::1 2002:c0a8:101::1 2002:ac10:1::
""".split()  # noqa: SIM905
LOOPBACK = """
    127.0.0.0 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.255 ::1 0:0:0:0:0:0:0:1
    ::ffff:127.0.0.1 ::ffff:7f00:1 64:ff9b::127.0.0.1 2002:7f00:1::1 2606:4700::200:5efe:7f00:1
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
    192.31.196.1 192.52.193.1 192.175.48.1 2620:4f:8000::1 fd00:ec2::23 fd00:ec2::253
    2606:4700::5efe:169.254.169.254 2606:4700::200:5efe:a9fe:a9fe fe80::5efe:8.8.8.8
    fe80::1%eth0 fe80::1%1 ::1%lo 2606:4700::1111%eth0 fd00::1%25eth0
""".split()  # noqa: SIM905

TABLE = [
    *((address, True, True) for address in PUBLIC),
    *((address, False, True) for address in (*PRIVATE, *LOOPBACK)),
    *((address, False, False) for address in NEVER),
]
"""Each address, whether it is reached when hosted, and whether in the same network."""


def test_the_table_is_long():
    assert len({address for address, _, _ in TABLE}) == len(TABLE) >= 120


@pytest.mark.parametrize(("address", "hosted", "same_network"), TABLE)
def test_an_address_is_reached_as_far_as_the_table_says(address: str, hosted: bool, same_network: bool):
    provisioned = hosted or address in PRIVATE
    for reach, expected in (
        (Reach.HOSTED, hosted),
        (Reach.SAME_NETWORK, same_network),
        (Reach.PROVISIONED, provisioned),
    ):
        assert (check_ip(address, reach) is None) == expected, reach
        assert (check_ip(ip_address(address), reach) is None) == expected, reach
        host = f"[{address}]" if ":" in address else address
        assert isinstance(check_url(f"http://{host}:8000/a2a", reach), Safe) == expected, reach


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "010.0.0.1", "1.1.1.1 ", "[::1]"]
)
def test_what_is_no_address_is_refused(text: str):
    assert check_ip(text, Reach.SAME_NETWORK)


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port"),
    [
        ("http://agent.example.com", "http", "agent.example.com", 80),
        ("HTTPS://Agent.Example.COM/a?b=c#d", "https", "agent.example.com", 443),
        ("https://agent.example.com:8443?x=http://127.0.0.1@evil", "https", "agent.example.com", 8443),
        ("http://1.1.1.1:65535#x", "http", "1.1.1.1", 65535),
        ("http://[2606:4700::1111]:1024/", "http", "2606:4700::1111", 1024),
        ("http://ws_agent-1:8000/a2a", "http", "ws_agent-1", 8000),
        ("http://agent.example.com./é", "http", "agent.example.com.", 80),
        ("http://xn--bcher-kva.example/", "http", "xn--bcher-kva.example", 80),
        ("http://1.1.1.1.example/", "http", "1.1.1.1.example", 80),
        ("http://0x7f.example/", "http", "0x7f.example", 80),
        ("http://notlocalhost/", "http", "notlocalhost", 80),
        ("http://localhost.example/", "http", "localhost.example", 80),
        ("http://internal/", "http", "internal", 80),
        ("http://internal.example/", "http", "internal.example", 80),
        ("http://notinternal.notlocal/", "http", "notinternal.notlocal", 80),
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
    "metadata": ["http://metadata.google.internal/", "http://METADATA.google.internal./a", "http://metadata.goog:80"],
    "private network": ["http://agent.internal/", "http://a.b.Internal.", "http://printer.local", "http://a.home.arpa"],
    "port": [
        *[f"http://a.example:{port}" for port in (1, 22, 25, 53, 81, 135, 389, 445, 465, 587, 636, 993, 1023)],
        *[f"http://a.example:{port}" for port in (2375, 2379, 3306, 5432, 6379, 9200, 10250, 11211, 27017)],
        *["http://1.1.1.1:22", "https://[2606:4700::1111]:25", "http://a.example:06379"],
    ],
    "no host": ["http://", "http:///a", "http://?a", "http://#a", "http://:80/"],
    "the port must": [
        *["http://a:0", "http://a:65536", "http://a:", "http://a:x", "http://a:+80", "http://a:8_0", "http://a:-1"],
        *["http://a:80:80", "http://a:000080", "http://[::1]:", "http://::1/"],
    ],
    "malformed": [
        *["http://[::1", "http://[]/", "http://[v1.a]/", "http://[::1]x/", "http://[1.1.1.1]/", "http://[localhost]/"],
        *["http://a..b/", "http://.a/", "http://-a.b/", "http://a-.b/", "http://a%2eb/", "http://a,b/", "http://a*b/"],
        *[
            "http://\u212aube.example",
            "http://a:\u0661",
            "http://1\u30020.0.1",
            "http://\u2460.0.0.1",
            "http://a\u3002b",
        ],
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


@pytest.mark.parametrize("host", ["agent.internal", "printer.local", "a.home.arpa", "vm.localdomain."])
def test_names_of_private_networks_follow_the_rule_of_their_addresses(host: str):
    assert isinstance(check_url(f"http://{host}/", Reach.SAME_NETWORK), Safe)
    assert isinstance(check_url(f"http://{host}/", Reach.PROVISIONED), Safe)
    assert isinstance(check_url(f"http://{host}/", Reach.HOSTED), Unsafe)


@pytest.mark.parametrize("reach", [Reach.HOSTED, Reach.PROVISIONED, Reach.SAME_NETWORK], ids=["hosted", "ours", "same"])
def test_unless_it_is_said_all_ports_are_allowed_where_no_other_service_lives(reach: Reach):
    allowed = {port for port in range(1, 65536) if check_port(port, reach) is None}
    assert allowed == {80, 443, *range(1024, 65536)} - SERVICE_PORTS
    assert {5432, 6379, 2375, 9200, 11211, 27017} <= SERVICE_PORTS


def test_ports_are_kept_to_if_they_are_given():
    reach = replace(Reach.HOSTED, ports=(range(443, 444), range(6379, 8001)))
    for url in ("https://a.example", "http://a.example:8000", "http://a.example:6379", "http://1.1.1.1:7000"):
        assert isinstance(check_url(url, reach), Safe)
    for url in ("http://a.example", "http://a.example:8001", "http://a.example:442"):
        assert check_url(url, reach) == Unsafe(reason="the port is not one for agents")


REFUSED_V4 = st.one_of(
    st.sampled_from([one for one in NEVER if ":" not in one]),
    st.ip_addresses(v=4).map(str).filter(lambda one: check_ip(one, Reach.SAME_NETWORK) is not None),
).map(IPv4Address)
REFUSED_V6 = st.sampled_from([one for one in NEVER if ":" in one and "%" not in one]).map(IPv6Address)
RADIX = st.sampled_from(["{:d}", "0{:o}", "00000{:o}", "0x{:x}", "0X{:X}", "0x0000{:x}"])
DIGITS = st.sampled_from([0x30, 0xFF10, 0x0660, 0x1D7CE, 0x0966])
"""Where the digits of ASCII, fullwidth, Arabic, mathematical bold and Devanagari forms begin."""
DOTS = st.sampled_from([".", "\u3002", "\uff0e", "\uff61", "%2e"])


@st.composite
def forms_of_v4(draw: st.DrawFn, address: IPv4Address) -> str:
    """A host that some resolver or client reads as this address: 4, 3, 2 or 1 numbers, each in any radix and script."""
    kept = draw(st.integers(0, 3))
    parts = [*address.packed[:kept], int.from_bytes(address.packed[kept:], "big")]
    numbers = [draw(RADIX).format(part) for part in parts]
    zero = draw(DIGITS)
    text = draw(DOTS).join(numbers).translate({0x30 + digit: zero + digit for digit in range(10)})
    return draw(st.sampled_from(["{}", "{}.", "{}%00", "%20{}", "1.1.1.1@{}", "{}\\@1.1.1.1", "\u200b{}"])).format(text)


@st.composite
def forms_of_v6(draw: st.DrawFn, address: IPv6Address) -> str:
    """A host in brackets that some client reads as this address."""
    last = str(IPv4Address(int(address) & 0xFFFFFFFF))
    texts = [
        *[address.compressed, address.exploded, address.compressed.upper(), address.exploded.upper()],
        ":".join([*address.exploded.split(":")[:6], last]),
    ]
    zone = draw(st.sampled_from(["", "", "%25eth0", "%eth0", "%251", "%"]))
    return f"[{draw(st.sampled_from(texts))}{zone}]"


@st.composite
def refused_urls(draw: st.DrawFn) -> str:
    """A url of a refused address, in one of the many ways in which it can be written."""
    v4, v6 = draw(REFUSED_V4), draw(REFUSED_V6)
    pair, flipped = (f"{bits >> 16:x}:{bits & 0xFFFF:x}" for bits in (int(v4), int(v4) ^ 0xFFFFFFFF))
    carried = [
        *[f"::ffff:{v4}", f"::ffff:{pair}", f"::{v4}", f"64:ff9b::{v4}", f"64:ff9b:1::{v4}", f"2002:{pair}::1"],
        *[f"2001:0:{pair}::", f"2606:4700::5efe:{v4}", f"2606:4700::200:5efe:{pair}", f"::ffff:0:{v4}"],
        *[f"2001::{flipped}", f"fe80::5efe:{v4}"],
    ]
    host = draw(
        st.one_of(forms_of_v4(v4), forms_of_v6(v6), st.sampled_from(carried).map(IPv6Address).flatmap(forms_of_v6))
    )
    scheme = draw(st.sampled_from(["http://", "https://", "HTTP://", "hTTps://"]))
    return (
        scheme
        + host
        + draw(st.sampled_from(["", ":80", ":8000"]))
        + draw(st.sampled_from(["", "/", "?q", "#f", "/a@b"]))
    )


@settings(deadline=None, max_examples=500)
@given(refused_urls())
def test_no_form_of_a_refused_address_gets_through_and_refused_stays_refused_when_it_is_normalised(url: str):
    for reach in (Reach.HOSTED, Reach.PROVISIONED, Reach.SAME_NETWORK):
        assert isinstance(check_url(url, reach), Unsafe)
    try:
        normalised = URL(url)
    except ValueError:
        return
    host = normalised.raw_host or "1.1.1.1"
    # `x\\@1.1.1.1` leads there, digits of other scripts are a name, and 0.0.0.1 within IPv6 is loopback
    if host not in ("1.1.1.1", "::1") and "xn--" not in host:
        assert isinstance(check_url(str(normalised.with_user(None)), Reach.SAME_NETWORK), Unsafe)


@settings(deadline=None)
@given(st.text() | st.from_regex(r"https?://[^/]{0,40}(/.*)?"))
def test_no_text_makes_it_raise_and_what_is_safe_the_http_client_reads_alike(url: str):
    found = check_url(url, Reach.SAME_NETWORK)
    if isinstance(found, Safe):
        client = URL(url)
        assert (client.scheme, client.port) == (found.scheme, found.port)
        host = client.raw_host or ""
        assert host == found.host or ip_address(host) == ip_address(found.host)
