"""A call through the running gateway, as its caller sees it."""

from tests.harness.world import World


async def test_a_message_reaches_the_agent_and_its_answer_comes_back(world: World) -> None:
    await world.start()
    agent = await world.agent()
    target = await world.workspace(agent.url)
    status, body, headers = await world.call(target)
    assert (status, body["result"]["parts"][0]["text"]) == (200, "echo")
    assert headers["X-A2A-Call-ID"] == agent.headers[0]["X-A2A-Call-ID"]
    assert "Authorization" not in agent.headers[0]
