"""services.outage: what a log says of something that is away."""

import pytest
from structlog.testing import capture_logs

from gateway.ports import LiveUnavailable, StoreTimeout
from gateway.services.outage import Outage
from tests.services.memory import Clock


def test_an_outage_is_told_when_it_begins_and_when_it_ends_and_not_between() -> None:
    clock = Clock()
    outage = Outage("the database", now=clock)
    with capture_logs() as lines:
        outage.worked()
        for _ in range(3):
            outage.failed(ConnectionError("refused"))
        clock.at += 12.34
        outage.worked()
        outage.worked()
    assert [(line["event"], line["what"]) for line in lines] == [
        ("outage_began", "the database"),
        ("outage_ended", "the database"),
    ]
    assert (lines[0]["error"], lines[1]["seconds"]) == ("ConnectionError: refused", 12.3)


@pytest.mark.parametrize("error", [StoreTimeout("slow"), LiveUnavailable("away")])
def test_a_datastore_that_is_away_is_noted_and_anything_else_goes_through(error: Exception) -> None:
    outage = Outage("the database")
    with capture_logs() as lines:
        with outage.noted():
            raise error
        with pytest.raises(ZeroDivisionError), outage.noted():
            raise ZeroDivisionError
        assert [line["event"] for line in lines] == ["outage_began"], "a bug does not end an outage"
        with outage.noted():
            pass
    assert lines[-1]["event"] == "outage_ended"
