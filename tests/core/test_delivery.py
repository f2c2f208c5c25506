"""core.delivery: where a message goes next."""

import pytest

from gateway.core.address import Reach
from gateway.core.delivery import Decision, Gone, NoUrl, Push, UnsafeUrl, decide
from gateway.core.workspaces import Status, Workspace


def workspace(url: str | None, status: Status = Status.ONLINE) -> Workspace:
    return Workspace(id="w", name="w", status=status, url=url)


@pytest.mark.parametrize(
    ("it", "reach", "decided"),
    [
        (workspace("https://agent.example/"), Reach.HOSTED, Push(url="https://agent.example/")),
        (workspace("http://127.0.0.1:8000/"), Reach.SAME_NETWORK, Push(url="http://127.0.0.1:8000/")),
        (workspace(None), Reach.HOSTED, NoUrl(status=Status.ONLINE)),
        (workspace("", Status.AWAITING_AGENT), Reach.HOSTED, NoUrl(status=Status.AWAITING_AGENT)),
        (workspace("https://agent.example/", Status.REMOVED), Reach.HOSTED, Gone()),
        (workspace("https://agent.example/", Status.OFFLINE), Reach.HOSTED, Push(url="https://agent.example/")),
    ],
)
def test_where_a_message_goes(it: Workspace, reach: Reach, decided: Decision) -> None:
    assert decide(it, reach) == decided


def test_a_url_that_must_not_be_reached_goes_nowhere_with_a_reason() -> None:
    decided = decide(workspace("http://127.0.0.1/"), Reach.HOSTED)
    assert isinstance(decided, UnsafeUrl)
    assert decided.reason
