"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), v1: HMAC-SHA256 of id, time and body."""

from __future__ import annotations

import base64
import hashlib
import hmac


def signed(secret: bytes, id: str, seconds: int, body: bytes) -> str:
    """The value of webhook-signature."""
    text = f"{id}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, text, hashlib.sha256)).decode()
