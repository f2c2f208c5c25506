"""A call's steps, with an agent that is only an outcome."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from structlog.testing import capture_logs

from events.bus import Bus
from gateway import ports
from gateway.core.address import Reach
from gateway.core.answers import Answer
from gateway.core.callers import Admin, Holder
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.core.outcomes import (
    Answered,
    Broke,
    Cancelled,
    Clock,
    Cut,
    Dead,
    Expired,
    NotConnected,
    Reset,
    Stopped,
    TooLarge,
    Unheld,
)
from gateway.core.prices import Price, Prices
from gateway.core.rates import Rate, Tariff
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import RuntimeMetadata, Status, Workspace
from gateway.ports import Earlier, Left, Same, Stage, StoreTimeout, StoreUnavailable
from gateway.services.activity import ActivityLog
from gateway.services.admission import Admission
from gateway.services.directory import Directory
from gateway.services.entrance import Entrance
from gateway.services.flights import Flights
from gateway.services.joining import Joining
from gateway.services.parking import Parking
from gateway.services.parking import Times as ParkingTimes
from gateway.services.proxy import Proxy
from gateway.services.queue import Queue as BusyQueue
from gateway.services.queue import Times as QueueTimes
from gateway.services.requests import Asked, Requests, Times
from gateway.services.room import Room
from gateway.services.shelf import Shelf
from gateway.services.tasks import Tasks
from gateway.services.tolls import Toll, Tolls
from gateway.services.waiting import Waiting
from gateway.services.wakes import Wakes
from gateway.store.vault import FernetVault, new_key
from tests.harness.liveness import ScriptedLiveness
from tests.harness.world import eventually
from tests.services.memory import Batches, Channel, Dispatcher, Gate, Heard, Inbox, Queue, Workspaces

TARGET, CALLER, MUTE, UNSAFE, GONE = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(5))
VAULT = FernetVault(new_key().encode())
REPLY = b'{"jsonrpc":"2.0","id":"1","result":{"kind":"message","usage":{"input_tokens":3,"output_tokens":4}}}'
DONE = Answered(status=200, headers={"Content-Type": "application/json"}, body=REPLY)
MESSAGE = {"role": "user", "messageId": "m-1", "parts": [{"kind": "text", "text": "hi"}]}
BODY = orjson.dumps({"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": MESSAGE}})


def message(number: int) -> bytes:
    """A call with a message id that no other number has."""
    return BODY.replace(b"m-1", b"m-1-%d" % number)


RATE = Rate(requests=10, period_s=1.0)
PRICES = Prices(by_model={"*": Price(input=100, output=1000)})
FAILURES = [
    (Answered(status=500, headers={}, body=b""), Ending.AGENT_ERROR),
    (Answered(status=429, headers={}, body=b""), Ending.AGENT_BUSY),
    (NotConnected(), Ending.AGENT_UNREACHABLE),
    (NotConnected(unsafe=True), Ending.AGENT_UNREACHABLE),
    (Dead(), Ending.AGENT_RESTARTING),
    (Reset(), Ending.AGENT_RESET),
    (Cut(status=200), Ending.TRUNCATED),
    (TooLarge(), Ending.RESPONSE_TOO_LARGE),
    (Unheld(status=200), Ending.OVERLOADED),
    *((Expired(clock=clock), Ending(clock)) for clock in Clock),
    (Stopped(), Ending.GATEWAY_SHUTDOWN),
    (Cancelled(under_way=True), Ending.CANCELLED),
    (Broke(), Ending.INTERNAL),
]


def workspace(id_: str, **fields: object) -> Workspace:
    return Workspace(
        **{
            "id": id_,
            "name": "one",
            "status": Status.ONLINE,
            "url": "http://127.0.0.1:8001/",
            "delivery_mode": "push",
            **fields,
        }
    )


class Switchboard:
    """A proxy, and all that it speaks to."""

    def __init__(
        self,
        bus: Bus,
        channel: Channel,
        tasks: Tasks,
        *,
        capacity: int = 100,
        share: int = 100,
        dispatcher: ports.Dispatcher | None = None,
        idle_s: float = 300.0,
        ceiling_s: float = 1800.0,
        gate: Gate | None = None,
    ) -> None:
        self.workspaces = Workspaces(
            workspace(TARGET),
            workspace(CALLER),
            workspace(MUTE, url=None, status=Status.AWAITING_AGENT),
            workspace(UNSAFE, url="http://169.254.169.254/"),
            workspace(GONE, status=Status.REMOVED),
        )
        self.heard = Heard(bus, channel)
        self.rows = Batches()
        self.activity = ActivityLog(self.rows, bus, capacity=100, every_s=1)
        self.dispatcher = Dispatcher(DONE)
        self.tasks = tasks
        self.gate = gate or Gate()
        self.tolls = Tolls(self.gate, dict.fromkeys(Tariff, RATE))
        self.inbox = Inbox()
        self.parking = Parking(
            calls=self.inbox,
            activity=self.activity,
            callers=Wakes(capacity=10),
            times=ParkingTimes(lives_s=60, wait_s=60, kept_s=60),
            room=10,
        )
        self.queue = Queue()
        self.queue.away = True
        self.freed: list[str] = []
        self.callers = Wakes(capacity=10)
        self.shelf = Shelf(lasts_s=60, each_bytes=1000, all_bytes=100_000)
        waits = BusyQueue(
            calls=self.inbox,
            queue=self.queue,
            activity=self.activity,
            callers=Wakes(capacity=10),
            times=QueueTimes(lives_s=60, retry_s=1, wait_s=60, kept_s=60),
            room=3,
        )
        self.joining = Joining(gate=self.gate, waits=waits, callers=self.callers, shelf=self.shelf, capacity=3)
        self.flights = Flights("replica-1")
        self.waiting = Waiting(ScriptedLiveness(), every_s=1)
        self.room = Room(2**30)
        requests = Requests(
            admission=Admission(Directory(self.workspaces, ttl_s=300)),
            parking=self.parking,
            vault=VAULT,
            reach=Reach.SAME_NETWORK,
            times=Times(idle_s=idle_s, ceiling_s=ceiling_s, max_s=3600),
        )
        self.proxy = Proxy(
            requests=requests,
            tolls=self.tolls,
            entrance=Entrance(self.gate, self.tolls, reserve_cents=1),
            prices=PRICES,
            dispatcher=dispatcher or self.dispatcher,
            activity=self.activity,
            bus=bus,
            waiting=self.waiting,
            parking=self.parking,
            queue=waits,
            freed=self.freed.append,
            joining=self.joining,
            flights=self.flights,
            capacity=capacity,
            share=share,
            spawn=tasks.spawn,
        )

    async def call(
        self,
        *,
        caller: str | None = None,
        to: str = TARGET,
        body: bytes = BODY,
        payer: str = "somebody",
        call_id: str | None = None,
        gone: Callable[[], bool] = lambda: False,
        **headers: str,
    ) -> Answer:
        """Call as a browser of the operator, or as a workspace."""
        hold = self.room.hold()
        asked = Asked(
            hold=hold,
            call_id=call_id or str(uuid4()),
            request_id="r-1",
            target_id=to,
            principal=Admin() if caller is None else Holder(workspace_id=caller),
            claimed=None,
            peer="192.0.2.1",
            toll=Toll(Tariff.CALL, payer),
            gone=gone,
            headers=CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}),
            body=body,
        )
        try:
            return await self.proxy.call(asked)
        finally:
            hold.release()

    async def ended(self) -> None:
        """Wait for the last call's bookkeeping."""
        await eventually(lambda: self.proxy.in_flight == 0)

    async def written(self) -> list:
        await self.ended()
        await self.activity.flush()
        return self.rows.rows

    async def refusal(self, **asked: object) -> Refusal:
        with pytest.raises(Refusal) as refused:
            await self.call(**asked)
        return refused.value


@pytest.fixture
def board(bus, channel, tasks) -> Switchboard:
    return Switchboard(bus, channel, tasks)


async def test_a_browsers_call_gives_one_row_and_tells_everybody_of_the_answer(board):
    answer = await board.call()
    assert (answer.status, answer.body) == (200, REPLY)
    [row] = await board.written()
    assert (row["workspace_id"], row["activity_type"], row["source_id"], row["target_id"]) == (
        TARGET,
        "a2a_receive",
        None,
        TARGET,
    )
    assert (row["method"], row["status"], row["summary"]) == ("message/send", "ok", "message/send: completed")
    assert (row["calls"], row["input_tokens"], row["output_tokens"]) == (1, 3, 4)
    assert row["millionths"] == 3 * 100 + 4 * 1000
    assert (row["request_body"], row["response_body"]) == (orjson.loads(BODY), orjson.loads(REPLY))
    logged, response, ended = await board.heard()
    assert [one.type for one in (logged, response, ended)] == ["ACTIVITY_LOGGED", "A2A_RESPONSE", "CALL_ENDED"]
    assert orjson.loads(response.payload)["response_body"] == orjson.loads(REPLY)
    told = orjson.loads(ended.payload)
    assert (told["call_id"], told["ending"], told["status"]) == (row["call_id"], "completed", 200)
    assert board.dispatcher.sent[0].call_id == row["call_id"]


async def test_a_workspaces_call_gives_a_row_on_either_side_and_no_answer_to_browsers(board):
    await board.call(caller=CALLER)
    received, sent = await board.written()
    assert [(row["workspace_id"], row["activity_type"]) for row in (received, sent)] == [
        (TARGET, "a2a_receive"),
        (CALLER, "a2a_send"),
    ]
    for row in (received, sent):
        assert (row["source_id"], row["target_id"], row["call_id"]) == (CALLER, TARGET, received["call_id"])
    assert (received["calls"], sent["calls"]) == (1, 0), "one call is counted once"
    assert [(one.type, one.workspace_id) for one in await board.heard()] == [
        ("ACTIVITY_LOGGED", TARGET),
        ("ACTIVITY_LOGGED", CALLER),
        ("CALL_ENDED", TARGET),
    ]


async def test_a_workspace_that_calls_itself_has_one_row(board):
    await board.call(caller=TARGET, to=TARGET)
    assert [row["activity_type"] for row in await board.written()] == ["a2a_receive"]


async def test_an_answer_is_a_sign_of_its_agent_and_the_end_of_a_call_none_of_its_caller(board):
    await board.call()
    assert [(one.type, one.workspace_id) for one in await board.heard() if one.sign] == [("A2A_RESPONSE", TARGET)]
    await board.call(caller=CALLER)
    assert [one.type for one in await board.heard() if one.sign] == []


@pytest.mark.parametrize(("outcome", "ending"), FAILURES, ids=lambda value: str(value)[:40])
async def test_a_call_that_fails_is_told_and_written_and_no_sign_of_its_agent(board, outcome, ending):
    board.dispatcher.outcome = outcome
    await board.call()
    [row] = await board.written()
    assert (row["summary"], row["response_body"]) == (f"message/send: {ending.value}", None)
    assert row["status"] == (
        "ok" if ending in (Ending.TRUNCATED, Ending.RESPONSE_TOO_LARGE, Ending.OVERLOADED) else "error"
    )
    heard = await board.heard()
    assert [one.type for one in heard] == ["ACTIVITY_LOGGED", "CALL_ENDED"]
    assert orjson.loads(heard[1].payload)["ending"] == ending.value
    assert not any(one.sign for one in heard), "the gateway's own writing keeps no call alive"


def test_every_ending_that_a_dispatch_can_bring_has_been_tried_but_the_good_one():
    others = {
        Ending.COMPLETED, Ending.DELIVERED_TO_INBOX, Ending.EXPIRED, Ending.REJECTED,
        Ending.INTERRUPTED,
    }  # fmt: skip
    assert {ending for _, ending in FAILURES} == set(Ending) - others


async def test_a_bug_in_the_dispatch_is_an_ending_too_and_nobody_waits_for_ever(board):
    board.dispatcher.outcome = ZeroDivisionError("a bug")
    with capture_logs() as logs:
        answer = await board.call()
    assert (answer.status, orjson.loads(answer.body)["code"]) == (500, "internal")
    assert "call_broke" in [entry["event"] for entry in logs]
    assert [row["summary"] for row in await board.written()] == ["message/send: internal"]


async def test_a_caller_that_goes_away_does_not_stop_its_call(board, tasks):
    board.dispatcher.gate.clear()
    caller = tasks.spawn(board.call(), "caller")
    await eventually(lambda: board.dispatcher.sent)
    caller.cancel()
    await asyncio.wait([caller])
    assert (caller.cancelled(), board.proxy.in_flight) == (True, 1)
    board.dispatcher.gate.set()
    [row] = await board.written()
    assert row["summary"] == "message/send: completed"
    assert await board.heard.names() == ["ACTIVITY_LOGGED", "A2A_RESPONSE", "CALL_ENDED"]


async def test_past_the_capacity_callers_are_asked_to_come_back_and_are_taken_when_there_is_room(bus, channel, tasks):
    board = Switchboard(bus, channel, tasks, capacity=2)
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(body=message(number)), "caller") for number in range(2)]
    await eventually(lambda: board.proxy.in_flight == 2)
    refused = await board.refusal(body=message(2))
    assert (refused.code, refused.retry_after_s) == (Code.OVERLOADED, 2)
    board.dispatcher.gate.set()
    await asyncio.gather(*callers)
    await board.ended()
    assert (await board.call()).status == 200


async def test_the_capacity_holds_for_those_that_are_admitted_at_the_same_moment(bus, channel, tasks):
    board = Switchboard(bus, channel, tasks, capacity=2)
    board.dispatcher.gate.clear()
    outcomes: list[object] = []

    async def caller(number: int) -> None:
        try:
            outcomes.append((await board.call(body=message(number))).status)
        except Refusal as refused:
            outcomes.append(refused.code)

    callers = [tasks.spawn(caller(number), "caller") for number in range(5)]
    await eventually(lambda: len(outcomes) == 3 and len(board.dispatcher.sent) == 2)
    assert len(board.dispatcher.sent) == board.proxy.in_flight == 2
    board.dispatcher.gate.set()
    await asyncio.gather(*callers)
    assert sorted(map(str, outcomes)) == ["200", "200", "overloaded", "overloaded", "overloaded"]
    assert {left.call_id for left in board.gate.left} == {entry.call_id for entry in board.gate.entries}


async def test_draining_lets_calls_end_and_takes_no_new_ones(board, tasks):
    board.dispatcher.gate.clear()
    caller = tasks.spawn(board.call(), "caller")
    await eventually(lambda: board.proxy.in_flight == 1)
    draining = tasks.spawn(board.proxy.drain(30), "drain")
    await asyncio.sleep(0)
    refused = await board.refusal()
    assert (refused.code, refused.retry_after_s) == (Code.DRAINING, 5)
    assert not draining.done()
    board.dispatcher.gate.set()
    await draining
    assert (await caller).status == 200
    assert repr(board.proxy) == "<Proxy in_flight=0>"


async def test_what_does_not_end_while_draining_ends_as_a_shutdown_and_is_written(board, tasks):
    board.dispatcher.gate.clear()
    caller = tasks.spawn(board.call(), "caller")
    await eventually(lambda: board.proxy.in_flight == 1)
    await board.proxy.drain(0)
    answer = await caller
    assert (answer.status, orjson.loads(answer.body)["code"]) == (503, "gateway_shutdown")
    assert [row["summary"] for row in await board.written()] == ["message/send: gateway_shutdown"]
    await board.proxy.drain(30)


@pytest.mark.parametrize(
    ("to", "code", "fields"),
    [
        (MUTE, Code.NO_URL, {"status": "awaiting_agent"}),
        (UNSAFE, Code.UNSAFE_URL, {}),
        (GONE, Code.REMOVED, {"id": GONE, "removed_at": None}),
        ("00000000-0000-4000-8000-000000000404", Code.NOT_FOUND, {}),
    ],
)
async def test_what_cannot_be_called_is_refused_before_anything_goes_out(board, to, code, fields):
    refused = await board.refusal(to=to)
    assert (refused.code, refused.fields) == (code, fields)
    assert board.dispatcher.sent == []
    assert await board.written() == []
    assert board.gate.entries == []


async def test_a_body_that_is_no_call_is_answered_as_json_rpc_and_goes_nowhere(board):
    answer = await board.call(body=b"[")
    assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (400, -32700)
    assert (board.dispatcher.sent, board.proxy.in_flight) == ([], 0)
    assert board.gate.taken == [("call:somebody", RATE)]


async def test_a_call_enters_once_with_what_goes_out_and_leaves_once_with_what_it_cost(board):
    above = "00000000-0000-4000-8000-0000000000aa"
    await board.call(caller=CALLER, X_A2A_Call_ID=above, X_Timeout="20", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    await board.ended()
    [entry], [left], [outbound] = board.gate.entries, board.gate.left, board.dispatcher.sent
    assert (entry.call_id, entry.target_id) == (outbound.call_id, outbound.workspace_id)
    assert (entry.caller_id, entry.serves, entry.trace_id, entry.limit_s) == (CALLER, above, "a" * 32, 20)
    assert (left.call_id, left.trace_id, left.cost) == (entry.call_id, entry.trace_id, 4300)
    assert board.gate.taken == [], "its rate went with it"


@pytest.mark.parametrize("outcome", [*(outcome for outcome, _ in FAILURES), RuntimeError("a bug")])
async def test_a_call_that_fails_leaves_too_and_has_cost_nothing(board, outcome):
    board.dispatcher.outcome = outcome
    await board.call()
    await board.ended()
    assert [left.cost for left in board.gate.left] == [0]


@pytest.mark.parametrize(
    ("asked", "left_s", "limit_s", "by_deadline"),
    [
        (None, 7.5, 7.5, True),
        ("5", 7.5, 5, True),
        ("20", 7.5, 7.5, True),
        ("20", 0.0, 0.0, True),
        (None, None, 1800, False),
    ],
)
async def test_a_call_made_while_serving_another_ends_no_later(board, asked, left_s, limit_s, by_deadline):
    board.gate.answer = replace(board.gate.answer, left_s=left_s, depth=2)
    await board.call(caller=CALLER, **({} if asked is None else {"X_Timeout": asked}))
    [outbound] = board.dispatcher.sent
    assert (outbound.limit_s, outbound.by_deadline) == (limit_s, by_deadline)


async def test_the_agent_gets_the_bytes_that_were_sent_and_only_the_headers_it_may_see(board):
    await board.call(
        caller=CALLER, Authorization="Bearer x", Cookie="c", X_Custom="y", Accept="text/event-stream",
        content_type="application/json; v=1", A2A_Version="0.3", traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )  # fmt: skip
    [outbound] = board.dispatcher.sent
    assert outbound.body is BODY
    headers = dict(outbound.headers)
    assert headers.pop("traceparent").split("-")[1] == "a" * 32
    assert headers == {
        "Content-Type": "application/json; v=1",
        "Accept": "text/event-stream",
        "A2A-Version": "0.3",
        "X-Request-ID": "r-1",
        "X-A2A-Call-ID": outbound.call_id,
        "X-Workspace-ID": CALLER,
    }


async def test_a_sealed_credential_goes_to_the_agent_unsealed_and_one_of_another_key_not_at_all(board):
    board.workspaces.rows[TARGET] = workspace(TARGET, agent_auth=VAULT.seal("Bearer of the agent"))
    await board.call(Authorization="Bearer of the caller")
    assert board.dispatcher.sent[0].headers["Authorization"] == "Bearer of the agent"
    foreign = FernetVault(new_key().encode()).seal("x")
    board.workspaces.rows[MUTE] = workspace(MUTE, agent_auth=foreign)
    with capture_logs() as logs:
        await board.call(to=MUTE)
    assert "Authorization" not in board.dispatcher.sent[1].headers
    assert "agent_auth_unreadable" in [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("caller", "timeout", "limit_s", "by_deadline"),
    [
        (None, None, None, False),
        (CALLER, None, 1800, False),
        (None, "2", 2, True),
        (CALLER, "2", 2, True),
        (None, "0", None, False),
        (CALLER, "0", 3600, False),
        (CALLER, "7200", 3600, False),
    ],
)
async def test_how_long_a_call_may_take_follows_from_who_calls_and_what_it_asks(
    board, caller, timeout, limit_s, by_deadline
):
    await board.call(caller=caller, **({} if timeout is None else {"X_Timeout": timeout}))
    [outbound] = board.dispatcher.sent
    assert (outbound.limit_s, outbound.by_deadline, outbound.idle_s) == (limit_s, by_deadline, 300)


async def test_a_bad_timeout_is_refused_and_a_declared_silence_is_kept(board):
    board.workspaces.rows[TARGET] = workspace(TARGET, metadata=RuntimeMetadata(idle_timeout_s=7.5))
    assert (await board.refusal(X_Timeout="soon")).code is Code.INVALID_REQUEST
    await board.call()
    assert board.dispatcher.sent[0].idle_s == 7.5


@given(st.binary(max_size=64) | st.just(b"[" * 900 + b"]" * 900) | st.just(b'"\\ud800"') | st.just(b"1" * 400))
def test_whatever_an_agent_answers_the_call_ends_once_and_is_written(answered):
    async def run() -> None:
        async with Tasks() as tasks:
            channel = Channel()
            bus = Bus(channel, capacity=100, capacity_bytes=1_000_000)
            tasks.spawn(bus.run(), "bus")
            board = Switchboard(bus, channel, tasks)
            board.dispatcher.outcome = Answered(status=200, headers={}, body=answered)
            assert (await board.call()).body == answered
            assert len(await board.written()) == 1
            assert await board.heard.names() == ["ACTIVITY_LOGGED", "A2A_RESPONSE", "CALL_ENDED"]
        assert tasks.deaths == 0

    asyncio.run(run())


@pytest.mark.parametrize("mode", [None, "", "carrier pigeon"])
async def test_a_mode_that_nobody_knows_counts_as_push_and_is_told_once(board: Switchboard, mode: str | None):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode=mode)
    with capture_logs() as logs:
        answers = [await board.call() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [line["delivery_mode"] for line in logs if line["event"] == "delivery_mode_unsure"] == [mode]
    assert (board.parking.unsure, board.inbox.calls) == (3, [])


@pytest.mark.parametrize("error", [StoreTimeout("late"), StoreUnavailable("away")])
async def test_a_mode_that_cannot_be_read_lets_no_call_through(board: Switchboard, error: Exception):
    board.workspaces.fails = error
    with pytest.raises(Refusal) as refused:
        await board.call()
    assert refused.value.code is Code.PLATFORM_UNAVAILABLE
    assert (board.dispatcher.sent, board.inbox.calls) == ([], [])


async def test_a_call_to_an_agent_that_polls_is_parked_and_never_sent(board: Switchboard):
    board.workspaces.rows[UNSAFE] = workspace(UNSAFE, url="http://169.254.169.254/", delivery_mode="poll")
    answer = await board.call(to=UNSAFE)
    [call] = board.inbox.calls
    assert orjson.loads(answer.body)["id"] == call.id
    assert (call.body, call.workspace_id, board.dispatcher.sent) == (BODY, UNSAFE, [])
    [entry] = board.gate.entries
    assert (entry.call_id, entry.limit_s, entry.budget, board.gate.left) == (call.id, 60, None, [])


async def test_a_call_in_an_inbox_lies_there_no_longer_than_the_call_that_it_serves(board: Switchboard):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode="poll")
    board.gate.answer = replace(board.gate.answer, depth=2, left_s=2.5)
    await board.call(caller=CALLER)
    assert board.inbox.calls[0].lives_s == 2.5


async def test_a_call_that_does_not_get_into_an_inbox_has_left(board: Switchboard):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode="poll")
    board.inbox.away = True
    assert (await board.refusal()).code is Code.PLATFORM_UNAVAILABLE
    assert [left.call_id for left in board.gate.left] == [entry.call_id for entry in board.gate.entries]


async def test_a_call_whose_agent_is_busy_waits_and_has_not_ended(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    answer = await board.call(caller=CALLER, X_A2A_Priority="50")
    await board.ended()
    [call] = board.queue.calls
    assert (answer.status, orjson.loads(answer.body)["queue_id"]) == (202, call.id)
    assert (call.body, call.lane, call.caller_id, call.priority, call.lives_s) == (BODY, CALLER, CALLER, 50, 60)
    assert (call.outgoing.limit_s, call.outgoing.by_deadline) == (1800, False)
    assert call.outgoing.headers == board.dispatcher.sent[0].headers
    [left] = board.gate.left
    assert (left.call_id, left.cost, left.keep_s) == (call.id, 0, 60)
    assert board.freed == []
    assert await board.written() == []
    assert await board.heard.names() == ["ACTIVITY_LOGGED"]


async def test_an_agents_credential_does_not_wait_with_a_call(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    board.workspaces.rows[TARGET] = workspace(TARGET, agent_auth=VAULT.seal("Bearer of the agent"))
    await board.call()
    assert "Authorization" in board.dispatcher.sent[0].headers
    assert "Authorization" not in board.queue.calls[0].outgoing.headers


async def test_a_call_waits_no_longer_than_its_deadline(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    await board.call(X_Timeout="20")
    [call] = board.queue.calls
    assert 15 < call.lives_s <= 20
    assert (call.outgoing.limit_s, call.outgoing.by_deadline) == (20, True)


async def test_a_call_to_an_agent_with_sessions_of_its_own_or_a_full_queue_does_not_wait(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    sessions = RuntimeMetadata(capabilities=frozenset({"session"}))
    board.workspaces.rows[MUTE] = workspace(MUTE, metadata=sessions)
    answer = await board.call(to=MUTE)
    assert (answer.status, orjson.loads(answer.body)["native_session"]) == (503, True)
    answers = [await board.call() for _ in range(4)]
    assert [one.status for one in answers] == [202, 202, 202, 503]
    await board.ended()
    assert board.freed == [MUTE, TARGET]


async def test_only_the_operator_asks_for_another_priority(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    await board.call(X_A2A_Priority="100")
    assert board.queue.calls[0].priority == 100
    with pytest.raises(Refusal) as refused:
        await board.call(caller=CALLER, X_A2A_Priority="100")
    assert refused.value.code is Code.NOT_ALLOWED
    assert (await board.refusal(X_A2A_Priority="1")).code is Code.INVALID_REQUEST


async def test_one_payer_may_have_so_many_calls_in_flight_and_leaves_room_for_others(bus, channel, tasks):
    board = Switchboard(bus, channel, tasks, share=2)
    board.dispatcher.gate.clear()
    bodies = [BODY.replace(b"m-1", b"m-%d" % number) for number in range(4)]
    callers = [tasks.spawn(board.call(body=body), "caller") for body in bodies[:2]]
    await eventually(lambda: board.proxy.in_flight == 2)
    assert (await board.refusal(body=bodies[2])).code is Code.OVERLOADED
    other = tasks.spawn(board.call(payer="another", body=bodies[3]), "caller")
    await eventually(lambda: board.proxy.in_flight == 3)
    board.dispatcher.gate.set()
    await asyncio.gather(*callers, other)
    await board.ended()
    assert (await board.call()).status == 200


@pytest.mark.parametrize(
    ("outcome", "cost"),
    [
        (Reset(), 77),
        (Expired(clock=Clock.DEADLINE), 77),
        (Cut(status=200), 77),
        (TooLarge(), 77),
        (Unheld(status=200), 77),
        (NotConnected(), 0),
    ],
    ids=str,
)
async def test_a_call_of_which_nobody_knows_what_it_used_costs_what_it_held(board, outcome, cost):
    board.gate.answer = replace(board.gate.answer, held=77)
    board.dispatcher.outcome = outcome
    await board.call()
    [row] = await board.written()
    assert ([left.cost for left in board.gate.left], row["millionths"]) == ([cost], cost)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("padding", [0, 100_000])
async def test_what_an_answer_has_used_counts_however_long_it_is_and_if_it_is_an_error(board, status, padding):
    body = orjson.dumps({"jsonrpc": "2.0", "id": "1", "result": {"pad": "x" * padding, "usage": {"input_tokens": 9}}})
    board.dispatcher.outcome = Answered(status=status, headers={"Content-Type": "application/json"}, body=body)
    await board.call()
    [row] = await board.written()
    assert (row["input_tokens"], row["millionths"], board.gate.left[0].cost) == (9, 900, 900)


# -- the same call once more


async def test_a_call_claims_its_message_and_leaves_its_answer(board: Switchboard):
    await board.call()
    await board.ended()
    [entry], [left] = board.gate.entries, board.gate.left
    assert (entry.claim is not None, left.kept.claim, left.kept.again) == (True, entry.claim, False)
    assert left.kept.answer.body == REPLY
    await board.call(body=BODY.replace(b'"messageId":"m-1",', b""))
    await board.ended()
    assert (board.gate.entries[1].claim, board.gate.left[1].kept) == (None, None)


async def test_the_same_call_is_made_once_and_pays_its_rate(board: Switchboard, tasks: Tasks):
    board.dispatcher.gate.clear()
    first = tasks.spawn(board.call(), "first")
    await eventually(lambda: board.dispatcher.sent)
    others = [tasks.spawn(board.call(body=BODY.replace(b'"id":"1"', b'"id":2')), "other") for _ in range(3)]
    await eventually(lambda: board.joining.joined == 3)
    refused = await board.refusal(body=BODY.replace(b'"hi"', b'"ho"'))
    assert refused.code is Code.MESSAGE_ID_REUSED
    assert board.gate.taken == [("call:somebody", RATE)] * 4
    board.dispatcher.gate.set()
    answers = [await one for one in others]
    assert {orjson.loads(answer.body)["id"] for answer in answers} == {2}
    assert {answer.call_id for answer in answers} == {board.dispatcher.sent[0].call_id}
    assert ((await first).body, (await first).call_id) == (REPLY, None)
    assert (len(board.gate.entries), len(board.gate.left), len(await board.written())) == (1, 1, 1)


async def test_a_first_caller_that_goes_away_leaves_its_call_to_the_others(board: Switchboard, tasks: Tasks):
    board.dispatcher.gate.clear()
    first = tasks.spawn(board.call(), "first")
    await eventually(lambda: board.dispatcher.sent)
    other = tasks.spawn(board.call(), "other")
    await eventually(lambda: board.joining.joined == 1)
    first.cancel()
    await asyncio.wait([first])
    board.dispatcher.gate.set()
    assert (await other).status == 200


async def test_what_redis_knows_to_have_ended_is_not_made_again(board: Switchboard):
    kept = Answer(status=200, body=REPLY, headers={"Content-Type": "application/json"})
    earlier = Earlier(call_id="c", words=True, stage=Stage.ENDED, answer=kept)
    board.gate.answer = replace(board.gate.answer, earlier=earlier)
    answer = await board.call(body=BODY.replace(b'"id":"1"', b'"id":2'))
    assert (orjson.loads(answer.body)["id"], answer.call_id) == (2, "c")
    assert (board.dispatcher.sent, board.gate.left, board.proxy.in_flight) == ([], [], 0)
    board.gate.answer = replace(board.gate.answer, earlier=replace(earlier, words=False))
    assert (await board.refusal()).code is Code.MESSAGE_ID_REUSED


async def test_without_redis_those_of_one_process_still_make_one_call(board: Switchboard, tasks: Tasks):
    board.gate.away = True
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(), "caller") for _ in range(4)]
    await eventually(lambda: board.joining.joined == 3)
    board.dispatcher.gate.set()
    assert [(await one).status for one in callers] == [200] * 4
    assert (len(board.dispatcher.sent), board.tolls.unchecked >= 4) == (1, True)


async def test_one_that_redis_lets_in_joins_a_call_that_it_does_not_know_of(board: Switchboard, tasks: Tasks):
    """Redis was away when the first one began, and came back while the second one asked."""
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(), "caller") for _ in range(2)]
    await eventually(lambda: board.joining.joined == 1)
    first, second = board.gate.entries
    [left] = board.gate.left
    assert (left.call_id, left.cost) == (second.call_id, 0)
    assert (left.kept.claim, left.kept.answer, left.kept.again) == (second.claim, None, True)
    board.dispatcher.gate.set()
    assert [(await one).status for one in callers] == [200, 200]
    assert [one.call_id for one in board.dispatcher.sent] == [first.call_id]


async def test_a_call_that_was_let_in_and_finds_no_room_may_be_made_again(bus, channel, tasks: Tasks):
    board = Switchboard(bus, channel, tasks, capacity=1)
    board.dispatcher.gate.clear()
    refused: list[Code] = []

    async def second() -> None:
        refused.append((await board.refusal(body=message(1))).code)

    callers = [tasks.spawn(board.call(body=message(0)), "first"), tasks.spawn(second(), "second")]
    await eventually(lambda: refused)  # both were let in before the first was sent
    [left] = board.gate.left
    assert (left.call_id, left.kept.answer, left.kept.again) == (board.gate.entries[1].call_id, None, True)
    board.dispatcher.gate.set()
    await asyncio.gather(*callers)
    assert refused == [Code.OVERLOADED]


async def test_an_inbox_is_asked_who_has_the_message_and_redis_is_not(board: Switchboard):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode="poll")
    await board.call()
    assert (board.inbox.calls[0].claim is not None, board.gate.entries[0].claim) == (True, None)
    board.inbox.same = Same(call=stored(board.inbox.calls[0].id), words=True)
    answer = await board.call()
    assert (answer.call_id, orjson.loads(answer.body)["id"]) == (board.inbox.calls[0].id,) * 2
    assert [left.call_id for left in board.gate.left] == [board.gate.entries[1].call_id], "it stands in no chain"


async def test_a_call_that_waits_leaves_its_message_to_the_ledger(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    answer = await board.call()
    await board.ended()
    [entry], [left], [call] = board.gate.entries, board.gate.left, board.queue.calls
    assert (answer.status, call.claim) == (202, entry.claim)
    assert (left.kept.claim, left.kept.waits, left.kept.again) == (entry.claim, True, False)


async def test_those_that_share_a_call_whose_agent_is_busy_are_all_told_that_it_waits(board: Switchboard, tasks: Tasks):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(), "caller") for _ in range(3)]
    await eventually(lambda: board.joining.joined == 2)
    board.dispatcher.gate.set()
    answers = [await one for one in callers]
    assert [one.status for one in answers] == [202] * 3
    assert {orjson.loads(one.body)["queue_id"] for one in answers} == {board.dispatcher.sent[0].call_id}
    assert len(board.queue.calls) == 1


async def test_a_busy_agents_message_that_the_ledger_has_already_is_no_call_of_its_own(board: Switchboard):
    """Redis had forgotten it."""
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    board.queue.same = Same(call=stored("q"), words=True)
    answer = await board.call()
    await board.ended()
    assert (answer.call_id, orjson.loads(answer.body)["id"]) == ("q", "q")
    board.queue.same = replace(board.queue.same, words=False)
    assert (await board.refusal()).code is Code.MESSAGE_ID_REUSED
    await board.ended()
    assert [left.kept.waits for left in board.gate.left] == [True, True]
    assert (await board.written(), await board.heard()) == ([], [])


async def test_a_message_whose_call_waits_is_not_sent(board: Switchboard):
    waits = Earlier(call_id="q", words=True, stage=Stage.WAITS)
    board.gate.answer, board.queue.away = replace(board.gate.answer, earlier=waits), False
    board.inbox.same = Same(call=stored("q"), words=True)
    answer = await board.call()
    assert (answer.call_id, board.dispatcher.sent, board.gate.left) == ("q", [], [])


async def test_one_whose_call_waited_and_is_over_is_sent_and_pays_once(board: Switchboard, monkeypatch):
    waits = Earlier(call_id="q", words=False, stage=Stage.WAITS)
    board.gate.answer = replace(board.gate.answer, earlier=waits)
    assert (await board.refusal()).code is Code.OVERLOADED, "others are always faster"
    said = board.gate.leave

    def leave(left: Left) -> None:
        said(left)
        board.gate.answer = replace(board.gate.answer, earlier=None)

    monkeypatch.setattr(board.gate, "leave", leave)
    board.gate.left.clear()
    board.gate.entries.clear()
    assert (await board.call()).status == 200
    await board.ended()
    released, ended = board.gate.left
    assert (released.call_id, released.kept.again, released.kept.claim) == ("q", True, board.gate.entries[0].claim)
    assert (ended.call_id, ended.kept.again) == (board.dispatcher.sent[0].call_id, False)
    assert [entry.rate for entry in board.gate.entries] == [RATE, None]


async def test_while_redis_may_have_forgotten_what_waits_the_ledger_is_asked(board: Switchboard):
    board.gate.answer = replace(board.gate.answer, sure=False)
    assert (await board.call()).status == 200
    await board.ended()
    board.inbox.same = Same(call=stored("q"), words=True)
    assert (await board.call()).call_id == "q"
    board.gate.away = True
    assert (await board.call()).call_id == "q"
    assert [left.kept.waits for left in board.gate.left] == [False, True, True]
    assert len(board.dispatcher.sent) == 1


def stored(call_id: str) -> Call:
    now = datetime.now(UTC)
    return Call(
        id=call_id, kind=Kind.PARKED, state=State.PARKED, workspace_id=TARGET, caller_id=None, method="message/send",
        attempts=0, created_at=now, expires_at=now,
    )  # fmt: skip


# -- a call that is called off


async def test_a_call_that_is_called_off_ends_at_once_and_its_row_says_so(board):
    board.dispatcher.gate.clear()
    id_ = str(uuid4())
    waits = board.tasks.spawn(board.call(caller=CALLER, call_id=id_), "waits")
    await eventually(lambda: board.dispatcher.sent)
    with capture_logs() as logs:
        board.flights.call_off(id_)
        board.flights.call_off(id_)
        answer = await waits
    said = orjson.loads(answer.body)
    assert (answer.status, said["code"], said["outcome"]) == (409, "cancelled", "unknown")
    assert [(one["ending"], one["status"]) for one in logs if one["event"] == "call_ended"] == [("cancelled", 499)]
    received, _sent = await board.written()
    assert (received["call"]["state"], received["call"]["journey"].status) == ("cancelled", 409)
    _, ended = await board.heard.one("CALL_ENDED")
    assert (ended["ending"], ended["status"]) == ("cancelled", 409)
    [left] = board.gate.left
    assert (left.arrival.ending, left.kept.again) == (Ending.CANCELLED, False)
    assert left.kept.answer == answer, "who sends it again gets the same: nobody knows what became of it"


async def test_what_replicas_know_of_a_call_is_how_it_goes_out(board):
    await board.call(X_Timeout="7")
    [entry] = board.gate.entries
    journey = entry.journey
    assert (journey.replica, journey.idle_s, journey.limit_s, journey.by_deadline) == ("replica-1", 300.0, 7.0, True)
    assert journey.sent_bytes == len(board.dispatcher.sent[0].body)
