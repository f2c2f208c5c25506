"""core.rates: how often somebody may ask."""

from gateway.core.rates import Rate, Standing


def test_the_headers_are_whole_seconds_rounded_up():
    standing = Standing(limit=60, remaining=3, reset_s=12.1)
    assert standing.allowed
    assert standing.headers() == {
        "X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "13",
    }  # fmt: skip


def test_who_must_wait_is_not_allowed():
    assert not Standing(limit=1, remaining=0, reset_s=1.0, retry_s=0.001).allowed


def test_a_rate_is_shown_as_it_is_written():
    assert str(Rate(requests=600, period_s=60.0)) == "600/60"
