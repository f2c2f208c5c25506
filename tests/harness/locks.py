"""A database in which one table cannot be had for a while."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2

from tests.harness.world import World


@contextmanager
def locked(world: World, table: str) -> Iterator[None]:
    """Nobody reads or writes this table while the block lasts."""
    with closing(psycopg2.connect(world.env["GATEWAY_DATABASE_URL"])) as session, session.cursor() as cursor:
        cursor.execute(f"lock table {table} in access exclusive mode")
        yield
