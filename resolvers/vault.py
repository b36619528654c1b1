"""What must be kept but never read back: sealed under CREW_SECRET_KEY, a list of keys of which the first seals and all open."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from resolvers.errors import BadInput, Path

SHORTEST_KEY = 8
_SALT = b"CREW_SECRET_KEY"


class Sealed(Exception):
    """None of the keys opens it."""


class Vault:
    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._fernets = [Fernet(_key(text)) for text in keys]

    @property
    def has_key(self) -> bool:
        return bool(self._fernets)

    def seal(self, text: str, path: Path, what: str) -> bytes:
        """Raises BadInput when there is no key."""
        if not self._fernets:
            raise BadInput(
                f"{what} cannot be kept: they are encrypted under CREW_SECRET_KEY, which is not set on this server; set it to a "
                "long random text, the same for every server, and start them again",
                path,
            )
        return self._fernets[0].encrypt(text.encode())

    def open(self, token: bytes) -> str:
        """Raises Sealed."""
        if not self._fernets:
            raise Sealed("CREW_SECRET_KEY is not set")
        try:
            return MultiFernet(self._fernets).decrypt(token).decode()
        except InvalidToken:
            raise Sealed("none of the keys in CREW_SECRET_KEY opens it") from None

    def is_current(self, token: bytes) -> bool:
        """Whether the first key opens it: then the others may go."""
        try:
            self._fernets[0].decrypt(token)
        except InvalidToken:
            return False
        return True

    def seal_again(self, token: bytes) -> bytes:
        """Under the first key. Raises Sealed."""
        return self._fernets[0].encrypt(self.open(token).encode())


@cache
def _key(text: str) -> bytes:
    """A Fernet key as it is; any other text is stretched to one."""
    try:
        if len(base64.b64decode(text.encode(), altchars=b"-_", validate=True)) == 32:
            return text.encode()
    except (binascii.Error, ValueError):
        pass
    return base64.urlsafe_b64encode(hashlib.scrypt(text.encode(), salt=_SALT, n=1 << 14, r=8, p=1, dklen=32))
