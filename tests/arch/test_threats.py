"""docs/threat-model.md names tests that are there, and modules that are there."""

import ast
import re
from typing import Final

import pytest

from tests.harness.source import ROOT

MODEL: Final = (ROOT / "docs" / "threat-model.md").read_text()
NAMED: Final = sorted(set(re.findall(r"`([a-z0-9_/]+)::([a-z0-9_]+)`", MODEL)) - {("e2e/test_reach", "x")})
MODULES: Final = sorted(set(re.findall(r"`((?:core|services|web|net|store|live)/[a-z_]+\.py)`", MODEL)))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_a_claim_names_a_test_that_is_there(file: str, name: str):
    tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert f"test_{name}" in {node.name for node in tree.body if isinstance(node, functions)}


@pytest.mark.parametrize("module", MODULES)
def test_a_claim_names_a_module_that_is_there(module: str):
    assert (ROOT / "gateway" / module).is_file()


def test_each_threat_has_a_test():
    rows = [line for line in MODEL.splitlines() if re.match(r"\| [STRIDE] \|", line)]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"`[a-z0-9_/]+::[a-z0-9_]+` \|$", row)] == []
