"""Bodies that nobody would write: those of a corpus, damaged byte by byte and token by token as a seed says."""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

LONG_BYTES: Final = 4096
LONG_SHARE: Final = 0.02
"""How often a long body is taken: they take long, and have little in them that the short ones have not."""
MOST_BYTES: Final = 300_000
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[][{}:,]')
_VALUE: Final = re.compile(rb'[:,[]\s*("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|\[\]|\{\})\s*(?=[],}])')
VALUES: Final = (
    b"null", b"true", b"false", b"[]", b"{}", b'""', b"0", b"-0", b"-1", b"7", b"1e400", b"-1e-400", b"1.0", b"9" * 40,
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xc3\xa9"', b'"a"', b'[{"text":"a"}]', b'["a",{"type":"text"}]',
    b'{"a":' * 90 + b"1" + b"}" * 90, b"[" * 200 + b"]" * 200, b'"message/send"', b'"message/stream"', b'"SendMessage"',
    b'"tasks/get"', b'"' + b"x" * 5000 + b'"', b'{"kind":"text","text":"a"}', b'{"message":{"content":"a"}}',
)  # fmt: skip
"""JSON, though not what anybody expects."""
WORDS: Final = (
    b"null", b"true", b"[]", b"{}", b'""', b"0", b"-0", b"-1", b"1e400", b"-1e-400", b"1.0", b"9" * 40, b"NaN",
    b"Infinity", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\xff"', b'"\xc3\xa9"', b'"\xed\xa0\x80"',
    b"[" * 300, b"]" * 300, b'{"a":' * 300, b'"jsonrpc"', b'"2.0"', b'"id"', b'"method"', b'"params"', b'"message"',
    b'"parts"', b'"content"', b'"messageId"', b'"kind"', b'"type"', b'"text"', b'"file"', b'"data"', b'"message/send"',
    b'"message/stream"', b'"SendMessage"', b'"tasks/get"', b'"expires_in_seconds"', b'"\\u006detho\\u0064"', b",", b":",
    b"{", b"}", b"\xef\xbb\xbf", b"\x00", b"\\", b"/*", b"\r\n", b"0\r\n\r\n", b"\xe2\x80\xa8", b"'", b"`",
)  # fmt: skip
"""What parsers stumble over, and the names that decide what a call is."""


class Mutations:
    """An endless row of bodies: what comes next depends on the seed and the corpus alone."""

    def __init__(self, corpus: Sequence[bytes], rng: Random) -> None:
        self._short = [body for body in corpus if len(body) <= LONG_BYTES]
        self._long = [body for body in corpus if len(body) > LONG_BYTES]
        self._rng = rng
        self._acts: tuple[Callable[[bytes], bytes], ...] = (
            self._flip, self._cut_out, self._put_in, self._overwrite, self._repeat, self._break_off, self._splice,
            self._swap_token, self._drop_token, self._double_member, *[self._swap_value] * 14,
        )  # fmt: skip

    def __iter__(self) -> "Mutations":
        return self

    def __next__(self) -> bytes:
        body = self._one()
        for _ in range(self._rng.choice((0, 1, 1, 1, 1, 2, 2, 3, 5))):
            body = self._rng.choice(self._acts)(body)
        return body[:MOST_BYTES]

    def _one(self) -> bytes:
        of = self._long if self._long and self._rng.random() < LONG_SHARE else self._short
        return self._rng.choice(of)

    def _at(self, body: bytes) -> int:
        return self._rng.randrange(len(body) + 1)

    def _slice(self, body: bytes) -> tuple[int, int]:
        begin = self._at(body)
        return begin, min(len(body), begin + self._rng.choice((1, 1, 2, 4, 16, 64)))

    def _flip(self, body: bytes) -> bytes:
        if not body:
            return body
        at = self._rng.randrange(len(body))
        return body[:at] + bytes((body[at] ^ (1 << self._rng.randrange(8)),)) + body[at + 1 :]

    def _cut_out(self, body: bytes) -> bytes:
        begin, end = self._slice(body)
        return body[:begin] + body[end:]

    def _put_in(self, body: bytes) -> bytes:
        at = self._at(body)
        return body[:at] + self._rng.choice(WORDS) + body[at:]

    def _overwrite(self, body: bytes) -> bytes:
        begin, end = self._slice(body)
        return body[:begin] + self._rng.randbytes(end - begin) + body[end:]

    def _repeat(self, body: bytes) -> bytes:
        begin, end = self._slice(body)
        return body[:end] + body[begin:end] * self._rng.choice((1, 2, 50)) + body[end:]

    def _break_off(self, body: bytes) -> bytes:
        return body[: self._at(body)]

    def _splice(self, body: bytes) -> bytes:
        other = self._one()
        return body[: self._at(body)] + other[self._at(other) :]

    def _token(self, body: bytes) -> tuple[int, int]:
        """Where some token near a random place begins and ends."""
        found = _TOKEN.search(body, self._at(body)) or _TOKEN.search(body)
        return found.span() if found else (0, 0)

    def _swap_token(self, body: bytes) -> bytes:
        begin, end = self._token(body)
        return body[:begin] + self._rng.choice(WORDS) + body[end:]

    def _swap_value(self, body: bytes) -> bytes:
        """Put another value in the place of one: what was JSON stays JSON."""
        found = _VALUE.search(body, self._at(body)) or _VALUE.search(body)
        begin, end = found.span(1) if found else (0, 0)
        return body[:begin] + self._rng.choice(VALUES) + body[end:]

    def _drop_token(self, body: bytes) -> bytes:
        begin, end = self._token(body)
        return body[:begin] + body[end:]

    def _double_member(self, body: bytes) -> bytes:
        """Say something twice in one object, the second time differently."""
        names = [word for word in WORDS if word.startswith(b'"')]
        return body.replace(b"{", b"{%b:%b," % (self._rng.choice(names), self._rng.choice(WORDS)), 1)
