"""An agent that answers in every odd way there is, and what its callers are to get for each."""

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast

ASKED_BY: Final = b"A2A-Extensions"
"""The header, passed on from callers, that says in which way to answer."""
MOST_BYTES: Final = 100_000
"""What the gateway in front of it has to take as the largest answer."""
PIECE_S: Final = 0.002
STOLEN: Final = b"an answer that belongs to nobody"
"""What comes after an answer, at once. Had it come later, it would have been the answer of the next call, by HTTP."""


class End(Enum):
    """What becomes of the connection."""

    KEPT = "kept"
    CLOSED = "closed"
    RESET = "reset"
    SILENT = "silent"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to answer: in these pieces, a moment apart; no piece at all for the body that came, as it came.

    gets: the status and the code that the caller gets, or one of several; no code where the answer goes on as it is.
    """

    pieces: tuple[bytes, ...] = ()
    end: End = End.KEPT
    gets: tuple[tuple[int, str | None], ...] = ((200, None),)

    @property
    def takes_long(self) -> bool:
        """Whether the caller needs a deadline."""
        return self.end is End.SILENT


def _said(status: int, body: bytes = b"{}", *lines: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 %d Odd\r\nContent-Type: %b\r\nContent-Length: %d\r\n" % (status, kind, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def _with_usage(usage: bytes) -> Way:
    return Way(pieces=(_said(200, b'{"jsonrpc":"2.0","id":1,"result":{"usage":%b}}' % usage),))


def _fails(status: int, *pieces: bytes, as_: int | None = None, code: str = "agent_error") -> Way:
    return Way(pieces=pieces or (_said(status, b"<p>", kind=b"text/html"),), gets=((as_ or status, code),))


_RESET: Final = (503, "agent_reset")
_CUT: Final = (502, "truncated")
_EITHER: Final = (_CUT, _RESET)
"""Where the head and what breaks the body may come at once: then it is as if there had been no head."""
_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_ERROR: Final = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"it is odd"}}'
_GZIP: Final = b"Content-Encoding: gzip"

WAYS: Final[Mapping[str, Way]] = {
    "echo": Way(),
    "result": Way(pieces=(_said(200, b'{"jsonrpc":"2.0","id":1,"result":{}}'),)),
    "in-pieces": Way(pieces=(b"HTTP/1.1 200", b" OK\r\nContent-Le", b"ngth: 3\r\n", b"\r\n", b"{", b"}", b" ")),
    "chunked": Way(pieces=(_CHUNKED, b"1;a=b\r\n{\r", b"\n1\r\n}\r\n0\r\nTrailer: a\r\n\r\n")),
    "without-length": Way(pieces=(b"HTTP/1.0 200 OK\r\n\r\n", b'{"a":', b"1}"), end=End.CLOSED),
    "empty": Way(pieces=(_said(200, b""),)),
    "no-content": Way(pieces=(b"HTTP/1.1 204 No Content\r\n\r\n",), gets=((204, None),)),
    "early-hint": Way(pieces=(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + _said(200),)),
    "no-json": Way(pieces=(_said(200, bytes(range(256))),)),
    "odd-type": Way(pieces=(_said(200, b"{}", kind=b"\xff; charset=\xfe"),)),
    "deep": Way(pieces=(_said(200, b"[" * 40_000 + b"]" * 40_000),)),
    "deep-object": Way(pieces=(_said(200, b'{"result":' * 900 + b"1" + b"}" * 900),)),
    "surrogates": Way(pieces=(_said(200, b'{"result":{"text":"\\ud800\\u0000"}}'),)),
    "not-a-number": Way(pieces=(_said(200, b'{"result":NaN,"usage":{"input_tokens":1e999}}'),)),
    "zipped": Way(pieces=(_said(200, gzip.compress(b'{"result":{}}', mtime=0), _GZIP),)),
    "error": Way(pieces=(_said(500, _ERROR),), gets=((500, None),)),
    "error-of-another": Way(pieces=(_said(404, _ERROR),), gets=((404, None),)),
    "fails": _fails(500),
    "missing": _fails(404),
    "unpayable": _fails(402),
    "moved": _fails(302, _said(302, b"", b"Location: http://127.0.0.1:1/")),
    "unavailable": _fails(503),
    "late": _fails(504),
    "last-status": _fails(599),
    "impossible-status": _fails(999, as_=502),
    "status-below": _fails(101, b"HTTP/1.1 101 Switching\r\nUpgrade: a\r\nConnection: Upgrade\r\n\r\n", as_=502),
    "busy": _fails(429, as_=503, code="agent_busy"),
    "busy-for": _fails(503, _said(503, b"", b"Retry-After: 1"), code="agent_busy"),
    "no-http": Way(pieces=(b"no such thing\r\n\r\n",), end=End.CLOSED, gets=(_RESET,)),
    "silent-close": Way(pieces=(b"",), end=End.CLOSED, gets=(_RESET,)),
    "reset": Way(pieces=(b"",), end=End.RESET, gets=(_RESET,)),
    "half-a-head": Way(pieces=(b"HTTP/1.1 200 OK\r\nContent-Le",), end=End.CLOSED, gets=(_RESET,)),
    "long-head": Way(pieces=(_said(200, b"{}", b"X-Long: " + b"a" * 40_000),), end=End.CLOSED, gets=(_RESET,)),
    "two-lengths": Way(pieces=(_said(200, b"{}", b"Content-Length: 3"),), end=End.CLOSED, gets=(_RESET,)),
    "broken-off": Way(pieces=(_said(200, b"{" + b" " * 99)[:-9],), end=End.CLOSED, gets=(_CUT,)),
    "reset-within": Way(pieces=(_said(200, b" " * 99)[:-9], b""), end=End.RESET, gets=_EITHER),
    "odd-chunk": Way(pieces=(_CHUNKED, b"1\r\n{\r\n", b"x\r\n"), end=End.CLOSED, gets=_EITHER),
    "no-zip": Way(pieces=(_said(200, b"no such thing", _GZIP),), end=End.CLOSED, gets=(_CUT,)),
    "too-large": _fails(200, _said(200, b" " * (MOST_BYTES + 1)), as_=502, code="response_too_large"),
    "two-answers": Way(pieces=(_said(200) + _said(200, STOLEN),)),
    "never": Way(pieces=(b"",), end=End.SILENT, gets=((504, "deadline"),)),
    "never-all": Way(pieces=(_said(200, b"{  }")[:-2],), end=End.SILENT, gets=((504, "deadline"),)),
    **{
        f"usage-{number}": _with_usage(usage)
        for number, usage in enumerate(
            (b'{"input_tokens":1,"output_tokens":2}', b'{"input_tokens":-1}', b'{"input_tokens":1e400}', b'{"a":{}}',
             b'{"output_tokens":%b}' % (b"9" * 30), b'{"prompt_tokens":"1"}', b"[1,2]", b'{"input_tokens":true}',
             b'{"input_tokens":1.5,"inputTokens":3}', b'"\\ud800"', b'{"output_tokens":1000000000000}',
             b'{"input_tokens":18446744073709551615}'),
        )
    },
}  # fmt: skip


class _Connection(asyncio.Protocol):
    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._came = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, body = bytes(self._came).partition(b"\r\n\r\n")
        if not found or len(body) < int(_value(head, b"Content-Length")):
            return
        self._came.clear()
        way = WAYS[_value(head, ASKED_BY).decode()]
        self._say(way.pieces or (_said(200, body),), way.end)

    def _say(self, pieces: tuple[bytes, ...], end: End) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(pieces[0])
        if pieces[1:]:
            asyncio.get_running_loop().call_later(PIECE_S, self._say, pieces[1:], end)
        elif end is End.CLOSED:
            self._transport.close()
        elif end is End.RESET:  # with no time to linger, a close is a reset
            opened = self._transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()


def _value(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """Yield its url."""
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
