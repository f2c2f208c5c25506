"""services.outage: what a log says of something that is away."""

from structlog.testing import capture_logs

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
