"""services.silence: how long workspaces have been silent, as far as any replica knows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gateway.core.workspaces import Beat
from gateway.ports import StoreUnavailable
from gateway.services.heartbeats import Heartbeats
from gateway.services.silence import Silences
from tests.harness.liveness import ScriptedLiveness

LAG_S = 0.75


class Database(ScriptedLiveness):
    """Knows what has been written to it, in the order in which it happened."""

    def __init__(self) -> None:
        super().__init__(lambda ids: dict.fromkeys(ids, 2.0))
        self.happened: list[str] = []
        self.away = False

    async def record(self, beats: Sequence[Mapping[str, Any]]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.happened += [f"wrote {beat['workspace_id']}" for beat in beats]

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        self.happened.append("asked")
        return await super().silence(workspace_ids)


@pytest.mark.parametrize(("hears", "silent_s"), [(True, 2.0), (False, 2.0 - LAG_S)])
async def test_what_was_heard_here_is_written_before_the_database_is_asked(hears: bool, silent_s: float) -> None:
    database = Database()
    heartbeats = Heartbeats(database, every_s=1)
    silences = Silences(heartbeats, database, hears=lambda: hears, lag_s=LAG_S)
    heartbeats.note("a", Beat())
    assert await silences.silence(["a"]) == {"a": silent_s}
    assert database.happened == ["wrote a", "asked"]


async def test_while_what_was_heard_cannot_be_written_nobody_can_say() -> None:
    database = Database()
    database.away = True
    heartbeats = Heartbeats(database, every_s=1)
    heartbeats.note("a", Beat())
    with pytest.raises(StoreUnavailable):
        await Silences(heartbeats, database, hears=lambda: True, lag_s=LAG_S).silence(["a"])
    assert database.happened == []


async def test_no_silence_is_negative() -> None:
    database = Database()
    database.answer = lambda ids: dict.fromkeys(ids, 0.1)
    silences = Silences(Heartbeats(database, every_s=1), database, hears=lambda: False, lag_s=LAG_S)
    assert await silences.silence(["a"]) == {"a": 0.0}
