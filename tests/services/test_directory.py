from datetime import UTC, datetime

import pytest

from gateway.core.access import MAX_DEPTH
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Status, Workspace
from gateway.services.directory import Directory
from tests.services.memory import Clock, Workspaces


def workspace(id_: str, parent_id: str | None = None, status: Status = Status.ONLINE) -> Workspace:
    gone = datetime(2026, 1, 2, tzinfo=UTC) if status is Status.REMOVED else None
    return Workspace(id=id_, name=id_, status=status, parent_id=parent_id, removed_at=gone)


@pytest.fixture
def store() -> Workspaces:
    return Workspaces(
        workspace("root"), workspace("child", "root"), workspace("grandchild", "child"),
        workspace("gone", status=Status.REMOVED), workspace("orphan", "gone"), workspace("stray", "nowhere"),
        workspace("chicken", "egg"), workspace("egg", "chicken"), workspace("narcissus", "narcissus"),
    )  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(store, clock) -> Directory:
    return Directory(store, ttl_s=30, now=clock)


async def test_a_workspace_is_asked_for_once_until_it_is_forgotten_or_old(directory, store, clock):
    first = await directory.get("root")
    assert await directory.get("root") is first
    directory.forget("root")
    await directory.get("root")
    clock.at += 31
    await directory.get("root")
    assert store.asked == ["root"] * 3


async def test_an_unknown_one_is_nobody_and_cannot_be_got(directory):
    assert await directory.find("nobody") is None
    with pytest.raises(Refusal) as refused:
        await directory.get("nobody")
    assert refused.value.code is Code.NOT_FOUND


async def test_a_removed_one_is_found_and_cannot_be_got(directory):
    assert (await directory.find("gone")).removed
    with pytest.raises(Refusal) as refused:
        await directory.get("gone")
    assert refused.value.code is Code.REMOVED
    assert refused.value.fields == {"id": "gone", "removed_at": "2026-01-02T00:00:00+00:00"}


async def test_while_the_database_is_away_the_known_are_known_and_of_others_nobody_can_say(directory, store, clock):
    await directory.get("root")
    store.away = True
    assert (await directory.get("root")).id == "root"
    for ask in (directory.find, directory.get, directory.lineage):
        with pytest.raises(Refusal) as refused:
            await ask("child")
        assert (refused.value.code, refused.value.retry_after_s) == (Code.PLATFORM_UNAVAILABLE, 5)
    clock.at += 31
    with pytest.raises(Refusal):
        await directory.get("root")


@pytest.mark.parametrize(
    ("id_", "line"),
    [
        ("root", ["root"]),
        ("grandchild", ["grandchild", "child", "root"]),
        ("gone", []),
        ("nobody", []),
        ("orphan", []),
        ("stray", []),
        ("chicken", []),
        ("narcissus", []),
    ],
)
async def test_a_lineage_goes_up_to_a_root_or_is_empty(directory, id_, line):
    assert list(await directory.lineage(id_)) == line


async def test_a_lineage_has_a_depth_beyond_which_it_counts_as_unknown():
    levels = [workspace(str(level), str(level - 1) if level else None) for level in range(MAX_DEPTH + 1)]
    directory = Directory(Workspaces(*levels), ttl_s=30)
    assert len(await directory.lineage(str(MAX_DEPTH - 1))) == MAX_DEPTH
    assert list(await directory.lineage(str(MAX_DEPTH))) == []
