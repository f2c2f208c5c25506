from gateway.services.shelf import Shelf
from tests.services.memory import Clock


def test_an_answer_that_is_too_large_is_not_kept_however_much_room_there_is():
    shelf = Shelf(lasts_s=10, each_bytes=5, all_bytes=100)
    assert (shelf.takes(6), shelf.takes(5), shelf.bytes, shelf.refused) == (False, True, 5, 1)


def test_room_comes_back_when_answers_are_kept_no_longer():
    clock = Clock()
    shelf = Shelf(lasts_s=10, each_bytes=5, all_bytes=10, now=clock)
    assert shelf.takes(5)
    clock.at += 4
    assert (shelf.takes(5), shelf.takes(1)) == (True, False)
    clock.at += 6
    assert (shelf.takes(5), shelf.takes(1), shelf.bytes) == (True, False, 10)
    assert repr(shelf) == "<Shelf bytes=10 of 10>"
