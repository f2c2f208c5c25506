"""runtime.settings: every setting has a row, a default and a refusal that names it."""

import pytest

from runtime.settings import ROWS, SettingError, Settings, describe

GOOD = {
    "GATEWAY_URL": "https://gateway.example:8443/base",
    "WORKSPACE_ID": "3F2B9C1E-0a4d-4b55-8a2f-1f1f1f1f1f1f",
    "WORKSPACE_TOKEN": "hush",
    "AGENT_HOST": "0.0.0.0",
    "AGENT_PORT": "8123",
    "AGENT_URL": "http://agent.example/",
    "A2A_DELIVERY_MODE": "poll",
    "A2A_STATE_DIR": "/var/lib/agent",
    "A2A_HEARTBEAT_SECONDS": "0.5",
    "A2A_WEDGED_SECONDS": "5",
    "A2A_DRAIN_SECONDS": "10",
    "A2A_STOP_WITH_STDIN": "1",
}


def test_an_empty_environment_gives_the_defaults():
    settings = Settings.from_env({})
    assert (settings.gateway_url, settings.host, settings.port) == ("http://127.0.0.1:8080", "127.0.0.1", 0)
    assert (settings.workspace_id, settings.token, settings.url) == (None, None, None)
    assert (settings.heartbeat_s, settings.drain_s) == (30, 2)
    assert "~" not in str(settings.state_dir)
    assert Settings.from_env(dict.fromkeys(GOOD, "")) == settings


def test_every_row_is_read():
    assert GOOD.keys() == {row.name for row in ROWS}
    changed = Settings.from_env({"AGENT_URL": "http://a/"})
    for name, value in GOOD.items():
        if name != "AGENT_URL":
            assert Settings.from_env({"AGENT_URL": "http://a/", name: value}) != changed, name


def test_a_workspace_id_is_written_in_one_way():
    assert Settings.from_env(GOOD).workspace_id == "3f2b9c1e-0a4d-4b55-8a2f-1f1f1f1f1f1f"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_URL", "gateway:8080"),
        ("GATEWAY_URL", "ftp://gateway"),
        ("GATEWAY_URL", "http://"),
        ("GATEWAY_URL", "http://gateway:99999"),
        ("AGENT_URL", "agent"),
        ("WORKSPACE_ID", "demo"),
        ("AGENT_PORT", "x"),
        ("AGENT_PORT", "65536"),
        ("AGENT_PORT", "-1"),
        ("A2A_HEARTBEAT_SECONDS", "0"),
        ("A2A_HEARTBEAT_SECONDS", "nan"),
        ("A2A_HEARTBEAT_SECONDS", "inf"),
        ("A2A_HEARTBEAT_SECONDS", "often"),
        ("A2A_WEDGED_SECONDS", "0"),
        ("A2A_DRAIN_SECONDS", "-1"),
        ("A2A_STOP_WITH_STDIN", "yes"),
        ("A2A_DELIVERY_MODE", "pull"),
    ],
)
def test_a_bad_value_is_named_with_what_is_accepted(name, value):
    with pytest.raises(SettingError, match=f"{name} is .*accepted") as caught:
        Settings.from_env({name: value})
    assert value in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_nobody_can_call_needs_a_url(host):
    with pytest.raises(SettingError, match="AGENT_URL"):
        Settings.from_env({"AGENT_HOST": host})
    assert Settings.from_env({"AGENT_HOST": host, "AGENT_URL": "http://a/"}).host == host
    assert Settings.from_env({"AGENT_HOST": host, "A2A_DELIVERY_MODE": "poll"}).polls


def test_a_token_is_neither_printed_nor_taken_with_line_breaks():
    assert "hush" not in repr(Settings.from_env(GOOD))
    with pytest.raises(SettingError, match="WORKSPACE_TOKEN") as caught:
        Settings.from_env({"WORKSPACE_TOKEN": "hush\r\nX-Evil: 1"})
    assert "hush" not in str(caught.value)


def test_the_help_names_every_row():
    assert all(row.name in describe() and row.meaning in describe() for row in ROWS)
