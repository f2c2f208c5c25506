"""What a datastore may say instead of an answer."""

# StoreError
# +-- StoreUnavailable   nobody answers: connection refused or lost, no free connection in time, a read-only server
# +-- StoreTimeout       the statement ran into its own deadline
# +-- StoreConflict      a unique, foreign key or check constraint said no
# LiveUnavailable


class StoreError(Exception):
    """The truth could not be read or written."""


class StoreUnavailable(StoreError):
    """Nobody answers: connection refused or lost, none free in time, or a server that does not take writes."""


class StoreTimeout(StoreError):
    """A statement ran into its own deadline; whether it took effect is known: it did not."""


class StoreConflict(StoreError):
    """A constraint said no. `constraint` is its name in the schema, None where it has none (not null)."""

    def __init__(self, message: str, *, constraint: str | None) -> None:
        super().__init__(message)
        self.constraint = constraint


class LiveUnavailable(Exception):
    """Redis is away, or does not answer in time."""
