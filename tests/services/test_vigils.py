"""services.vigils: what a streaming caller reads whose call waits."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.ports import StoreUnavailable, StreamHead
from gateway.services import vigils as vigils_module
from gateway.services.vigils import Awaited, Vigils
from gateway.services.wakes import Wakes
from tests.services.memory import Journal, agent_streams

AWAITED = Awaited(call_id="c", workspace_id="w", id_json=b"7")


class Ledger:
    """The one call, and its place."""

    def __init__(self) -> None:
        self.call: dict[str, Any] = {"state": State.QUEUED, "kind": Kind.QUEUED}
        self.place: int | None = 3
        self.away = False
        self.asked = 0

    async def find(self, workspace_id: str, call_id: str) -> Call | None:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        now = datetime.now(UTC)
        return Call(
            **{
                "id": call_id, "workspace_id": workspace_id, "caller_id": None, "method": "message/stream",
                "attempts": 0, "created_at": now, "expires_at": now, **self.call,
            }
        )  # fmt: skip

    async def position(self, workspace_id: str, call_id: str) -> int | None:
        return self.place


class Scene:
    def __init__(self) -> None:
        self.ledger = Ledger()
        self.journal = Journal()
        self.streams = agent_streams(self.journal)
        self.callers = Wakes(capacity=10)
        ledger: Any = self.ledger
        self.vigils = Vigils(
            calls=ledger, queue=ledger, streams=self.streams, journal=self.journal, callers=self.callers
        )
        self.vigil = self.vigils.begin(AWAITED, lambda: False)


@pytest.fixture
def scene(monkeypatch) -> Scene:
    monkeypatch.setattr(vigils_module, "LOOK_S", 0.0)
    return Scene()


async def test_it_says_the_place_when_that_changes_and_no_more_often(scene):
    with scene.vigil as vigil:
        assert await vigil.read(0.0) == b": place 3\n"
        assert await vigil.read(0.0) == b""
        scene.ledger.place = 2
        assert await vigil.read(0.0) == b": place 2\n"
        scene.ledger.call["state"] = State.DISPATCHED
        assert await vigil.read(0.0) == b""
    assert len(scene.callers) == 0


async def test_it_is_not_looked_before_its_time_unless_something_was_heard(scene, monkeypatch):
    monkeypatch.setattr(vigils_module, "LOOK_S", 1000.0)
    with scene.vigil as vigil:
        await vigil.read(0.0)
        await vigil.read(0.0)
        assert scene.ledger.asked == 1
        scene.callers.wake("c")
        await vigil.read(0.0)
        assert scene.ledger.asked == 2


async def test_a_stream_that_has_begun_is_read_under_the_callers_id(scene):
    head = StreamHead(call_id="c", workspace_id="w", status=200, headers={}, id_json=b"1")
    with scene.vigil as vigil:
        relay = scene.streams.begin(head)
        relay.feed(b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n')
        assert await vigil.read(0.0) == b'id: c-1\ndata: {"jsonrpc":"2.0","id":7,"result":{}}\n\n'
        assert scene.streams.readers == 1
    assert scene.streams.readers == 0


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        (
            {"state": State.COMPLETED, "ending": Ending.COMPLETED, "answer": b'{"jsonrpc":"2.0","id":1,"result":\n{}}',
             "answer_status": 200, "answer_headers": {"Content-Type": "application/json"}},
            {"jsonrpc": "2.0", "id": 7, "result": {}},
        ),
        (
            {"state": State.COMPLETED, "ending": Ending.COMPLETED, "answer": b'data: {"jsonrpc":"2.0","id":1}\n\n',
             "answer_status": 200, "answer_headers": {"Content-Type": "text/event-stream"}},
            {"jsonrpc": "2.0", "id": 7},
        ),
        ({"state": State.EXPIRED, "ending": Ending.EXPIRED}, "expired"),
        ({"state": State.CANCELLED, "ending": Ending.CANCELLED}, "cancelled"),
        ({"state": State.INTERRUPTED, "ending": Ending.INTERRUPTED}, "interrupted"),
    ],
)  # fmt: skip
async def test_whatever_becomes_of_the_call_its_stream_ends_with_it(scene, fields, wanted):
    scene.ledger.call.update(fields)
    with scene.vigil as vigil:
        said = orjson.loads((await vigil.read(0.0)).removeprefix(b"data: "))
        assert vigil.over
    assert (said if isinstance(wanted, dict) else said["error"]["data"]["code"]) == wanted
    assert said["id"] == 7


async def test_while_the_ledger_is_away_it_waits_on(scene):
    scene.ledger.away = True
    with scene.vigil as vigil:
        assert await vigil.read(0.0) == b""
        assert not vigil.over


async def test_a_gateway_that_shuts_down_says_that_the_call_waits_on(scene):
    scene.callers.close()
    with scene.vigil as vigil:
        said = orjson.loads((await vigil.read(0.0)).removeprefix(b"data: "))
        assert vigil.over
    assert said["error"]["data"]["code"] == "gateway_shutdown"


async def test_what_an_agent_that_polls_says_of_its_work_comes_before_its_answer(scene, monkeypatch):
    monkeypatch.setattr(vigils_module, "SOON_S", 0.0)
    scene.ledger.call.update(kind=Kind.PARKED, state=State.DISPATCHED)
    with scene.vigil as vigil:
        assert await vigil.read(0.0) == b"", "an inbox has no places"
        await scene.journal.add("c", b'{"kind": "status-update"}')
        assert await vigil.read(0.0) == b'data: {"jsonrpc":"2.0","id":7,"result":{"kind": "status-update"}}\n\n'
        await scene.journal.add("c", b'{"jsonrpc": "2.0", "id": null, "result": 2}')
        answer = {"state": State.COMPLETED, "ending": Ending.COMPLETED, "answer": b'{"jsonrpc":"2.0","result":3}'}
        scene.ledger.call.update(answer)
        scene.callers.wake("c")
        said = b""
        while not vigil.over:
            said += await vigil.read(0.0)
    results = [orjson.loads(line[6:]) for line in said.splitlines() if line.startswith(b"data: ")]
    assert [(one["id"], one["result"]) for one in results] == [(7, 2), (7, 3)]


async def test_while_redis_is_away_its_answer_comes_all_the_same(scene):
    scene.journal.away = True
    scene.ledger.call.update(kind=Kind.PARKED, state=State.COMPLETED, ending=Ending.COMPLETED, answer=b'{"result":3}')
    with scene.vigil as vigil:
        assert b'"result":3' in await vigil.read(0.0)
        assert vigil.over
