"""What an error of the PostgreSQL driver means to a service."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from gateway.ports import StoreConflict, StoreError, StoreTimeout, StoreUnavailable

# SQLSTATE, or its first two characters for a whole class; the longer key wins.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_MEANINGS: dict[str, type[StoreError]] = {
    "08": StoreUnavailable,  # connection exceptions
    "23": StoreConflict,  # integrity constraint violations
    "25006": StoreUnavailable,  # read-only: a standby, or a primary being demoted
    "25P03": StoreUnavailable,  # idle in transaction for too long, session ended
    "40001": StoreUnavailable,  # serialization failure
    "40P01": StoreUnavailable,  # deadlock, and we were chosen
    "53": StoreUnavailable,  # out of connections, memory, disk
    "55P03": StoreTimeout,  # lock_timeout
    "57014": StoreTimeout,  # statement_timeout; our own cancels are never read through this table
    "57P": StoreUnavailable,  # shutdown, crash, starting up, database dropped
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors, and those of the operating system, into the tree of `gateway.ports`."""
    try:
        yield
    except psycopg2.Error as error:
        raise failure(error) from error
    except OSError as error:
        raise StoreUnavailable(f"the database cannot be reached: {error.strerror or type(error).__name__}") from error


def failure(error: psycopg2.Error) -> StoreError:
    """Say what the driver's error means; parameters and DETAIL (which quotes rows) stay in its `__cause__`."""
    code = error.pgcode
    if code is None:
        lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
        return (StoreUnavailable if lost else StoreError)(str(error).strip().partition("\n")[0])
    meaning = next((_MEANINGS[key] for key in (code, code[:3], code[:2]) if key in _MEANINGS), StoreError)
    message = f"{code} {error.diag.message_primary}"
    if issubclass(meaning, StoreConflict):
        return meaning(message, constraint=error.diag.constraint_name)
    return meaning(message)
