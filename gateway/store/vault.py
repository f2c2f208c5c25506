"""How secrets are kept that must be read back: sealed with a key that is not in the database."""

from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken


class BadKey(ValueError):
    """The key file cannot be used; the message says why."""


class FernetVault:
    """`ports.Vault` with one Fernet key (AES-128-CBC and HMAC-SHA256; the `cryptography` library)."""

    def __init__(self, key: bytes) -> None:
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise BadKey(
                "the key must be 32 bytes in url-safe base64, as `a2a-gateway secrets-key` prints one"
            ) from None

    def seal(self, secret: str) -> bytes:
        """Return the sealed form."""
        return self._fernet.encrypt(secret.encode())

    def unseal(self, sealed: bytes) -> str | None:
        """Return the secret, or None if it was sealed with another key."""
        try:
            return self._fernet.decrypt(bytes(sealed)).decode()
        except InvalidToken:
            return None


def new_key() -> str:
    """Return a fresh key."""
    return Fernet.generate_key().decode()


def from_file(path: Path) -> FernetVault:
    """Return the vault of the key in this file; raises BadKey if others may read it, or it holds no key."""
    try:
        mode = path.stat().st_mode
        key = path.read_bytes().strip()
    except OSError as error:
        raise BadKey(f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise BadKey(f"{path} may be read by others; make it 0600")
    return FernetVault(key)
