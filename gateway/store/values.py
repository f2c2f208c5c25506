"""How Python values become SQL parameters, how columns become Python values."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from psycopg2 import BINARY, STRING
from psycopg2.extensions import connection, cursor, new_array_type, new_type, register_type

Row = Mapping[str, Any]
"""A row by column name.

json and jsonb come parsed (integers beyond 64 bits as floats), uuid as str, bytea as bytes, timestamptz as an aware
datetime in UTC, numeric as Decimal, arrays as lists.
"""

# An escaped NUL; an even number of backslashes before it are characters of their own.
_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class Json:
    """A dict, list or scalar that is to be a JSON parameter: `Json({"a": 1})`.

    NUL characters are left out, because jsonb cannot hold them. What JSON cannot say (NaN, infinity) becomes null;
    what orjson cannot write (integers beyond 64 bits, sets, ...) raises TypeError.
    """

    __slots__ = ("text",)

    def __init__(self, value: object) -> None:
        written = orjson.dumps(value)
        if b"\\u0000" in written:
            written = _ESCAPED_NUL.sub(rb"\1", written)
        self.text = written.decode()


def bound(params: Mapping[str, object]) -> dict[str, object] | None:
    """The parameters as psycopg2 takes them, or None when there are none (a lone `%` is then just a percent sign)."""
    return {name: _bound(value, name) for name, value in params.items()} or None


def _bound(value: object, name: str) -> object:
    """One parameter: text without what PostgreSQL cannot store, UUIDs and JSON as text, sequences as SQL arrays."""
    match value:
        case str():
            return _storable(value)
        case Json():
            return value.text
        case UUID():
            return str(value)
        case list() | tuple():
            return [_bound(element, name) for element in value]
        case dict():
            raise TypeError(f"parameter {name!r} is a dict: wrap it in Json")
        case _:
            return value


def _storable(text: str) -> str:
    """`text` without NUL, which PostgreSQL refuses, and with `?` for lone surrogates, which UTF-8 cannot carry."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text


def _json(text: str | bytes | None, _: cursor) -> Any:
    return None if text is None else orjson.loads(text)


def _bytes(text: str | bytes | None, reader: cursor) -> bytes | None:
    return None if text is None else bytes(BINARY(text, reader))


# Numbers are the fixed oids of PostgreSQL's built-in types (pg_type.dat).
_JSON = new_type((114, 3802), "JSON", _json)
_BYTEA = new_type((17,), "BYTEA", _bytes)
_READERS = (
    _JSON,
    _BYTEA,
    new_array_type((199, 3807), "JSON[]", _JSON),
    new_array_type((1001,), "BYTEA[]", _BYTEA),
    new_array_type((2951,), "UUID[]", STRING),
)


def teach(session: connection) -> None:
    """Make one session, and no other in the process, read columns as `Row` promises."""
    for reader in _READERS:
        register_type(reader, session)
