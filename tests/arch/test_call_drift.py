"""The words of the ledger are the same in the code and in the database."""

import re
from contextlib import closing
from enum import StrEnum

import psycopg2
import pytest

from gateway.core.activity import TYPES
from gateway.core.calls import END_STATES, FINAL, LIVING, MOVES, Kind, State
from gateway.core.delivery import Mode
from gateway.core.endings import Ending


def words_of(database_url: str, constraint: str) -> list[str]:
    """The literals of a CHECK."""
    with closing(psycopg2.connect(database_url)) as session, session.cursor() as cursor:
        cursor.execute("select pg_get_constraintdef(oid) from pg_constraint where conname = %s", (constraint,))
        [(definition,)] = cursor.fetchall()
    return re.findall(r"'(\w+)'", definition)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("calls_kind_check", Kind),
        ("calls_state_check", State),
        ("workspaces_delivery_mode_check", Mode),
    ],
)
def test_the_database_takes_these_and_no_others(migrated_database_url: str, constraint: str, words: type[StrEnum]):
    found = words_of(migrated_database_url, constraint)
    assert len(found) == len(words)
    assert set(found) == set(words)


def test_a_history_has_rows_of_these_types_and_no_others(migrated_database_url: str):
    assert sorted(words_of(migrated_database_url, "activity_activity_type_check")) == sorted(TYPES)


def test_a_call_has_an_end_time_exactly_in_its_final_states(migrated_database_url: str):
    assert set(words_of(migrated_database_url, "calls_check")) == LIVING


def test_every_state_and_every_ending_has_its_row():
    assert set(MOVES) == set(State)
    assert set(END_STATES) == set(Ending)
    assert set(END_STATES.values()) <= FINAL
