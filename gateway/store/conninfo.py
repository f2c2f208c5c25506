"""Where the database is, as addresses that libpq can dial without a blocking name lookup."""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping

import psycopg2
from psycopg2.extensions import parse_dsn

Conninfo = Mapping[str, str]
"""libpq's connection parameters by name: host, port, dbname, user, sslmode, ..."""

_FOUND_DEAD_AFTER = {
    "keepalives_idle": "30",  # s without traffic before the first probe
    "keepalives_interval": "5",  # s between probes
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",  # ms that sent bytes may wait for their acknowledgement
}


def conninfo(url: str, *, application_name: str, settings: Mapping[str, str]) -> Conninfo:
    """Read a `postgresql://` URL (or `key=value` string) and give the session its name and server settings.

    What the URL says wins, except for `settings`, which come after its own `options`. Raises ValueError for a string
    libpq cannot read; the message does not repeat it, it may hold a password.
    """
    try:
        given = parse_dsn(url)
    except psycopg2.ProgrammingError:
        raise ValueError("the database URL must look like postgresql://user:password@host:5432/name") from None
    options = " ".join([given.get("options", ""), *(f"-c {name}={value}" for name, value in settings.items())])
    return {
        "application_name": application_name,
        **_FOUND_DEAD_AFTER,
        **given,
        "client_encoding": "UTF8",
        "options": options.strip(),
    }


async def targets(wanted: Conninfo) -> list[Conninfo]:
    """One conninfo per address, in the order to try them; host names are looked up off the event loop.

    libpq walks a list of hosts itself, but without a deadline for each, so every address becomes a target of its own.
    `host` stays beside `hostaddr`: certificates and password files are checked against it. Unix sockets pass as they
    are. Raises OSError when no name resolves.
    """
    hosts, addresses, ports = (_listed(wanted, key) for key in ("host", "hostaddr", "port"))
    found: list[Conninfo] = []
    unresolved: OSError | None = None
    for index in range(max(len(hosts), len(addresses), 1)):
        host, address = _at(hosts, index), _at(addresses, index)
        port = ports[0] if len(ports) == 1 else _at(ports, index)
        try:
            resolved = [address] if address else await _lookup(host)
        except OSError as error:
            unresolved = error
            continue
        found += [_target(wanted, host=host, hostaddr=each, port=port) for each in resolved]
    if not found and unresolved is not None:
        raise unresolved
    return found


def _listed(wanted: Conninfo, key: str) -> list[str]:
    return wanted[key].split(",") if wanted.get(key) else []


def _at(values: list[str], index: int) -> str:
    return values[index] if index < len(values) else ""


def _target(wanted: Conninfo, **place: str) -> Conninfo:
    return {key: value for key, value in {**wanted, **place}.items() if value}


async def _lookup(host: str) -> list[str]:
    """The addresses of a host; an empty one stands for "no lookup needed" (a socket path, libpq's default)."""
    if not host or host.startswith(("/", "@")):
        return [""]
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))
