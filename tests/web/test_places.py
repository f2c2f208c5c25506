"""One total for all who read: whoever is one too many comes back later, over a stream as over a socket."""

import pytest
from aiohttp.client_exceptions import WSServerHandshakeError

from gateway.web.places import Places
from tests.harness import hall
from tests.harness.world import eventually


def test_there_are_so_many_places_and_one_that_is_given_back_is_taken_again():
    places = Places(2)
    assert [places.take() for _ in range(3)] == [True, True, False]
    places.free()
    assert [places.take(), places.take()] == [True, False]


async def test_a_stream_and_a_socket_take_the_same_places():
    async with hall.running(capacity=1) as house:
        async with house.reading():
            with pytest.raises(WSServerHandshakeError) as refusal:
                async with house.socket():
                    pass
            assert refusal.value.status == 503
            assert refusal.value.headers is not None
            assert refusal.value.headers["Retry-After"] == "2"
        await eventually(lambda: len(house.streams) == 0)
        async with house.socket():
            async with house.request("/events/stream") as sent_away:
                assert (await sent_away.read()).startswith(b"retry: ")
            assert len(house.streams) == 0
        await eventually(lambda: len(house.sockets) == 0)
        async with house.reading():
            assert len(house.streams) == 1


async def test_whoever_comes_and_goes_leaves_no_place_taken():
    async with hall.running(capacity=1) as house:
        for _ in range(3):
            async with house.reading():
                assert len(house.streams) == 1
            await eventually(lambda: len(house.streams) == 0)
            async with house.socket() as socket:
                await socket.send_str("nonsense")
                assert (await socket.receive()).data == 1008
            await eventually(lambda: len(house.sockets) == 0)
