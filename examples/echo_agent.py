"""An agent in a few lines: `python examples/echo_agent.py`, with a gateway on port 8080."""

import asyncio

from runtime.agent import Agent, Turn
from runtime.run import main


async def answer(turn: Turn) -> str:
    if turn.text.startswith("count to "):
        turn.begin_task(turn.text)  # from here on the caller can get and cancel a task, and heartbeats show it
        last = int(turn.text.removeprefix("count to "))
        for number in range(1, last + 1):
            await asyncio.sleep(1)
            await turn.say(f"{number} ")  # at once for a caller that streams
        return f"counted to {last}"
    return f"you said: {turn.text}"


if __name__ == "__main__":
    main(Agent(name="Echo", description="Says it back; counts when asked to.", answer=answer))
