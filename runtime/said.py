"""What a turn says on its way to its answer: kept once, and read by each reader from where it is."""

import asyncio
from typing import Final

LIMIT_CHARS: Final = 1024 * 1024
"""The most that a turn may say: all of it is kept until the turn is over, for callers that come back."""


class Said:
    """Pieces of text in their order, until the turn is over. A reader keeps no more of them than its place."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chars = 0
        self._over = False
        self._moved = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Said pieces={len(self._pieces)} chars={self._chars} over={self._over}>"

    def __len__(self) -> int:
        """How many pieces there are."""
        return len(self._pieces)

    @property
    def over(self) -> bool:
        """Whether nothing more will be said."""
        return self._over

    def text(self, start: int = 0, stop: int | None = None) -> str:
        """These pieces as one text."""
        return "".join(self._pieces[start:stop])

    def add(self, text: str) -> None:
        """Say one more piece; an empty one is none.

        Raises TypeError for what is no text, ValueError for text that UTF-8 cannot hold or that makes it more than
        `LIMIT_CHARS`, RuntimeError when the turn is over.
        """
        if not isinstance(text, str):
            raise TypeError(f"an agent says text, not {type(text).__name__}")
        text.encode()
        if self._over:
            raise RuntimeError("this turn is over")
        if self._chars + len(text) > LIMIT_CHARS:
            raise ValueError(f"a turn says at most {LIMIT_CHARS} characters")
        if text:
            self._pieces.append(text)
            self._chars += len(text)
            self.wake()

    def end(self) -> None:
        """Nothing more will be said."""
        self._over = True
        self.wake()

    def wake(self) -> None:
        """Have all readers look again."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def moved(self, within_s: float | None) -> bool:
        """Wait until readers are to look again; False if they were not within so many seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        except TimeoutError:
            return False
        return True
