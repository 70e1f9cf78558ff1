"""JSON text that others may have written: read fast, and read all the same where the fast reader refuses it."""

from __future__ import annotations

import json
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

__all__ = ["LenientDecoder", "parse_json"]

T = TypeVar("T")


class LenientDecoder(Generic[T]):
    """Parses JSON text into a type. Integers are exact whatever their size.

    What the fast parser refuses and JSON allows (a number beyond a float's range, which becomes an infinity, and an
    escaped lone surrogate) is parsed by the standard library's.

    Args:
        kind: the type, as msgspec takes it.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode

    def decode(self, text: bytes | str) -> T:
        """Return what the text says.

        Raises:
            ValueError: it is not JSON, or not of the type; its message may hold a part of the text.
        """
        try:
            return self._decode(text)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return self._decode_slowly(text)

    def _decode_slowly(self, text: bytes | str) -> T:
        try:
            return msgspec.convert(json.loads(text, parse_constant=_refuse), self._kind)
        except RecursionError:
            raise ValueError("nested too deep") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


parse_json = LenientDecoder[Any](Any).decode
"""Return the value of a JSON text; ``LenientDecoder.decode`` says how."""
