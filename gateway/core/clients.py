"""Which address a request came from, behind proxies that are trusted to say so."""

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address of the client; "unknown" where there is none (a socket in the file system).

    peer: the other end of the connection. forwarded_for: the X-Forwarded-For headers, in order. Each proxy adds to the
    right who spoke to it, so the client is the rightmost that is no trusted proxy; the rest anybody can write.
    """
    at = _parse(peer)
    if at is None:
        return peer or "unknown"
    for hop in reversed([hop.strip() for header in forwarded_for for hop in header.split(",")]):
        if not any(at in network for network in trusted):
            break
        before = _parse(hop)
        if before is None:
            break  # the proxy vouches for no more than itself
        at = before
    return str(at)


def is_trusted(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Return whether a peer is one of the proxies whose word counts; what is no address is none."""
    at = _parse(peer)
    return at is not None and any(at in network for network in trusted)


def bucket(address: str) -> str:
    """Return what shares one limit with an address: the /64 of IPv6, of which one client has all."""
    at = _parse(address)
    if isinstance(at, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((at, 64), strict=False))
    return address


def _parse(text: str | None) -> _Address | None:
    """An address, perhaps with a port; the IPv4 in a mapped one, without a zone."""
    if text is None:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
