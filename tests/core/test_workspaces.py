"""core.workspaces: states, the moves between them, and what a heartbeat does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.workspaces import (
    MOVE_EVENTS,
    MOVES,
    Beat,
    RuntimeMetadata,
    Status,
    decide_beat,
    decide_register,
    may_move,
)

S = Status
NONE = RuntimeMetadata()


def test_the_table_of_moves_is_complete_and_nothing_leaves_removed() -> None:
    assert MOVES.keys() == MOVE_EVENTS.keys() == set(Status)
    assert not any(may_move(S.REMOVED, to) for to in Status)
    assert all(may_move(source, S.REMOVED) for source in Status if source is not S.REMOVED)
    assert not any(may_move(status, status) for status in Status if status is not S.PROVISIONING)


@pytest.mark.parametrize("status", Status)
def test_register_brings_online_what_the_contract_names(status: Status) -> None:
    named = {S.PROVISIONING, S.OFFLINE, S.DEGRADED, S.AWAITING_AGENT, S.FAILED}
    assert decide_register(status) is (S.ONLINE if status in named else None)


@pytest.mark.parametrize(
    ("status", "beat", "to"),
    [
        (S.PROVISIONING, Beat(), S.ONLINE),
        (S.OFFLINE, Beat(), S.ONLINE),
        (S.AWAITING_AGENT, Beat(), S.ONLINE),
        (S.OFFLINE, Beat(runtime_state="wedged"), None),
        (S.FAILED, Beat(), None),
        (S.PAUSED, Beat(), None),
        (S.HIBERNATED, Beat(), None),
        (S.REMOVED, Beat(), None),
        (S.ONLINE, Beat(), None),
        (S.ONLINE, Beat(runtime_state="wedged"), S.DEGRADED),
        (S.ONLINE, Beat(error_rate=0.5), S.DEGRADED),
        (S.ONLINE, Beat(error_rate=0.49), None),
        (S.DEGRADED, Beat(error_rate=0.1), None),
        (S.DEGRADED, Beat(error_rate=0.09), S.ONLINE),
        (S.DEGRADED, Beat(runtime_state="wedged"), None),
    ],
)
def test_what_a_heartbeat_does(status: Status, beat: Beat, to: Status | None) -> None:
    assert decide_beat(status, beat, NONE) is to


def test_a_runtime_that_manages_its_status_is_not_degraded_for_its_errors() -> None:
    own = RuntimeMetadata(capabilities=frozenset({"status_mgmt"}))
    assert decide_beat(S.ONLINE, Beat(error_rate=1.0), own) is None
    assert decide_beat(S.ONLINE, Beat(runtime_state="wedged"), own) is S.DEGRADED


@given(
    st.sampled_from(Status),
    st.builds(Beat, error_rate=st.none() | st.floats(0, 1), runtime_state=st.none() | st.text()),
)
def test_a_heartbeat_never_decides_a_move_that_the_table_forbids(status: Status, beat: Beat) -> None:
    to = decide_beat(status, beat, NONE)
    assert to is None or may_move(status, to)


@pytest.mark.parametrize(
    ("block", "metadata"),
    [
        ({}, NONE),
        ({"idle_timeout_seconds": 2}, RuntimeMetadata(idle_timeout_s=2.0)),
        ({"idle_timeout_seconds": 0}, NONE),
        ({"idle_timeout_seconds": -3}, NONE),
        ({"idle_timeout_seconds": True}, NONE),
        ({"idle_timeout_seconds": "9"}, NONE),
        ({"idle_timeout_seconds": float("inf")}, NONE),
        (
            {"capabilities": {"session": True, "retry": False, "x": 1}},
            RuntimeMetadata(capabilities=frozenset({"session"})),
        ),
        ({"capabilities": ["session"]}, NONE),
    ],
)
def test_a_block_is_the_whole_truth_and_odd_values_clear(block: dict[str, Any], metadata: RuntimeMetadata) -> None:
    assert RuntimeMetadata.from_json(block) == metadata
    assert RuntimeMetadata.from_json(metadata.to_json()) == metadata
