"""Lease ids: the claim's number, the task's number and a short MAC, so that an id can be told from a guess."""

from __future__ import annotations

import binascii
import hashlib
import struct

_MAC_BYTES = 8
_PAIR = struct.Struct(">QQ")
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


class LeaseIds:
    """Packs and reads lease ids under the database's key; those of one namespace are no ids in another."""

    def __init__(self, key: bytes, ns: int) -> None:
        self._mac = hashlib.blake2b(key=key[:64], digest_size=_MAC_BYTES, person=str(ns).encode()[:16])

    def pack(self, lease_no: int, no: int) -> str:
        """32 URL-safe characters."""
        pair = _PAIR.pack(lease_no, no)
        return binascii.b2a_base64(pair + self._sign(pair), newline=False).translate(_TO_URL).decode()

    def read(self, lease_id: str) -> tuple[int, int] | None:
        """(lease_no, task number), or None for anything this database never gave out."""
        if len(lease_id) != 32:
            return None
        try:
            raw = binascii.a2b_base64(lease_id.encode("ascii").translate(_FROM_URL))
        except (binascii.Error, ValueError):
            return None
        pair, mac = raw[: _PAIR.size], raw[_PAIR.size :]
        if mac != self._sign(pair):
            return None
        lease_no, no = _PAIR.unpack(pair)
        return lease_no, no

    def _sign(self, pair: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(pair)
        return mac.digest()
