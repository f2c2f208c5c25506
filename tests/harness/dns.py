"""A name server on loopback that lies as it is told."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import pairwise
from typing import Final, cast

from aiohttp import AsyncResolver

KINDS: Final = {"A": 1, "CNAME": 5, "AAAA": 28}
_NO_SUCH_NAME: Final = 3
_RESPONSE: Final = 0x8580
"""An authoritative answer, recursion desired and available."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One line of an answer. `ttl_s` 0: to be believed once."""

    name: str
    kind: str
    value: str
    ttl_s: int = 0

    def packed(self) -> bytes:
        value = _name(self.value) if self.kind == "CNAME" else ip_address(self.value).packed
        return _name(self.name) + struct.pack("!HHIH", KINDS[self.kind], 1, self.ttl_s, len(value)) + value


Answer = Sequence[Record] | None
"""What it says to one question; None: nothing at all."""


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """Each answer to a name and kind is given once, the last one for ever; other names do not exist."""

    answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    def says(self, name: str, *answers: Sequence[str] | None) -> None:
        """Let a name lead to these addresses: one answer after the other, each with addresses of both families."""
        for kind, version in (("A", 4), ("AAAA", 6)):
            self.answers[name, kind] = [
                None
                if answer is None
                else [Record(name=name, kind=kind, value=one) for one in answer if ip_address(one).version == version]
                for answer in answers
            ]

    def leads(self, *names: str, to: Sequence[str]) -> None:
        """Let each of these names be an alias of the next, and the last one lead to these addresses."""
        aliases = [Record(name=one, kind="CNAME", value=other) for one, other in pairwise(names)]
        self.says(names[-1], to)
        for kind in ("A", "AAAA"):
            [last] = self.answers[names[-1], kind]
            self.answers[names[0], kind] = [[*aliases, *(last or ())]]

    def resolver(self) -> AsyncResolver:
        """Return a resolver like the gateway's that asks nobody else."""
        return AsyncResolver(nameservers=["127.0.0.1"], udp_port=self.port, tcp_port=self.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own is not one by class

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.reply(data)
        if reply is not None:
            self._transport.sendto(reply, addr)

    def reply(self, query: bytes) -> bytes | None:
        """Return what is said to a query with one question."""
        labels, at = [], 12
        while (size := query[at]) != 0:
            labels.append(query[at + 1 : at + 1 + size].decode().lower())
            at += 1 + size
        end = at + 5
        number = int.from_bytes(query[at + 1 : at + 3], "big")
        name, kind = ".".join(labels), {value: kind for kind, value in KINDS.items()}.get(number, "")
        self.asked.append((name, kind))
        known = self.answers.get((name, kind), [[]])
        answer = known.pop(0) if len(known) > 1 else known[0]
        if answer is None:
            return None
        exists = any(name == other for other, _ in self.answers)
        flags = _RESPONSE | (0 if exists else _NO_SUCH_NAME)
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(answer), 0, 0)
        return head + query[12:end] + b"".join(record.packed() for record in answer)


def _name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\x00"


@asynccontextmanager
async def running() -> AsyncIterator[NameServer]:
    server = NameServer()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    server.port = transport.get_extra_info("sockname")[1]
    try:
        yield server
    finally:
        transport.close()
