"""JSON text that others may have written: read fast, and read all the same where the fast reader refuses it."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import msgspec

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["LenientDecoder", "are_numbers_exact", "exact_number", "exact_numbers", "parse_json"]

T = TypeVar("T")

_exact: ContextVar[bool] = ContextVar("langchain_kv_exact_numbers", default=False)


@contextmanager
def exact_numbers() -> Generator[None]:
    """Within, and in the tasks that are started within, decoders return numbers as ``exact_number`` does.

    For who shows what others wrote and compares it: a float says nothing of the digits that it has lost. A context
    variable, because many verbs lie between that one and the decoders, and stores, which want floats, use the same.
    """
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def are_numbers_exact() -> bool:
    """Tell whether this runs within ``exact_numbers``."""
    return _exact.get()


def exact_number(text: str) -> float | Decimal:
    """Return the float of a JSON number, if it is written again as the same number; else a Decimal.

    Raises:
        ValueError: its exponent is beyond that of a Decimal, too.
    """
    from decimal import Decimal, InvalidOperation  # here: only the explorer asks for it

    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise ValueError("an exponent is out of range") from None
    number = float(text)
    return number if Decimal(repr(number)) == exact else exact


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
        self._decode_exactly = msgspec.json.Decoder(kind, float_hook=exact_number).decode

    def decode(self, text: bytes | str) -> T:
        """Return what the text says.

        Raises:
            ValueError: it is not JSON, or not of the type; its message may hold a part of the text.
        """
        try:
            return self._decode_exactly(text) if _exact.get() else self._decode(text)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return self._decode_slowly(text)

    def _decode_slowly(self, text: bytes | str) -> T:
        try:
            parse_float = exact_number if _exact.get() else None
            return msgspec.convert(json.loads(text, parse_float=parse_float, parse_constant=_refuse), self._kind)
        except RecursionError:
            raise ValueError("nested too deep") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


parse_json = LenientDecoder[Any](Any).decode
"""Return the value of a JSON text; ``LenientDecoder.decode`` says how."""
