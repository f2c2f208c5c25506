from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.core.prices import Price, Prices
from gateway.core.rates import Rate
from gateway.settings import BadSetting, Settings, describe

SECRETS = {"GATEWAY_DATABASE_URL", "GATEWAY_REDIS_URL", "ADMIN_TOKEN"}
NAMES = [setting.metadata["name"] for setting in fields(Settings)]
COUNTS = [one.name for one in describe() if one.unit not in ("", "s", "cents")]
SECONDS = [one.name for one in describe() if one.unit == "s"]
RATES = [name for name in NAMES if name.startswith("GATEWAY_RATE_")]
LENIENT = [setting.metadata["name"] for setting in fields(Settings) if setting.metadata["lenient"]]


def field_of(name: str) -> str:
    return next(setting.name for setting in fields(Settings) if setting.metadata["name"] == name)


def read(name: str, value: str) -> object:
    return getattr(Settings.from_env({name: value}), field_of(name))


def test_an_empty_environment_gives_the_defaults():
    assert Settings.from_env({}) == Settings()


def test_each_setting_has_a_name_of_its_own_and_a_sentence():
    described = describe()
    assert [one.name for one in described] == NAMES
    assert len(set(NAMES)) == len(NAMES) == len(fields(Settings))
    assert all(one.about.rstrip().endswith(".") for one in described)


def test_what_is_described_is_what_is_used():
    """The defaults of the table, read as the environment would be, are the defaults of the code."""
    assert Settings.from_env({one.name: one.default for one in describe()}) == Settings()


def test_numbers_are_shown_as_people_write_them():
    shown = {one.name: one.default for one in describe()}
    assert (shown["GATEWAY_CALLS_KEPT_SECONDS"], shown["GATEWAY_WRITE_EVERY_SECONDS"]) == ("2592000", "0.5")
    assert not any("e+" in default for default in shown.values())


def test_an_empty_value_counts_as_not_set():
    assert Settings.from_env(dict.fromkeys(NAMES, "")) == Settings()


def test_other_names_are_not_ours():
    assert Settings.from_env({"PATH": "/bin", "GATEWAY_TYPO": "1", "gateway_max_calls": "7"}) == Settings()


def test_secrets_do_not_print():
    shown = repr(Settings.from_env(dict.fromkeys(SECRETS, "hunter2")))
    assert "hunter2" not in shown
    assert {setting.metadata["name"] for setting in fields(Settings) if setting.metadata["secret"]} == SECRETS


@pytest.mark.parametrize(
    ("value", "flag"),
    [(value, True) for value in ("1", "true", "YES", "On", " 1 ")]
    + [(value, False) for value in ("0", "false", "NO", "Off", " ")],
)
def test_a_flag_is_said_in_several_ways(value, flag):
    assert read("GATEWAY_ALLOW_PRIVATE_AGENTS", value) is flag


def test_seconds_may_have_fractions_and_counts_may_not():
    assert read("A2A_CONNECT_TIMEOUT_SECONDS", "0.25") == 0.25
    assert read("A2A_IDLE_TIMEOUT_SECONDS", "1.5") == 1.5
    assert read("GATEWAY_MAX_CALLS", " 7 ") == 7
    assert read("GATEWAY_SECRETS_KEY_FILE", "/run/key") == Path("/run/key")


BAD = {
    **dict.fromkeys(SECONDS, ("0", "-1", "nan", "inf", "soon", "1e10", "5s", "0x10")),
    **dict.fromkeys(COUNTS, ("0", "-1", "1.5", "many", "1e3", "2147483648", "²")),
    "A2A_DISCONNECT_GRACE_SECONDS": ("-1", "nan", "inf", "soon", "1e10"),
    "GATEWAY_ALLOW_PRIVATE_AGENTS": ("maybe", "2", "tru"),
    "GATEWAY_ALLOW_TOKENLESS_REGISTER": ("maybe", "-"),
    "GATEWAY_AGENT_PORTS": ("0", "65536", "80,", ",", "9-8", "80-", "-80", "1-65536", "http", "80 443", "\u0661"),
    **dict.fromkeys(RATES, ("0", "0/60", "60", "60/0", "1.5/60", "-1/60", "60/86401", "many/60", "10000000/1")),
    "GATEWAY_CALL_RESERVE_CENTS": ("-1", "1.5", "few", "2147483648"),
    "GATEWAY_PRICES": ("gpt", "gpt=1", "gpt=1/", "gpt=1/2,", "gpt=1.5/2", "=1/2", "a=1/2;b=1/2"),
    "GATEWAY_TRUSTED_PROXIES": ("nobody", "10.0.0.0/33", "10.0.0.0-10.0.0.9", "10.0.0.1:80"),
    "GATEWAY_CORS_ORIGINS": ("*", "null", "localhost:3000", "http://localhost/", "http://a,b", "ws://a", "HTTP://A"),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() if name not in LENIENT for value in values]
)
def test_a_bad_value_is_named_with_its_setting_and_what_is_accepted(name, value):
    with pytest.raises(BadSetting) as refused:
        Settings.from_env({name: value})
    sentence = str(refused.value)
    assert sentence.startswith(f"{name}={value!r} cannot be used: it must be ")
    assert "\n" not in sentence


@pytest.mark.parametrize("value", BAD["A2A_IDLE_TIMEOUT_SECONDS"])
def test_a_bad_idle_timeout_is_logged_with_the_default_that_is_used_instead(value):
    with capture_logs() as logs:
        settings = Settings.from_env({"A2A_IDLE_TIMEOUT_SECONDS": value})
    assert settings.idle_timeout_s == 300
    [entry] = logs
    assert (entry["event"], entry["name"], entry["value"]) == ("bad_setting", "A2A_IDLE_TIMEOUT_SECONDS", value)
    assert (entry["used"], entry["log_level"]) == (300, "warning")


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://a.example", ("https://a.example",)),
        (" https://a.example:8443 ,http://[::1]:3000,", ("https://a.example:8443", "http://[::1]:3000")),
        (",", ()),
    ],
)
def test_origins_are_separated_by_commas_and_may_be_none(value, origins):
    assert Settings.from_env({"GATEWAY_CORS_ORIGINS": value}).cors_origins == origins


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        ("443", (range(443, 444),)),
        (" 443 ,8000-8999", (range(443, 444), range(8000, 9000))),
        ("1-65535", (range(1, 65536),)),
    ],
)
def test_ports_are_numbers_and_ranges_separated_by_commas(value, ports):
    assert Settings.from_env({"GATEWAY_AGENT_PORTS": value}).agent_ports == ports


def test_only_the_idle_timeout_is_lenient():
    assert LENIENT == ["A2A_IDLE_TIMEOUT_SECONDS"]


@given(st.sampled_from(NAMES), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_value_of_any_setting_is_read_or_refused_by_its_name(name, value):
    refused = ""
    with capture_logs():
        try:
            Settings.from_env({name: value})
        except BadSetting as error:
            refused = str(error)
    assert refused == "" or refused.startswith(f"{name}=")


@pytest.mark.parametrize("name", RATES)
def test_a_rate_is_so_many_in_so_many_seconds_or_off(name):
    assert read(name, " 5/10 ") == Rate(requests=5, period_s=10.0)
    assert read(name, "off") is read(name, "OFF") is None


def test_prices_are_cents_a_million_tokens_by_model():
    prices = read("GATEWAY_PRICES", "large=300/1500, *=10/0")
    assert prices == Prices(by_model={"large": Price(input=300, output=1500), "*": Price(input=10, output=0)})


def test_trusted_proxies_are_addresses_and_networks():
    trusted = read("GATEWAY_TRUSTED_PROXIES", "10.0.0.1, 10.1.2.3/8,2001:db8::/32,")
    assert [str(network) for network in trusted] == ["10.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]


def test_nothing_may_be_held_for_a_call():
    assert read("GATEWAY_CALL_RESERVE_CENTS", "0") == 0
