"""services.parting: which agents are told that nobody wants their task any more."""

import pytest

from gateway.core.endings import Ending
from gateway.ports import StreamHead
from gateway.services import parting
from gateway.services.relays import Relay, Shared
from tests.services.memory import Journal

HEAD = StreamHead(call_id="c", workspace_id="w", status=200, headers={}, id_json=b"1")
NAMED = b'data: {"kind":"task","id":"t","status":{"state":"working"}}\n\n'
DONE = b'data: {"kind":"task","id":"t","status":{"state":"completed"}}\n\n'
NAMELESS = b'data: {"kind":"artifact-update"}\n\n'


@pytest.mark.parametrize(
    ("ending", "said", "due"),
    [
        (Ending.CANCELLED, NAMED, True),
        (Ending.BUDGET, NAMED, True),
        (Ending.CANCELLED, DONE, False),
        (Ending.CANCELLED, NAMELESS, False),
        (Ending.TRUNCATED, NAMED, False),
        (Ending.GATEWAY_SHUTDOWN, NAMED, False),
    ],
)
def test_who_is_not_done_with_a_task_that_was_called_off_is_told(ending, said, due):
    relay = Relay(
        HEAD, Journal(), Shared(10**6), event_bytes=10**5, kept_bytes=10**5, unwritten_bytes=0, answer_bytes=0
    )
    relay.feed(said)
    assert parting.is_due(ending, relay) == due
