"""Every setting of an agent process: name, default, meaning; the only reader of the environment in runtime."""

import ipaddress
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


class SettingError(Exception):
    """A value that cannot be used: the sentence names the setting, the value (never a token), what is accepted."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting as people see it."""

    name: str
    default: str
    meaning: str


ROWS = (
    Row(name="GATEWAY_URL", default="http://127.0.0.1:8080", meaning="where the gateway is"),
    Row(
        name="WORKSPACE_ID", default="", meaning="the workspace's UUID; empty: the one kept in the state folder, or new"
    ),
    Row(name="WORKSPACE_TOKEN", default="", meaning="its token; empty: the one kept in the state folder, or none"),
    Row(name="AGENT_HOST", default="127.0.0.1", meaning="the address to listen on"),
    Row(name="AGENT_PORT", default="0", meaning="the port to listen on; 0 takes a free one"),
    Row(name="AGENT_URL", default="", meaning="the URL the gateway reaches us at; empty: made of host and port"),
    Row(
        name="A2A_DELIVERY_MODE",
        default="push",
        meaning="push: listen and be called; poll: listen nowhere and fetch messages from the gateway",
    ),
    Row(name="A2A_STATE_DIR", default="~/.local/state/a2a-agent", meaning="the folder that keeps token and secret"),
    Row(name="A2A_HEARTBEAT_SECONDS", default="30", meaning="seconds between heartbeats, 0.01 to 3600"),
    Row(
        name="A2A_WEDGED_SECONDS",
        default="30",
        meaning="seconds that the agent's loop may not turn before heartbeats say that it is wedged, 0.1 to 3600",
    ),
    Row(name="A2A_DRAIN_SECONDS", default="2", meaning="seconds that running work gets when we stop, 0 to 3600"),
    Row(name="A2A_STOP_WITH_STDIN", default="0", meaning="1: stop when standard input ends"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings, checked; the table `ROWS` says what each means."""

    gateway_url: str
    workspace_id: str | None
    token: str | None = field(repr=False)
    host: str
    port: int
    url: str | None
    polls: bool
    state_dir: Path
    heartbeat_s: float
    wedged_s: float
    drain_s: float
    stop_with_stdin: bool = False

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the environment; an empty value counts as absent. Raises `SettingError`."""
        values = {row.name: environment.get(row.name) or row.default for row in ROWS}
        settings = cls(
            gateway_url=_read(values, "GATEWAY_URL", _url, "an http or https URL"),
            workspace_id=_read(values, "WORKSPACE_ID", _uuid, "a UUID") if values["WORKSPACE_ID"] else None,
            token=values["WORKSPACE_TOKEN"] or None,
            host=values["AGENT_HOST"],
            port=_read(values, "AGENT_PORT", _between(0, 65535, int), "an integer from 0 to 65535"),
            url=_read(values, "AGENT_URL", _url, "an http or https URL") if values["AGENT_URL"] else None,
            polls=_read(values, "A2A_DELIVERY_MODE", ("push", "poll").index, "push or poll") == 1,
            state_dir=Path(values["A2A_STATE_DIR"]).expanduser(),
            heartbeat_s=_read(values, "A2A_HEARTBEAT_SECONDS", _between(0.01, 3600, float), "a number, 0.01 to 3600"),
            wedged_s=_read(values, "A2A_WEDGED_SECONDS", _between(0.1, 3600, float), "a number, 0.1 to 3600"),
            drain_s=_read(values, "A2A_DRAIN_SECONDS", _between(0, 3600, float), "a number, 0 to 3600"),
            stop_with_stdin=_read(values, "A2A_STOP_WITH_STDIN", _between(0, 1, int), "0 or 1") == 1,
        )
        if settings.url is None and not settings.polls and _is_unspecified(settings.host):
            raise SettingError(f"AGENT_HOST is {settings.host}, which nobody can call: set AGENT_URL as well")
        if settings.token is not None and not (settings.token.isascii() and settings.token.isprintable()):
            raise SettingError("WORKSPACE_TOKEN holds characters that no token has: printable ASCII is accepted")
        return settings


def describe() -> str:
    """The table for `--help`."""
    return "\n".join(f"  {row.name:22} {row.meaning} (default: {row.default or 'empty'})" for row in ROWS)


def _read(values: Mapping[str, str], name: str, convert: Callable[[str], T], accepted: str) -> T:
    try:
        return convert(values[name])
    except ValueError as error:
        raise SettingError(f"{name} is {values[name]!r}: {accepted} is accepted") from error


def _between(least: float, most: float, convert: Callable[[str], T]) -> Callable[[str], T]:
    def checked(text: str) -> T:
        value = convert(text)
        number = float(text)
        if math.isnan(number) or not least <= number <= most:
            raise ValueError(text)
        return value

    return checked


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError(text)
    return text


def _uuid(text: str) -> str:
    return str(uuid.UUID(text))


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
