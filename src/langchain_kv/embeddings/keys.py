"""What a text's vector is kept under: a hash of all that it depends on."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

__all__ = ["key_function"]

_VERSION: Final = "1"
_DIGEST_BYTES: Final = 24


def key_function(name: str, role: str, dimensions: int | None) -> Callable[[str], str]:
    """Return what makes the key of a text: 48 hexadecimal digits of blake2b.

    What is hashed is, each after its length, the version, the model's name, the role and the dimensions, and then the
    text, which goes on to the end: no two that differ in one of them are the same bytes.

    Args:
        name: the model's.
        role: whether the text is a document or a query: many models embed them differently.
        dimensions: how many numbers a vector has, where that is a setting; None: it is not known.
    """
    start = blake2b(digest_size=_DIGEST_BYTES)
    for part in (_VERSION, name, role, "" if dimensions is None else str(dimensions)):
        data = part.encode("utf-8", "surrogatepass")
        start.update(len(data).to_bytes(8, "little") + data)

    def key_of(text: str) -> str:
        hashed = start.copy()
        # A text that is ASCII, as most are, without the error handler takes half the time.
        hashed.update(text.encode() if text.isascii() else text.encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    return key_of
