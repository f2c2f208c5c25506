"""The checker itself: it sees each way in which the promise can be broken, and nothing else."""

import pytest

from tests.harness.invariant import (
    Act,
    Came,
    Fault,
    Kind,
    Published,
    Reading,
    Received,
    Seen,
    Told,
    find_violations,
    is_away,
    is_owed,
)

WORKSPACE = "w"
EVENTS = [Published(workspace=WORKSPACE, serial=serial, via="a", at_ms=1000.0 * serial) for serial in range(1, 6)]
RESTART = Fault(act=Act.RESTART, began_ms=2000, ended_ms=2500)
FLUSH = Fault(act=Act.FLUSH, began_ms=2000, ended_ms=2000)


def got(serial: int, *, at: int | None = None, via: str = "a") -> Received:
    return Received(place=(at or serial, 0), workspace=WORKSPACE, serial=serial, via=via)


def told(reason: str = "server_changed", at_ms: float = 3000) -> Told:
    return Told(reason=reason, at_ms=at_ms)


def came() -> Came:
    return Came(to="a", since="0-0", at_ms=0)


def broken(*log: Seen, faults: tuple[Fault, ...] = (), others: tuple[Reading, ...] = ()) -> list[Kind]:
    """How the promise is broken if EVENTS were published and a reader has this log."""
    reading = Reading(reader="r", workspaces=frozenset({WORKSPACE}), log=log)
    return [violation.kind for violation in find_violations(EVENTS, faults, [reading, *others])]


def test_all_events_in_order_are_what_was_promised_over_any_number_of_connections() -> None:
    assert broken(came(), got(1), got(2), came(), got(3), got(4), came(), got(5)) == []


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_an_event_that_is_missing_is_a_silent_loss(missing: int) -> None:
    log = [got(serial) for serial in range(1, 6) if serial != missing]
    assert broken(*log) == [Kind.SILENT_LOSS]


def test_a_gap_covers_what_is_missing_in_its_place_and_nothing_elsewhere() -> None:
    assert broken(got(1), got(2), told(), got(4), got(5), faults=(RESTART,)) == []
    assert broken(got(1), told(), got(2), got(4), got(5), faults=(RESTART,)) == [Kind.SILENT_LOSS]
    assert broken(got(1), got(2), got(4), told(), got(5), faults=(RESTART,)) == [Kind.SILENT_LOSS]
    assert broken(got(1), got(2), told(), faults=(RESTART,)) == []
    assert broken(told(), got(4), got(5), faults=(RESTART,)) == []


def test_a_reader_that_saw_nothing_has_lost_everything() -> None:
    assert broken() == [Kind.SILENT_LOSS] * 5


def test_what_a_reader_did_not_ask_for_it_does_not_miss() -> None:
    other = Reading(reader="other", workspaces=frozenset({"elsewhere"}), log=())
    assert broken(*map(got, range(1, 6)), others=(other,)) == []


def test_an_event_that_comes_twice_is_a_duplicate_and_out_of_order() -> None:
    assert broken(*map(got, range(1, 6)), got(5)) == [Kind.DUPLICATE]
    assert set(broken(*map(got, range(1, 6)), came(), got(4), got(5))) == {Kind.DUPLICATE, Kind.DISORDER}


def test_a_gap_excuses_no_duplicate() -> None:
    log: list[Seen] = [got(1), got(2), told(), *map(got, range(2, 6))]
    assert Kind.DUPLICATE in broken(*log, faults=(RESTART,))


def test_ids_that_go_back_are_disorder_unless_a_gap_says_that_the_journal_was_written_anew() -> None:
    rest = (got(3, at=30), got(4, at=40), got(5, at=50))
    assert broken(got(1, at=100), got(2, at=200), *rest) == [Kind.DISORDER]
    assert broken(got(1, at=100), got(2, at=200), came(), *rest) == [Kind.DISORDER]
    assert broken(got(1, at=100), got(2, at=200), told("missing"), *rest, faults=(FLUSH,)) == []


def test_what_one_gateway_took_comes_in_its_order_and_what_two_took_in_any() -> None:
    assert broken(got(2, at=1), got(1, at=2), *map(got, range(3, 6))) == [Kind.DISORDER]
    events = [Published(workspace=WORKSPACE, serial=1, via="b", at_ms=1000.0), *EVENTS[1:]]
    reading = Reading(
        reader="r", workspaces=frozenset({WORKSPACE}), log=(got(2, at=1), got(1, at=2, via="b"), *map(got, (3, 4, 5)))
    )
    assert find_violations(events, [], [reading]) == []


def test_two_readers_that_see_other_events_under_an_id_disagree() -> None:
    shifted = tuple(got(serial, at=serial + 1) for serial in range(1, 6))
    other = Reading(reader="other", workspaces=frozenset({WORKSPACE}), log=shifted)
    assert Kind.DISAGREEMENT in broken(*map(got, range(1, 6)), others=(other,))


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("overrun", RESTART),
        ("overflow", RESTART),
        ("never heard of", RESTART),
        ("server_changed", Fault(act=Act.STALL, began_ms=2000, ended_ms=2500)),
        ("server_changed", Fault(act=Act.RESTART, began_ms=3500, ended_ms=3600)),
        ("missing", Fault(act=Act.LISTENERS_CUT, began_ms=2000, ended_ms=2000)),
        ("unknown_id", Fault(act=Act.DEATH, began_ms=2000, ended_ms=2000, via="b")),
        ("instance_died", Fault(act=Act.DEATH, began_ms=2000, ended_ms=2000, via="b")),
    ],
)
def test_a_gap_without_a_fault_that_can_cause_it_is_groundless(reason: str, fault: Fault) -> None:
    log = (got(1), got(2), told(reason), got(3), got(4), got(5))
    assert broken(*log, faults=(fault,)) == [Kind.GROUNDLESS_GAP]


def test_a_fault_explains_one_gap_of_a_reader() -> None:
    log = (got(1), told(), got(2), told(), got(3), got(4), got(5))
    assert broken(*log, faults=(RESTART,)) == [Kind.GROUNDLESS_GAP]
    assert broken(*log, faults=(RESTART, FLUSH)) == []


def test_a_gateway_that_dies_while_it_is_away_from_redis_may_be_mourned_with_a_gap() -> None:
    stall = Fault(act=Act.STALL, began_ms=1500, ended_ms=2500)
    death = Fault(act=Act.DEATH, began_ms=2000, ended_ms=2000, via="b")
    log: list[Seen] = [got(1), told("instance_died"), *map(got, range(2, 6))]
    assert broken(*log, faults=(stall, death)) == []


def test_what_a_gateway_took_just_before_its_death_is_not_owed() -> None:
    death = Fault(act=Act.DEATH, began_ms=5500, ended_ms=5500, via="a")
    stall = Fault(act=Act.STALL, began_ms=5000, ended_ms=5600)
    other = Fault(act=Act.DEATH, began_ms=5500, ended_ms=5500, via="b")
    assert [is_owed(one, [death]) for one in EVENTS] == [True, True, True, True, False]
    assert [is_owed(one, [death, stall]) for one in EVENTS] == [True, False, False, False, False]
    assert all(is_owed(one, [other]) for one in EVENTS)
    assert broken(*map(got, range(1, 5)), faults=(death,)) == []


def test_redis_is_away_from_the_beginning_of_its_fault_until_some_time_after_it() -> None:
    assert [is_away(at_ms, [RESTART]) for at_ms in (1999, 2000, 2400, 5000, 5001)] == [False, True, True, True, False]
    assert not is_away(2000, [FLUSH, Fault(act=Act.LISTENERS_CUT, began_ms=2000, ended_ms=2000)])


def test_a_story_keeps_connections_and_gaps_and_the_ends_of_each_run_of_events() -> None:
    log = (came(), got(1), got(2), got(3), told(), got(4), got(5))
    reading = Reading(reader="r", workspaces=frozenset({WORKSPACE}), log=log)
    assert list(reading.story) == [str(log[index]) for index in (0, 1, 3, 4, 5, 6)]
