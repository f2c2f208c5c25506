"""Addresses for libpq out of a URL."""

import ipaddress

import pytest

from gateway.store.conninfo import conninfo, targets


def wanted(url: str, **settings: str):
    return conninfo(url, application_name="us", settings=settings)


def places(found) -> list[tuple]:
    return [(each.get("host"), each.get("hostaddr"), each.get("port")) for each in found]


def test_what_the_url_says_wins_except_for_our_settings():
    info = wanted("postgresql://u:p@h/d?application_name=them&keepalives_idle=7&options=-c%20a%3D1", a="2", b="3")
    assert info["application_name"] == "them"
    assert info["keepalives_idle"] == "7"
    assert info["options"] == "-c a=1 -c a=2 -c b=3"
    assert (info["user"], info["password"], info["dbname"]) == ("u", "p", "d")


@pytest.mark.parametrize("url", ["postgresql+asyncpg://u:secret@h/d", "mysql://u:secret@h", "nonsense secret"])
def test_a_url_that_libpq_cannot_read_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="postgresql://") as refused:
        wanted(url)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_name_becomes_addresses_and_stays_beside_them():
    found = await targets(wanted("postgresql://u@localhost:5433/d"))
    assert found
    for place in found:
        assert place["host"] == "localhost"
        assert place["port"] == "5433"
        assert ipaddress.ip_address(place["hostaddr"]).is_loopback


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql:///d?host=/run/pg", [("/run/pg", None, None)]),
        ("postgresql:///d", [(None, None, None)]),
        ("postgresql://127.0.0.1/d", [("127.0.0.1", "127.0.0.1", None)]),
        ("postgresql://[::1]:7/d", [("::1", "::1", "7")]),
        ("postgresql://127.0.0.1:1,127.0.0.2:2/d", [("127.0.0.1", "127.0.0.1", "1"), ("127.0.0.2", "127.0.0.2", "2")]),
        ("host=127.0.0.1,127.0.0.2 port=9", [("127.0.0.1", "127.0.0.1", "9"), ("127.0.0.2", "127.0.0.2", "9")]),
        ("host=a,b hostaddr=127.0.0.1,127.0.0.2", [("a", "127.0.0.1", None), ("b", "127.0.0.2", None)]),
        ("hostaddr=127.0.0.1,127.0.0.2", [(None, "127.0.0.1", None), (None, "127.0.0.2", None)]),
        ("host=nowhere.invalid,127.0.0.2", [("127.0.0.2", "127.0.0.2", None)]),
    ],
)
async def test_every_address_is_a_target_of_its_own(url, expected):
    assert places(await targets(wanted(url))) == expected


async def test_a_name_that_nobody_knows_is_an_error_of_the_system():
    with pytest.raises(OSError, match=r"."):
        await targets(wanted("postgresql://nowhere.invalid/d"))
