"""Where each value of a JSON text begins and ends, so that a part is replaced and the rest keeps its characters."""

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from json import JSONDecoder
from typing import Any, Final, NamedTuple, NoReturn

import orjson

MAX_DEPTH: Final = 500
"""Arrays and objects inside each other; every parser has such a limit, Python's own lies below 1000 less its stack."""
MAX_DIGITS: Final = 4300
"""Digits in a row in a number; Python converts no more, because that takes quadratic time."""

MAX_CROWD: Final = 50_000
"""Arrays and objects in one text, and names in it: what unfolds from a thousand bytes could hold up everybody."""

_STRIDE: Final = 64 * 1024
"""How much is looked at before it is seen whether that was too many."""
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_BRACKETS: Final = b"[{]}"
_STEPS: Final = bytes.maketrans(_BRACKETS, b"\x01\x01\xff\xff")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(_BRACKETS))
_DIGITS: Final = b"0123456789"
_NINES: Final = bytes.maketrans(_DIGITS, b"9" * len(_DIGITS))


class Unparsable(ValueError):
    """The bytes are not JSON as RFC 8259 has it, or are nested or numbered beyond reason."""


class Span(NamedTuple):
    """A value of a text, with the place of its first character and the place after its last.

    Named tuples here: a body can hold 100,000 of them, and they cost a third of a frozen dataclass.
    """

    value: object
    start: int
    end: int


class Member(NamedTuple):
    """A name of an object with what it stands for."""

    name: Span
    item: Span


def parse(raw: bytes) -> object:
    """Return the value of a JSON text; of equal names in an object the last one counts.

    The value is for looking at: numbers may have lost digits, strings may hold lone surrogates. Takes linear time
    and bounded depth whatever the bytes are. A byte order mark of UTF-8 is tolerated. Raises Unparsable.
    """
    if _is_absurd(raw):
        raise Unparsable
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _parse_leniently(raw)


def decode(raw: bytes) -> str:
    """Return the characters of a text that was parsed, without a byte order mark; `encode()` gives its bytes again."""
    return raw.removeprefix(_BOM).decode()


def members(text: str, start: int) -> Iterator[Member]:
    """Yield the members of the object that begins at `start` in a text that was parsed, equal names included."""
    at = skip_space(text, start + 1)
    while text[at] != "}":
        name = _read(text, at)
        item = _read(text, skip_space(text, skip_space(text, name.end) + 1))
        yield Member(name, item)
        at = _skip_comma(text, item.end)


def elements(text: str, start: int) -> Iterator[Span]:
    """Yield the elements of the array that begins at `start` in a text that was parsed."""
    at = skip_space(text, start + 1)
    while text[at] != "]":
        item = _read(text, at)
        yield item
        at = _skip_comma(text, item.end)


def is_deeper(raw: bytes, levels: int) -> bool:
    """Return whether more arrays and objects than this stand inside each other; only a count unless there are many."""
    return raw.count(b"[") + raw.count(b"{") > levels and _depth(_outside_strings(raw)) > levels


def is_crowded(raw: bytes) -> bool:
    """Return whether there are more arrays and objects, or names, than anybody needs; a count unless there may be.

    Whoever parses what others have written on the loop asks this before: ten megabytes of them take a second.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_CROWD and raw.count(b":") <= MAX_CROWD:
        return False
    text, inside = _unescaped(raw), 0
    groups = names = 0
    for start in range(0, len(text), _STRIDE):
        pieces = text[start : start + _STRIDE].split(b'"')
        bare = b"".join(pieces[inside::2])
        inside = (inside + len(pieces) - 1) % 2
        groups += bare.count(b"[") + bare.count(b"{")
        names += bare.count(b":")
        if groups > MAX_CROWD or names > MAX_CROWD:
            return True
    return False


def skip_space(text: str, at: int) -> int:
    """Return the place of the first character from `at` on that is no white space, which must exist."""
    if text[at] not in " \t\n\r":
        return at
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _skip_comma(text: str, at: int) -> int:
    at = skip_space(text, at)
    return skip_space(text, at + 1) if text[at] == "," else at


def _read(text: str, start: int) -> Span:
    value, end = _DECODER.raw_decode(text, start)
    return Span(value, start, end)


def _parse_leniently(raw: bytes) -> object:
    """Parse JSON that orjson does not take: lone surrogates in escapes, numbers beyond a double, a byte order mark."""
    try:
        return _DECODER.decode(decode(raw))
    except ValueError as error:
        raise Unparsable from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = JSONDecoder(parse_int=float, parse_constant=_refuse_constant)


def _is_absurd(raw: bytes) -> bool:
    """Return whether depth, number or digits are over the limit; cheap unless the text has that many."""
    if is_crowded(raw) or is_deeper(raw, MAX_DEPTH):
        return True
    # A run of more than MAX_DIGITS digits covers at least one of the places that are MAX_DIGITS apart.
    suspects = raw[MAX_DIGITS::MAX_DIGITS]
    if len(suspects.translate(None, _DIGITS)) == len(suspects):
        return False
    return b"9" * (MAX_DIGITS + 1) in _outside_strings(raw).translate(_NINES)


def _outside_strings(raw: bytes) -> bytes:
    """Return the text with the contents of its strings left out."""
    return b'"'.join(_unescaped(raw).split(b'"')[::2])


def _unescaped(raw: bytes) -> bytes:
    """Return the text without what could make a quote in it that ends no string."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"")


def _depth(bare: bytes) -> int:
    steps = memoryview(bare.translate(_STEPS, _NOT_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0)


def find_object(body: bytes) -> dict[str, Any]:
    """Return the members of a body that is a JSON object; none of any other."""
    said: Any = None
    with suppress(orjson.JSONDecodeError):
        said = orjson.loads(body)
    return said if isinstance(said, dict) else {}
