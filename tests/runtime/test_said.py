"""runtime.said: kept once, and read from anywhere."""

import pytest

from runtime.said import LIMIT_CHARS, Said


def test_pieces_are_joined_from_any_place_on():
    said = Said()
    for piece in ("a", "", "bc", "d"):
        said.add(piece)
    assert (len(said), said.text(), said.text(1), said.text(0, 2), said.text(3)) == (3, "abcd", "bcd", "abc", "")


def test_no_more_is_kept_than_the_limit():
    said = Said()
    said.add("x" * (LIMIT_CHARS - 1))
    said.add("y")
    with pytest.raises(ValueError, match="at most"):
        said.add("z")
    assert said.text().endswith("xy")


@pytest.mark.parametrize(("wrong", "error"), [(7, TypeError), (None, TypeError), ("\ud800", ValueError)])
def test_what_is_no_text_is_refused(wrong, error):
    said = Said()
    with pytest.raises(error):
        said.add(wrong)
    assert len(said) == 0


def test_nothing_is_said_after_the_end():
    said = Said()
    said.end()
    assert said.over
    with pytest.raises(RuntimeError, match="over"):
        said.add("late")


async def test_every_reader_is_woken_by_each_piece_and_the_end(tasks, wait_until):
    said = Said()
    seen = [[], []]

    async def read(mine):
        while not said.over:
            await said.moved(None)
            mine.append(len(said))

    readers = [tasks.spawn(read(mine), name="reader") for mine in seen]
    for number in range(3):
        await wait_until(lambda: len(said._moved._waiters) == 2)
        if number == 2:
            said.end()
        else:
            said.add("x")
    await wait_until(lambda: all(reader.done() for reader in readers))
    assert seen == [[1, 2, 2], [1, 2, 2]]


async def test_a_silence_is_told_from_news():
    assert not await Said().moved(0.01)
