from datetime import UTC, datetime

import orjson
import pytest

from gateway.core.answers import Answer
from gateway.core.callers import Admin, Holder, Local, Member, Principal, System
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.core.queue import find_answer, held, lane, read_priority
from gateway.core.refusals import Code, Refusal

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ME = "00000000-0000-4000-8000-00000000000a"


def call(**fields: object) -> Call:
    return Call(
        **{
            "id": ME, "kind": Kind.QUEUED, "state": State.DISPATCHED, "workspace_id": ME, "caller_id": None,
            "method": "message/send", "attempts": 0, "created_at": NOW, "expires_at": NOW, **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("principal", "may"),
    [(Admin(), True), (Local(), True), (System(kind="webhook:", name="x"), True), (Member(), False),
     (Holder(workspace_id=ME), False)],
)  # fmt: skip
def test_only_the_operator_and_system_callers_have_another_priority(principal: Principal, may: bool):
    assert read_priority(None, principal) == read_priority("50", principal) == 50
    for header in ("100", "10"):
        if may:
            assert read_priority(header, principal) == int(header)
        else:
            with pytest.raises(Refusal) as refused:
                read_priority(header, principal)
            assert (refused.value.code, refused.value.fields) == (Code.NOT_ALLOWED, {"field": "X-A2A-Priority"})
            assert "X-A2A-Priority" in refused.value.sentence


@pytest.mark.parametrize("header", ["", "high", "51", "1e2", "-10", "100, 100"])
def test_what_is_no_priority_is_refused(header: str):
    with pytest.raises(Refusal) as refused:
        read_priority(header, Admin())
    assert (refused.value.code, refused.value.fields) == (Code.INVALID_REQUEST, {"field": "X-A2A-Priority"})


def test_workspaces_and_system_callers_wait_for_themselves_and_people_together():
    found = [lane(Holder(workspace_id=ME), ME), lane(Admin(), ME), lane(Admin(), None), lane(Member(), None)]
    assert found == [ME, ME, "people", "people"]
    assert lane(System(kind="webhook:", name="x"), None) == "webhook:x"


def test_who_waits_is_told_where():
    answer = held(ME, "c-1", 3, NOW)
    assert (answer.status, answer.headers["Location"]) == (202, f"/workspaces/{ME}/a2a/queue/c-1")
    said = orjson.loads(answer.body)
    assert (said["queued"], said["queue_id"], said["queue_depth"]) == (True, "c-1", 3)
    assert said["expires_at"] == NOW.isoformat()


def test_the_answer_to_a_call_is_what_was_stored_or_how_it_ended_without_one():
    stored = call(answer=b"x", answer_status=201, answer_headers={"A2A-Version": "1.0"}, ending=Ending.COMPLETED)
    assert find_answer(stored) == Answer(status=201, body=b"x", headers={"A2A-Version": "1.0"})
    endings = (Ending.EXPIRED, Ending.CANCELLED, Ending.INTERRUPTED)
    assert [find_answer(call(ending=ending)).status for ending in endings] == [410, 409, 503]
    assert find_answer(call()) is None
