"""What the text of a setting may be, a function for each kind: it returns the value, or says what is accepted."""

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.core.clients import Network
from gateway.core.prices import Price, Prices
from gateway.core.rates import Rate
from gateway.core.upstream import KEEPABLE

_ORIGIN: Final = re.compile(r"https?://(?:[0-9a-z._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_RATE: Final = re.compile(r"([0-9]{1,7})/([0-9]{1,5})")
_PRICE: Final = re.compile(r"([^=,\s]+)=([0-9]{1,7})/([0-9]{1,7})")
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def text(value: str) -> str:
    """Any text."""
    return value


def log_format(value: str) -> str:
    """`text` or `json`."""
    if value not in ("text", "json"):
        raise ValueError("text or json")
    return value


def prefix(value: str) -> str:
    """What keys may begin with."""
    if not value.isprintable() or " " in value:
        raise ValueError("printable characters without a space")
    return value


def http_url(value: str) -> str:
    """An address of the web, without a slash at its end."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an http or https url without a query")
    return value.rstrip("/")


def flag(value: str) -> bool:
    """Yes or no."""
    match value.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off" | "":
            return False
        case _:
            raise ValueError("1 or 0 (also true/false, yes/no, on/off)")


def seconds(value: str) -> float:
    """Seconds above 0."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e9:
        raise ValueError("a number of seconds above 0; fractions are allowed")
    return number


def seconds_or_zero(value: str) -> float:
    """Seconds, or none."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1e9:
        raise ValueError("a number of seconds, 0 or more; fractions are allowed")
    return number


def seconds_from(least: float) -> Callable[[str], float]:
    """Seconds, so many at least."""

    def read(value: str) -> float:
        try:
            number = seconds(value)
        except ValueError:
            number = 0.0
        if number < least:
            raise ValueError(f"a number of seconds, {least:g} or more; fractions are allowed")
        return number

    return read


def count(value: str) -> int:
    """A number above 0."""
    if not value.strip().isdecimal() or not 0 < int(value) < 2**31:
        raise ValueError("a whole number above 0")
    return int(value)


def up_to(most: int) -> Callable[[str], int]:
    """A number from 1 to `most`."""

    def read(value: str) -> int:
        if not value.strip().isdecimal() or not 0 < int(value) <= most:
            raise ValueError(f"a whole number, 1 to {most}")
        return int(value)

    return read


def origins(value: str) -> tuple[str, ...]:
    """Origins as browsers send them."""
    found = tuple(one.strip() for one in value.split(",") if one.strip())
    if not all(_ORIGIN.fullmatch(one) for one in found):
        raise ValueError("origins as browsers send them, `https://host[:port]` in lower case, comma separated")
    return found


def port_ranges(value: str) -> tuple[range, ...]:
    """Ports and ranges of them."""
    found = [_PORTS.fullmatch(one.strip()) for one in value.split(",")]
    ranges = tuple(range(int(one[1]), int(one[2] or one[1]) + 1) for one in found if one is not None)
    if None in found or not all(ports and ports[0] > 0 and ports[-1] <= 65535 for ports in ranges):
        raise ValueError("ports from 1 to 65535 and ranges of them like 8000-8999, comma separated")
    return ranges


def rate(value: str) -> Rate | None:
    """Requests in a time, None for `off`."""
    if value.strip().lower() == "off":
        return None
    match = _RATE.fullmatch(value.strip())
    if match is None or not 0 < int(match[1]) < 10**7 or not 0 < int(match[2]) <= 86_400:
        raise ValueError("requests per seconds such as `600/60`, or `off`")
    return Rate(requests=int(match[1]), period_s=float(match[2]))


def networks(value: str) -> tuple[Network, ...]:
    """Addresses and networks."""
    try:
        return tuple(ipaddress.ip_network(one.strip(), strict=False) for one in value.split(",") if one.strip())
    except ValueError:
        raise ValueError("addresses or networks such as `10.0.0.0/8`, comma separated") from None


def prices(value: str) -> Prices:
    """What models cost."""
    found = [_PRICE.fullmatch(one.strip()) for one in value.split(",")]
    if None in found:
        raise ValueError("`MODEL=IN/OUT` in cents a million tokens, comma separated; `*` for any other model")
    return Prices(by_model={one[1]: Price(input=int(one[2]), output=int(one[3])) for one in found if one is not None})


def amount(value: str) -> int:
    """A number, 0 too."""
    if not value.strip().isdecimal() or int(value) >= 2**31:
        raise ValueError("a whole number, 0 or more")
    return int(value)


def kept_types(value: str) -> frozenset[str]:
    """Types of events that an agent's feed may bring."""
    types = frozenset(one.strip() for one in value.split(",") if one.strip())
    if not types <= KEEPABLE:
        raise ValueError(f"types out of {', '.join(sorted(KEEPABLE))}, comma separated")
    return types


def path(value: str) -> Path:
    """A file."""
    return Path(value)
