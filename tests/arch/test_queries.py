"""Every query is called, and every call is a query."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import pytest

from sql import load
from tests.harness.source import ROOT, below

NOUNS: Final = sorted(path.stem for path in (ROOT / "sql" / "queries").glob("*.sql"))


def calls() -> Iterator[tuple[str, str]]:
    """The noun and name of each `SQL["name"]` whose `SQL = load("noun")` stands in the same module."""
    for module in below("gateway/store"):
        nouns = {}
        for node in module.tree.body:
            match node:
                case ast.AnnAssign(
                    target=ast.Name(id=table), value=ast.Call(func=ast.Name(id="load"), args=[ast.Constant(value=noun)])
                ):
                    nouns[table] = noun
        for node in ast.walk(module.tree):
            match node:
                case ast.Subscript(value=ast.Name(id=table), slice=name) if table in nouns:
                    assert isinstance(name, ast.Constant), f"{module.path}:{node.lineno} hides which query it calls"
                    yield nouns[table], name.value


def called() -> dict[str, set[str]]:
    names = defaultdict(set)
    for noun, name in calls():
        names[noun].add(name)
    return names


def test_there_are_queries():
    assert {"workspaces", "tokens", "liveness", "activity", "usage", "changes"} <= set(NOUNS)


def test_nobody_calls_a_noun_that_is_not_there():
    assert set(called()) == set(NOUNS)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_query_is_called_and_every_call_is_a_query(noun: str):
    assert called()[noun] == set(load(noun))
