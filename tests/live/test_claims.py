"""Who makes a call that is sent many times, decided by random replicas in random order on a real Valkey."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.core.answers import Answer
from gateway.core.claims import Claim
from gateway.core.rates import Rate
from gateway.live.claims import WAITERS_S
from gateway.live.gate import Gate
from gateway.live.leases import RENEWALS
from gateway.live.records import ENDLESS_S
from gateway.ports import Barred, Earlier, Entered, Entry, Kept, Left, Stage, Waiting
from tests.harness.valkey import valkey
from tests.harness.world import eventually
from tests.live.conftest import RENEW_S
from tests.live.entries import CENT, HOUR, A, B, budget, call

DONE = Answer(status=200, body=b"\x00{}\xff", headers={"Content-Type": "text/plain; a: b", "X": "\udcff", "Y": ""})
ENDS = ["kept", "unkept", "again", "waits"]


def claimed(key: str, words: str = "aa") -> Entry:
    return call(None, A, trace=uuid4().hex, claim=Claim(key=key, words=words))


def left(entry: Entry, end: str = "kept") -> Left:
    assert entry.claim is not None
    answer = DONE if end in ("kept", "again") else None
    kept = Kept(claim=entry.claim, answer=answer, again=end == "again", waits=end == "waits")
    return Left(call_id=entry.call_id, target_id=A, trace_id=entry.trace_id, month="", cost=0, kept=kept)


def waiting(entry: Entry) -> Waiting:
    assert entry.claim is not None
    return Waiting(call_id=entry.call_id, claim=entry.claim, expires_at=datetime.now(UTC), left_s=1000.0)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A call that a model of the gate has let begin."""

    entry: Entry
    gate: Gate
    end: str | None = None

    def seen(self, words: str) -> Earlier:
        assert self.entry.claim is not None
        return Earlier(
            call_id=self.entry.call_id,
            words=words == self.entry.claim.words,
            stage={None: Stage.RUNNING, "waits": Stage.WAITS}.get(self.end, Stage.ENDED),
            answer=DONE if self.end in ("kept", "again") else None,
            again=self.end == "again",
        )


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "look", *ENDS, "twice", "foreign", "remember"]),
        st.integers(0, 1),  # which replica
        st.sampled_from(["k1", "k2"]),
        st.sampled_from(["aa", "bb"]),
    ),
    min_size=20,
    max_size=60,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)
@given(STEPS)
async def test_of_all_that_send_a_message_one_makes_the_call_and_all_others_hear_of_it(
    one: Gate, other: Gate, steps: list[Any]
) -> None:
    """The model: by key the one call that has it, and how that has ended; one that may be made again is in no way."""
    gates, run = (one, other), uuid4().hex
    model: dict[str, Made] = {}
    for verb, number, name, words in steps:
        gate, key = gates[number], f"{run}{name}"
        has = model.get(key)
        match verb:
            case "enter":
                entry = claimed(key, words)
                entered = await gate.enter(entry)
                assert entered.barred is None
                if has is None or has.end == "again":
                    assert entered.earlier is None
                    model[key] = Made(entry=entry, gate=gate)
                else:
                    assert entered.earlier == has.seen(words)
            case "look":
                seen = await gate.look(Claim(key=key, words=words))
                assert seen == (None if has is None else has.seen(words))
            case "foreign":  # one that never had the claim has ended
                await leave(gate, left(claimed(key, words), "again"))
            case "remember":  # the ledger has a call of this message
                entry = claimed(key, words)
                await gate.remember(waiting(entry))
                if has is None or has.end == "again":
                    model[key] = Made(entry=entry, gate=gate, end="waits")
            case "twice" if has is not None and has.end not in (None, "waits"):
                await leave(has.gate, left(has.entry, "unkept"))
            case _ if verb in ENDS and has is not None and has.end in (None, "waits"):
                await leave(has.gate, left(has.entry, verb))
                model[key] = replace(has, end=verb)


async def leave(gate: Gate, ended: Left) -> None:
    """Say it, and wait until Redis has heard it: what is asked on one connection is answered in order."""
    gate.leave(ended)
    await gate.take(uuid4().hex, Rate(requests=1, period_s=1.0))


async def test_of_many_at_once_one_makes_the_call(one: Gate, other: Gate) -> None:
    entries = [claimed("k") for _ in range(100)]
    entered = await asyncio.gather(*((one, other)[at % 2].enter(entry) for at, entry in enumerate(entries)))
    [first] = [entry for entry, said in zip(entries, entered, strict=True) if said.earlier is None]
    assert {said.earlier.call_id for said in entered if said.earlier is not None} == {first.call_id}


async def test_who_joins_pays_its_rate_and_holds_no_money_and_leaves_no_record(one: Gate, prefix, servers) -> None:
    entry = replace(claimed("k"), rate=HOUR, budget=budget(10 * CENT, reserve=6 * CENT))
    assert (await one.enter(entry)).earlier is None
    joiner = replace(entry, call_id=str(uuid4()), trace_id="another")
    joined = await one.enter(joiner)
    assert (joined.barred, joined.standing.remaining) == (None, 8)
    assert joined.earlier == Earlier(call_id=entry.call_id, words=True, stage=Stage.RUNNING)
    async with Redis.from_url(servers.redis_url) as client:
        assert await client.exists(f"{prefix}:call:{joiner.call_id}", f"{prefix}:serving:another:{A}") == 0
    another = replace(joiner, claim=Claim(key="other", words="aa"))
    assert (await one.enter(another)).barred is Barred.SPENT
    refused = await one.enter(replace(another, claim=None, rate=Rate(requests=1, period_s=3600.0)))
    assert refused.barred is Barred.RATE


async def test_a_call_that_may_not_begin_claims_nothing(one: Gate) -> None:
    entry = claimed("k")
    assert (await one.enter(replace(entry, budget=budget(0)))).barred is Barred.SPENT
    assert await one.look(entry.claim) is None


async def test_a_joiner_inherits_what_is_left_to_the_call_that_it_serves(one: Gate) -> None:
    await one.enter(call(None, B, trace="t", limit_s=100.0))
    entry = call(B, A, trace="t", claim=Claim(key="k", words="aa"))
    await one.enter(entry)
    joined: Entered = await one.enter(replace(entry, call_id="x"))
    assert joined.earlier is not None
    assert (joined.depth, 90 < joined.left_s <= 100) == (2, True)


async def test_a_call_is_lost_when_its_replica_has_not_renewed_its_lease(opened, one, prefix, servers) -> None:
    entry = claimed("k")
    async with opened() as dying:
        await dying.enter(entry)
    assert (await one.look(entry.claim)).stage is Stage.RUNNING, "it may be alive"
    async with Redis.from_url(servers.redis_url) as client:
        await client.delete(*[key async for key in client.scan_iter(f"{prefix}:replica:*")])
    assert (await one.look(entry.claim)).stage is Stage.LOST
    assert (await one.enter(claimed("k"))).earlier.stage is Stage.LOST, "nobody makes it again"
    own = claimed("own")
    await one.enter(own)
    assert (await one.look(own.claim)).stage is Stage.RUNNING, "one knows of oneself that one lives"


@pytest.mark.parametrize(("end", "least_s", "most_s"), [("kept", 55, 60), ("unkept", 55, 60), ("again", 55, WAITERS_S)])
async def test_a_claim_runs_out(one: Gate, prefix, servers, end: str, least_s: float, most_s: float) -> None:
    entry = replace(claimed("k"), limit_s=100.0)
    await one.enter(entry)
    async with Redis.from_url(servers.redis_url) as client:
        key = f"{prefix}:message:k"
        assert 100 + 60 + RENEWALS * RENEW_S < await client.pttl(key) / 1000 <= 100 + 60 + 60
        await leave(one, left(entry, end))
        assert least_s < await client.pttl(key) / 1000 <= most_s


async def test_a_message_whose_call_waits_is_known_for_longer_than_it_waits_and_may_take(one: Gate, prefix, servers):
    entry, told = claimed("k"), claimed("k2")
    await one.enter(entry)
    await leave(one, replace(left(entry, "waits"), keep_s=1000.0))
    await one.remember(waiting(told))
    async with Redis.from_url(servers.redis_url) as client:
        for key in ("k", "k2"):
            left_s = await client.pttl(f"{prefix}:message:{key}") / 1000
            assert ENDLESS_S + 1000 + 55 < left_s <= ENDLESS_S + 1000 + 60


async def test_one_that_has_just_come_up_does_not_know_what_waits_until_it_is_told(one: Gate) -> None:
    entry = claimed("k")
    assert one.ups == 1
    assert (await one.enter(entry)).sure is False
    one.told = one.ups
    assert (await one.enter(claimed("k2"))).sure is True


async def test_that_a_call_waits_is_told_though_redis_was_away_when_it_began(one: Gate) -> None:
    entry = claimed("k")
    await leave(one, left(entry, "waits"))
    assert (await one.enter(claimed("k", "bb"))).earlier == Earlier(
        call_id=entry.call_id, words=False, stage=Stage.WAITS
    )


async def test_the_answer_of_a_call_that_began_without_redis_is_kept_unless_another_has_its_claim(one: Gate) -> None:
    unseen, entry = claimed("k"), claimed("k2")
    await leave(one, left(unseen))
    assert (await one.look(unseen.claim)).answer == DONE
    await one.enter(entry)
    await leave(one, left(claimed("k2")))
    assert (await one.look(entry.claim)).stage is Stage.RUNNING


async def test_an_end_that_redis_was_not_there_to_hear_is_told_later(opened: Any, tmp_path: Path) -> None:
    with valkey(tmp_path / "valkey") as server:
        await server.start()
        async with opened(server.url, answer_s=0.2) as gate:
            entry = claimed("k")
            await gate.enter(entry)
            server.kill()
            await eventually(lambda: not gate.is_up)
            gate.leave(left(entry))
            await server.start()
            await eventually(lambda: gate.is_up)
            assert await gate.look(entry.claim) == Earlier(call_id=entry.call_id, words=True, stage=Stage.ENDED)
