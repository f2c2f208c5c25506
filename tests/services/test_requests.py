"""services.requests: what a request becomes before anything happens; what becomes of it then is in test_proxy."""

import orjson
import pytest
from multidict import CIMultiDict

from gateway.core.address import Reach
from gateway.core.callers import Admin, Holder
from gateway.core.envelope import BadEnvelope
from gateway.core.rates import Tariff
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Status, Workspace
from gateway.services.activity import ActivityLog
from gateway.services.admission import Admission
from gateway.services.directory import Directory
from gateway.services.parking import Parking
from gateway.services.parking import Times as ParkingTimes
from gateway.services.requests import Asked, Requests, Times, Wanted
from gateway.services.room import Room
from gateway.services.tolls import Toll
from gateway.services.wakes import Wakes
from tests.services.memory import Batches, Inbox, Workspaces

PUSHED, POLLING = (f"00000000-0000-4000-8000-00000000000{name}" for name in "ab")
MESSAGE = {"role": "user", "messageId": "m-1", "parts": [{"kind": "text", "text": "hi"}]}
BODY = orjson.dumps({"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": MESSAGE}})


@pytest.fixture
def requests(bus) -> Requests:
    rows = Workspaces(
        Workspace(id=PUSHED, name="a", status=Status.ONLINE, url="https://agent.example/", delivery_mode="push"),
        Workspace(id=POLLING, name="b", status=Status.ONLINE, delivery_mode="poll"),
    )
    parking = Parking(
        calls=Inbox(),
        activity=ActivityLog(Batches(), bus, capacity=10, every_s=1),
        callers=Wakes(capacity=10),
        times=ParkingTimes(lives_s=60, wait_s=60, kept_s=60),
        room=10,
    )
    return Requests(
        admission=Admission(Directory(rows, ttl_s=300)),
        parking=parking,
        vault=None,
        reach=Reach.SAME_NETWORK,
        times=Times(idle_s=300, ceiling_s=1800, max_s=3600),
    )


def asked(to: str, body: bytes = BODY, *, caller: str | None = None, **headers: str) -> Asked:
    return Asked(
        call_id="c",
        request_id="r",
        target_id=to,
        principal=Admin() if caller is None else Holder(workspace_id=caller),
        claimed=None,
        peer="192.0.2.9",
        toll=Toll(Tariff.CALL, "somebody"),
        gone=lambda: False,
        headers=CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}),
        body=body,
        hold=Room(2**20).hold(),
    )


async def wanted(requests: Requests, one: Asked) -> Wanted:
    found = await requests.read(one)
    assert isinstance(found, Wanted)
    return found


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, 0),
        ({"Prefer": "wait=20"}, 20),
        ({"Prefer": "wait=20", "X_Timeout": "5"}, 5),
        ({"Prefer": "wait=20", "X_Timeout": "0"}, 20),
        ({"X_Timeout": "5"}, 0),
    ],
)
async def test_a_call_to_an_agent_that_polls_goes_nowhere_and_its_caller_stays_as_long_as_it_says(
    requests, headers, wait_s
):
    call = await wanted(requests, asked(POLLING, **headers))
    assert (call.outbound, call.wait_s, call.message.body) == (None, wait_s, BODY)


async def test_what_goes_out_carries_the_trace_that_it_is_known_by(requests):
    trace = "a" * 32
    call = await wanted(requests, asked(PUSHED, traceparent=f"00-{trace}-{'b' * 16}-01"))
    assert call.trace_id == trace
    assert call.outbound.headers["traceparent"].startswith(f"00-{trace}-")
    fresh = await wanted(requests, asked(PUSHED))
    assert fresh.outbound.headers["traceparent"][3:35] == fresh.trace_id != trace


async def test_a_bad_body_is_told_and_a_bad_header_refused_wherever_it_goes(requests):
    for to in (PUSHED, POLLING):
        assert isinstance(await requests.read(asked(to, b"[")), BadEnvelope)
        with pytest.raises(Refusal) as refused:
            await requests.read(asked(to, X_Timeout="soon"))
        assert refused.value.code is Code.INVALID_REQUEST
