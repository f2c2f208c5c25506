"""Documents that are easily read: long ones begin with their contents, and every link leads somewhere."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

from tests.harness.source import ROOT

LONG: Final = 200
"""Lines."""
DOCUMENTS: Final = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def words(path: Path) -> str:
    """A document without its examples."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def headings(path: Path, level: str = "#+") -> Sequence[str]:
    """What its headings are called, of one level or all."""
    return re.findall(rf"^{level} (.+)$", words(path), re.MULTILINE)


def anchor(heading: str) -> str:
    """How a heading is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def dead(path: Path) -> list[str]:
    """The links that lead nowhere; those to other sites are not followed."""
    found = []
    for link in _LINK.findall(words(path)):
        if "://" in link:
            continue
        name, _, part = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (part and part not in {anchor(one) for one in headings(target)}):
            found.append(link)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    assert dead(path) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    one = tmp_path / "one.md"
    one.write_text("# One\n[a](#one) [b](#two) [c](other.md) [d](one.md#one) [e](https://a.example/#x)\n")
    assert dead(one) == ["#two", "other.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_long_document_begins_with_its_contents(path: Path) -> None:
    if len(path.read_text().splitlines()) <= LONG:
        return
    head = path.read_text().partition("\n## ")[0]
    shown = re.findall(r"\[([^\]]+)\]\(#([\w-]+)\)", head.rpartition("\n\n")[2])
    assert shown == [(one, anchor(one)) for one in headings(path, "##")]
