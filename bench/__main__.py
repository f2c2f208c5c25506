"""Run the benchmark: `make bench`, or `make bench ARGS=--quick` for one that is over in 20 seconds."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench import ledger, report, subjects
from bench.processes import BenchError, Cores
from bench.rounds import FULL, QUICK, Plan, Rounds
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


def bench(plan: Plan) -> None:
    """Start everything, measure, print and write down, stop everything."""
    cores = Cores.choose()
    about = report.machine(cores)
    cores.take_rest()
    with ExitStack() as stack:
        urls = stack.enter_context(_servers())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        agent = stack.enter_context(subjects.agent())
        bare = stack.enter_context(subjects.bare(agent.port, cores))
        env = {
            "GATEWAY_DATABASE_URL": urls.database_url,
            "GATEWAY_REDIS_URL": urls.redis_url,
            "GATEWAY_REDIS_PREFIX": PREFIX,
            "GATEWAY_ALLOW_PRIVATE_AGENTS": "1",
        }
        stranger = stack.enter_context(subjects.gateway(env, cores))
        gateway = asyncio.run(subjects.introduce(stranger, agent.port))
        peers = stack.enter_context(subjects.peers(agent.port, cores, scratch))
        counts = stack.enter_context(ledger.opened(urls.database_url, urls.redis_url, prefix=PREFIX))

        rounds = Rounds([agent, bare, gateway, *peers], {gateway.name: counts.settle})
        rounds.run(plan, _say)
        calls = rounds.calls[gateway.name]
        proof = counts.settle(calls)

    _say("\n" + "\n".join(f"{name}: {value}" for name, value in about.items()))
    _say("".join(f"\n{name}: not installed here" for name in subjects.absent()))
    _say("\n" + report.table(report.rows(rounds.turns)) + "\n\n" + report.counted(calls, proof))
    report.write(RESULTS, plan=plan, about=about, turns=rounds.turns, calls=calls, counts=proof)
    _say(f"\nwritten to {RESULTS}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a measurement")
    plan = QUICK if parser.parse_args().quick else FULL
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # out through every `with`
    try:
        bench(plan)
    except (BenchError, embedded.EmbeddedError) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
