import pytest

from gateway.core.address import Reach
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Status, Workspace
from gateway.services.reach import get_url, safe_url


def workspace(url: str | None, status: Status = Status.ONLINE) -> Workspace:
    return Workspace(id="w", name="one", status=status, url=url)


def test_a_url_that_may_be_called_is_what_it_was():
    assert safe_url("https://Agent.example/a?b", Reach.HOSTED) == "https://Agent.example/a?b"
    assert get_url(workspace("http://10.0.0.1:8000/"), Reach.SAME_NETWORK) == "http://10.0.0.1:8000/"


def test_who_names_a_url_is_told_what_is_wrong_with_it():
    with pytest.raises(Refusal) as refused:
        safe_url("http://10.0.0.1/", Reach.HOSTED, field="events_url")
    assert refused.value.to_json() == {
        "error": "events_url: the address is in a private network", "code": "invalid_request", "field": "events_url"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://10.0.0.1/", Status.ONLINE, Code.UNSAFE_URL),
        ("http://agent.example:6379/", Status.ONLINE, Code.UNSAFE_URL),
        (None, Status.AWAITING_AGENT, Code.NO_URL),
        ("https://agent.example/", Status.REMOVED, Code.REMOVED),
    ],
)
def test_who_calls_a_workspace_is_not_told_where_it_would_have_been(url: str | None, status: Status, code: Code):
    with pytest.raises(Refusal) as refused:
        get_url(workspace(url, status), Reach.HOSTED)
    assert refused.value.code is code
    assert not any(hint in str(refused.value.to_json()) for hint in ("10.0.0.1", "6379", "private", "port"))
