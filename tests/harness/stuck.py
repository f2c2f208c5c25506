"""An agent whose handler blocks its own loop for as many seconds as the message says."""

import time

from runtime.agent import Agent, Turn
from runtime.run import main


async def answer(turn: Turn) -> str:
    time.sleep(float(turn.text))  # noqa: ASYNC251 - the fault that this agent is for
    return "awake"


if __name__ == "__main__":
    main(Agent(name="Stuck", description="Blocks its own loop.", answer=answer))
