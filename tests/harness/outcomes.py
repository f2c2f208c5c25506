"""All that may have become of a call on its way, for property tests."""

from hypothesis import strategies as st

from gateway.core.outcomes import (
    Answered,
    Broke,
    Cancelled,
    Clock,
    Cut,
    Dead,
    Expired,
    Lapsed,
    NotConnected,
    Orphaned,
    Outcome,
    Parked,
    Rejected,
    Reset,
    Spent,
    Stopped,
    Streamed,
    TooLarge,
    Unheld,
)
from gateway.core.retry import RETRY_AFTER_MOST_S

STATUSES = st.integers(100, 700)
OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(
        Answered,
        status=st.one_of(STATUSES, st.sampled_from([200, 429, 500, 503])),
        headers=st.sampled_from([{}, {"Retry-After": "7"}, {"Content-Type": "application/json"}]),
        body=st.sampled_from([b"", b"{}", b'{"error": "connection refused: retry"}', b"no connection was made"]),
        retry_after_s=st.none() | st.floats(0, RETRY_AFTER_MOST_S),
    ),
    st.builds(NotConnected, unsafe=st.booleans()),
    st.sampled_from(
        [Dead(), Reset(), TooLarge(), Stopped(), Spent(), Streamed(status=200, headers={}), Orphaned(),
         Parked(call_id="c", method="m"), Lapsed(), Broke(), Rejected(reason="removed"), Cancelled(),
         Cancelled(under_way=True)]
    ),
    st.builds(Cut, status=STATUSES),
    st.builds(Unheld, status=STATUSES),
    st.builds(Expired, clock=st.sampled_from(Clock)),
)  # fmt: skip
