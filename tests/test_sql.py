"""The loader of named queries."""

from pathlib import Path

import pytest

import sql
from sql.loader import load, parse

NOUNS = sorted(file.stem for file in (Path(sql.__path__[0]) / "queries").glob("*.sql"))


def test_a_query_keeps_its_words_and_its_comments():
    queries = parse(
        "-- About the file.\n\n-- name: find\n-- Why it is so.\nSELECT 1;\n\n--name:  list_all \nSELECT 2\n",
        source="things",
    )
    assert dict(queries) == {"find": "-- Why it is so.\nSELECT 1;", "list_all": "SELECT 2"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: a\nSELECT 1\n-- name: a\nSELECT 2", "two queries named a"),
        ("-- name:\nSELECT 1", "'' is not a name"),
        ("-- name: Two Words\nSELECT 1", "'Two Words' is not a name"),
        ("-- name: a\n-- name: b\nSELECT 1", "a has no SQL"),
        ("-- name: a\n-- only words\n;\n", "a has no SQL"),
        ("SELECT 1\n-- name: a\nSELECT 2", "above the first"),
    ],
)
def test_a_file_that_is_not_clear_is_refused_with_its_name(text, complaint):
    with pytest.raises(ValueError, match=f"things: .*{complaint}"):
        parse(text, source="things")


def test_a_noun_without_a_file_is_refused():
    with pytest.raises(FileNotFoundError):
        load("nobody")


@pytest.mark.parametrize("noun", NOUNS)
def test_our_own_queries_are_read_once_and_cannot_be_changed(noun):
    queries = load(noun)
    assert queries
    assert load(noun) is queries
    with pytest.raises(TypeError):
        queries["find"] = "SELECT 1"
