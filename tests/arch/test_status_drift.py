"""The states of a workspace are the same ten words in the code, in the queries and in the database."""

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final

import psycopg2
import pytest

from gateway.core.workspaces import MOVE_EVENTS, MOVES, Status
from tests.harness.source import ROOT, Module, modules

WORDS: Final = frozenset(status.value for status in Status)
OTHER_MEANINGS: Final[Mapping[str, frozenset[str]]] = {
    "events/subscriber.py": frozenset({"degraded"}),  # what readers are told of the bus
    "gateway/core/refusals.py": frozenset({"removed"}),  # the code of a refusal
    "gateway/core/calls.py": frozenset({"failed"}),  # a state of calls
    "gateway/core/streams.py": frozenset({"failed"}),  # a state of A2A tasks
    "runtime/task.py": frozenset({"failed"}),  # a state of A2A tasks
}
"""Words of a status that mean something else in that module."""
SQL_FILES: Final = sorted((ROOT / "sql").rglob("*.sql"))
_COMPARED: Final = re.compile(r"\bstatus\b\s*(?:=|<>|!=)\s*'(\w*)'")
_LISTED: Final = re.compile(r"\bstatus\b\s+(?:not\s+)?in\s*\(([^)]*)\)")


def in_sql(text: str) -> list[str]:
    """The literals that a status is compared with, in the order of their kinds."""
    bare = re.sub(r"--.*", "", text)
    return _COMPARED.findall(bare) + [word for group in _LISTED.findall(bare) for word in re.findall(r"'(\w*)'", group)]


def in_code(module: Module) -> Iterator[str]:
    """The literals that something called a status is compared with, matched against or made of."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Compare(left=left, comparators=others) if any(is_status(side) for side in (left, *others)):
                yield from literals(left, *others)
            case ast.Call(func=ast.Name(id="Status"), args=given):
                yield from literals(*given)


def is_status(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(attr="status") | ast.Name(id="status") | ast.Subscript(slice=ast.Constant(value="status")):
            return True
        case _:
            return False


def literals(*nodes: ast.expr) -> Iterator[str]:
    for node in nodes:
        for child in ast.walk(node):
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and child.value != "status":
                yield child.value


def test_there_are_ten():
    assert len(WORDS) == 10


def test_the_database_takes_these_and_no_others(migrated_database_url: str):
    with closing(psycopg2.connect(migrated_database_url)) as session, session.cursor() as cursor:
        cursor.execute(
            "select pg_get_constraintdef(oid) from pg_constraint "
            "where conrelid = 'workspaces'::regclass and conname = 'workspaces_status_check'"
        )
        [(definition,)] = cursor.fetchall()
    assert "status = ANY" in definition
    words = re.findall(r"'(\w+)'", definition)
    assert len(words) == 10
    assert set(words) == WORDS


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.stem)
def test_sql_speaks_of_known_states_only(path):
    assert set(in_sql(path.read_text())) <= WORDS


def test_the_scan_of_sql_sees_what_is_there():
    assert in_sql("w.status <> 'gone' -- status = 'no'\nand status not in ('a', 'b')") == ["gone", "a", "b"]
    assert "removed" in in_sql((ROOT / "sql" / "queries" / "workspaces.sql").read_text())
    assert set(in_sql((ROOT / "sql" / "migrations" / "0001.workspaces.sql").read_text())) == WORDS


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_code_says_a_state_by_its_name_and_not_by_its_word(module: Module):
    if module.path != "gateway/core/workspaces.py":
        assert WORDS.intersection(module.texts) == OTHER_MEANINGS.get(module.path, set())
    assert set(in_code(module)) <= WORDS


def test_the_scan_of_code_sees_what_is_there():
    tree = ast.parse("one.status == 'gone'\nrow['status'] in ('a', 'b')\nStatus('c')\nother == 'd'")
    assert sorted(in_code(Module(path="x.py", tree=tree))) == ["a", "b", "c", "gone"]


def test_every_state_has_its_row_in_the_table_of_moves_and_its_event():
    assert set(MOVES) == set(Status) == set(MOVE_EVENTS)
    assert all(sources <= set(Status) and target not in sources - {target} for target, sources in MOVES.items())
    assert len(set(MOVE_EVENTS.values())) == 10
