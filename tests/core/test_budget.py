"""core.budget: whether a workspace may still spend."""

from gateway.core.budget import exhausted


def test_a_limit_is_reached_exactly_and_no_limit_never_is() -> None:
    assert not exhausted(limit=100, spent=99)
    assert exhausted(limit=100, spent=100)
    assert exhausted(limit=0, spent=0)
    assert not exhausted(limit=None, spent=10**12)
