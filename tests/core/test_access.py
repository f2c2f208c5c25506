"""core.access: a rule over two lineages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access import MAX_DEPTH, lineage_beside, may_talk

ROOT, OTHER_ROOT = ["r"], ["o"]
CHILD, SIBLING, GRANDCHILD = ["c", "r"], ["s", "r"], ["g", "c", "r"]
NEPHEW = ["n", "s", "r"]
STRANGER = ["x", "o"]


@pytest.mark.parametrize(
    ("a", "b", "allowed"),
    [
        (ROOT, ROOT, True),
        (ROOT, OTHER_ROOT, True),
        (CHILD, SIBLING, True),
        (CHILD, ROOT, True),
        (ROOT, GRANDCHILD, True),
        (GRANDCHILD, NEPHEW, False),
        (CHILD, NEPHEW, False),
        (CHILD, STRANGER, False),
        (CHILD, OTHER_ROOT, False),
        (ROOT, STRANGER, False),
        ([], ROOT, False),
        ([], [], False),
    ],
)
def test_the_table_of_who_may_talk(a: list[str], b: list[str], allowed: bool) -> None:
    assert may_talk(a, b) is allowed
    assert may_talk(b, a) is allowed


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 9)), st.integers(0, 9), st.integers(0, 9))
def test_the_rule_is_symmetric_and_follows_the_tree(parents: dict[int, int], a: int, b: int) -> None:
    # a tree by construction: a parent's number is smaller than its child's
    tree = {child: parent for child, parent in parents.items() if parent < child}

    def line(at: int) -> list[str]:
        return [str(at)] + (line(tree[at]) if at in tree else [])

    related = a in map(int, line(b)) or b in map(int, line(a))
    assert may_talk(line(a), line(b)) == may_talk(line(b), line(a)) == (related or tree.get(a) == tree.get(b))


@pytest.mark.parametrize(
    ("workspace_id", "parent_id", "line"),
    [
        ("child", "me", ["child", "me", "parent", "root"]),
        ("twin", "parent", ["twin", "parent", "root"]),
        ("parent", "root", ["parent", "root"]),
        ("me", "parent", ["me", "parent", "root"]),
        ("other", None, ["other"]),
        ("stranger", "elsewhere", []),
    ],
)
def test_a_lineage_is_told_by_that_of_a_neighbour(workspace_id: str, parent_id: str | None, line: list[str]):
    assert list(lineage_beside(["me", "parent", "root"], workspace_id, parent_id)) == line


def test_a_child_of_the_deepest_is_too_deep():
    deepest = [str(level) for level in range(MAX_DEPTH)]
    assert list(lineage_beside(deepest, "child", "0")) == []
    assert len(lineage_beside(deepest, "child", "1")) == MAX_DEPTH


def test_lists_and_tuples_of_ancestors_are_alike():
    assert may_talk(["a", "parent"], ("b", "parent"))
