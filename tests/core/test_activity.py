"""core.activity: what people want to see of a row."""

from typing import Any

import pytest

from gateway.core.activity import MOST_TEXT, peer_id, source, text


def test_who_is_behind_a_row() -> None:
    assert (source(None), source("a")) == ("canvas", "agent")


@pytest.mark.parametrize(
    ("source_id", "target_id", "peer"),
    [("other", "me", "other"), ("me", "other", "other"), ("me", "me", None), (None, "me", None), (None, None, None)],
)
def test_the_peer_is_the_other_one(source_id: str | None, target_id: str | None, peer: str | None) -> None:
    assert peer_id("me", source_id, target_id) == peer


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"params": {"message": {"parts": [{"text": "a"}, {"data": 1}, "b", {"text": 2}, {"text": "c"}]}}}, "a\nc"),
        ({"params": {"message": {"parts": [{"text": "x" * 9000}]}}}, "x" * MOST_TEXT),
        ({"params": {"message": {"parts": []}}}, None),
        ({"params": {"message": {"parts": "a"}}}, None),
        ({"params": [1]}, None),
        ({"text": "cut", "truncated": True}, None),
        (None, None),
    ],
)
def test_the_text_of_a_message_is_shown_where_there_is_one(body: Any, said: str | None) -> None:
    assert text(body) == said
