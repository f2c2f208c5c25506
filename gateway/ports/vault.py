"""Where secrets are sealed."""

from typing import Protocol


class Vault(Protocol):
    """`store/vault.py`: seals what must be stored and read back, so that the database alone gives nothing away."""

    def seal(self, secret: str) -> bytes:
        """Return the sealed form."""

    def unseal(self, sealed: bytes) -> str | None:
        """Return the secret, or None if it was sealed with another key."""
