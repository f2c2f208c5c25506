"""What the gateway must have done for every call, counted where it is seen by others: in PostgreSQL and on the bus."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Final
from urllib.request import urlopen

import psycopg2
from redis import Redis

from bench.message import INPUT_TOKENS, OUTPUT_TOKENS, PRICE
from bench.processes import BenchError
from events import frame

DUE_PER_CALL: Final = {
    "activity rows, a2a_receive": 1,
    "activity rows, a2a_send": 1,
    "usage, calls": 1,
    "usage, input tokens": INPUT_TOKENS,
    "CALL_ENDED heard": 1,
    "ACTIVITY_LOGGED heard": 2,
}
"""How often each is due for one call of a workspace to another ..."""
ADMITTED: Final = {
    "let in by Redis": 1,
    "spent, millionths of a cent": (INPUT_TOKENS + OUTPUT_TOKENS) * PRICE,
}
"""... and this, of a gateway that counts calls together with others (rate, chain, budget: one script)."""
_WITHIN_S: Final = 30.0
_ROWS: Final = "select activity_type, count(*) from activity group by activity_type"
_USAGE: Final = "select coalesce(sum(calls), 0), coalesce(sum(input_tokens), 0) from usage"
_SPENT: Final = "select coalesce(sum(millionths), 0) from usage"


class Ledger:
    """The counts of one run, from its beginning. due: what there must be for each call, by name."""

    def __init__(self, database: Any, heard: Counter[str], port: int, due: Mapping[str, int]) -> None:
        self._database = database
        self._heard = heard
        self._port = port
        self._due = due

    def counts(self) -> dict[str, int]:
        """Return what is there by now, by the names of what is due."""
        with self._database.cursor() as cursor:
            cursor.execute(_ROWS)
            rows = dict(cursor.fetchall())
            cursor.execute(_USAGE)
            calls, input_tokens = cursor.fetchone()
        there = {
            "activity rows, a2a_receive": rows.get("a2a_receive", 0),
            "activity rows, a2a_send": rows.get("a2a_send", 0),
            "usage, calls": int(calls),
            "usage, input tokens": int(input_tokens),
            "CALL_ENDED heard": self._heard["CALL_ENDED"],
            "ACTIVITY_LOGGED heard": self._heard["ACTIVITY_LOGGED"],
        }
        return there | self._admitted() if ADMITTED.keys() <= self._due.keys() else there

    def _admitted(self) -> dict[str, int]:
        with self._database.cursor() as cursor:
            cursor.execute(_SPENT)
            [spent] = cursor.fetchone()
        with urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=_WITHIN_S) as metrics:
            lines = dict(line.rsplit(" ", 1) for line in metrics.read().decode().splitlines() if line[:1] != "#")
        return {
            "let in by Redis": int(float(lines["gateway_calls_admitted_total"])),
            "spent, millionths of a cent": int(spent),
        }

    def settle(self, calls: int) -> dict[str, int]:
        """Wait until all that is due for so many calls has been done, and return it; raises BenchError if it is not."""
        due = {name: per_call * calls for name, per_call in self._due.items()}
        deadline = time.monotonic() + _WITHIN_S
        while (there := self.counts()) != due:
            if time.monotonic() > deadline:
                raise BenchError(f"for {calls} calls there must be {due}, and there is {there}")
            time.sleep(0.1)
        return there


@contextmanager
def opened(
    database_url: str, redis_url: str, port: int, *, prefix: str, due: Mapping[str, int] = DUE_PER_CALL | ADMITTED
) -> Iterator[Ledger]:
    """Count from now on what the gateway on this port does.

    prefix: what its keys and channels in Redis begin with.
    """
    heard: Counter[str] = Counter()

    def hear(message: dict[str, Any]) -> None:
        heard[frame.parse(message["data"]).event.type] += 1

    with closing(psycopg2.connect(database_url)) as database, closing(Redis.from_url(redis_url)) as redis:
        database.autocommit = True
        listening = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        listening.subscribe(**{f"{prefix}:events": hear})
        thread = listening.run_in_thread(sleep_time=0.1, daemon=True)
        try:
            yield Ledger(database, heard, port, due)
        finally:
            thread.stop()
            thread.join()
