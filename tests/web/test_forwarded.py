"""web.forwarded: requests that a proxy has passed on."""

import pytest

from tests.harness.world import World

ADDED = {
    "X-Forwarded-For": "203.0.113.7",
    "x-forwarded-for": "127.0.0.1",
    "Forwarded": "for=127.0.0.1",
    "X-Real-IP": "127.0.0.1",
    "Via": "1.1 proxy",
}


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
@pytest.mark.parametrize("trusted", ["", "127.0.0.0/8"], ids=["no proxy is named", "this one is named"])
async def test_what_a_proxy_on_this_machine_passes_on_is_not_from_this_machine(
    world: World, path: str, trusted: str
) -> None:
    await world.start(**({"GATEWAY_TRUSTED_PROXIES": trusted} if trusted else {}))
    assert (await world.request("GET", path, headers={"Authorization": None}))[0] == 200
    for name, value in ADDED.items():
        status, body, _ = await world.request("GET", path, headers={"Authorization": None, name: value})
        assert (status, body["code"]) == (401, "credential_required"), name
        assert (await world.request("GET", path, headers={name: value}))[0] == 200, name


async def test_a_proxy_that_is_not_named_is_told_of_once(world: World) -> None:
    gateway, named = await world.start(), await world.start(GATEWAY_TRUSTED_PROXIES="127.0.0.0/8")
    for one in (gateway, named):
        assert (await world.request("GET", "/healthz", gateway=one))[0] == 200
    assert "proxy_not_trusted" not in gateway.log()
    for _ in range(3):
        for one in (gateway, named):
            headers = {"X-Forwarded-For": "203.0.113.7"}
            assert (await world.request("GET", "/healthz", gateway=one, headers=headers))[0] == 200
    assert gateway.log().count("proxy_not_trusted") == 1
    assert "203.0.113.7" not in gateway.log()
    assert "proxy_not_trusted" not in named.log()
