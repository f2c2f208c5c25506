"""services.relays: what a relay keeps of a stream, and what its readers get of it."""

import asyncio

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import answers, outcomes
from gateway.core.relay import TooLong
from gateway.ports import NoRoom, StreamHead
from gateway.services.relays import Relay, Shared
from tests.services.memory import Journal

HEAD = StreamHead(call_id="c", workspace_id="w", status=200, headers={}, id_json=b"1")
DONE = answers.classify(outcomes.Streamed(status=200, headers={}))
CUT = answers.classify(outcomes.Cut(status=200))


def event(number: int, *, state: str = "working", size: int = 0) -> bytes:
    task = {"kind": "task", "id": "t", "n": number, "pad": "x" * size, "status": {"state": state}}
    return b"data: " + orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": task}) + b"\n\n"


def relay(*, kept: int = 10**6, unwritten: int = 0, shared: Shared | None = None, event_bytes: int = 10**6) -> Relay:
    return Relay(
        HEAD,
        Journal(),
        shared or Shared(10**9),
        event_bytes=event_bytes,
        kept_bytes=kept,
        unwritten_bytes=unwritten,
        answer_bytes=10**6,
    )


class Reader:
    def __init__(self, place: int | None) -> None:
        self.place = place


def test_events_are_numbered_and_comments_are_not():
    one = relay()
    assert one.feed(event(1) + b": hi\n\n" + event(2))
    parts, place = one.since(0, 10**6) or ([], 0)
    assert parts == [b"id: c-1\n" + event(1), b": hi\n", b"id: c-2\n" + event(2)]
    assert (place, one.number(place), one.events) == (3, 2, 2)


def test_only_what_is_more_than_a_comment_is_a_word():
    one = relay()
    assert not one.feed(b": only a comment\n\n")
    assert one.feed(b"data: {")
    assert one.feed(b"}\n\n")


def test_it_knows_when_all_has_been_said_and_of_which_task():
    one = relay()
    one.feed(event(1))
    assert (one.complete, one.task_id) == (False, "t")
    one.feed(event(2, state="completed"))
    assert one.complete


def test_a_last_event_may_lack_its_blank_line_and_another_one_may_not():
    one, other = relay(), relay()
    one.feed(event(1, state="completed").rstrip())
    one.finish()
    assert (one.events, one.complete) == (1, True)
    other.feed(event(1).rstrip())
    other.finish()
    assert (other.events, other.complete) == (0, False)


def test_who_comes_in_the_middle_begins_behind_what_it_has():
    one = relay()
    one.feed(b"".join(event(n) for n in range(1, 6)))
    place = one.place(3)
    assert place is not None
    parts, _ = one.since(place, 10**6) or ([], 0)
    assert [part.split(b"\n")[0] for part in parts] == [b"id: c-4", b"id: c-5"]


def test_too_long_an_event_is_said_to_be():
    with pytest.raises(TooLong):
        relay(event_bytes=1000).feed(b"data: " + b"x" * 2000)


def test_what_all_keep_together_is_bounded_and_given_back():
    shared = Shared(1000)
    first, second = relay(shared=shared), relay(shared=shared)
    for n in range(1, 20):
        first.feed(event(n, size=200))
        second.feed(event(n, size=200))
    assert shared.bytes <= 1000 + 4 * 400
    for one in (first, second):
        one.end(DONE)
        one.close()
    assert shared.bytes == 0


def test_what_no_journal_has_is_kept_for_who_reads_it_here_and_bounded_too():
    one = relay(kept=1000, unwritten=20_000)
    assert isinstance(one._journal, Journal)
    one._journal.away = True
    reader = Reader(0)
    one.readers.add(reader)
    for n in range(1, 51):
        one.feed(event(n, size=100))
    parts, reader.place = one.since(0, 10**6) or ([], 0)
    assert len(parts) == 50, "none has gone that it had not read"
    one.feed(event(51))
    assert one.since(50, 10**6) is not None
    assert one._bytes <= 1000, "what it has read goes"
    reader.place = None
    for n in range(52, 300):
        one.feed(event(n, size=100))
    assert 10_000 < one._bytes <= 20_000 + 400
    one.readers.clear()
    one.feed(event(300))
    assert one._bytes <= 1000, "nobody reads it"


def test_what_the_journal_has_is_not_kept_for_anybody():
    one = relay(kept=1000, unwritten=20_000)
    one.readers.add(Reader(0))
    for n in range(1, 51):
        one.feed(event(n, size=100))
    assert one._bytes <= 1000 + 400


def test_the_journal_has_it_all_and_one_end():
    one = relay()
    one.feed(event(1) + event(2))
    one.end(CUT)
    journal = one._journal
    assert isinstance(journal, Journal)
    assert journal.events["c"] == [(1, event(1)), (2, event(2))]
    number, error = journal.ends["c"]
    assert number == 3
    assert error is not None
    assert one.over


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=40),
    st.integers(0, 3000),
    st.lists(st.integers(0, 40), max_size=40),
)
@settings(deadline=None)
def test_whatever_is_kept_no_reader_misses_an_event_without_being_told(sizes, kept, looks):
    """A reader that looks now and then gets every event once, in order, or learns that it has to look elsewhere."""
    one = relay(kept=kept)
    seen: list[bytes] = []
    place: int | None = 0
    number = 0
    for n, size in enumerate(sizes, 1):
        one.feed(event(n, size=size))
        if n in looks:
            if place is None:
                place = one.place(number)
            found = None if place is None else one.since(place, 700)
            if found is None:  # it would read the journal: here it only goes on with what is kept
                missed = [raw for at, raw in one._journal.events["c"] if at > number]
                seen += [b"id: c-%d\n" % (number + at) + raw for at, raw in enumerate(missed, 1)]
                number, place = n, None
                continue
            parts, place = found
            seen += parts
            number = one.number(place) if parts else number
    numbers = [int(part.split(b"\n")[0].split(b"-")[1]) for part in seen]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_who_waits_is_woken_by_an_event_and_by_the_end():
    one = relay()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(one.wait(0, 60))
        await asyncio.sleep(0)
        one.feed(event(1))
        await waiting
        waiting = group.create_task(one.wait(one.position, 60))
        await asyncio.sleep(0)
        one.end(DONE)
        await waiting


def test_many_small_pieces_count_for_what_they_take():
    shared = Shared(10**9)
    one = relay(kept=64 * 1024, shared=shared)
    one.feed(b":\n" * 100_000)
    assert len((one.since(one.place(0) or 0, 10**9) or ([], 0))[0]) <= 1024
    assert shared.bytes <= 64 * 1024


def test_a_long_event_that_says_all_is_known_as_the_last_when_the_stream_is_over():
    one = relay(event_bytes=10**7)
    one.feed(event(1, state="completed", size=2 * 1024 * 1024))
    assert not one.complete
    one.finish()
    assert one.complete


def test_what_is_not_whole_yet_counts_and_is_given_back():
    shared = Shared(10**6)
    one = relay(shared=shared)
    one.feed(event(1))
    kept = shared.bytes
    one.feed(b"data: " + b"x" * 5000)
    assert shared.bytes >= kept + 5000
    one.end(CUT)
    one.close()
    assert (shared.bytes, shared.relays) == (0, 0)


def test_past_what_all_may_take_who_has_more_than_its_share_ends_and_nobody_else():
    shared = Shared(100_000)
    greedy, modest = (relay(shared=shared, kept=1000, event_bytes=10**6) for _ in range(2))
    modest.feed(b"data: " + b"x" * 20_000)
    greedy.feed(b"data: " + b"x" * 70_000)
    modest.feed(b"x" * 20_000)
    assert shared.is_full
    with pytest.raises(NoRoom):
        greedy.feed(b"x")
    modest.feed(b"x")
    assert shared.bytes <= 2 * shared.limit_bytes


def test_a_newest_event_that_is_too_much_for_all_ends_its_stream_too():
    shared = Shared(100_000)
    one, _ = (relay(shared=shared, kept=1000) for _ in range(2))
    with pytest.raises(NoRoom):
        one.feed(event(1, size=150_000))


@pytest.mark.parametrize("state", ["input-required", "auth-required"])
def test_a_task_that_is_taken_up_again_is_not_over(state):
    one = relay()
    one.feed(event(1, state=state))
    assert one.complete
    one.feed(event(2))
    assert not one.complete
    one.feed(event(3, state=state) + event(4, state="completed"))
    assert one.complete
    one.feed(event(5))
    assert one.complete, "what comes after the end changes nothing"
