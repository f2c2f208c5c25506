"""The judge, against a journal that grows, loses its end or is emptied, and a channel that loses what it likes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.event import event
from events.frame import ORIGIN, Frame, Position
from events.sequence import Verdict, judge

ID = "00000000-0000-4000-8000-00000000000a"


def frame(place: Position | None, prev: Position) -> Frame:
    return Frame(place=place, prev=prev, event=event("TASK_UPDATED" if place else "WORKSPACE_HEARTBEAT", ID, {}))


HELD = [(2, 0), (3, 0), (4, 0)]


@pytest.mark.parametrize(
    ("place", "prev", "said", "verdict"),
    [
        ((5, 0), (4, 0), (4, 0), Verdict.NEXT),
        (None, (4, 0), (4, 0), Verdict.NEXT),
        ((6, 0), (5, 0), (4, 0), Verdict.DOUBT),
        (None, (5, 0), (4, 0), Verdict.DOUBT),
        ((3, 0), (2, 0), (2, 0), Verdict.KNOWN),
        ((4, 0), (3, 0), ORIGIN, Verdict.KNOWN),
        (None, (3, 0), (2, 0), Verdict.NEXT),
        (None, (3, 0), (4, 0), Verdict.DOUBT),
        ((5, 0), (3, 0), (4, 0), Verdict.DOUBT),
        ((5, 0), (3, 0), ORIGIN, Verdict.DOUBT),
        ((4, 0), (1, 0), (4, 0), Verdict.DOUBT),
        ((3, 5), (3, 0), (3, 0), Verdict.DOUBT),
        (None, ORIGIN, ORIGIN, Verdict.DOUBT),
    ],
    ids=[
        "the next entry",
        "a live event in the present",
        "a hole before it",
        "a lost last event",
        "the journal was read before the channel",
        "the newest once more",
        "a live event of before the journal was read",
        "a live event after the journal was taken back",
        "an entry after the journal was taken back",
        "the same on a new connection",
        "an old place written anew",
        "a place that was never held",
        "a live event before all that is held",
    ],
)
def test_what_a_frame_is_to_who_has_heard_up_to_four(place, prev, said, verdict):
    assert judge((4, 0), said, frame(place, prev), HELD.__contains__) is verdict


steps = st.lists(
    st.sampled_from(["entry", "entry", "live", "entry lost", "live lost", "taken back", "journal read"]), max_size=30
)


@given(steps)
def test_every_hole_and_every_step_back_is_doubted_and_nothing_else(some):
    """Who doubts asks the journal, and has then heard what the journal has: the model's only memory."""
    journal: list[Position] = []
    heard: list[Position] = []
    said, clock = ORIGIN, 0

    def newest(of: list[Position]) -> Position:
        return of[-1] if of else ORIGIN

    for step in some:
        clock += 1
        if step == "taken back":
            del journal[len(journal) // 2 :]
        elif step == "journal read":
            heard = list(journal)
        elif step != "live lost":
            prev = newest(journal)
            place = None if step == "live" else (clock, 0)
            if place:
                journal.append(place)
            if step == "entry lost":
                continue
            verdict = judge(newest(heard), said, frame(place, prev), [ORIGIN, *heard].__contains__)
            before = journal[:-1] if place else journal
            if heard == before:
                assert verdict is Verdict.NEXT
            elif place or prev > newest(heard) or prev < said:
                assert verdict is Verdict.DOUBT
            said = place or prev
            heard = list(journal)
