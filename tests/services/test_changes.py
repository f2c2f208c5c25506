import pytest

from gateway.ports import Change, StoreUnavailable
from gateway.services.changes import CLEAN_EVERY_TURNS, ChangeReader
from tests.harness.world import eventually
from tests.services.memory import Changes

RENAME = "update workspaces set name = name || '!' where id = %(id)s"


def listener(changes, *, every_s: float = 60.0) -> tuple[ChangeReader, list[tuple[str, str]]]:
    """A reader, and the list of what it made the caches forget."""
    told: list[tuple[str, str]] = []
    forget = {kind: lambda key, kind=kind: told.append((kind, key)) for kind in ("workspace", "token")}
    return ChangeReader(changes, forget, every_s=every_s), told


async def test_a_change_is_told_once_and_only_what_changed_since_the_start(stores):
    before, after = await stores.make(), await stores.make()
    reader, told = listener(stores.changes)
    await reader.start()
    await stores.database.execute(RENAME, id=after)
    for _ in range(3):
        await reader.tick()
    assert told == [("workspace", after)]
    await stores.database.execute(RENAME, id=before)
    await reader.tick()
    assert told == [("workspace", after), ("workspace", before)]


async def test_of_two_overlapping_transactions_neither_is_skipped_and_neither_waits_for_the_other(stores):
    early, late = await stores.make(), await stores.make()
    reader, told = listener(stores.changes)
    await reader.start()
    async with stores.database.transaction() as long_one:
        await long_one.execute(RENAME, id=early)
        async with stores.database.transaction() as short_one:
            await short_one.execute(RENAME, id=late)
        await reader.tick()
        assert told == [("workspace", late)], "committed last begun first"
        await reader.tick()
    await reader.tick()
    await reader.tick()
    assert told == [("workspace", late), ("workspace", early)]


async def test_a_transaction_that_was_open_at_the_start_is_not_skipped(stores):
    one = await stores.make()
    reader, told = listener(stores.changes)
    async with stores.database.transaction() as open_one:
        await open_one.execute(RENAME, id=one)
        await reader.start()
        await reader.tick()
        assert told == []
    await reader.tick()
    assert told == [("workspace", one)]


async def test_what_was_rolled_back_is_never_told(stores):
    one = await stores.make()
    reader, told = listener(stores.changes)
    await reader.start()
    async with stores.database.transaction() as doomed:
        await doomed.execute(RENAME, id=one)
        await doomed.execute("rollback")
    await reader.tick()
    assert told == []


async def test_two_readers_each_hear_of_everything(stores, replicas):
    other = await replicas.open()
    (here, told_here), (there, told_there) = listener(stores.changes), listener(other.changes)
    await here.start()
    await there.start()
    ids = [await stores.make() for _ in range(20)]
    await here.tick()
    await there.tick()
    assert told_here == told_there == [("workspace", one) for one in ids]


async def test_a_removed_workspace_takes_its_tokens_out_of_the_caches(stores):
    token = b"\x01" * 32
    one = await stores.make(token=token)
    reader, told = listener(stores.changes)
    await reader.start()
    await stores.remove(one)
    await reader.tick()
    assert told == [("workspace", one), ("token", token.hex())]


async def test_the_loop_reads_when_it_is_woken_and_otherwise_by_itself(stores, tasks):
    reader, told = listener(stores.changes, every_s=60)
    await reader.start()
    tasks.spawn(reader.run(), "read")
    one = await stores.make()
    reader.wake()
    await eventually(lambda: told == [("workspace", one)])
    alone, told_alone = listener(stores.changes, every_s=0.01)
    await alone.start()
    tasks.spawn(alone.run(), "read alone")
    two = await stores.make()
    await eventually(lambda: told_alone == [("workspace", two)])


async def test_while_the_database_is_away_the_place_is_kept(tasks):
    changes = Changes([Change(id=1, kind="workspace", key="a")])
    reader, told = listener(changes, every_s=0.005)
    await reader.start()
    changes.away = True
    with pytest.raises(StoreUnavailable):
        await reader.tick()
    tasks.spawn(reader.run(), "read")
    changes.away = False
    await eventually(lambda: told)
    assert told == [("workspace", "a")]
    assert changes.since[0] == "0"


async def test_a_kind_that_a_newer_release_writes_stops_nobody(tasks):
    reader, told = listener(
        Changes([Change(id=1, kind="budget", key="x"), Change(id=2, kind="token", key="ab")]), every_s=60
    )
    await reader.start()
    await reader.tick()
    assert told == [("token", "ab")]


async def test_rows_that_come_again_while_an_old_transaction_is_open_are_told_once():
    rows = [Change(id=number, kind="workspace", key=str(number)) for number in range(3)]
    reader, told = listener(Changes(rows[:2], rows[:3], rows[1:], []))
    await reader.start()
    for _ in range(4):
        await reader.tick()
    assert told == [("workspace", str(number)) for number in range(3)]


async def test_old_rows_are_dropped_now_and_then():
    changes = Changes()
    reader, _ = listener(changes)
    await reader.start()
    for _ in range(2 * CLEAN_EVERY_TURNS):
        await reader.tick()
    assert changes.cleaned == 2
