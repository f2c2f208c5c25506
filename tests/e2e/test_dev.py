"""`a2a-gateway dev`, as a page of another site sees it."""

import shutil

import aiohttp
import pytest

from tests.harness import folders, process


@pytest.fixture
def folder():
    """A folder that the servers' unprivileged user may reach, which pytest's own are not."""
    path = str(folders.fresh("a2a-dev-"))
    yield path
    shutil.rmtree(path)


async def test_dev_is_open_to_this_machine_and_to_no_page_of_another_site(folder: str) -> None:
    async with (
        process.started("dev", "--port", "0", "--no-demo", "--data-dir", folder, env={}) as gateway,
        aiohttp.ClientSession() as session,
    ):
        for headers, expected in (
            ({}, 200),
            ({"Origin": "http://localhost:3000"}, 200),
            ({"Origin": "http://[::1]:3000"}, 200),
            ({"Host": "localhost:8080"}, 200),
            ({"Origin": "https://evil.example"}, 401),
            ({"Origin": "null"}, 401),
            ({"Origin": "http://localhost.evil.example"}, 401),
            ({"Host": "evil.example"}, 401),
            ({"X-Forwarded-For": "127.0.0.1"}, 401),
            ({"Forwarded": "for=127.0.0.1"}, 401),
            ({"Host": "127.0.0.1.evil.example"}, 401),
        ):
            async with session.get(f"{gateway.url}/workspaces", headers=headers) as response:
                assert response.status == expected, headers
        assert await gateway.stop() == 0
