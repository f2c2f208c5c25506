"""core.ids: what an id looks like."""

from uuid import UUID

import pytest

from gateway.core.ids import find_uuid, is_of_line, is_sane_request_id, new_id, of_line, of_sent_line


def test_a_new_id_is_a_uuid_and_each_is_another() -> None:
    assert UUID(new_id()) != UUID(new_id())


def test_the_lines_of_a_call_have_ids_that_follow_from_its_own_and_that_no_call_has() -> None:
    calls = [new_id() for _ in range(64)]
    lines = [of_line(one) for one in calls]
    sent = [of_sent_line(one) for one in lines]
    assert len({str(UUID(one)) for one in (*calls, *lines, *sent)}) == 3 * len(calls)
    assert lines == [of_line(one) for one in calls]
    assert all(map(is_of_line, (*lines, *sent)))
    assert not any(map(is_of_line, calls))


@pytest.mark.parametrize("text", ["", "demo", "{00000000-0000-4000-8000-000000000001}", "0" * 32, "０" * 36])
def test_what_is_no_canonical_uuid_is_none(text: str) -> None:
    assert find_uuid(text) is None


def test_a_uuid_is_known_whatever_its_case() -> None:
    assert find_uuid("ABCDEF00-0000-4000-8000-000000000001") == "abcdef00-0000-4000-8000-000000000001"


def test_a_request_id_may_not_carry_lines_spaces_or_more_than_128_characters() -> None:
    assert is_sane_request_id("req-1:a.b_c")
    assert not any(map(is_sane_request_id, ["", "a b", "a\nb", "é", "x" * 129, '"']))
