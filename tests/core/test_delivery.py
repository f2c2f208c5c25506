"""core.delivery: where a message goes next."""

from dataclasses import replace

import pytest

from gateway.core.address import Reach
from gateway.core.delivery import (
    Decision,
    Gone,
    Mode,
    NoUrl,
    Park,
    Push,
    UnsafeUrl,
    decide,
    decide_registered,
    find_mode,
)
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


@pytest.mark.parametrize("url", [None, "https://agent.example/", "http://169.254.169.254/"])
def test_a_message_for_an_agent_that_polls_is_parked_whatever_its_url(url: str | None) -> None:
    polls = replace(workspace(url), delivery_mode="poll")
    assert decide(polls, Reach.HOSTED) == Park()
    assert decide(replace(polls, status=Status.REMOVED), Reach.HOSTED) == Gone()


@pytest.mark.parametrize(
    ("stored", "mode"), [("push", Mode.PUSH), ("poll", Mode.POLL), (None, None), ("", None), ("carrier pigeon", None)]
)
def test_a_mode_that_is_not_known_is_told_apart(stored: str | None, mode: Mode | None) -> None:
    assert find_mode(replace(workspace(None), delivery_mode=stored)) is mode


@pytest.mark.parametrize(
    ("said", "stored", "runtime", "mode"),
    [
        ("push", "poll", "external", Mode.PUSH),
        ("poll", "push", "", Mode.POLL),
        (None, "poll", "", Mode.POLL),
        (None, "push", "external", Mode.PUSH),
        (None, None, "external", Mode.POLL),
        (None, None, "", Mode.PUSH),
    ],
)
def test_what_a_register_says_counts_then_what_is_stored_then_who_runs_it(
    said: str | None, stored: str | None, runtime: str, mode: Mode
) -> None:
    known = replace(workspace(None), delivery_mode=stored, runtime=runtime)
    assert decide_registered(said, known, None) is mode
    assert decide_registered(said, known, "https://agent.example/") is Mode(said or stored or "push")
    assert decide_registered(said, None, None) is Mode(said or "push")
