"""How many may read events at once, whatever they read them over."""


class Places:
    """`capacity` places for streams and sockets together; whoever takes one frees it at its end, once."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0

    def __repr__(self) -> str:
        return f"<Places taken={self._taken} of={self._capacity}>"

    def take(self) -> bool:
        """Take a place; False if there is none."""
        if self._taken >= self._capacity:
            return False
        self._taken += 1
        return True

    def free(self) -> None:
        """Give a place back."""
        assert self._taken > 0, "only what was taken is given back"
        self._taken -= 1
