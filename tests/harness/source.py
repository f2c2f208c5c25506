"""The packages as text and as syntax trees, for tests that read instead of run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
PACKAGES: Final = ("gateway", "events", "runtime", "sql")


@dataclass(frozen=True, kw_only=True)
class Module:
    """One module: its path below the root, as text with slashes, and its tree."""

    path: str
    tree: ast.Module

    @property
    def texts(self) -> Iterator[str]:
        """Every string constant but docstrings: the words that the code uses."""
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Constant) and isinstance(child.value, str) and not isinstance(node, ast.Expr):
                    yield child.value


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the packages, by path."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return tuple(Module(path=path.relative_to(ROOT).as_posix(), tree=ast.parse(path.read_bytes())) for path in paths)


def below(folder: str) -> tuple[Module, ...]:
    """The modules below a folder."""
    return tuple(module for module in modules() if module.path.startswith(f"{folder}/"))
