"""core.resubscription: of which task a request wants the rest, and whose stream is the same."""

import orjson
import pytest

from gateway.core import resubscription


@pytest.mark.parametrize(
    ("params", "task_id"),
    [
        ({"id": "t-1"}, "t-1"),
        ({"name": "tasks/t-1"}, "t-1"),
        ({"id": 7}, None),
        ({"id": ""}, None),
        ({"id": "t" * 300}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_request_names_its_task(params: object, task_id: str | None):
    assert resubscription.find_task(orjson.dumps({"jsonrpc": "2.0", "params": params})) == task_id
    assert resubscription.find_task(b"no json") is None


def test_events_look_the_same_within_a_version():
    assert resubscription.is_one_language("message/stream", "tasks/resubscribe")
    assert resubscription.is_one_language("SendStreamingMessage", "SubscribeToTask")
    assert not resubscription.is_one_language("message/stream", "SubscribeToTask")
