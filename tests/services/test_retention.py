from uuid import uuid4

from gateway.core.calls import Kind
from gateway.core.journey import Journey
from gateway.ports import NewCall
from gateway.services import retention
from gateway.services.activity import Line
from gateway.services.retention import Retention

AGE = "update calls set ended_at = now() - make_interval(secs => %(age_s)s) where id = %(id)s"


async def ended(stores, target: str, *, age_s: float) -> str:
    journey = Journey(replica="r", idle_s=1.0, limit_s=None, by_deadline=False, sent_bytes=1)
    call = {"state": "completed", "ending": "completed", "journey": journey}
    line = Line(workspace_id=target, activity_type="a2a_receive", call_id=str(uuid4()), duration_ms=0)
    await stores.activity.record([{**line.row(0.0), "call": call}])
    assert line.call_id is not None
    await stores.database.execute(AGE, id=line.call_id, age_s=age_s)
    return line.call_id


async def waiting(stores, target: str) -> str:
    new = NewCall(
        id=str(uuid4()), kind=Kind.PARKED, workspace_id=target, caller_id=None, method="message/send", body=b"{}",
        waits_s=0.0, lives_s=100.0,
    )  # fmt: skip
    row = Line(id=new.id, workspace_id=target, activity_type="a2a_receive", call_id=new.id).row(0.0)
    assert await stores.calls.park(new, row, room=10)
    await stores.database.execute(
        "update calls set created_at = now() - interval '1 year' where id = %(id)s", id=new.id
    )
    return new.id


async def test_what_ended_long_ago_is_forgotten_in_batches_and_what_has_not_ended_never_is(stores, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    target = await stores.make()
    for _ in range(5):
        await ended(stores, target, age_s=101.0)
    kept = {await ended(stores, target, age_s=90.0), await waiting(stores, target)}
    await Retention(stores.calls, kept_s=100.0).tick()
    assert {row["id"] for row in await stores.database.fetch("select id from calls")} == kept


async def test_what_ended_is_found_by_an_index(stores):
    async with stores.database.transaction() as one:
        await one.execute("set local enable_seqscan = off")
        rows = await one.fetch("explain select id from calls where ended_at <= now() order by ended_at limit 10")
    plan = "\n".join(str(row) for row in rows)
    assert "calls_ended" in plan, plan
