"""core.farewells: how streams end for their readers."""

import orjson
import pytest

from gateway.core import answers, farewells, outcomes
from gateway.core.endings import Ending
from gateway.core.farewells import in_band

CALL = "00000000-0000-4000-8000-00000000000c"


@pytest.mark.parametrize(
    "outcome", [outcomes.NotConnected(), outcomes.Reset(), outcomes.Expired(clock=outcomes.Clock.CEILING)]
)
def test_an_end_before_the_stream_began_is_an_event_too(outcome):
    ended = answers.classify(outcome)
    told = in_band(ended.answer, call_id=CALL, id_json=b'"7"')
    assert (told.status, told.headers["Content-Type"]) == (200, "text/event-stream")
    said = orjson.loads(told.body.removeprefix(b"data: "))
    assert (said["id"], said["error"]["data"]["code"]) == ("7", ended.ending.value)
    assert said["error"]["data"]["call_id"] == CALL
    assert said["error"]["data"]["last_event_id"] is None
    assert said["error"]["data"]["retriable"] is (ended.ending is Ending.AGENT_UNREACHABLE)
    assert said["error"]["message"] == orjson.loads(ended.answer.body)["error"]


def test_what_clients_of_streams_can_read_stays_as_it_is():
    own = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"down"}}'
    for answer in (
        answers.Answer(status=202, body=b'{"queued":true}'),
        answers.Answer(status=400, body=b'{"error":"no","code":"invalid_request"}'),
        answers.Answer(status=503, body=own),
        answers.Answer(status=502, body=b"<html>"),
    ):
        assert in_band(answer, call_id=CALL, id_json=None) is answer


def test_every_ending_but_the_good_one_has_a_farewell():
    assert farewells.of_ended(answers.classify(outcomes.Streamed(status=200, headers={})), call_id=CALL, last=3) is None
    said = farewells.of_ended(answers.classify(outcomes.Cut(status=200)), call_id=CALL, last=3)
    assert said is not None
    assert orjson.loads(said)["data"] == {
        "code": "truncated", "http_status": 502, "retriable": False, "call_id": CALL, "last_event_id": f"{CALL}-3",
        "delivery_confirmed": True,
    }  # fmt: skip


def test_a_farewell_says_that_a_stream_cannot_be_resumed_and_nothing_where_it_can():
    ended = answers.classify(outcomes.Cut(status=200))
    said = [
        orjson.loads(farewells.of_ended(ended, call_id=CALL, last=1, resumable=may) or b"") for may in (True, False)
    ]
    assert [one["data"].get("resumable") for one in said] == [None, False]
