"""What the gateway must have done for every call, counted where it is seen by others: in PostgreSQL and on the bus."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg2
from redis import Redis

from bench.message import INPUT_TOKENS
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
"""How often each is due for one call of a workspace to another."""
_WITHIN_S: Final = 30.0
_ROWS: Final = "select activity_type, count(*) from activity group by activity_type"
_USAGE: Final = "select coalesce(sum(calls), 0), coalesce(sum(input_tokens), 0) from usage"


class Ledger:
    """The counts of one run, from its beginning."""

    def __init__(self, database: Any, heard: Counter[str]) -> None:
        self._database = database
        self._heard = heard

    def counts(self) -> dict[str, int]:
        """Return what is there by now, by the names in DUE_PER_CALL."""
        with self._database.cursor() as cursor:
            cursor.execute(_ROWS)
            rows = dict(cursor.fetchall())
            cursor.execute(_USAGE)
            calls, input_tokens = cursor.fetchone()
        return {
            "activity rows, a2a_receive": rows.get("a2a_receive", 0),
            "activity rows, a2a_send": rows.get("a2a_send", 0),
            "usage, calls": int(calls),
            "usage, input tokens": int(input_tokens),
            "CALL_ENDED heard": self._heard["CALL_ENDED"],
            "ACTIVITY_LOGGED heard": self._heard["ACTIVITY_LOGGED"],
        }

    def settle(self, calls: int) -> dict[str, int]:
        """Wait until all that is due for so many calls has been done, and return it; raises BenchError if it is not."""
        due = {name: per_call * calls for name, per_call in DUE_PER_CALL.items()}
        deadline = time.monotonic() + _WITHIN_S
        while (there := self.counts()) != due:
            if time.monotonic() > deadline:
                raise BenchError(f"for {calls} calls there must be {due}, and there is {there}")
            time.sleep(0.1)
        return there


@contextmanager
def opened(database_url: str, redis_url: str, *, prefix: str) -> Iterator[Ledger]:
    """Count from now on. prefix: what the gateway's keys and channels in Redis begin with."""
    heard: Counter[str] = Counter()

    def hear(message: dict[str, Any]) -> None:
        heard[frame.parse(message["data"]).event.type] += 1

    with closing(psycopg2.connect(database_url)) as database, closing(Redis.from_url(redis_url)) as redis:
        database.autocommit = True
        listening = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        listening.subscribe(**{f"{prefix}:events": hear})
        thread = listening.run_in_thread(sleep_time=0.1, daemon=True)
        try:
            yield Ledger(database, heard)
        finally:
            thread.stop()
            thread.join()
