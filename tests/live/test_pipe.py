"""One connection, many questions: in order, together, and never waited for longer than it is worth."""

import asyncio
import time

import pytest

from events.redis import Servers
from gateway.live.pipe import Pipe
from gateway.ports import LiveUnavailable
from gateway.services.tasks import Tasks
from tests.harness.valkey import valkey
from tests.harness.world import eventually

ECHO = {"echo": "return ARGV[1]"}
ANSWER_S = 0.3


@pytest.fixture
async def server(tmp_path):
    with valkey(tmp_path / "valkey") as one:
        await one.start()
        yield one


@pytest.fixture
async def pipe(server):
    servers = Servers(server.url)
    async with Tasks() as tasks:
        one = Pipe(servers, ECHO, answer_s=ANSWER_S, on_up=lambda: None)
        tasks.spawn(one.run(), "pipe")
        await eventually(lambda: one.is_up)
        yield one
        assert tasks.deaths == 0
    await servers.close()


async def test_answers_come_to_who_asked(pipe):
    answers = [pipe.script("echo", (), number) for number in range(1000)]
    async with asyncio.timeout(5):
        assert [await answer for answer in answers] == [b"%d" % number for number in range(1000)]


async def test_a_question_that_is_refused_leaves_the_others_their_answers(pipe):
    before, wrong, after = pipe.ask("ECHO", "a"), pipe.ask("NONSENSE"), pipe.ask("ECHO", "b")
    with pytest.raises(LiveUnavailable):
        await wrong
    assert (await before, await after) == (b"a", b"b")


async def test_who_does_not_wait_any_more_takes_nobody_elses_answer(pipe):
    gone, stays = pipe.ask("ECHO", "a"), pipe.ask("ECHO", "b")
    gone.cancel()
    assert await stays == b"b"


async def test_a_stalled_redis_is_waited_for_once_and_then_by_nobody(server, pipe):
    server.stall()
    began = time.monotonic()
    answers = [pipe.ask("ECHO", number) for number in range(10)]
    for answer in answers:
        with pytest.raises(LiveUnavailable):
            await answer
    assert time.monotonic() - began >= ANSWER_S * 0.9
    assert not pipe.is_up
    with pytest.raises(LiveUnavailable):
        pipe.ask("ECHO", 1)
    server.go_on()
    await eventually(lambda: pipe.is_up)
    assert await pipe.script("echo", (), "back") == b"back"


async def test_a_killed_redis_answers_everybody_at_once_and_comes_back_with_its_scripts(server, pipe):
    server.stall()
    answer = pipe.ask("ECHO", 1)
    server.kill()
    with pytest.raises(LiveUnavailable):
        await answer
    await eventually(lambda: not pipe.is_up)
    await server.start()
    await eventually(lambda: pipe.is_up)
    assert await pipe.script("echo", (), "back") == b"back"


async def test_answers_that_trickle_are_waited_for_each_by_its_own_time(server, pipe):
    """The watch is on the oldest question, whichever that is by now."""
    for _ in range(4):
        answer = pipe.ask("ECHO", 1)
        await asyncio.sleep(ANSWER_S / 2)
        assert await answer == b"1"
    assert pipe.is_up


async def test_who_was_slow_itself_gets_its_answer(pipe):
    """The loop did nothing else for longer than an answer may take: it lay there all the time."""
    answers = [pipe.ask("ECHO", number) for number in range(100)]
    await asyncio.sleep(0)  # they go out
    time.sleep(ANSWER_S * 2)  # noqa: ASYNC251 - that is what is tried
    assert [await answer for answer in answers] == [b"%d" % number for number in range(100)]
    assert pipe.is_up


async def test_answers_to_who_has_been_told_otherwise_are_nobodys(server, pipe):
    answers = [pipe.ask("ECHO", number) for number in range(100)]
    await asyncio.sleep(0)
    pipe._give_up()
    for answer in answers:
        with pytest.raises(LiveUnavailable):
            await answer
    await eventually(lambda: pipe.is_up)
    assert await pipe.ask("ECHO", "a") == b"a"
