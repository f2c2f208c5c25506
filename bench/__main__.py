"""Run the benchmark: `make bench`, or `make bench ARGS=--quick` for a look of a minute and a half."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench import bus, figures, ledger, report, streams, subjects
from bench.processes import BenchError, Cores
from bench.rounds import FULL, QUICK, Plan, Rounds, Settle
from gateway.embedded import servers as embedded

RESULTS: Final = Path(__file__).with_name("results.json")
PREFIX: Final = "bench:{bus}"


def _say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _servers() -> Iterator[embedded.Urls]:
    """The bundled PostgreSQL and Valkey, as durable as in production, on a folder that goes with the run."""
    folder = Path(tempfile.mkdtemp(prefix="a2a-bench-"))
    try:
        with embedded.running(folder) as urls:
            yield urls
    finally:
        shutil.rmtree(folder)


def bench_events(plan: bus.Plan, cores: Cores, about: Mapping[str, Any], only: Sequence[str]) -> None:
    """Measure the bus, or some parts of it, print and write down."""
    with _servers() as urls, tempfile.TemporaryDirectory() as folder:
        seen = bus.measure(_env(urls), cores, Path(folder), plan, _say, only)
    _say("\n" + figures.table(seen))
    absent = "".join(f"\n{name}: not installed here" for name in subjects.absent())
    _say(absent)
    report.write(
        RESULTS, {"events": {"machine": about, "plan": asdict(plan), "figures": [asdict(one) for one in seen]}}
    )


def bench_streams(plan: streams.Plan, cores: Cores, about: Mapping[str, Any]) -> None:
    """Measure the relay of streams, print and write down."""
    with _servers() as urls, tempfile.TemporaryDirectory() as folder:
        seen = streams.measure(_env(urls), cores, Path(folder), plan, _say)
    _say("\n" + streams.table(seen))
    report.write(RESULTS, {"streams": {"machine": about, "plan": asdict(plan), **seen}})


def _env(urls: embedded.Urls) -> dict[str, str]:
    return {
        "GATEWAY_DATABASE_URL": urls.database_url,
        "GATEWAY_REDIS_URL": urls.redis_url,
        "GATEWAY_REDIS_PREFIX": PREFIX,
        "GATEWAY_ALLOW_PRIVATE_AGENTS": "1",
    }


def bench_calls(plan: Plan, cores: Cores, about: Mapping[str, Any], against: Path | None) -> None:
    """Start everything that calls go through, measure, print and write down, stop everything.

    against: another checkout, whose gateway has its turn in each round, on servers of its own.
    """
    with ExitStack() as stack:
        urls = stack.enter_context(_servers())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        agent = stack.enter_context(subjects.agent())
        bare = stack.enter_context(subjects.bare(agent.port, cores))
        stranger = stack.enter_context(subjects.gateway(_env(urls), cores))
        gateway = asyncio.run(subjects.introduce(stranger, agent.port))
        peers = stack.enter_context(subjects.peers(agent.port, cores, scratch))
        counts = stack.enter_context(ledger.opened(urls.database_url, urls.redis_url, gateway.port, prefix=PREFIX))
        settle: dict[str, Settle] = {gateway.name: counts.settle}
        if against is not None:
            before = stack.enter_context(_other(against, agent, cores, settle))
            peers = [before, *peers]

        rounds = Rounds([agent, bare, gateway, *peers], settle)
        rounds.run(plan, _say)
        calls = rounds.calls[gateway.name]
        proof = counts.settle(calls)

    _say("\n" + "\n".join(f"{name}: {value}" for name, value in about.items()))
    _say("".join(f"\n{name}: not installed here" for name in subjects.absent()))
    _say("\n" + report.table(report.rows(rounds.turns)) + "\n\n" + report.counted(calls, proof))
    results = report.results(plan=plan, about=about, turns=rounds.turns, calls=calls, counts=proof)
    report.write(RESULTS, {"calls": results})


@contextmanager
def _other(
    checkout: Path, agent: subjects.Subject, cores: Cores, settle: dict[str, Settle]
) -> Iterator[subjects.Subject]:
    """The gateway of another checkout; an older one owes less for each call."""
    counts_together = (checkout / "gateway" / "live").exists()
    due = ledger.DUE_PER_CALL | (ledger.ADMITTED if counts_together else {})
    with _servers() as urls, subjects.gateway(_env(urls), cores, name="other checkout", folder=checkout) as stranger:
        other = asyncio.run(subjects.introduce(stranger, agent.port))
        with ledger.opened(urls.database_url, urls.redis_url, other.port, prefix=PREFIX, due=due) as counts:
            settle[other.name] = counts.settle
            yield other


def bench(*, calls: bool, events: bool, relays: bool, quick: bool, parts: Sequence[str], against: Path | None) -> None:
    """Measure what was asked for, one after the other."""
    cores = Cores.choose()
    about = report.machine(cores)
    cores.take_rest()
    if calls:
        bench_calls(QUICK if quick else FULL, cores, about, against)
    if events:
        bench_events(bus.QUICK if quick else bus.FULL, cores, about, parts)
    if relays:
        bench_streams(streams.QUICK if quick else streams.FULL, cores, about)
    _say(f"\nwritten to {RESULTS}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a measurement")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--calls", action="store_true", help="only what a call costs")
    only.add_argument("--events", action="store_true", help="only the bus: readers, clocks, a Redis that goes away")
    only.add_argument("--streams", action="store_true", help="only what relaying a stream costs")
    parser.add_argument("--part", action="append", choices=bus.PARTS, default=[], help="of the bus, only this; repeat")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="also what a call costs in the gateway of this checkout"
    )
    words = parser.parse_args()
    against = None if words.against is None else words.against.resolve()
    if words.part and not words.events:
        parser.error("--part is one of --events")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # out through every `with`
    try:
        bench(
            calls=not (words.events or words.streams),
            events=not (words.calls or words.streams),
            relays=not (words.calls or words.events),
            quick=words.quick,
            parts=words.part,
            against=against,
        )
    except (BenchError, embedded.EmbeddedError) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
