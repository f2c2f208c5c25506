import asyncio
from time import monotonic

from events.event import PROBE, Event
from events.frame import ORIGIN, Frame, body, entry
from events.probe import Prober
from tests.harness.world import eventually


def heard(one: Event) -> Frame:
    """The probe as it comes back."""
    frame = entry(b"1-0", b"0-0", body(one))
    return Frame(place=None, prev=ORIGIN, event=frame.event)


async def test_probes_are_numbered_and_come_as_often_as_was_asked(tasks):
    sent: list[Event] = []
    tasks.spawn(Prober(sent.append, every_s=0.01).run(), "probe")
    await eventually(lambda: len(sent) >= 3)
    assert {one.type for one in sent} == {PROBE}
    assert len({one.payload for one in sent}) == len(sent)


async def test_the_latency_is_that_of_the_own_probe_that_came_back_last(tasks):
    sent: list[Event] = []
    prober, other = Prober(sent.append, every_s=60), Prober(sent.append, every_s=60)
    tasks.spawn(prober.run(), "probe")
    await eventually(lambda: sent)
    tasks.spawn(other.run(), "other")
    await eventually(lambda: len(sent) == 2)
    assert prober.latency_s is None
    prober.note(heard(sent[1]))
    assert prober.latency_s is None, "that was another's"
    began = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() - began > 0.02)
    prober.note(heard(sent[0]))
    assert prober.latency_s is not None
    assert 0.02 <= prober.latency_s < 10
    first = prober.latency_s
    prober.note(heard(sent[0]))
    assert prober.latency_s == first, "a probe comes back once"


async def test_probes_that_never_come_back_are_forgotten(tasks):
    sent: list[Event] = []
    prober = Prober(sent.append, every_s=0)
    tasks.spawn(prober.run(), "probe")
    await eventually(lambda: len(sent) > 250)
    assert len(prober._sent) <= 100
    prober.note(heard(sent[0]))
    assert prober.latency_s is None


async def test_what_comes_back_tells_when_it_was_sent_once(tasks):
    sent: list[Event] = []
    told: list[float] = []
    began = monotonic()
    prober = Prober(sent.append, every_s=60, on_heard=told.append)
    tasks.spawn(prober.run(), "probe")
    await eventually(lambda: sent)
    ended = monotonic()
    for _ in range(2):
        prober.note(heard(sent[0]))
    [at] = told
    assert began <= at <= ended
