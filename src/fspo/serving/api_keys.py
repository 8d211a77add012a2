"""Keys of the API: random, shown once, and stored as digests."""

from __future__ import annotations

import hashlib
import secrets

__all__ = ["KEY_PREFIX", "key_digest", "new_key"]

KEY_PREFIX = "fspo-"


def new_key() -> str:
    """A new random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def key_digest(key: str) -> str:
    """What the store holds of a key: its SHA-256. A random key needs no salt."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
