"""What goes into the database and what comes out, against the real server."""

import enum
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from gateway.store.db import Json


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "cast", "read"),
    [
        ("a'b\\c%s", "text", "a'b\\c%s"),
        ("before\x00after", "text", "beforeafter"),
        ("lone \ud800 surrogate", "text", "lone ? surrogate"),
        ("snow ☃ 🐘", "text", "snow ☃ 🐘"),
        (Colour.RED, "text", "red"),
        (["a\x00", "b"], "text[]", ["a", "b"]),
        ([], "text[]", []),
        (b"\x00\xff", "bytea", b"\x00\xff"),
        ([b"\x00"], "bytea[]", [b"\x00"]),
        (uuid.UUID(int=7), "uuid", str(uuid.UUID(int=7))),
        ([uuid.UUID(int=7)], "uuid[]", [str(uuid.UUID(int=7))]),
        (Json({"a": [1, None, "ü"]}), "jsonb", {"a": [1, None, "ü"]}),
        (Json({"k\x00": "v\x00w"}), "jsonb", {"k": "vw"}),
        (Json("\\u0000 is not NUL, \\\x00 is"), "jsonb", "\\u0000 is not NUL, \\ is"),
        (Json([]), "json", []),
        ([Json({"a": 1}), Json(2)], "jsonb[]", [{"a": 1}, 2]),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "timestamptz", datetime(2026, 1, 2, 3, tzinfo=UTC)),
        (Decimal("1.50"), "numeric", Decimal("1.50")),
        (2**53 + 1, "bigint", 2**53 + 1),
        (True, "bool", True),
        (None, "text", None),
    ],
)
async def test_a_value_goes_in_and_comes_out(database, value, cast, read):
    row = await database.fetch_one(f"SELECT %(value)s::{cast} AS value", value=value)
    assert row == {"value": read}
    assert type(row["value"]) is type(read)


async def test_times_are_aware_and_in_utc_whatever_the_server_thinks(open_database, database_url):
    async with open_database(database_url + "&options=-c%20TimeZone%3DAsia/Tokyo") as database:
        row = await database.fetch_one("SELECT now() AS now, current_setting('TimeZone') AS zone")
    assert row["now"].utcoffset() == timedelta(0)
    assert row["zone"] == "UTC"


async def test_a_dict_that_is_not_wrapped_is_a_mistake_and_costs_no_connection(database):
    with pytest.raises(TypeError, match="'settings' is a dict"):
        await database.execute("SELECT %(settings)s", settings={"a": 1})
    assert database.idle == 4
