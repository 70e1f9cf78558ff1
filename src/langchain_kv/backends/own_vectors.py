"""A document's own vector, by which a Data API finds it: taken from the JSON text of an item that has one.

An item that is found by its meaning ends with ``"vectors":["<base64>",...],"created_at":"<moment>"}``, each vector
float32 numbers, little-endian (``langgraph/items.py``). A document has room for one, ``$vector``, which must have a
direction: an item with several, or with one of zeros, is also listed apart, under names of its own in the field ``ns``.
Of several the document has the first all the same: so an item that has one now and then several is always found by it.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import sys
from array import array
from collections.abc import Sequence
from typing import Final

from langchain_kv.limits import VECTOR_MAX_NUMBER, VECTOR_NEAR_ZERO

__all__ = ["APART", "apart_names", "own_vector", "spelled_for_service"]

APART: Final = "\x1c"
"""Begins the names, in the field ``ns``, under which items are listed that the service cannot compare. No namespace's
does."""

_FIELD: Final = b'"vectors":["'
_TAIL: Final = re.compile(rb'([A-Za-z0-9+/=",]*)"\],"created_at":"[^"\\]{32}"\}\Z')


def own_vector(payload: bytes, dimension: int) -> tuple[bytes, bool]:
    """Return the JSON of a document's vector, empty where it is to have none, and whether it is listed apart.

    Args:
        payload: a value's JSON text.
        dimension: how many numbers a vector of the collection has; one of another length is no vector there.
    """
    at = payload.rfind(_FIELD)
    found = _TAIL.match(payload, at + len(_FIELD)) if at >= 0 else None
    if found is None:
        return b"", False
    texts = [text for text in found[1].split(b'","') if len(text) == (4 * dimension + 2) // 3 * 4]
    if not texts:
        return b"", False
    try:
        vectors = [base64.b64decode(text, validate=True) for text in texts]
    except binascii.Error:
        return b"", False
    spelled = next((each for each in map(spelled_for_service, vectors) if each is not None), None)
    return b"" if spelled is None else b'{"$binary":"%b"}' % spelled, len(vectors) > 1 or spelled is None


def spelled_for_service(vector: bytes) -> bytes | None:
    """Return the base64 text of the vector's numbers, big-endian, as a service takes it; None where it takes none such.

    Args:
        vector: float32 numbers, little-endian.
    """
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    length = math.hypot(*numbers)
    if not VECTOR_NEAR_ZERO < length <= VECTOR_MAX_NUMBER:
        return None
    # A length that is no longer than that of so many of the smallest numbers says nothing of each.
    if length <= VECTOR_NEAR_ZERO * len(numbers) and max(map(abs, numbers)) <= VECTOR_NEAR_ZERO:
        return None
    if sys.byteorder == "little":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes())


def apart_names(ancestry: Sequence[str]) -> list[str]:
    """Return the names under which an item is listed apart: for a search of all, and of each namespace that it is in.

    Args:
        ancestry: what ``values.namespaces.ancestry`` answers of its key.
    """
    return [APART, *(APART + name for name in ancestry[:-1])]
