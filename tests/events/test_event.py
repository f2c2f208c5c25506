import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.event import (
    CATALOGUE,
    CHANGED,
    EVERYWHERE,
    GAP,
    MAX_PAYLOAD_BYTES,
    PROBE,
    Event,
    changed,
    event,
    gap,
    probe,
    shorten,
)

ID = "00000000-0000-4000-8000-00000000000a"
NEVER_SIGNS = sorted(name for name, kind in CATALOGUE.items() if not kind.sign)

# What a caller can put into a body: any text (lone surrogates too), numbers of any size, anything nested in anything.
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=8)
names = st.text(st.characters(), max_size=5) | st.integers() | st.none()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=8)
data = st.dictionaries(names, values, max_size=6)


def nested(levels: int) -> object:
    value: object = "deep"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def test_an_event_carries_its_data_as_json_and_its_place_in_the_catalogue():
    one = event("TASK_UPDATED", ID, {"current_task": "Grüße", "active_tasks": 1}, sign=True)
    assert orjson.loads(one.payload) == {"current_task": "Grüße", "active_tasks": 1}
    assert (one.type, one.workspace_id, one.sign, one.journalled) == ("TASK_UPDATED", ID, True, True)


def test_what_is_not_in_the_catalogue_cannot_happen():
    with pytest.raises(ValueError, match="MADE_UP"):
        event("MADE_UP", ID, {})


@pytest.mark.parametrize("type_", NEVER_SIGNS)
def test_what_the_gateway_does_is_never_a_sign_of_life(type_):
    with pytest.raises(ValueError, match="never a sign of life"):
        event(type_, ID, {}, sign=True)
    assert not event(type_, ID, {}).sign


def test_the_catalogue_says_what_is_a_sign_and_what_is_kept():
    assert {"CALL_ENDED", "WORKSPACE_OFFLINE", "WORKSPACE_DEGRADED", "WORKSPACE_REMOVED"} <= set(NEVER_SIGNS)
    assert [name for name, kind in CATALOGUE.items() if not kind.journal] == ["WORKSPACE_HEARTBEAT"]


def test_nothing_is_a_sign_unless_its_publisher_says_so():
    assert not any(event(type_, ID, {}).sign for type_ in CATALOGUE)


def test_the_wake_up_of_the_caches_is_no_event_for_readers():
    assert changed() == Event(type=CHANGED, workspace_id="-", payload=b"{}", at_ms=changed().at_ms)
    assert not changed().journalled
    assert CHANGED not in CATALOGUE


def test_a_probe_says_whose_it_is_and_is_not_kept():
    one = probe("me", 7)
    assert (one.type, orjson.loads(one.payload), one.journalled) == (PROBE, {"by": "me", "number": 7}, False)
    assert PROBE not in CATALOGUE


def test_a_gap_concerns_everybody_and_is_kept_but_nobody_can_publish_it_as_an_event():
    one = gap("overflow")
    assert (one.type, one.workspace_id, orjson.loads(one.payload)) == (GAP, EVERYWHERE, {"reason": "overflow"})
    assert one.journalled
    with pytest.raises(ValueError, match="catalogue"):
        event(GAP, ID, {})


def test_a_payload_up_to_the_limit_is_untouched():
    text = "x" * (MAX_PAYLOAD_BYTES - len('{"summary":""}'))
    assert orjson.loads(event("ACTIVITY_LOGGED", ID, {"summary": text}).payload) == {"summary": text}
    assert orjson.loads(event("ACTIVITY_LOGGED", ID, {"summary": text + "x"}).payload)["truncated"] is True


def test_a_larger_one_keeps_its_small_fields_and_the_beginning_of_its_large_ones():
    big = {"method": "message/send", "request_body": {"text": "ü" * 70_000}, "summary": "é" * 3000, "status": "ok"}
    shown = orjson.loads(event("ACTIVITY_LOGGED", ID, big).payload)
    assert (shown["method"], shown["status"], shown["truncated"]) == ("message/send", "ok", True)
    assert shown["request_body"] == '{"text":"' + "ü" * ((2048 - len('{"text":"')) // 2)
    assert shown["summary"] == "é" * 1024


@pytest.mark.parametrize(
    "big",
    [
        {f"field {number}": "x" * 2048 for number in range(1000)},
        {f"field {number}": "\x01" * 2048 for number in range(10)},  # each character is six in JSON
        {"n" * 100_000: 1},
        {"body": ["\x01" * 50_000] * 3},
        {"truncated": "x" * 70_000},
    ],
    ids=["many fields", "characters that need escapes", "a long name", "an escaped body", "a field of ours"],
)
def test_no_payload_is_larger_than_the_limit(big):
    payload = event("ACTIVITY_LOGGED", ID, big).payload
    assert len(payload) <= MAX_PAYLOAD_BYTES
    assert orjson.loads(payload)["truncated"] is True


def test_of_too_many_fields_the_last_are_left_out():
    shown = shorten({f"{number:03}": "x" * 2000 for number in range(100)})
    kept = sorted(shown)[:-1]
    assert kept == [f"{number:03}" for number in range(len(kept))]
    assert 30 <= len(kept) < 34


@given(data)
def test_no_data_makes_it_raise(some):
    payload = event("ACTIVITY_LOGGED", ID, some).payload
    assert isinstance(orjson.loads(payload), dict)
    assert len(payload) <= MAX_PAYLOAD_BYTES
    assert b"\n" not in payload


@given(data, st.integers(0, 100_000))
def test_no_data_makes_it_too_large(some, more):
    payload = event("ACTIVITY_LOGGED", ID, {**some, "body": "\x01ü" * more}).payload
    assert isinstance(orjson.loads(payload), dict)
    assert len(payload) <= MAX_PAYLOAD_BYTES


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**64 - 1)))
def test_what_json_can_say_arrives_as_it_was(some):
    assert orjson.loads(event("ACTIVITY_LOGGED", ID, some).payload) == some


def test_lone_surrogates_arrive_as_question_marks():
    assert orjson.loads(event("TASK_UPDATED", ID, {"a\ud800": "b\udfff"}).payload) == {"a?": "b?"}


@pytest.mark.parametrize("levels", [199, 300, 900])
def test_deep_nesting_is_cut_where_the_writer_of_json_would_give_up(levels):
    """A body may be nested deeper than it can be written again: orjson reads 1024 levels and writes 254."""
    payload = event("A2A_RESPONSE", ID, {"response_body": nested(levels), "method": "message/send"}).payload
    assert orjson.loads(payload)["method"] == "message/send"
    assert (b"deep" in payload) == (levels < 200)


def test_all_of_a_large_reply_travels_beside_the_journal_and_its_short_form_says_where():
    data = {"response_body": {"text": "x" * 100_000}, "method": "message/send"}
    told = event("A2A_RESPONSE", ID, data, sign=True)
    assert orjson.loads(told.whole or b"") == data
    short = orjson.loads(told.payload)
    assert short["whole"] == told.reference
    assert (short["truncated"], short["method"]) == (True, "message/send")
    assert told.size_bytes == len(told.payload) + len(told.whole or b"") > 100_000
    assert event("A2A_RESPONSE", ID, data).reference != told.reference


@pytest.mark.parametrize("type_", sorted(CATALOGUE))
def test_large_events_of_other_kinds_are_cut_and_that_is_all(type_):
    told = event(type_, ID, {"text": "x" * 100_000})
    assert (told.whole is not None) == (told.reference is not None) == CATALOGUE[type_].whole
    assert event(type_, ID, {"text": "x" * 20 * 1024 * 1024}).whole is None


def test_nobody_can_make_an_event_look_like_one_by_reference():
    forged = {"truncated": True, "whole": "0" * 32}
    assert event("AGENT_CARD_UPDATED", ID, {"agent_card": forged}).reference is None
    assert event("A2A_RESPONSE", ID, {"response_body": forged, "method": None}).reference is None
