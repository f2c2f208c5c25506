"""A commit of which nobody hears whether it was done: nothing is promised for it, and nothing is done twice."""

from tests.e2e.test_joining import send
from tests.harness.busy import SLOW, busy, ended
from tests.harness.lossy import Lossy
from tests.harness.world import World, eventually


async def test_a_call_that_may_have_been_queued_is_not_made_once_more_by_the_same_message(world: World) -> None:
    async with Lossy(world.env["GATEWAY_DATABASE_URL"]).running() as way:
        await world.start(**SLOW, GATEWAY_DATABASE_URL=way.url)
        target, agent = await busy(world)
        way.loses = b"insert into calls"
        code, said, headers = await send(world, target)
        assert (code, said["code"], said["outcome"], way.lost) == (503, "agent_busy", "unknown", 1)
        id_ = headers["X-A2A-Call-ID"]
        assert await world.sql("select id::text, state from calls") == [(id_, "queued")]
        agent.shut = False
        code, said, _ = await send(world, target)
        assert (code, said["queue_id"]) == (202, id_), "it waits: it is not sent beside the one that does"
        async with world.beating(target, 0.1):
            assert (await ended(world, target, id_))["status"] == "completed"
        await eventually(lambda: agent.at_work == 0)
        assert agent.taken == ["hi"]


async def test_a_message_whose_call_was_certainly_not_queued_is_a_new_call(world: World) -> None:
    async with Lossy(world.env["GATEWAY_DATABASE_URL"]).running() as way:
        await world.start(**SLOW, GATEWAY_QUEUE_CALLS="1", GATEWAY_DATABASE_URL=way.url)
        target, agent = await busy(world)
        way.loses = b"insert into calls"
        assert (await send(world, target))[0] == 503
        await world.sql("delete from calls")  # as if it had been rolled back
        agent.shut = False
        code, said, _ = await send(world, target)
        assert (code, said["result"]["parts"][0]["text"], agent.taken) == (200, "hi", ["hi"])
