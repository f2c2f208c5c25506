"""A browser that reads the events of one workspace, as EventSource would."""

from typing import Any, Final

import orjson
from aiohttp import ClientPayloadError, StreamReader

END: Final = b"\n\n"


class Reader:
    """What has been read so far; `ended` once the gateway has ended the stream, `cut` once it was lost."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.opened = False
        self.ended = False
        self.cut = False

    async def read(self, content: StreamReader) -> None:
        """Read to the end of the stream."""
        unread, looked = bytearray(), 0
        try:
            async for chunk in content.iter_any():
                unread += chunk
                while (end := unread.find(END, looked)) >= 0:
                    self._take(unread[:end].decode())
                    del unread[: end + len(END)]
                    looked = 0
                looked = max(0, len(unread) - 1)  # the first half of an end may be here already
            self.ended = True
        except ClientPayloadError:
            self.cut = True

    def _take(self, block: str) -> None:
        if block.startswith(": ok"):
            self.opened = True
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            taken = self.gaps if fields.get("event") == "gap" else self.events
            taken.append(orjson.loads(fields["data"]))

    def of(self, type_: str) -> list[dict[str, Any]]:
        """Return the data of all events of a type, in order."""
        return [event["data"] for event in self.events if event["type"] == type_]
