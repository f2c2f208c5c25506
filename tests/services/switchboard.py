"""A proxy with all that it speaks to, and an agent that is only an outcome."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest
from multidict import CIMultiDict

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
    Spent,
    Stopped,
    TooLarge,
    Unheld,
)
from gateway.core.prices import Price, Prices
from gateway.core.rates import Rate, Tariff
from gateway.core.refusals import Refusal
from gateway.core.workspaces import Status, Workspace
from gateway.services.activity import ActivityLog
from gateway.services.admission import Admission
from gateway.services.arrivals import Arrivals
from gateway.services.calls import Calls
from gateway.services.cancelling import Cancelling
from gateway.services.concurrency import Concurrency
from gateway.services.directory import Directory
from gateway.services.entrance import Entrance
from gateway.services.flights import Flights
from gateway.services.joining import Joining
from gateway.services.parking import Parking
from gateway.services.parking import Times as ParkingTimes
from gateway.services.proxy import Proxy
from gateway.services.pushed import Pushed
from gateway.services.queue import Queue as BusyQueue
from gateway.services.queue import Times as QueueTimes
from gateway.services.requests import Asked, Requests, Times
from gateway.services.resubscribing import Resubscribing
from gateway.services.room import Room
from gateway.services.sending import Sending
from gateway.services.shelf import Shelf
from gateway.services.tasks import Tasks
from gateway.services.tolls import Toll, Tolls
from gateway.services.waiting import Waiting
from gateway.services.wakes import Wakes
from gateway.store.vault import FernetVault, new_key
from tests.harness.liveness import ScriptedLiveness
from tests.harness.world import eventually
from tests.services.memory import (
    Batches,
    Changes,
    Channel,
    Dispatcher,
    Gate,
    Heard,
    Inbox,
    Journal,
    Queue,
    Workspaces,
    agent_streams,
)

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
    (Spent(), Ending.BUDGET),
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
        self.journal = Journal()
        self.agent_streams = agent_streams(self.journal)
        self.joining = Joining(
            gate=self.gate, waits=waits, callers=self.callers, shelf=self.shelf, streams=self.agent_streams, capacity=3
        )
        self.flights = Flights("replica-1")
        self.waiting = Waiting(ScriptedLiveness())
        self.room = Room(2**30)
        requests = Requests(
            admission=Admission(Directory(self.workspaces, ttl_s=300)),
            parking=self.parking,
            vault=VAULT,
            reach=Reach.SAME_NETWORK,
            times=Times(idle_s=idle_s, ceiling_s=ceiling_s, max_s=3600),
        )
        entrance = Entrance(self.gate, self.tolls, reserve_cents=1)
        self.concurrency = Concurrency(self.flights, capacity=capacity, share=share)
        self.arrivals = Arrivals(
            entrance=entrance, joining=self.joining, prices=PRICES, activity=self.activity, bus=bus
        )
        sending = Sending(
            dispatcher=dispatcher or self.dispatcher,
            entrance=entrance,
            joining=self.joining,
            queue=waits,
            waiting=self.waiting,
            arrivals=self.arrivals,
            freed=self.freed.append,
            flights=self.flights,
            concurrency=self.concurrency,
            streams=self.agent_streams,
            grace_s=0.0,
            spawn=tasks.spawn,
        )
        pushed = Pushed(gate=self.gate, flights=self.flights, liveness=ScriptedLiveness())
        calls = Calls(
            calls=self.inbox,
            queue=self.queue,
            pushed=pushed,
            cancelling=Cancelling(
                flights=self.flights,
                pushed=pushed,
                calls=self.inbox,
                changes=Changes(),
                bus=bus,
                callers=self.callers,
            ),
            activity=self.activity,
            bus=bus,
        )
        self.proxy = Proxy(
            requests=requests,
            tolls=self.tolls,
            entrance=entrance,
            parking=self.parking,
            joining=self.joining,
            sending=sending,
            resubscribing=Resubscribing(self.agent_streams, calls),
            flights=self.flights,
            concurrency=self.concurrency,
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


def stored(call_id: str) -> Call:
    now = datetime.now(UTC)
    return Call(
        id=call_id, kind=Kind.PARKED, state=State.PARKED, workspace_id=TARGET, caller_id=None, method="message/send",
        attempts=0, created_at=now, expires_at=now,
    )  # fmt: skip
