"""The agent that `make run` starts: it echoes, and on request it waits, streams and keeps tasks."""

import asyncio
from typing import NoReturn

from runtime.agent import Agent, Skill, Turn
from runtime.run import main as run_agent

SLOW_LIMIT_S = 600.0
STREAM_LIMIT_COUNT = 600
STREAM_PAUSE_S = 1.0


async def answer(turn: Turn) -> str:
    """Answer `slow N` after N seconds, `stream N` in N pieces a second apart and `task TEXT` at once, all as a Task.

    Everything else is echoed as a Message.
    """
    word, _, rest = turn.text.strip().partition(" ")
    if word == "slow":
        return await _wait(turn, rest)
    if word == "stream":
        return await _stream(turn, rest)
    if word == "task" and rest:
        turn.begin_task(rest)
        return f"echo: {rest}"
    return f"echo: {turn.text}"


async def _wait(turn: Turn, text: str) -> str:
    seconds = _find_seconds(text)
    if seconds is None:
        return f"slow needs a number of seconds from 0 to {SLOW_LIMIT_S:g}, as in: slow 5"
    turn.begin_task(f"slow {seconds:g}")
    await asyncio.sleep(seconds)
    return f"echo: slow {seconds:g}"


async def _stream(turn: Turn, text: str) -> str:
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
    if not 1 <= count <= STREAM_LIMIT_COUNT:
        return f"stream needs a number of pieces from 1 to {STREAM_LIMIT_COUNT}, as in: stream 5"
    turn.begin_task(f"stream {count}")
    for number in range(1, count + 1):
        if number > 1:
            await asyncio.sleep(STREAM_PAUSE_S)
        await turn.say(f"{number} of {count}\n")
    return turn.said.text()


def _find_seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= SLOW_LIMIT_S else None


DEMO = Agent(
    name="Demo agent",
    description="Echoes what it hears; `slow N` takes N seconds, `stream N` says N pieces a second apart, "
    "and `task TEXT` leaves a task behind.",
    answer=answer,
    skills=(
        Skill(id="echo", name="Echo", description="Says it back.", tags=("echo",), examples=("hi",)),
        Skill(id="slow", name="Slow", description="Takes its time.", tags=("test",), examples=("slow 5",)),
        Skill(id="stream", name="Stream", description="Says it in pieces.", tags=("test",), examples=("stream 5",)),
        Skill(id="task", name="Task", description="Answers with a task.", tags=("test",), examples=("task tidy up",)),
    ),
)


def main() -> NoReturn:
    """The console script `a2a-demo-agent`."""
    run_agent(DEMO)


if __name__ == "__main__":
    main()
